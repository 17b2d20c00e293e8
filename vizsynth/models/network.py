"""What the networks share: standardization, precision, and the list of their layers."""

from collections import OrderedDict
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array

from vizsynth.images import Standardize
from vizsynth.ops import Ops, unprepared
from vizsynth.types import Images

IMAGENET = Standardize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""The mean and standard deviation of ImageNet's pixels, as torchvision's weights were trained."""

Net = TypeVar("Net", bound=Any)


def begin(net: Any, images: Images, ops: Ops | None) -> tuple[Images, Ops]:
    """Return the images, standardized and in the network's own precision, and the table to compute with."""
    table: Ops = net.arithmetic if ops is None else ops
    if net.standardize is not None:
        images = table.standardize(images, net.standardize)
    dtype = getattr(net, "dtype", None)
    return (images if dtype is None else images.astype(dtype)), table


def layer_names(net: Any) -> tuple[str, ...]:
    """Return the names that the network taps, in order. Nothing is computed; each kind is traced once."""
    return tuple(layer_shapes(net))


def layer_shapes(net: Any, size: tuple[int, int] = (224, 224)) -> dict[str, tuple[int, ...]]:
    """Return the shape of each layer for one image of a size, in order. Nothing is computed."""
    seen = _tapped.eval_shape(net, jax.ShapeDtypeStruct((1, *size, 3), jnp.float32))
    return {name: value.shape[1:] for name, value in seen.items()}


@jax.jit
def _tapped(net: Any, images: Images) -> "OrderedDict[str, Array]":
    """Return all that is tapped, in order."""
    seen: OrderedDict[str, Array] = OrderedDict()

    def listed(name: str, value: Array) -> Array:
        seen[name] = value
        return value

    net(images, tap=listed)
    return seen


def with_attributes(net: Net, **attributes: Any) -> Net:
    """Return a copy of the network with other static attributes; the weights are shared.

    >>> import jax, vizsynth
    >>> net = vizsynth.models.squeezenet1_1(key=jax.random.key(0))
    >>> with_attributes(net, standardize=None).standardize is None
    True
    """
    leaves, structure = jax.tree.flatten(net)
    copy = jax.tree.unflatten(structure, leaves)
    for name, value in attributes.items():
        setattr(copy, name, value)
    return copy


def with_precision(net: Net, dtype: Any) -> Net:
    """Return the network with its weights, and its arithmetic, in another precision.

    Images keep theirs until they are standardized; gradients come back in it.

    >>> import jax, jax.numpy as jnp, vizsynth
    >>> net = vizsynth.models.squeezenet1_1(key=jax.random.key(0))
    >>> with_precision(net, jnp.bfloat16)(jnp.zeros((1, 64, 64, 3))).dtype
    dtype(bfloat16)
    """
    dtype = np.dtype(dtype)
    cast = jax.tree.map(lambda leaf: leaf.astype(dtype), unprepared(net))
    return with_attributes(cast, dtype=dtype)


def parameter_count(net: nnx.Module) -> int:
    """Return the number of weights.

    >>> import jax, vizsynth
    >>> parameter_count(vizsynth.models.squeezenet1_1(key=jax.random.key(0)))
    1235496
    """
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(net, nnx.Param)))
