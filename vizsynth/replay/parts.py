"""A network in parts: large images in little memory.

The gradient needs the activations of every layer. Where the network is cut into parts, only what lies at the
cuts is kept; each part is computed once more when the gradient reaches it, so that no more than one part's
activations are in memory at one time. Chen, Xu, Zhang & Guestrin, Training Deep Nets with Sublinear Memory
Cost, 2016, section 4.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vizsynth.taps import replace, run, unknown_layer
from vizsynth.types import Images, Network


def listed(net: Network, images: Any, ops: Any = None) -> list[str]:
    """Return the names that the network taps, in the order in which it does. Nothing is computed."""
    names: list[str] = []

    def tap(name: str, value: Any) -> Any:
        names.append(name)
        return value

    def call(net: Network, images: Any) -> Any:
        return net(images, tap=tap) if ops is None else net(images, tap=tap, ops=ops)

    jax.eval_shape(call, net, images)
    return names


def after(values: Any, others: Any) -> Any:
    """Return values, for use once the others are computed: what both need is then not in memory at one time.

    XLA's CPU compiler drops the barriers that are made for this. Here a zero is added that depends on the
    others (where one of them is not finite, it is NaN).
    """
    numbers = [
        leaf.reshape(-1)[0] for leaf in jax.tree.leaves(others) if jnp.issubdtype(leaf.dtype, jnp.inexact)
    ]

    def one(x: Array) -> Array:
        for number in numbers:
            x = x + (0 * number).astype(x.dtype)
        return x

    return jax.tree.map(one, values)


def recomputed(function: Callable[[Any, Any], Any], net: Any, inputs: Any) -> Any:
    """Return function(net, inputs), of which nothing but net and inputs is kept for the gradient.

    It is `jax.checkpoint`, but for one thing: XLA's CPU compiler drops the barriers that keep what is
    computed again apart from what was computed before, finds both the same, and keeps all after all. Here
    the second time waits for the incoming gradient (`after`).
    """
    converted, constants = jax.closure_convert(function, net, inputs)

    def whole(net: Any, inputs: Any, constants: Any) -> Any:
        return converted(net, inputs, *constants)

    return _recomputed(whole, net, inputs, constants)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _recomputed(function: Callable[..., Any], net: Any, inputs: Any, constants: Any) -> Any:
    return function(net, inputs, constants)


def _forward(function: Callable[..., Any], *given: Any) -> Any:
    def part(perturbed: bool) -> Any:
        return jax.tree.map(lambda leaf: leaf.value if leaf.perturbed == perturbed else None, given)

    varied, fixed = part(True), part(False)
    return function(*_merged(varied, fixed)), (varied, fixed)


def _backward(function: Callable[..., Any], residuals: Any, g: Any) -> Any:
    varied, fixed = residuals
    net, inputs, constants = varied
    g = jax.tree.map(_number, g, is_leaf=_is_zero)

    def again(varied: Any) -> Any:
        return function(*_merged(varied, fixed))

    # Weights that are not asked for are no part of it: kernels that were transformed refuse to be.
    return jax.vjp(again, (net, after(inputs, g), constants))[1](g)[0]


def _is_zero(x: Any) -> bool:
    return isinstance(x, jax.custom_derivatives.SymbolicZero)


def _number(x: Any) -> Any:
    return jnp.zeros(x.shape, x.dtype) if _is_zero(x) else x


def _merged(some: Any, others: Any) -> Any:
    return jax.tree.map(lambda a, b: b if a is None else a, some, others, is_leaf=lambda x: x is None)


_recomputed.defvjp(_forward, _backward, symbolic_zeros=True)


def read(
    net: Network,
    images: Images,
    layers: Sequence[str],
    of: Callable[[str, Array], Any],
    *,
    cuts: Sequence[str] = (),
    ops: Any = None,
) -> dict[str, Any]:
    """Return of(l, A_l) for each of the layers; between the cuts, activations are not kept for the gradient.

    Args:
        net: a network.
        images: float RGB in [0, 1].
        layers: what is read.
        of: what is made of each layer's activations, a Gram matrix for instance. It belongs to the layer's
            part: what it keeps for its own gradient is not kept either.
        cuts: layers that all of the network passes through, such as pools (not the inside of a block).
        ops: another table of arithmetic.

    Raises:
        ValueError: a layer or a cut that the network does not have.

    >>> import vizsynth
    >>> net = vizsynth.models.squeezenet1_1(num_classes=None, key=jax.random.key(0))
    >>> images = jnp.zeros((1, 64, 64, 3))
    >>> found = read(net, images, ["relu1", "fire3"], lambda name, A: A.mean(), cuts=["pool1"])
    >>> sorted(found)
    ['fire3', 'relu1']
    """
    if not cuts:
        seen = run(net, images, tuple(layers), ops=ops)[1]
        return {layer: of(layer, seen[layer]) for layer in layers}
    names = listed(net, images, ops)
    if missing := [name for name in (*layers, *cuts) if name not in names]:
        raise ValueError(unknown_layer(missing, names))
    at = sorted(names.index(cut) for cut in set(cuts))
    last = max(names.index(layer) for layer in layers)
    borders = [*(i for i in at if i < last), last]

    def part(net: Network, inputs: Any, *, wanted: tuple[str, ...], end: str) -> Any:
        held, images = inputs
        seen = run(net, images, (*wanted, end), tap=replace(held), ops=ops)[1]
        return {layer: of(layer, seen[layer]) for layer in wanted}, seen[end]

    found: dict[str, Any] = {}
    held: dict[str, Array] = {}
    begin = -1
    for border in borders:
        wanted = tuple(layer for layer in layers if begin < names.index(layer) <= border)
        end = names[border]
        # What lies before a held layer is dead code: its image may be any.
        image = images if not held else jnp.zeros(images.shape, images.dtype)
        values, value = recomputed(partial(part, wanted=wanted, end=end), net, (held, image))
        found |= values
        held, begin = {end: value}, border
    return {layer: found[layer] for layer in layers}
