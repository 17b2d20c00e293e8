"""One image over several devices, each of which holds some of its rows.

Activations lie where the rows of the image do. A convolution needs a few rows (its halo) of the devices above
and below, which they send to each other directly; every device then convolves its own. All else is
JAX's automatic partitioning: arithmetic by element needs nothing of the neighbours, and a sum over positions,
such as a Gram matrix, is one all-reduce of what each device has summed.

Device d holds the rows d R .. (d + 1) R − 1 of an image. A window of k rows, stride s, padding p gives
output i from the inputs i s − p .. i s − p + k − 1. Where there are 1/s times as many outputs as inputs, and
both divide over the devices, output and input lie on the same device but for p rows of the device above and
k − s − p of the one below. Where that is not so (a stride without padding, as SqueezeNet begins with; an odd
number of rows before a pool), the layer is left to the compiler's own partition, which moves more rows.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from vizsynth import images as whole
from vizsynth import ops as arithmetic
from vizsynth.core.entry import as_network, is_concrete
from vizsynth.core.pytrees import pytree
from vizsynth.cpu.convolution import Convolution
from vizsynth.cpu.winograd import Kernel
from vizsynth.ops import Ops, Padding, Pair
from vizsynth.taps import passthrough
from vizsynth.types import Images, Network, Tap


@pytree
@dataclass(frozen=True)
class OverRows:
    """A network whose images are sharded by rows over a mesh: what `over_rows` makes."""

    net: Any
    mesh: Mesh = field(metadata={"static": True})
    arithmetic: Ops = field(default=arithmetic.plain, metadata={"static": True})

    @property
    def sharding(self) -> NamedSharding:
        """How one image `[h, w, 3]` lies on the devices: `jax.device_put(image, net.sharding)`."""
        return NamedSharding(self.mesh, PartitionSpec(_axis(self.mesh)))

    @property
    def batch_sharding(self) -> NamedSharding:
        """How images `[n, h, w, 3]` lie on the devices."""
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
        """What the network does to its pixels."""
        return self.net.standardize

    @property
    def dtype(self) -> Any:
        """The precision of the arithmetic."""
        return self.net.dtype

    def __call__(self, images: Images, *, tap: Tap = passthrough, ops: Ops | None = None) -> Any:
        """Return what the network does; windows are taken with the neighbours' rows."""
        ops = self.arithmetic if ops is None else ops
        table = _table(ops, self.mesh)
        if table == ops:  # another arithmetic altogether, of sizes for instance
            return self.net(images, tap=tap, ops=ops)
        return self.net(self._spread(images), tap=tap, ops=table)

    def _spread(self, images: Images) -> Images:
        """Lay images out by rows; where they do not divide, the last devices have fewer."""
        h = images.shape[1]
        missing = -h % self.mesh.size
        if missing:
            images = jnp.pad(images, ((0, 0), (0, missing), (0, 0), (0, 0)))
        return lax.with_sharding_constraint(images, self.batch_sharding)[:, :h]


def over_rows(net: Network, mesh: Mesh) -> OverRows:
    """Return the network for images that are sharded by rows over the devices of a mesh.

    It is used as any network is: `features`, `transfer_style`, `synthesize_texture`, `invert`, `deepdream`
    and maps give what they give on one device (sums over positions are added in another order), with a D-th
    of the memory and of the work on each of D devices. Place the images with
    `jax.device_put(image, net.sharding)`; what comes out lies there as well.

    In the steps of a synthesis no activations are gathered where every layer's windows keep the rows
    aligned: in VGG's trunk and in ResNet, where the image's rows divide by the number of devices times the
    stride of the layer (8 devices and relu4_1 of VGG: multiples of 64). Elsewhere (SqueezeNet and AlexNet,
    whose first convolutions are not padded for it; other sizes) the compiler finds out what to send: more
    rows, and some of a small layer may be gathered.

    What works on pixels alone may gather those, but no activations: a `Fourier` parametrization (give
    `Pixels()`), transforms that turn or scale, the resizing of a dream's octaves and of masks, images whose
    rows do not divide. A dream by a guide gathers its layer. A classifier's matrices are applied on every
    device.

    Args:
        net: a network. Its weights are copied to every device.
        mesh: of one axis: `jax.make_mesh((8,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))`. The
            devices may be of several processes (`jax.distributed.initialize`).

    Returns:
        The network. `net.sharding` is how one image lies, `net.batch_sharding` a batch of images.

    Raises:
        ValueError: a mesh of several axes, or of an explicit one. `jax.device_put` refuses to place an image
            whose rows do not divide over the devices.

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
            "the mesh's axis must be partitioned automatically: "
            "jax.make_mesh((n,), ('rows',), axis_types=(jax.sharding.AxisType.Auto,))"
        )
    net = as_network(net)
    everywhere = NamedSharding(mesh, PartitionSpec())

    def placed(leaf: Any) -> Any:
        there = isinstance(leaf, (jax.Array, np.ndarray)) and is_concrete(leaf)  # not a shape alone
        return jax.device_put(leaf, everywhere) if there else leaf

    table = getattr(net, "arithmetic", None) or arithmetic.plain
    return OverRows(jax.tree.map(placed, net), mesh, table)


def _axis(mesh: Mesh) -> str:
    return mesh.axis_names[0]


# Windows ------------------------------------------------------------------------


def _table(ops: Ops, mesh: Mesh) -> Ops:
    """Return the table with those of its windows exchanged that are the library's own."""
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
    """Apply a function to the rows `[n, h, w, c]` that each device has."""
    rows, same = PartitionSpec(None, _axis(mesh)), PartitionSpec()
    specs = (rows, *(same for _ in everywhere))
    return jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=rows)(x, *everywhere)


def _halo(h: int, window: int, stride: int, padding: Pair, devices: int) -> Pair | None:
    """Return how many rows a device needs of those above and below; None where rows do not stay in place.

    Below 0 it has rows that its windows do not see.
    """
    outputs = (h + sum(padding) - window) // stride + 1
    if outputs < 1 or outputs * stride != h or outputs % devices or padding[0] < 0:
        return None
    return padding[0], window - stride - padding[0]


def _with_neighbours(x: Array, halo: Pair, axis: str, devices: int, fill: float = 0.0) -> Array:
    """Return a device's rows between those of its neighbours; past the image's border is `fill`.

    A halo of more rows than a device has is fetched from as many devices as it takes.
    """
    rows = x.shape[1]
    top, bottom = halo
    above, below = [], []
    for hop in range(1, -(-max(top, bottom, 0) // rows) + 1):
        # Devices that none sends to get zeros.
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
    """Shift down and right by whole pixels, as `vizsynth.images.roll` does, rows being sharded over a mesh.

    A shift of q R + r rows, R being those of a device, is made of one exchange for each bit of q, and of one
    between neighbours for r. Pictures whose rows do not divide over the devices are gathered.

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
    """Return how images that are for a network are rolled: where it is over rows, without gathering them.

    >>> roll_of(lambda images: images) is whole.roll
    True
    """
    return partial(roll, mesh=net.mesh) if isinstance(net, OverRows) else whole.roll
