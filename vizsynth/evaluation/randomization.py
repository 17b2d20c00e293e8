"""Sanity checks: does the map change if the network loses its weights?

Adebayo, Gilmer, Muelly, Goodfellow, Hardt & Kim, Sanity Checks for Saliency Maps, 2018, section 3
(cascading and independent randomization).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core
from jax.tree_util import keystr, tree_flatten_with_path
from jaxtyping import Array, Float, Int

from vizsynth.core.entry import as_images, as_network, entry
from vizsynth.evaluation.pixels import at_least_float32, ratio
from vizsynth.ops import unprepared
from vizsynth.types import Images, Key, Network, Target

Map = Callable[[Network, Images, Any], Float[Array, "n ..."]]
Draw = Callable[[Key, str, Array], Array]


class Similarity(NamedTuple):
    """The similarity of each image's map before and after each randomization; rows are layers."""

    signed: Float[Array, "layers n"]
    """Spearman's rank correlation of the maps."""
    absolute: Float[Array, "layers n"]
    """Spearman's rank correlation of the maps' absolute values."""


def reinitialize(key: Key, path: str, leaf: Array) -> Array:
    """Initialize a parameter: kernels by He's normal, biases 0, scales and variances 1.

    >>> import jax, jax.numpy as jnp
    >>> reinitialize(jax.random.key(0), "conv1.bias", jnp.ones(3)).tolist()
    [0.0, 0.0, 0.0]
    """
    name = path.rpartition(".")[2].lower()
    if leaf.ndim >= 2:
        normal = jax.random.normal(key, leaf.shape, leaf.dtype)
        return normal * jnp.asarray(math.sqrt(2 / math.prod(leaf.shape[:-1])), leaf.dtype)
    return jnp.ones_like(leaf) if name in ("scale", "variance", "var") else jnp.zeros_like(leaf)


def _paths(net: Network) -> list[str]:
    """Return the path of each leaf, as in the weights format: `conv1.kernel`."""
    leaves, _ = tree_flatten_with_path(net)
    return [keystr(path, simple=True, separator=".").removesuffix(".value") for path, _ in leaves]


def _layer(path: str) -> str:
    return path.rpartition(".")[0] or path


def _uses(jaxpr: core.Jaxpr) -> list[Any]:
    """Return the program's inputs in the order of their first use."""
    order: dict[Any, None] = {}
    for equation in jaxpr.eqns:
        parameters = jax.tree.leaves(list(equation.params.values()), is_leaf=_is_program)
        inner = [getattr(p, "jaxpr", p) for p in parameters if _is_program(p)]
        same = [p for p in inner if len(p.invars) == len(equation.invars)]
        read = equation.invars
        if same:  # a jitted function: its inputs in the order of their use inside
            place = {id(v): i for i, v in enumerate(same[0].invars)}
            read = [equation.invars[place[id(v)]] for v in _uses(same[0])] + list(equation.invars)
        for variable in read:
            if isinstance(variable, core.Var):
                order.setdefault(variable)
    inputs = {id(v) for v in jaxpr.invars}
    return [v for v in order if id(v) in inputs]


def _is_program(value: Any) -> bool:
    return isinstance(value, core.Jaxpr | core.ClosedJaxpr)


def parameter_layers(net: Network, images: Images) -> tuple[str, ...]:
    """Return the layers with parameters, from the logits down.

    The order is the reverse of that in which the traced program reads the parameters, so it holds for any
    network that is a pytree. A layer's name is the path of its parameters.

    Args:
        images: only their shape is used.

    Returns:
        The names of the layers.

    Raises:
        ValueError: the network has no parameters.

    Example:
        >>> import jax, vizsynth
        >>> from vizsynth.models.sequential import Conv, Dense, GlobalMean, ReLU
        >>> stack = [Conv(4), ReLU(), Conv(4), ReLU(), GlobalMean(), Dense(3)]
        >>> net = vizsynth.models.sequential(stack, key=jax.random.key(0))
        >>> vizsynth.parameter_layers(net, jax.numpy.zeros((1, 16, 16, 3)))
        ('logits', 'conv2', 'conv1')
    """
    net = unprepared(as_network(net))
    images = as_images(images, unit_range=False)
    leaves, structure = jax.tree.flatten(net)
    if not leaves:
        raise ValueError("the network has no parameters to randomize: it is a function of images alone")

    def run(leaves: list[Array], images: Images) -> Array:
        return jax.tree.unflatten(structure, leaves)(images)

    program = jax.make_jaxpr(run)(leaves, images)
    position = {id(v): i for i, v in enumerate(program.jaxpr.invars)}
    names = _paths(net)
    read = [position[id(v)] for v in _uses(program.jaxpr)]
    first = dict.fromkeys(_layer(names[i]) for i in read if i < len(names))
    return tuple(reversed(first))


def _stages(net: Network, images: Images, layers: Sequence[str] | None) -> tuple[tuple[str, ...], list[int]]:
    """Return the layers from the logits down, and the index of the layer of each leaf (their number if none).

    A layer includes all parameters whose paths begin with its own.
    """
    known = parameter_layers(net, images)
    chosen = known if layers is None else tuple(layers)
    if not chosen:
        raise ValueError("give at least one layer to randomize")

    def belongs(path: str, layer: str) -> bool:
        return path == layer or path.startswith(f"{layer}.")

    paths = _paths(net)
    if missing := [layer for layer in chosen if not any(belongs(path, layer) for path in paths)]:
        raise ValueError(
            f"no parameters lie under {', '.join(map(repr, missing))}; layers with parameters are, from the "
            f"logits down: {', '.join(known)}"
        )
    stages = [next((i for i, l in enumerate(chosen) if belongs(path, l)), len(chosen)) for path in paths]
    return chosen, stages


def average_ranks(values: Float[Array, " m"]) -> Float[Array, " m"]:
    """Return the rank of each value, from 1; ties share their mean rank.

    >>> import jax.numpy as jnp
    >>> average_ranks(jnp.asarray([5.0, 0.0, 0.0])).tolist()
    [3.0, 1.5, 1.5]
    """
    ordered = jnp.sort(values)
    below = jnp.searchsorted(ordered, values, side="left", method="sort")
    upto = jnp.searchsorted(ordered, values, side="right", method="sort")
    return (below + upto + 1).astype(at_least_float32(values.dtype)) / 2


def spearman(x: Float[Array, "n ..."], y: Float[Array, "n ..."]) -> Float[Array, " n"]:
    """Return Spearman's rank correlation of each image's two maps; 0 if one of them is constant.

    >>> import jax.numpy as jnp
    >>> spearman(jnp.asarray([[1.0, 2.0, 9.0]]), jnp.asarray([[-1.0, 3.0, 4.0]]))
    Array([1.], dtype=float32)
    """

    def one(x: Array, y: Array) -> Array:
        # Centered ranks, over m: their squares stay small.
        m = x.size
        a, b = ((average_ranks(v.reshape(-1)) - (m + 1) / 2) / m for v in (x, y))
        return ratio((a * b).sum(), jnp.sqrt((a * a).sum() * (b * b).sum()))

    return jax.vmap(one)(x, y)


def _similarity(
    net: Network,
    images: Images,
    target: Any,
    of: Map,
    key: Key,
    layers: Sequence[str] | None,
    draw: Draw,
    cascade: bool,
) -> Similarity:
    net = unprepared(net)  # other weights have other transforms
    chosen, stages = _stages(net, images, layers)
    leaves, structure = jax.tree.flatten(net)
    fresh = [
        draw(jax.random.fold_in(key, i), path, leaf) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf
        for i, (path, leaf) in enumerate(zip(_paths(net), leaves, strict=True))
    ]
    trained = of(net, images, target)

    def compare(stage: Int[Array, ""]) -> Similarity:
        gone = [s <= stage if cascade else s == stage for s in stages]
        mixed = [jnp.where(g, f, leaf) for g, f, leaf in zip(gone, fresh, leaves, strict=True)]
        maps = of(jax.tree.unflatten(structure, mixed), images, target)
        return Similarity(spearman(trained, maps), spearman(jnp.abs(trained), jnp.abs(maps)))

    # One program, run layer by layer: memory holds one more set of parameters.
    return jax.lax.map(compare, jnp.arange(len(chosen)))


@entry(static=("of", "layers", "draw"))
def cascading_randomization(
    net: Network,
    images: Images,
    target: Target,
    *,
    of: Map,
    key: Key,
    layers: Sequence[str] | None = None,
    draw: Draw = reinitialize,
) -> Similarity:
    """Return the similarity of the map after randomizing the layers from the logits down to each (§ 3.1).

    A map that does not change does not depend on the weights.

    Args:
        of: the map, any function of (net, images, target) such as `vizsynth.gradient` or
            `functools.partial(vizsynth.grad_cam, layer="fire9")`.
        layers: paths of parameters, in the order of randomization; a path includes all that begin with it
            (`layer4`: all blocks of the stage). By default `parameter_layers(net, images)`.
        draw: returns a random parameter from (key, path, value); by default an untrained one.

    Returns:
        Similarity(signed `[layers, n]`, absolute `[layers, n]`): Spearman's rank correlation over all values
        of the map, 1 for the same order, 0 for none or if a map is constant. Ties share their mean rank, as
        in `scipy.stats.spearmanr`.

    Raises:
        ValueError: a layer, or the network, has no parameters.

    Example:
        >>> import jax, vizsynth
        >>> from vizsynth.models.sequential import Conv, Dense, GlobalMean, ReLU
        >>> stack = [Conv(4), ReLU(), Conv(4), ReLU(), GlobalMean(), Dense(3)]
        >>> net = vizsynth.models.sequential(stack, key=jax.random.key(0))
        >>> images = jax.random.uniform(jax.random.key(1), (2, 16, 16, 3))
        >>> key = jax.random.key(2)
        >>> vizsynth.cascading_randomization(net, images, 1, of=vizsynth.gradient, key=key).signed.shape
        (3, 2)
    """
    return _similarity(net, images, target, of, key, layers, draw, cascade=True)


@entry(static=("of", "layers", "draw"))
def independent_randomization(
    net: Network,
    images: Images,
    target: Target,
    *,
    of: Map,
    key: Key,
    layers: Sequence[str] | None = None,
    draw: Draw = reinitialize,
) -> Similarity:
    """Return the similarity of the map after randomizing each layer alone (section 3.2).

    Args, Returns and Raises: as for `cascading_randomization`, which draws the same parameters.

    Example:
        >>> import jax, vizsynth
        >>> from vizsynth.models.sequential import Conv, Dense, GlobalMean, ReLU
        >>> stack = [Conv(4), ReLU(), Conv(4), ReLU(), GlobalMean(), Dense(3)]
        >>> net = vizsynth.models.sequential(stack, key=jax.random.key(0))
        >>> images = jax.random.uniform(jax.random.key(1), (2, 16, 16, 3))
        >>> key = jax.random.key(2)
        >>> vizsynth.independent_randomization(net, images, 1, of=vizsynth.gradient, key=key).signed.shape
        (3, 2)
    """
    return _similarity(net, images, target, of, key, layers, draw, cascade=False)
