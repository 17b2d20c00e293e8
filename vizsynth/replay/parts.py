"""A network in parts: large images in little memory.

The gradient needs the activations of every layer. If the network is cut into parts, only the activations at
the cuts are kept; each part is computed again when the gradient reaches it, so that memory holds the
activations of one part at a time. Chen, Xu, Zhang & Guestrin, Training Deep Nets with Sublinear Memory
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
    """Return the names of the network's taps, in order; nothing is computed."""
    names: list[str] = []

    def tap(name: str, value: Any) -> Any:
        names.append(name)
        return value

    def call(net: Network, images: Any) -> Any:
        return net(images, tap=tap) if ops is None else net(images, tap=tap, ops=ops)

    jax.eval_shape(call, net, images)
    return names


def after(values: Any, others: Any) -> Any:
    """Return values that can be used only after the others are computed, so as not to need both in memory.

    XLA's CPU compiler drops `optimization_barrier`. Instead, this adds a zero that depends on the others
    (NaN if one of them is not finite).
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
    """Return function(net, inputs), keeping nothing but net and inputs for the gradient.

    Like `jax.checkpoint`, whose barriers XLA's CPU compiler drops: it then merges the second computation
    with the first and keeps all activations. Here the second one waits for the incoming gradient (`after`).
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

    # Without the weights that need no gradient: transformed kernels refuse to be differentiated.
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
    """Return of(l, A_l) for each layer, keeping only the activations at the cuts for the gradient.

    Args:
        of: a function of a layer's name and activations, a Gram matrix for instance. It is part of the
            layer's part, and is computed again with it.
        cuts: layers that the whole network passes through, such as pools (not the inside of a block).
        ops: another table of operations.

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
        # The layers before a held one are dead code, so any image will do.
        image = images if not held else jnp.zeros(images.shape, images.dtype)
        values, value = recomputed(partial(part, wanted=wanted, end=end), net, (held, image))
        found |= values
        held, begin = {end: value}, border
    return {layer: found[layer] for layer in layers}
