"""Freeze layers of a network."""

from collections.abc import Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import nnx
from jax.tree_util import tree_flatten_with_path
from jaxtyping import Array

from vizsynth import ops as arithmetic
from vizsynth.training.statistics import is_norm


def _places(net: Any) -> list[tuple[str, bool]]:
    """Return the layer of each leaf, and whether the leaf is a running average."""
    found = []
    for path, _ in tree_flatten_with_path(net)[0]:
        node: Any = net
        name = ""
        for key in (cast(Any, key) for key in path):
            node = node[key.idx] if hasattr(key, "idx") else getattr(node, getattr(key, "name", ""), None)
            if isinstance(node, nnx.Variable):
                break
            if isinstance(getattr(node, "name", None), str):
                name = node.name
        found.append((name, isinstance(node, nnx.BatchStat)))
    return found


def layers_of(net: Any) -> list[str]:
    """Return the layer of each leaf of a network.

    >>> import jax, vizsynth
    >>> from vizsynth.models.sequential import Conv, GlobalMean
    >>> net = vizsynth.models.sequential([Conv(4, batch_norm=True), GlobalMean()], key=jax.random.key(0))
    >>> sorted(set(layers_of(net)))
    ['conv1', 'conv1.norm']
    """
    return [name for name, _ in _places(net)]


def is_frozen(layer: str, frozen: Sequence[str]) -> bool:
    """Tell whether a layer is frozen or lies in a frozen one: `layer1` contains `layer1.0.conv2`."""
    return any(layer == name or layer.startswith((f"{name}.", f"{name}_")) for name in frozen)


def trainable(net: Any, frozen: Sequence[str] = ()) -> list[bool]:
    """Tell for each leaf whether it is trained: a weight outside the frozen layers."""
    return [not (average or is_frozen(layer, frozen)) for layer, average in _places(net)]


def norms(net: Any, frozen: Sequence[str]) -> frozenset[str]:
    """Return the names of the frozen normalizations."""
    found = [node for node in jax.tree.leaves(net, is_leaf=is_norm) if is_norm(node)]
    return frozenset(node.name for node in found if is_frozen(node.name, frozen))


def check(net: Any, frozen: Sequence[str]) -> None:
    """Check that the frozen layers exist, and that others are left to train.

    Raises:
        ValueError: no layer with weights has one of the names, or all layers are frozen.
    """
    names = list(dict.fromkeys(layers_of(net)))
    for asked in frozen:
        if not any(is_frozen(name, [asked]) for name in names):
            there = ", ".join(n for n in names if n and not n.endswith(".norm"))
            raise ValueError(f"no layer with weights begins with {asked!r}; there are: {there}")
    if not any(trainable(net, frozen)):
        raise ValueError(f"every layer is frozen ({', '.join(frozen)}): leave one to train")


def up_to(net: Any, layer: str) -> tuple[str, ...]:
    """Return a layer and those it depends on, if they have weights: freeze them to train the rest.

    >>> import jax, vizsynth
    >>> from vizsynth.models.sequential import Conv, GlobalMean, ReLU
    >>> stack = [Conv(4), ReLU(), Conv(4), ReLU(), Conv(4), GlobalMean()]
    >>> up_to(vizsynth.models.sequential(stack, key=jax.random.key(0)), "relu2")
    ('conv1', 'conv2')
    """
    used: list[str] = []
    at: list[int] = []

    def tap(name: str, value: Array) -> Array:
        if name == layer:
            at.append(len(used))
        return value

    def using(op: Any) -> Any:
        def call(x: Array, *arrays: Any, name: str, **how: Any) -> Array:
            used.append(name)
            return op(x, *arrays, name=name, **how)

        return call

    plain = arithmetic.plain
    ops = plain._replace(
        conv=using(plain.conv), linear=using(plain.linear), batch_norm=using(plain.batch_norm)
    )
    image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    jax.eval_shape(lambda net, images: net(images, tap=tap, ops=ops), net, image)
    if not at:
        raise ValueError(f"no layer is called {layer!r}; there are: {', '.join(net.layers)}")
    return tuple(dict.fromkeys(used[: at[0]]))
