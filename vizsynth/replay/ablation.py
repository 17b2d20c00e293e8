"""Arithmetic on a layer of which one channel has changed.

As long as each channel is by itself (ReLU, pooling, normalization), only that channel is computed again.
The first operation that mixes channels is linear, so f(x + Δ e_c) = f(x) + W_c Δ: a product with the weights
of one channel in the place of all. What comes after is computed whole.
"""

from collections.abc import Callable, Sequence
from typing import Any

from jax import lax
from jaxtyping import Array

from vizsynth import ops
from vizsynth.cpu import convolution
from vizsynth.ops import Ops, Padding, Pair
from vizsynth.replay.incremental import Clean


class Ablated:
    """A layer of which one channel has changed.

    It is no array: a network that does arithmetic on it other than through `ops` fails with a `TypeError`
    or an `AttributeError`.
    """

    def __init__(self, clean: Array, part: Array, channel: Array, flat: bool = False):
        self.clean = clean
        """The layer as it was, `[n, h, w, c]`."""
        self.part = part
        """What the channel holds now, `[n, h, w, 1]`."""
        self.channel = channel
        self.flat = flat
        """Whether it is to be seen as `[n, h w c]`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the whole layer."""
        return (len(self.clean), self.clean[0].size) if self.flat else self.clean.shape

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def dtype(self) -> Any:
        """The type of the values."""
        return self.clean.dtype

    @property
    def change(self) -> Array:
        """By how much the channel has changed, `[n, h, w, 1]`."""
        return self.part - of_channel(self.clean, self.channel)

    def dense(self) -> Array:
        """Return the whole layer."""
        at = (0,) * (self.clean.ndim - 1)
        return lax.dynamic_update_slice(self.clean, self.part, (*at, self.channel)).reshape(self.shape)

    def reshape(self, *shape: Any) -> Any:
        """Return the layer in another shape."""
        whole = self.dense().reshape(*shape)
        return (
            Ablated(self.clean, self.part, self.channel, flat=True) if whole.shape == _flat(self) else whole
        )


def _flat(x: Ablated) -> tuple[int, int]:
    return len(x.clean), x.clean[0].size


def of_channel(x: Array, channel: Array, axis: int = -1) -> Array:
    """Return one channel, as an axis of size 1."""
    return lax.dynamic_slice_in_dim(x, channel, 1, axis=axis)


def table(clean: Sequence[Any]) -> Ops:
    """Return the arithmetic for a network that is given an `Ablated` in the place of a layer.

    Args:
        clean: what `vizsynth.replay.incremental.recording` wrote for the network as it was.
    """
    upcoming = iter(clean[1:])

    def output() -> Array:
        found: Clean = next(upcoming)
        return found.output

    def channelwise(op: Callable[..., Any]) -> Callable[..., Any]:
        def call(x: Any, *args: Any, **kwargs: Any) -> Any:
            out = output()
            if not isinstance(x, Ablated) or x.flat:
                return op(_dense(x), *args, **kwargs)
            return Ablated(out, op(x.part, *args, **kwargs), x.channel)

        return call

    def conv(
        x: Any,
        kernel: Array,
        bias: Array | None,
        *,
        strides: Pair = (1, 1),
        padding: Padding = ((0, 0), (0, 0)),
        name: str = "",
    ) -> Array:
        out = output()
        if not isinstance(x, Ablated):
            return ops.fast.conv(x, kernel, bias, strides=strides, padding=padding, name=name)
        # As a product: many channels together would be a grouped convolution, slow where one is fast.
        part = of_channel(kernel.astype(x.dtype), x.channel, axis=2)
        return out + convolution.by_patches(x.change, part, strides, padding)

    def linear(x: Any, kernel: Array, bias: Array | None, *, name: str = "") -> Array:
        out = output()
        if not isinstance(x, Ablated) or not x.flat:
            return ops.linear(_dense(x), kernel, bias, name=name)
        n, _, _, c = x.clean.shape
        rows = of_channel(kernel.astype(x.dtype).reshape(-1, c, kernel.shape[1]), x.channel, axis=1)[:, 0]
        return out + x.change.reshape(n, -1) @ rows

    def batch_norm(
        x: Any, scale: Array, bias: Array, mean: Array, variance: Array, *, eps: float, name: str = ""
    ) -> Any:
        out, statistics = output(), (scale, bias, mean, variance)
        if not isinstance(x, Ablated):
            return ops.batch_norm(x, *statistics, eps=eps, name=name)
        parts = [of_channel(values, x.channel) for values in statistics]
        return Ablated(out, ops.batch_norm(x.part, *parts, eps=eps, name=name), x.channel)

    def whole(op: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            output()
            return op(*[_dense(x) for x in args], **kwargs)

        return call

    def concatenate(xs: Sequence[Any]) -> Array:
        output()
        return ops.concatenate([_dense(x) for x in xs])

    return Ops(
        standardize=whole(ops.standardize),
        conv=conv,
        linear=linear,
        batch_norm=batch_norm,
        relu=channelwise(ops.relu),
        max_pool=channelwise(ops.plain_max_pool),
        mean_pool=channelwise(ops.mean_pool),
        adaptive_mean_pool=channelwise(ops.adaptive_mean_pool),
        add=whole(ops.add),
        concatenate=concatenate,
    )


def _dense(x: Any) -> Any:
    return x.dense() if isinstance(x, Ablated) else x
