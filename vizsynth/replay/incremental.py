"""Arithmetic on the part of every layer that a change of the image can reach.

If an image changes in a window, each layer changes in a window too, which grows with every convolution.
`table` computes this window alone, and takes the rest from the activations of the unchanged image. Up to
rounding, the result is that of the whole network.

A `Span` describes all windows of one size. Their places in each layer are known on the host before
compilation, so the program takes slices of one static size at an offset from a table.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from vizsynth import ops
from vizsynth.cpu import winograd
from vizsynth.ops import Ops, Padding, Pair


@dataclass(frozen=True)
class Span:
    """Several intervals of one length along an axis."""

    starts: np.ndarray
    length: int
    size: int
    """The size of the axis."""

    def reached(self, window: int, stride: int, padding: Pair) -> "Span":
        """Return the outputs of a sliding window whose inputs meet the interval."""
        outputs = (self.size + sum(padding) - window) // stride + 1
        first = -((window - 1 - self.starts - padding[0]) // stride)
        last = (self.starts + self.length - 1 + padding[0]) // stride
        return _covering(np.clip(first, 0, outputs - 1), np.clip(last, 0, outputs - 1), outputs)

    def union(self, other: "Span") -> "Span":
        """Return the intervals that cover both."""
        first = np.minimum(self.starts, other.starts)
        last = np.maximum(self.starts + self.length, other.starts + other.length) - 1
        return _covering(first, last, self.size)


def _covering(first: np.ndarray, last: np.ndarray, size: int) -> Span:
    length = int((last - first).max()) + 1
    return Span(np.minimum(first, size - length), length, size)


def _corner(rows: Span, cols: Span, at: tuple[Array, Array]) -> tuple[Array, Array]:
    """Return the first row and column of a window."""
    return jnp.asarray(rows.starts)[at[0]], jnp.asarray(cols.starts)[at[1]]


class Replaced:
    """A layer with one replaced block.

    It is not an array: arithmetic on it past `ops` raises a `TypeError` or an `AttributeError`.
    """

    def __init__(self, clean: Array, part: Array, start: tuple[Any, Any, Any, Any], flat: bool = False):
        self.clean = clean
        """The unchanged layer, `[n, h, w, c]`."""
        self.part = part
        """The block."""
        self.start = start
        """The place of the block in the layer."""
        self.flat = flat
        """Whether the shape is `[n, h w c]`."""

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

    def dense(self) -> Array:
        """Return the whole layer."""
        if self.part.shape == self.clean.shape:
            return self.part.reshape(self.shape)
        return lax.dynamic_update_slice(self.clean, self.part, self.start).reshape(self.shape)


def dense(x: Any) -> Any:
    """Return a value as a whole array."""
    return x.dense() if isinstance(x, Replaced) else x


class Changed(Replaced):
    """A layer with one changed window, `[n, rows.length, cols.length, c]`."""

    def __init__(self, clean: Array, patch: Array, rows: Span, cols: Span, at: tuple[Array, Array]):
        top, left = _corner(rows, cols, at)
        super().__init__(clean, patch, (0, top, left, 0))
        self.rows, self.cols = rows, cols
        self.at = at
        """The numbers of its intervals in `rows` and in `cols`."""

    def reshape(self, *shape: Any) -> Array:
        """Return the whole layer in another shape."""
        return self.dense().reshape(*shape)

    def grown(self, rows: Span, cols: Span) -> Array:
        """Return the values in a larger window."""
        if rows.length == self.rows.length and cols.length == self.cols.length:
            return self.part
        top, left = _corner(rows, cols, self.at)
        size = (self.shape[0], rows.length, cols.length, self.shape[3])
        around = lax.dynamic_slice(self.clean, (0, top, left, 0), size)
        return _placed(self.part, around, self.start[1] - top, self.start[2] - left)

    def seen_by(
        self, rows: Span, cols: Span, window: Pair, strides: Pair, padding: Padding, fill: float
    ) -> Array:
        """Return the padded inputs of a sliding window whose outputs are `rows` and `cols`."""
        axes = [
            _Cut.of(self.rows, rows, window[0], strides[0], padding[0]),
            _Cut.of(self.cols, cols, window[1], strides[1], padding[1]),
        ]
        margins = ((0, 0), *(cut.pad for cut in axes), (0, 0))
        padded = jnp.pad(self.clean, margins, constant_values=jnp.asarray(fill, self.dtype))
        begin, inside = zip(*(cut.offsets(i) for cut, i in zip(axes, self.at, strict=True)), strict=True)
        size = (self.shape[0], axes[0].length, axes[1].length, self.shape[3])
        around = lax.dynamic_slice(padded, (0, *begin, 0), size)
        return _placed(self.part, around, *inside)[:, axes[0].own, axes[1].own]


def _placed(patch: Array, around: Array, top: Any, left: Any) -> Array:
    """Return `around` with a patch in it, like `lax.dynamic_update_slice`, which `vmap` turns into a scatter.

    A scatter takes one core on CPU and a pass over memory; this fuses with other loops. It pads the patch to
    up to three times its size, so `around` should be little larger.
    """
    (height, width), (whole_height, whole_width) = patch.shape[1:3], around.shape[1:3]
    below, right = whole_height - height, whole_width - width
    padded = jnp.pad(patch, ((0, 0), (below, below), (right, right), (0, 0)))
    moved = lax.dynamic_slice(padded, (0, below - top, right - left, 0), around.shape)
    rows, columns = jnp.arange(whole_height) - top, jnp.arange(whole_width) - left
    inside = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))[None]
    return jnp.where(inside[None, :, :, None], moved, around)


@dataclass(frozen=True)
class _Cut:
    """Along one axis, the piece of a padded layer that the outputs of a sliding window depend on.

    If the stride is above the window, outputs may skip part of the changed interval: the piece then has a
    margin, so that it holds the whole change.
    """

    pad: Pair
    begins: np.ndarray
    inside: np.ndarray
    length: int
    own: slice

    @staticmethod
    def of(changed: Span, outputs: Span, window: int, stride: int, padding: Pair) -> "_Cut":
        begins = outputs.starts * stride - padding[0]
        length = (outputs.length - 1) * stride + window
        before = max(0, int((begins - changed.starts).max()))
        after = max(0, int((changed.starts + changed.length - begins - length).max()))
        low = padding[0] + before
        high = max(0, int((begins + length + after).max()) - changed.size)
        return _Cut(
            pad=(low, high),
            begins=begins - before + low,
            inside=changed.starts - begins + before,
            length=length + before + after,
            own=slice(before, before + length),
        )

    def offsets(self, index: Array) -> tuple[Array, Array]:
        return jnp.asarray(self.begins)[index], jnp.asarray(self.inside)[index]


class Clean(NamedTuple):
    """An operation's output for the unchanged image, and its transformed kernel for the changed ones."""

    output: Array
    transformed: winograd.Transform | None = None
    """A convolution's kernel in Winograd's form."""


def recording(table: Ops, into: list[Any]) -> Ops:
    """Return the table, recording the first operation's input and every operation's `Clean` in a list."""

    def recorded(op: Callable[..., Any]) -> Callable[..., Any]:
        def call(x: Any, *args: Any, **kwargs: Any) -> Any:
            if not into:
                into.append(x)
            if op is table.conv and _is_winograd(x, args[0], **kwargs):
                transformed = winograd.transform(args[0].astype(x.dtype))
                into.append(Clean(_convolved(x, *args, transformed=transformed, **kwargs), transformed))
            else:
                into.append(Clean(op(x, *args, **kwargs)))
            return into[-1].output

        return call

    return Ops(*(recorded(op) for op in table[:-1]), other=table.other)


def _is_winograd(x: Array, kernel: Array, *, strides: Pair = (1, 1), **_: Any) -> bool:
    """Tell whether to convolve many windows in Winograd's form."""
    return strides == (1, 1) and x.dtype == jnp.float32 and winograd.transformable(kernel)


def _convolved(
    x: Array,
    kernel: Array,
    bias: Array | None,
    transformed: winograd.Transform,
    *,
    padding: Padding = ((0, 0), (0, 0)),
    name: str = "",
    **_: Any,
) -> Array:
    """Convolve in Winograd's form on CPU, by the plain convolution on other backends."""
    y = lax.platform_dependent(
        x,
        kernel,
        transformed,
        cpu=lambda x, kernel, transformed: winograd.conv(jnp.pad(x, ((0, 0), *padding, (0, 0))), transformed),
        default=lambda x, kernel, transformed: ops.plain.conv(x, kernel, None, padding=padding, name=name),
    )
    return y if bias is None else y + jnp.broadcast_to(bias.astype(y.dtype), y.shape)


class HeadReached(Exception):  # not an error: it stops a network half way
    """The input of a network's first dense layer."""

    def __init__(self, value: Array) -> None:
        self.value = value


def leaving(table: Ops) -> Ops:
    """Return the table that raises `HeadReached` at the first dense layer."""

    def linear(x: Any, kernel: Any, bias: Any, *, name: str = "") -> Any:
        del kernel, bias, name
        raise HeadReached(dense(x))

    return table._replace(linear=linear)


def resuming(value: Array, table: Ops = ops.fast) -> Ops:
    """Return the table whose first dense layer takes a value in place of its input."""
    given: list[Array] = [value]

    def linear(x: Any, kernel: Array, bias: Array | None, *, name: str = "") -> Any:
        return table.linear(given.pop() if given else x, kernel, bias, name=name)

    return table._replace(linear=linear)


def table(clean: Sequence[Any], rows: Span, cols: Span, at: tuple[Array, Array]) -> Ops:
    """Return the table for an image with one changed window.

    Args:
        clean: the record of `recording` for the unchanged image.
        rows: the windows' intervals from top to bottom.
        cols: the same from left to right.
        at: the row and the column of the changed window.

    The input of the network's first operation must be the images, possibly changed pixel by pixel
    (standardized). If it changes outside the window, all layers are NaN.
    """
    inputs, *outputs = clean
    upcoming = iter(outputs)
    first = True

    def receive(x: Any) -> Any:
        nonlocal first
        if not first:
            return x
        first = False
        if x.shape[1:3] != (rows.size, cols.size):
            return x  # the network resizes or crops the image: compute all of it
        top, left = _corner(rows, cols, at)
        patch = lax.dynamic_slice(x, (0, top, left, 0), (x.shape[0], rows.length, cols.length, x.shape[3]))
        contained = (Changed(inputs, patch, rows, cols, at).dense() == x).all()
        patch = jnp.where(contained, patch, jnp.asarray(jnp.nan, patch.dtype))
        return Changed(inputs, patch, rows, cols, at)

    def pointwise(op: Callable[..., Any]) -> Callable[..., Any]:
        def call(x: Any, *args: Any, **kwargs: Any) -> Any:
            x, out = receive(x), next(upcoming)
            if not isinstance(x, Changed):
                return op(x, *args, **kwargs)
            return Changed(out.output, op(x.part, *args, **kwargs), x.rows, x.cols, x.at)

        return call

    def sliding(x: Any, window: Pair, strides: Pair, padding: Padding, fill: float, op: Any) -> Any:
        """Apply `op(x, padding)`, a function of sliding windows."""
        x, out = receive(x), next(upcoming)
        if not isinstance(x, Changed):
            return op(x, padding)
        if out.transformed is not None:
            op = partial(op, transformed=out.transformed)
        new_rows = x.rows.reached(window[0], strides[0], padding[0])
        new_cols = x.cols.reached(window[1], strides[1], padding[1])
        seen = x.seen_by(new_rows, new_cols, window, strides, padding, fill)
        return Changed(out.output, op(seen, ((0, 0), (0, 0))), new_rows, new_cols, x.at)

    def conv(
        x: Any,
        kernel: Array,
        bias: Array | None,
        *,
        strides: Pair = (1, 1),
        padding: Padding = ((0, 0), (0, 0)),
        name: str = "",
    ) -> Any:
        window = (kernel.shape[0], kernel.shape[1])

        def op(x: Array, padding: Padding, transformed: winograd.Transform | None = None) -> Array:
            if transformed is not None:
                return _convolved(x, kernel, bias, transformed, padding=padding, name=name)
            return ops.fast.conv(x, kernel, bias, strides=strides, padding=padding, name=name)

        return sliding(x, window, strides, padding, 0.0, op)

    def pool(
        function: Callable[..., Any], fill: float, x: Any, window: Pair, strides: Pair, padding: Padding
    ) -> Any:
        def op(x: Array, padding: Padding) -> Array:
            return function(x, window=window, strides=strides, padding=padding)

        return sliding(x, window, strides, padding, fill, op)

    def max_pool(x: Any, *, window: Pair, strides: Pair, padding: Padding = ((0, 0), (0, 0))) -> Any:
        return pool(ops.plain_max_pool, -np.inf, x, window, strides, padding)

    def mean_pool(x: Any, *, window: Pair, strides: Pair, padding: Padding = ((0, 0), (0, 0))) -> Any:
        return pool(ops.mean_pool, 0.0, x, window, strides, padding)

    def joined(op: Callable[[Sequence[Array]], Array], xs: Sequence[Any]) -> Any:
        out = next(upcoming)
        if not all(isinstance(x, Changed) for x in xs):
            return op([jnp.asarray(x) for x in xs])
        new_rows, new_cols = xs[0].rows, xs[0].cols
        for x in xs[1:]:
            new_rows, new_cols = new_rows.union(x.rows), new_cols.union(x.cols)
        return Changed(
            out.output, op([x.grown(new_rows, new_cols) for x in xs]), new_rows, new_cols, xs[0].at
        )

    def whole(op: Callable[..., Any]) -> Callable[..., Any]:
        def call(x: Any, *args: Any, **kwargs: Any) -> Any:
            x = receive(x)
            next(upcoming)
            return op(dense(x), *args, **kwargs)

        return call

    return Ops(
        standardize=pointwise(ops.standardize),
        conv=conv,
        linear=whole(ops.linear),
        batch_norm=pointwise(ops.batch_norm),
        relu=pointwise(ops.relu),
        max_pool=max_pool,
        mean_pool=mean_pool,
        adaptive_mean_pool=whole(ops.adaptive_mean_pool),
        add=lambda x, y: joined(lambda xs: ops.add(*xs), [x, y]),
        concatenate=lambda xs: joined(ops.concatenate, xs),
    )
