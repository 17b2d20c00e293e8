"""Receptive fields: the pixels that a neuron depends on.

Two tables of operations run a network on intervals in place of activations. One carries the size of the
fields far from the image's border, the other the exact pixels of every row and column of every layer, for
images of a given size. Padding, odd sizes, strides, the branches of a block and the bins of an adaptive mean
thus count as they are.

Araujo, Norris & Sim, Computing Receptive Fields of Convolutional Neural Networks, 2019, derives closed forms
of the recurrence; here it is followed window by window.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int
from numpy.lib.stride_tricks import sliding_window_view

from vizsynth.core.entry import as_network
from vizsynth.ops import Ops
from vizsynth.taps import shapes
from vizsynth.types import Network


class _FoundError(Exception):
    """The layer is reached, and the layers after it need not run."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _counted(net: Network, layer: str, images: Any, ops: Ops) -> Any:
    """Return the value of a layer by a table of operations; None if the network does not reach it."""

    def tap(name: str, value: Any) -> Any:
        if name == layer:
            raise _FoundError(value)
        return value

    try:
        net(images, tap=tap, ops=ops)
    except _FoundError as found:
        return found.value
    return None


# Sizes, far from the border ----------------------------------------------------------


@dataclass(frozen=True)
class _Field:
    """The size of a layer's receptive fields and the distance of neighbours: pixels by row, by column."""

    size: np.ndarray
    step: np.ndarray

    shape = (1, 1, 1, 1)

    def astype(self, _: Any) -> "_Field":
        return self

    def reshape(self, *_: Any) -> "_Field":
        return self


_PIXEL = _Field(np.ones(2), np.ones(2))


def _of(x: Any) -> _Field:
    """Return the fields of a value; that of a pixel is the pixel."""
    return x if isinstance(x, _Field) else _PIXEL


def _same(x: Any, *_: Any, **__: Any) -> _Field:
    return _of(x)


def _everything(x: Any, *_: Any, **__: Any) -> _Field:
    return _Field(np.full(2, np.inf), _of(x).step)


def _wider(*xs: Any) -> _Field:
    fields = [_of(x) for x in xs]
    return _Field(np.max([f.size for f in fields], axis=0), np.max([f.step for f in fields], axis=0))


def _through(x: Any, *, window: Any, strides: Any, padding: Any = None) -> _Field:
    del padding
    x = _of(x)
    return _Field(x.size + (np.asarray(window) - 1) * x.step, x.step * strides)


def _count_other(function: Any, *xs: Any, name: str, linear: bool, elementwise: bool) -> _Field:
    del function, linear
    if not elementwise:
        raise TypeError(f"the receptive field of {name} is not known")
    return _wider(*xs)


_counting = Ops(
    standardize=lambda images, how: images,
    conv=lambda x, kernel, *_, strides, **__: _through(x, window=kernel.shape[:2], strides=strides),
    linear=_everything,
    batch_norm=_same,
    relu=_same,
    max_pool=_through,
    mean_pool=_through,
    adaptive_mean_pool=_everything,
    add=_wider,
    concatenate=lambda xs: _wider(*xs),
    other=_count_other,
)


def field_size(net: Network, layer: str) -> tuple[float, float]:
    """Return the rows and columns of a layer's receptive fields, in pixels, far from the border.

    >>> import jax, vizsynth
    >>> net = vizsynth.models.vgg16(num_classes=None, key=jax.random.key(0))
    >>> field_size(net, "relu1_1"), field_size(net, "relu5_1")
    ((3.0, 3.0), (132.0, 132.0))
    """
    known = layer in getattr(net, "layers", (layer,))
    size = getattr(net, "example_size", (1, 1))  # a traced program has one size
    field = _counted(net, layer, jnp.zeros((1, *size, 3)), _counting) if known else None
    if field is None:
        raise ValueError(f"the network has no layer {layer!r}")
    rows, columns = field.size
    return float(rows), float(columns)


# Pixels, at every position -----------------------------------------------------------

_NOWHERE = np.iinfo(np.int64).max  # the start of an empty interval, which ends at 0


class Span(NamedTuple):
    """Half-open intervals `low` .. `high` of pixels along one axis of the image.

    Of maps they are `[positions, channels]`; of a vector, `[features]`. The interval of a neuron on padding
    alone ends before it begins.
    """

    low: Int[np.ndarray, "..."]
    high: Int[np.ndarray, "..."]

    def over(self, axis: int) -> "Span":
        """Return the smallest intervals that hold all intervals along an axis, which is kept."""
        return Span(self.low.min(axis=axis, keepdims=True), self.high.max(axis=axis, keepdims=True))

    def through(self, window: int, stride: int, padding: Sequence[int]) -> "Span":
        """Return the intervals of windows over the positions."""

        def windows(values: np.ndarray, nothing: int) -> np.ndarray:
            padded = np.pad(values, (tuple(padding), (0, 0)), constant_values=nothing)
            return sliding_window_view(padded, window, axis=0)[::stride]

        return Span(windows(self.low, _NOWHERE).min(axis=-1), windows(self.high, 0).max(axis=-1))

    def binned(self, bins: int) -> "Span":
        """Return the intervals of the bins of an adaptive mean, ⌊i·size/bins⌋ .. ⌈(i+1)·size/bins⌉."""
        size = len(self.low)
        if size == bins:
            return self
        parts = [slice(i * size // bins, -(-(i + 1) * size // bins)) for i in range(bins)]
        return Span(
            np.stack([self.low[part].min(axis=0) for part in parts]),
            np.stack([self.high[part].max(axis=0) for part in parts]),
        )

    def without(self, nothing: Any) -> "Span":
        """Return the intervals, empty at the marked places."""
        return Span(np.where(nothing, _NOWHERE, self.low), np.where(nothing, 0, self.high))

    def times(self, channels: int) -> "Span":
        """Return equal channels in place of one."""
        return Span(*(np.broadcast_to(values, (*values.shape[:-1], channels)) for values in self))


@dataclass(frozen=True)
class Fields:
    """The receptive field of each neuron of a layer: rows per row, columns per column.

    A field is a rectangle (less the gaps of a stride larger than its window); at the sum of branches, the
    smallest that holds those of the branches. Channels differ after a concatenation of branches.
    """

    rows: Span
    columns: Span

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the layer for one image, `(1, h, w, c)` or `(1, c)`."""
        if self.rows.low.ndim == 1:
            return (1, len(self.rows.low))
        return (1, len(self.rows.low), *self.columns.low.shape)

    def astype(self, _: Any) -> "Fields":
        """Return the same: intervals have no precision."""
        return self

    def reshape(self, *shape: Any) -> "Fields":
        """Return the neurons as a vector, as networks flatten the input of a matrix."""
        if shape != (1, -1):
            raise TypeError(f"receptive fields pass through reshape(n, -1), not through reshape{shape}")
        if len(self.shape) == 2:
            return self
        size = self.shape[1:]
        rows, columns = (
            Span(*(np.broadcast_to(values.reshape(place), size).reshape(-1) for values in span))
            for span, place in ((self.rows, (size[0], 1, -1)), (self.columns, (1, size[1], -1)))
        )
        nothing = (rows.low >= rows.high) | (columns.low >= columns.high)
        return Fields(rows.without(nothing), columns.without(nothing))

    def through(self, window: Sequence[int], strides: Sequence[int], padding: Any) -> "Fields":
        """Return the fields of windows over the maps."""
        return Fields(
            self.rows.through(window[0], strides[0], padding[0]),
            self.columns.through(window[1], strides[1], padding[1]),
        )

    def box(self, position: Sequence[int]) -> tuple[int, int, int, int]:
        """Return `(top, left, bottom, right)` of a neuron, or of all channels at a position."""
        if len(self.shape) == 2:
            row = column = (slice(None) if len(position) == 0 else position[0],)
        else:
            channel = position[2] if len(position) == 3 else slice(None)
            row, column = (position[0], channel), (position[1], channel)
        top, bottom = self.rows.low[row].min(), self.rows.high[row].max()
        left, right = self.columns.low[column].min(), self.columns.high[column].max()
        if top >= bottom or left >= right:  # padding alone
            return 0, 0, 0, 0
        return int(top), int(left), int(bottom), int(right)


def _seen(x: Any) -> Fields:
    """Return the fields of a value; that of a pixel of the image is the pixel."""
    if isinstance(x, Fields):
        return x
    rows, columns = (np.arange(side, dtype=np.int64)[:, None] for side in x.shape[1:3])
    return Fields(Span(rows, rows + 1).times(x.shape[3]), Span(columns, columns + 1).times(x.shape[3]))


def _exact_linear(x: Any, kernel: Any, *_: Any, **__: Any) -> Fields:
    x = _seen(x)
    return Fields(x.rows.over(-1).times(kernel.shape[-1]), x.columns.over(-1).times(kernel.shape[-1]))


def _exact_conv(x: Any, kernel: Any, *_: Any, strides: Any, padding: Any, **__: Any) -> Fields:
    x = _seen(x)
    one = Fields(x.rows.over(-1), x.columns.over(-1))  # windows of one channel are cheaper
    return _exact_linear(one.through(kernel.shape[:2], strides, padding), kernel)


def _exact_pool(x: Any, *, window: Any, strides: Any, padding: Any = ((0, 0), (0, 0))) -> Fields:
    return _seen(x).through(window, strides, padding)


def _exact_mean(x: Any, *, size: tuple[int, int]) -> Fields:
    x = _seen(x)
    return Fields(x.rows.binned(size[0]), x.columns.binned(size[1]))


def _exact_add(x: Any, y: Any) -> Fields:
    def union(a: Span, b: Span) -> Span:
        return Span(np.minimum(a.low, b.low), np.maximum(a.high, b.high))

    x, y = _seen(x), _seen(y)
    return Fields(union(x.rows, y.rows), union(x.columns, y.columns))


def _exact_concatenation(xs: Sequence[Any]) -> Fields:
    def joined(spans: list[Span]) -> Span:
        return Span(*(np.concatenate(values, axis=-1) for values in zip(*spans, strict=True)))

    seen = [_seen(x) for x in xs]
    return Fields(joined([x.rows for x in seen]), joined([x.columns for x in seen]))


def _exact_other(function: Any, x: Any, *more: Any, name: str, linear: bool, elementwise: bool) -> Fields:
    del function, linear
    if not elementwise or more:
        raise TypeError(f"the receptive field of {name} is not known")
    return _seen(x)


_exact = Ops(
    standardize=lambda images, how: images,
    conv=_exact_conv,
    linear=_exact_linear,
    batch_norm=lambda x, *_, **__: _seen(x),
    relu=_seen,
    max_pool=_exact_pool,
    mean_pool=_exact_pool,
    adaptive_mean_pool=_exact_mean,
    add=_exact_add,
    concatenate=_exact_concatenation,
    other=_exact_other,
)


def fields(net: Network, layer: str, image_size: tuple[int, int]) -> Fields:
    """Return the receptive field of every neuron of a layer; arguments and errors as for `receptive_field`.

    >>> import jax, vizsynth
    >>> net = vizsynth.models.vgg16(num_classes=None, key=jax.random.key(0))
    >>> fields(net, "relu1_2", (32, 32)).rows.high[:4, 0]
    array([3, 4, 5, 6])
    """
    net = as_network(net)
    size = _checked_size(image_size)
    # Traced first: this raises for an unknown layer, or images that are too small.
    shape = shapes(net, jax.ShapeDtypeStruct((1, *size, 3), jnp.float32), (layer,))[layer].shape
    past = f"receptive fields are counted through `ops`, but this network computes {layer} past the table"
    try:
        found = _counted(net, layer, jnp.zeros((1, *size, 3)), _exact)
    except (TypeError, AttributeError) as error:
        raise TypeError(f"{past} ({error})") from error
    if not isinstance(found, Fields) or found.shape != tuple(shape):
        raise TypeError(past)
    return found


def receptive_field(
    net: Network, layer: str, position: Sequence[int], image_size: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Return the receptive field of a neuron: the smallest rectangle of all pixels that can change it.

    After a window of k positions, stride s and padding p, the field of neuron i is the union of those of
    neurons i·s − p .. i·s − p + k − 1 before it.

    Args:
        position: `(row, column)` in the layer's maps, for all channels together, or `(row, column, channel)`:
            channels differ if branches of different windows are concatenated (SqueezeNet's fires). In a
            layer without maps, `()` or `(channel,)`.
        image_size: height and width of the images, in pixels.

    Returns:
        `(top, left, bottom, right)` in pixels, half open, cut at the image's border: the field is
        `image[top:bottom, left:right]`. All four are 0 if the neuron depends on padding alone.

    Raises:
        ValueError: a position outside the maps; images too small for the network.
        TypeError: a network that computes the layer past the table `ops`.

    Example:
        >>> import jax, vizsynth
        >>> net = vizsynth.models.vgg16(num_classes=None, key=jax.random.key(0))
        >>> vizsynth.receptive_field(net, "relu2_2", (10, 0), (64, 64))
        (14, 0, 28, 8)
    """
    found = fields(net, layer, image_size)
    return found.box(_checked_position(position, found.shape[1:], layer))


def _checked_size(image_size: Any) -> tuple[int, int]:
    size = tuple(image_size) if isinstance(image_size, Sequence | np.ndarray) else ()
    if len(size) != 2 or not all(isinstance(side, int | np.integer) and side > 0 for side in size):
        raise ValueError(f"image_size must be (height, width) in pixels, not {image_size!r}")
    return int(size[0]), int(size[1])


def _checked_position(position: Any, shape: tuple[int, ...], layer: str) -> tuple[int, ...]:
    at = tuple(position) if isinstance(position, Sequence | np.ndarray) else None
    legal = "(row, column) or (row, column, channel)" if len(shape) == 3 else "() or (channel,)"
    size = "x".join(map(str, shape))
    if at is None or len(at) not in ((2, 3) if len(shape) == 3 else (0, 1)):
        raise ValueError(f"a position in {layer} ({size}) must be {legal}, not {position!r}")
    if not all(isinstance(i, int | np.integer) for i in at):
        raise ValueError(f"a position in {layer} ({size}) must be whole numbers, not {position!r}")
    if not all(0 <= i < side for i, side in zip(at, shape, strict=False)):
        raise ValueError(f"{layer} is {size} for these images: there is no position {tuple(map(int, at))}")
    return tuple(int(i) for i in at)
