"""Taps: read and hold layers, without hooks.

A network calls `tap(name, value)` at each named layer and continues with the result. Under `jit`, layers past
the last one read are dead code and are never computed.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
from jaxtyping import Array, Float

from vizsynth.core.entry import entry
from vizsynth.types import Images, Network, Score, Tap, Value


def passthrough(name: str, value: Value) -> Value:
    """Leave every layer unchanged."""
    del name
    return value


def replace(values: Mapping[str, Array], *, tap: Tap = passthrough) -> Tap:
    """Hold the named layers at the given values, do(A_l = a), and apply `tap` to the others.

    Layers before a held layer l no longer matter: the gradient with respect to `values[l]` is that of the
    part of the network after l alone.
    """
    return lambda name, value: values[name] if name in values else tap(name, value)


def shift(values: Mapping[str, Array], *, tap: Tap = passthrough) -> Tap:
    """Add the given values to the named layers, A_l + δ_l.

    The gradient with respect to δ at zero is the gradient at all of the layers, in one backward pass.
    """

    def shifted(name: str, value: Value) -> Value:
        value = tap(name, value)
        return value + values[name] if name in values else value

    return shifted


def record(layers: Sequence[str], into: dict[str, Value], *, tap: Tap = passthrough) -> Tap:
    """Apply `tap`, and record its values at `layers` in the dictionary `into`."""
    wanted = frozenset(layers)

    def recorded(name: str, value: Value) -> Value:
        value = tap(name, value)
        if name in wanted:
            into[name] = value
        return value

    return recorded


def run(
    net: Network,
    images: Images,
    layers: Sequence[str],
    *,
    tap: Tap = passthrough,
    ops: Any = None,
) -> tuple[Value, dict[str, Value]]:
    """Run the network once; return its output and the activations of `layers`.

    `ops` is another table of operations (`vizsynth.ops`, `vizsynth.rules`); None is the network's own.

    Raises:
        ValueError: an unknown layer; the message lists the network's layers.
    """
    seen: dict[str, Value] = {}
    names: list[str] = []

    def listed(name: str, value: Value) -> Value:
        names.append(name)
        return tap(name, value)

    listening = record(layers, seen, tap=listed)
    output = net(images, tap=listening) if ops is None else net(images, tap=listening, ops=ops)
    if missing := [layer for layer in layers if layer not in seen]:
        raise ValueError(unknown_layer(missing, names))
    return output, seen


def unknown_layer(missing: Sequence[str], names: Sequence[str]) -> str:
    """Return the message for unknown layers."""
    which = ", ".join(repr(layer) for layer in missing)
    if "logits" in missing and names:
        return f"the network is a trunk without a classifier: it has no {which}, so no class to explain"
    return f"the network has no layer {which}; its layers are: {', '.join(names)}"


@partial(jax.jit, static_argnames="layers")
def _seen(net: Network, images: Images, layers: tuple[str, ...]) -> dict[str, Value]:
    return run(net, images, layers)[1]


def shapes(net: Network, images: Any, layers: Sequence[str]) -> dict[str, jax.ShapeDtypeStruct]:
    """Return the shapes of layers; nothing is computed, and each size of images is traced once.

    Raises:
        ValueError: an unknown layer; images too small for the network.
    """
    return _seen.eval_shape(net, images, layers=tuple(layers))


def evaluate(
    net: Network,
    images: Images,
    score: Score,
    *,
    tap: Tap = passthrough,
    ops: Any = None,
) -> Float[Array, " n"]:
    """Run the network and return the score of each image."""
    return score(run(net, images, score.layers, tap=tap, ops=ops)[1])


@entry(static=("layers",))
def features(net: Network, images: Images, layers: Sequence[str]) -> dict[str, Float[Array, "n ..."]]:
    """Return the activations of the named layers, Φ_l(x); later layers are not computed.

    Returns:
        The activations of each layer, `[n, h, w, c]` or `[n, c]`.

    Example:
        >>> import jax, vizsynth
        >>> net = vizsynth.models.vgg11(num_classes=None, key=jax.random.key(0))
        >>> found = vizsynth.features(net, jax.numpy.zeros((1, 32, 32, 3)), ["relu2_1", "pool5"])
        >>> found["relu2_1"].shape, found["pool5"].shape
        ((1, 16, 16, 128), (1, 1, 1, 512))
    """
    return run(net, images, layers)[1]
