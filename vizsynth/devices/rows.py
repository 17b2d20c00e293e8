"""One image over several devices, each with some of its rows.

Activations are sharded by rows, like the image. A convolution needs a few rows (its halo) of the devices
above and below, which send them directly; every device then convolves its own rows. JAX partitions all other
operations: elementwise arithmetic needs no communication, and a sum over positions, such as a Gram matrix, is
one all-reduce.

Device d holds the rows d R .. (d + 1) R − 1 of an image. A window of k rows, stride s, padding p gives output
i from the inputs i s − p .. i s − p + k − 1. If there are 1/s times as many outputs as inputs, and both
divide over the devices, a device needs p rows of the device above and k − s − p of the one below. Otherwise
(a stride without padding, as at SqueezeNet's first layer; an odd number of rows before a pool) the compiler
partitions the layer, and moves more rows.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from vizsynth import images as whole
from vizsynth import ops as arithmetic
from vizsynth.core.entry import as_network
from vizsynth.core.pytrees import pytree
from vizsynth.cpu.convolution import Convolution
from vizsynth.cpu.winograd import Kernel
from vizsynth.ops import Ops, Padding, Pair
from vizsynth.taps import passthrough
from vizsynth.types import Images, Network, Tap


@pytree
@dataclass(frozen=True)
class OverRows:
    """A network whose images are sharded by rows over a mesh, made by `over_rows`."""

    net: Any
    mesh: Mesh = field(metadata={"static": True})
    arithmetic: Ops = field(default=arithmetic.plain, metadata={"static": True})

    @property
    def sharding(self) -> NamedSharding:
        """The sharding of one image `[h, w, 3]`: `jax.device_put(image, net.sharding)`."""
        return NamedSharding(self.mesh, PartitionSpec(_axis(self.mesh)))

    @property
    def batch_sharding(self) -> NamedSharding:
        """The sharding of images `[n, h, w, 3]`."""
        return NamedSharding(self.mesh, PartitionSpec(None, _axis(self.mesh)))

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the layers."""
        return self.net.layers

    @property
    def labels(self) -> tuple[str, ...] | None:
        """The names of the classes."""
        return self.net.labels

    @property
    def num_classes(self) -> int | None:
        """The number of classes."""
        return self.net.num_classes

    @property
    def standardize(self) -> Any:
        """The network's standardization of pixels."""
        return self.net.standardize

    @property
    def dtype(self) -> Any:
        """The precision of the arithmetic."""
        return self.net.dtype

    @property
    def roles(self) -> Any:
        """The layers by their use, if the network tells them."""
        return getattr(self.net, "roles", None)

    def __call__(self, images: Images, *, tap: Tap = passthrough, ops: Ops | None = None) -> Any:
        """Return the network's output, with halos exchanged between neighbours."""
        ops = self.arithmetic if ops is None else ops
        table = _table(ops, self.mesh)
        if table == ops:  # another kind of table, of receptive fields for instance
            return self.net(images, tap=tap, ops=ops)
        return self.net(self._spread(images), tap=tap, ops=table)

    def _spread(self, images: Images) -> Images:
        """Shard images by rows; if these do not divide, the last devices have fewer."""
        h = images.shape[1]
        missing = -h % self.mesh.size
        if missing:
            images = jnp.pad(images, ((0, 0), (0, missing), (0, 0), (0, 0)))
        return lax.with_sharding_constraint(images, self.batch_sharding)[:, :h]


def over_rows(net: Network, mesh: Mesh) -> OverRows:
    """Return the network for images that are sharded by rows over the devices of a mesh.

    Use it as any network: `features`, `transfer_style`, `synthesize_texture`, `invert`, `deepdream` and maps
    give the results of one device (but sums over positions add in another order), with a D-th of the memory
    and of the work on each of D devices. Place the images with `jax.device_put(image, net.sharding)`;
    results are sharded alike.

    The steps of a synthesis gather no activations if every layer's windows keep the rows aligned: in VGG's
    trunk and in ResNet, if the image's rows divide by the number of devices times the stride of the layer (8
    devices and relu4_1 of VGG: multiples of 64). Otherwise (SqueezeNet and AlexNet, whose first convolutions
    have other padding; other sizes) the compiler decides: it sends more rows, and may gather a small layer.

    Some functions gather pixels, but no activations: a `Fourier` parametrization (give `Pixels()`),
    transforms that rotate or scale, the resizing of a dream's octaves and of masks, images whose rows do not
    divide. A dream by a guide gathers its layer. Every device applies a classifier's matrices in whole.

    Args:
        net: its weights are copied to every device.
        mesh: of one axis: `jax.make_mesh((8,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))`. The
            devices may belong to several processes (`jax.distributed.initialize`).

    Returns:
        The network, with `net.sharding` for one image and `net.batch_sharding` for a batch.

    Raises:
        ValueError: a mesh of several axes, or with an explicit one. `jax.device_put` refuses an image whose
            rows do not divide over the devices.

    Example:
        >>> import jax, vizsynth
        >>> from vizsynth.models.sequential import Conv, MaxPool, ReLU
        >>> layers = Conv(8), ReLU(), MaxPool(2), Conv(8), ReLU()
        >>> net = vizsynth.models.sequential(layers, (32, 32, 3), key=jax.random.key(0))
        >>> mesh = jax.make_mesh((1,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
        >>> spread = vizsynth.over_rows(net, mesh)
        >>> images = jax.random.uniform(jax.random.key(1), (1, 32, 32, 3))
        >>> images = jax.device_put(images, spread.batch_sharding)
        >>> bool((spread(images) == net(images)).all())
        True
    """
    if len(mesh.axis_names) != 1:
        raise ValueError(f"the mesh must have one axis, that of the rows, not {mesh.axis_names}")
    if mesh.axis_types[0] != AxisType.Auto:
        raise ValueError(
            "the mesh's axis must be partitioned automatically: give "
            "jax.make_mesh((n,), ('rows',), axis_types=(jax.sharding.AxisType.Auto,))"
        )
    net = as_network(net)
    everywhere = NamedSharding(mesh, PartitionSpec())

    def placed(leaf: Any) -> Any:
        # Neither a shape alone nor a tracer.
        there = isinstance(leaf, (jax.Array, np.ndarray)) and not isinstance(leaf, Tracer)
        return jax.device_put(leaf, everywhere) if there else leaf

    table = getattr(net, "arithmetic", None) or arithmetic.plain
    return OverRows(jax.tree.map(placed, net), mesh, table)


def _axis(mesh: Mesh) -> str:
    return mesh.axis_names[0]


# Windows ------------------------------------------------------------------------


def _table(ops: Ops, mesh: Mesh) -> Ops:
    """Return the table with halo exchanges around those of its windows that are the library's own."""
    changed = {}
    if isinstance(ops.conv, Convolution):
        changed["conv"] = replace(ops.conv, function=partial(_conv, ops.conv, mesh))
    for name in ("max_pool", "mean_pool"):
        function = getattr(ops, name)
        if function in (arithmetic.fast_max_pool, arithmetic.plain_max_pool, arithmetic.mean_pool):
            changed[name] = partial(_pool, function, mesh)
    return ops._replace(**changed)


def _conv(conv: Convolution, mesh: Mesh, x: Array, kernel: Any, strides: Pair, padding: Padding) -> Array:
    halo = _halo(x.shape[1], kernel.shape[0], strides[0], padding[0], mesh.size)
    if halo is None:  # the compiler would gather a transform's tiles
        return conv.function(x, kernel.plain if isinstance(kernel, Kernel) else kernel, strides, padding)

    def local(x: Array, kernel: Any) -> Array:
        axis = _axis(mesh)
        # Each device's own share of the weights' gradient is summed over the devices.
        kernel = jax.tree.map(lambda w: lax.pcast(w, axis, to="varying"), kernel)
        x = _with_neighbours(x, halo, axis, mesh.size)
        return conv.function(x, kernel, strides, ((0, 0), padding[1]))

    return _by_rows(local, mesh, x, kernel)


def _pool(
    function: Callable[..., Array],
    mesh: Mesh,
    x: Array,
    *,
    window: Pair,
    strides: Pair,
    padding: Padding = ((0, 0), (0, 0)),
) -> Array:
    halo = _halo(x.shape[1], window[0], strides[0], padding[0], mesh.size)
    if halo is None:
        return function(x, window=window, strides=strides, padding=padding)
    fill = 0.0 if function is arithmetic.mean_pool else -jnp.inf

    def local(x: Array) -> Array:
        x = _with_neighbours(x, halo, _axis(mesh), mesh.size, fill)
        return function(x, window=window, strides=strides, padding=((0, 0), padding[1]))

    return _by_rows(local, mesh, x)


def _by_rows(local: Callable[..., Array], mesh: Mesh, x: Array, *everywhere: Any) -> Array:
    """Apply a function to each device's rows `[n, h, w, c]`."""
    rows, same = PartitionSpec(None, _axis(mesh)), PartitionSpec()
    specs = (rows, *(same for _ in everywhere))
    return jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=rows)(x, *everywhere)


def _halo(h: int, window: int, stride: int, padding: Pair, devices: int) -> Pair | None:
    """Return the numbers of rows that a device needs from above and below; None if rows are not aligned.

    A negative number counts own rows outside of all windows.
    """
    outputs = (h + sum(padding) - window) // stride + 1
    if outputs < 1 or outputs * stride != h or outputs % devices or padding[0] < 0:
        return None
    return padding[0], window - stride - padding[0]


def _with_neighbours(x: Array, halo: Pair, axis: str, devices: int, fill: float = 0.0) -> Array:
    """Return a device's rows between those of its neighbours, with `fill` past the image's border.

    A halo of more rows than a device has comes from several devices.
    """
    rows = x.shape[1]
    top, bottom = halo
    above, below = [], []
    for hop in range(1, -(-max(top, bottom, 0) // rows) + 1):
        # A device without a sender gets zeros.
        down = [(i, i + hop) for i in range(devices - hop)]
        up = [(i + hop, i) for i in range(devices - hop)]
        if (count := min(rows, top - (hop - 1) * rows)) > 0:
            above.insert(0, _sent(x[:, rows - count :], axis, down))
        if (count := min(rows, bottom - (hop - 1) * rows)) > 0:
            below.append(_sent(x[:, :count], axis, up))
    x = jnp.concatenate([*above, x[:, : rows + min(bottom, 0)], *below], axis=1)
    if fill == 0 or not (above or below):
        return x
    at = lax.axis_index(axis) * rows - max(top, 0) + jnp.arange(x.shape[1], dtype=jnp.int32)
    inside = (at >= 0) & (at < devices * rows)
    return jnp.where(inside.reshape(1, -1, 1, 1), x, jnp.asarray(fill, x.dtype))


def _sent(x: Array, axis: str, pairs: list[tuple[int, int]]) -> Array:
    return lax.ppermute(x, axis, pairs) if pairs else jnp.zeros_like(x)


# Jitter -------------------------------------------------------------------------


def roll(images: whole.Pixels, shift: tuple[Any, Any], *, mesh: Mesh) -> whole.Pixels:
    """Shift down and right by whole pixels, as `vizsynth.images.roll`, with rows sharded over a mesh.

    A shift of q R + r rows, at R rows per device, takes one exchange per bit of q, and one between neighbours
    for r. Pictures whose rows do not divide over the devices are gathered.

    >>> mesh = jax.make_mesh((1,), ("rows",), axis_types=(AxisType.Auto,))
    >>> roll(jnp.arange(3.0).reshape(3, 1, 1), (1, 0), mesh=mesh)[:, 0, 0].tolist()
    [2.0, 0.0, 1.0]
    """
    axis, devices = _axis(mesh), mesh.size
    along = images.ndim - 3
    if images.shape[along] % devices:
        return whole.roll(images, shift)

    def local(x: Array, down: Array, right: Array) -> Array:
        rows = x.shape[along]
        blocks, rest = jnp.divmod(jnp.mod(down, rows * devices), rows)

        def passed_on(x: Array, by: int) -> Array:
            return lax.ppermute(x, axis, [(i, (i + by) % devices) for i in range(devices)])

        for bit in range((devices - 1).bit_length()):
            x = jnp.where((blocks >> bit) & 1 == 1, passed_on(x, 1 << bit), x)
        both = jnp.concatenate([passed_on(x, 1), x], axis=along)
        return jnp.roll(lax.dynamic_slice_in_dim(both, rows - rest, rows, axis=along), right, axis=-2)

    rows = PartitionSpec(*(None,) * along, axis)
    same = PartitionSpec()
    moved = jax.shard_map(local, mesh=mesh, in_specs=(rows, same, same), out_specs=rows)
    return moved(images, *(jnp.asarray(s) for s in shift))


def roll_of(net: Any) -> Callable[[whole.Pixels, tuple[Any, Any]], whole.Pixels]:
    """Return the `roll` for a network's images: over rows, it gathers nothing.

    >>> roll_of(lambda images: images) is whole.roll
    True
    """
    return partial(roll, mesh=net.mesh) if isinstance(net, OverRows) else whole.roll
