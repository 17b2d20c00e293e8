"""Arithmetic on a layer with one changed channel.

Operations on single channels (ReLU, pooling, normalization) compute only that channel again. The first
operation that mixes channels is linear, so f(x + Δ e_c) = f(x) + W_c Δ: a product with the weights of one
channel. Later operations are computed whole.
"""

from collections.abc import Callable, Sequence
from typing import Any

from jax import lax
from jaxtyping import Array

from vizsynth import ops
from vizsynth.cpu import convolution
from vizsynth.ops import Ops, Padding, Pair
from vizsynth.replay.incremental import Clean, Replaced, dense


class Ablated(Replaced):
    """A layer with one changed channel, `[n, h, w, 1]`."""

    def __init__(self, clean: Array, part: Array, channel: Array, flat: bool = False):
        super().__init__(clean, part, (0, 0, 0, channel), flat)
        self.channel = channel

    @property
    def change(self) -> Array:
        """The difference of the channel, `[n, h, w, 1]`."""
        return self.part - of_channel(self.clean, self.channel)

    def reshape(self, *shape: Any) -> Any:
        """Return the layer in another shape."""
        flat = Ablated(self.clean, self.part, self.channel, flat=True)
        whole = self.dense().reshape(*shape)
        return flat if whole.shape == flat.shape else whole


def of_channel(x: Array, channel: Array, axis: int = -1) -> Array:
    """Return one channel, as an axis of size 1."""
    return lax.dynamic_slice_in_dim(x, channel, 1, axis=axis)


def table(clean: Sequence[Any]) -> Ops:
    """Return the table for a network with an `Ablated` in place of a layer.

    Args:
        clean: the record of `vizsynth.replay.incremental.recording` for the unchanged network.
    """
    upcoming = iter(clean[1:])

    def output() -> Array:
        found: Clean = next(upcoming)
        return found.output

    def channelwise(op: Callable[..., Any]) -> Callable[..., Any]:
        def call(x: Any, *args: Any, **kwargs: Any) -> Any:
            out = output()
            if not isinstance(x, Ablated) or x.flat:
                return op(dense(x), *args, **kwargs)
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
        # As a product: a batch of channels would become a grouped convolution, which is slow.
        part = of_channel(kernel.astype(x.dtype), x.channel, axis=2)
        return out + convolution.by_patches(x.change, part, strides, padding)

    def linear(x: Any, kernel: Array, bias: Array | None, *, name: str = "") -> Array:
        out = output()
        if not isinstance(x, Ablated) or not x.flat:
            return ops.linear(dense(x), kernel, bias, name=name)
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
            return op(*[dense(x) for x in args], **kwargs)

        return call

    def concatenate(xs: Sequence[Any]) -> Array:
        output()
        return ops.concatenate([dense(x) for x in xs])

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
