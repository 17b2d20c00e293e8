"""How much of an image a neuron sees.

A network is run on intervals in place of activations, through tables of `ops` that count: one carries the
size of what a layer's neurons see wherever the image's border is far, the other the exact pixels of every row
and column of every layer, for images of a given size. Padding, odd sizes, strides, the branches of a block
and the bins of an adaptive mean are then counted as the network has them.

Araujo, Norris & Sim, Computing Receptive Fields of Convolutional Neural Networks, 2019, derives closed forms
of the recurrence; here it is followed window by window.
"""

import math
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
    """The layer has been reached: what lies behind it need not be counted."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _counted(net: Network, layer: str, images: Any, ops: Ops) -> Any:
    """Return what a table of arithmetic makes of a layer; None if the network does not reach it."""

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
    """What each neuron of a layer sees: so many pixels, neighbours so many apart."""

    rows: float = 1.0
    columns: float = 1.0
    row_step: float = 1.0
    column_step: float = 1.0

    shape = (1, 1, 1, 1)

    def astype(self, dtype: Any) -> "_Field":
        del dtype
        return self

    def reshape(self, *shape: Any) -> "_Field":
        del shape
        return self

    def through(self, window: tuple[int, int], strides: tuple[int, int]) -> "_Field":
        return _Field(
            self.rows + (window[0] - 1) * self.row_step,
            self.columns + (window[1] - 1) * self.column_step,
            self.row_step * strides[0],
            self.column_step * strides[1],
        )


def _wider(*fields: _Field) -> _Field:
    return _Field(
        max(f.rows for f in fields),
        max(f.columns for f in fields),
        max(f.row_step for f in fields),
        max(f.column_step for f in fields),
    )


def _of(x: Any) -> _Field:
    """Return what a value's neurons see; a pixel sees itself."""
    return x if isinstance(x, _Field) else _Field()


def _same(x: Any, *_: Any, **__: Any) -> _Field:
    return _of(x)


def _all_of_it(x: Any, *_: Any, **__: Any) -> _Field:
    return _Field(math.inf, math.inf, _of(x).row_step, _of(x).column_step)


def _pool(x: Any, *, window: tuple[int, int], strides: tuple[int, int], padding: Any = None) -> _Field:
    del padding
    return _of(x).through(window, strides)


def _count_other(function: Any, *xs: Any, name: str, linear: bool, elementwise: bool) -> _Field:
    del function, linear
    if not elementwise:
        raise TypeError(f"it is not known what {name} sees")
    return _wider(*map(_of, xs))


_counting = Ops(
    standardize=lambda images, how: images,
    conv=lambda x, kernel, bias, *, strides, padding, name: _of(x).through(kernel.shape[:2], strides),
    linear=_all_of_it,
    batch_norm=_same,
    relu=_same,
    max_pool=_pool,
    mean_pool=_pool,
    adaptive_mean_pool=_all_of_it,
    add=lambda x, y: _wider(_of(x), _of(y)),
    concatenate=lambda xs: _wider(*map(_of, xs)),
    other=_count_other,
)


def field_size(net: Network, layer: str) -> tuple[float, float]:
    """Return how many rows and columns of pixels a neuron of a layer sees, borders aside.

    >>> import jax, vizsynth
    >>> net = vizsynth.models.vgg16(num_classes=None, key=jax.random.key(0))
    >>> field_size(net, "relu1_1"), field_size(net, "relu5_1")
    ((3.0, 3.0), (132.0, 132.0))
    """
    known = layer in getattr(net, "layers", (layer,))
    size = getattr(net, "example_size", (1, 1))  # a traced program has a size
    field = _counted(net, layer, jnp.zeros((1, *size, 3)), _counting) if known else None
    if field is None:
        raise ValueError(f"the network has no layer {layer!r}")
    return field.rows, field.columns


# Pixels, at every position -----------------------------------------------------------

_NOWHERE = np.iinfo(np.int64).max  # where an empty interval begins; it ends at 0


class Span(NamedTuple):
    """Half-open intervals `low` .. `high` of pixels along one axis of the image.

    Of maps they are `[positions, channels]`; of a vector, `[features]`. What sees padding alone has an
    interval that ends before it begins.
    """

    low: Int[np.ndarray, "..."]
    high: Int[np.ndarray, "..."]

    def over(self, axis: int) -> "Span":
        """Return the least intervals that hold all those along an axis, which is kept."""
        return Span(self.low.min(axis=axis, keepdims=True), self.high.max(axis=axis, keepdims=True))

    def through(self, window: int, stride: int, padding: Sequence[int]) -> "Span":
        """Return what windows over the positions see."""

        def windows(values: np.ndarray, nothing: int) -> np.ndarray:
            padded = np.pad(values, (tuple(padding), (0, 0)), constant_values=nothing)
            return sliding_window_view(padded, window, axis=0)[::stride]

        return Span(windows(self.low, _NOWHERE).min(axis=-1), windows(self.high, 0).max(axis=-1))

    def binned(self, bins: int) -> "Span":
        """Return what the bins of an adaptive mean see, ⌊i·size/bins⌋ .. ⌈(i+1)·size/bins⌉."""
        size = len(self.low)
        if size == bins:
            return self
        parts = [slice(i * size // bins, -(-(i + 1) * size // bins)) for i in range(bins)]
        return Span(
            np.stack([self.low[part].min(axis=0) for part in parts]),
            np.stack([self.high[part].max(axis=0) for part in parts]),
        )

    def without(self, nothing: Any) -> "Span":
        """Return the intervals, emptied where so marked."""
        return Span(np.where(nothing, _NOWHERE, self.low), np.where(nothing, 0, self.high))

    def times(self, channels: int) -> "Span":
        """Return as many channels, all alike, where there was one."""
        return Span(*(np.broadcast_to(values, (*values.shape[:-1], channels)) for values in self))


@dataclass(frozen=True)
class Fields:
    """The pixels that each neuron of a layer sees: rows for each row, columns for each column.

    What a neuron sees is a rectangle (less the gaps that a stride larger than its window leaves); of the
    branches of a block it is the least that holds theirs. Channels differ where branches are concatenated.
    """

    rows: Span
    columns: Span

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the layer for one image, `(1, h, w, c)` or `(1, c)`."""
        if self.rows.low.ndim == 1:
            return (1, len(self.rows.low))
        return (1, len(self.rows.low), *self.columns.low.shape)

    def astype(self, dtype: Any) -> "Fields":
        """Return the same: there is no precision."""
        del dtype
        return self

    def reshape(self, *shape: Any) -> "Fields":
        """Return the neurons in a row, as networks flatten what goes into a matrix."""
        if shape != (1, -1):
            raise TypeError(f"it is counted through reshape(n, -1), not through reshape{shape}")
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
        """Return what windows over the maps see."""
        return Fields(
            self.rows.through(window[0], strides[0], padding[0]),
            self.columns.through(window[1], strides[1], padding[1]),
        )

    def box(self, position: Sequence[int]) -> tuple[int, int, int, int]:
        """Return `(top, left, bottom, right)` of the neuron, or of all channels, at a position."""
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
    """Return what a value's neurons see; of an image, a pixel sees itself."""
    if isinstance(x, Fields):
        return x
    rows, columns = (np.arange(side, dtype=np.int64)[:, None] for side in x.shape[1:3])
    return Fields(Span(rows, rows + 1).times(x.shape[3]), Span(columns, columns + 1).times(x.shape[3]))


def _exact_conv(x: Any, kernel: Any, bias: Any, *, strides: Any, padding: Any, name: str) -> Fields:
    del bias, name
    x = _seen(x)
    seen = Fields(x.rows.over(-1), x.columns.over(-1)).through(kernel.shape[:2], strides, padding)
    return Fields(seen.rows.times(kernel.shape[-1]), seen.columns.times(kernel.shape[-1]))


def _exact_linear(x: Any, kernel: Any, bias: Any, *, name: str) -> Fields:
    del bias, name
    x = _seen(x)
    return Fields(x.rows.over(-1).times(kernel.shape[-1]), x.columns.over(-1).times(kernel.shape[-1]))


def _exact_pool(x: Any, *, window: Any, strides: Any, padding: Any = ((0, 0), (0, 0))) -> Fields:
    return _seen(x).through(window, strides, padding)


def _exact_mean(x: Any, *, size: tuple[int, int]) -> Fields:
    x = _seen(x)
    return Fields(x.rows.binned(size[0]), x.columns.binned(size[1]))


def _unchanged(x: Any, *_: Any, **__: Any) -> Fields:
    return _seen(x)


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
        raise TypeError(f"it is not known what {name} sees")
    return _seen(x)


_exact = Ops(
    standardize=lambda images, how: images,
    conv=_exact_conv,
    linear=_exact_linear,
    batch_norm=_unchanged,
    relu=_unchanged,
    max_pool=_exact_pool,
    mean_pool=_exact_pool,
    adaptive_mean_pool=_exact_mean,
    add=_exact_add,
    concatenate=_exact_concatenation,
    other=_exact_other,
)


def fields(net: Network, layer: str, image_size: tuple[int, int]) -> Fields:
    """Return the pixels that every neuron of a layer sees; arguments and errors as for `receptive_field`.

    >>> import jax, vizsynth
    >>> net = vizsynth.models.vgg16(num_classes=None, key=jax.random.key(0))
    >>> fields(net, "relu1_2", (32, 32)).rows.high[:4, 0]
    array([3, 4, 5, 6])
    """
    net = as_network(net)
    size = _checked_size(image_size)
    # Traced first: it is what says that a layer is unknown, or that the images are too small.
    shape = shapes(net, jax.ShapeDtypeStruct((1, *size, 3), jnp.float32), (layer,))[layer].shape
    try:
        found = _counted(net, layer, jnp.zeros((1, *size, 3)), _exact)
    except (TypeError, AttributeError) as error:
        raise TypeError(
            f"what neurons of {layer} see is counted through the table `ops`, and this network computes it "
            f"by other means ({error})"
        ) from error
    if not isinstance(found, Fields) or found.shape != tuple(shape):
        raise TypeError(f"what neurons of {layer} see cannot be counted: it is computed past the table `ops`")
    return found


def receptive_field(
    net: Network, layer: str, position: Sequence[int], image_size: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Return the pixels that can change a neuron: the least rectangle that holds them all.

    Through a window of k positions, s apart and p of padding before the first, neuron i sees what the
    neurons i·s − p .. i·s − p + k − 1 below it see together.

    Args:
        net: a network.
        layer: the name of a layer (`net.layers` lists them).
        position: `(row, column)` in the layer's maps: of all channels there; `(row, column, channel)`: of
            one, which differs where branches of different windows are concatenated (SqueezeNet's fires).
            Of a layer without maps, `()` or `(channel,)`.
        image_size: the height and width of the images, in pixels.

    Returns:
        `(top, left, bottom, right)` in pixels, half open, cut at the image's border: `image[top:bottom,
        left:right]` is what the neuron sees. All four are 0 for a neuron that sees padding alone.

    Raises:
        ValueError: a layer that the network does not have; a position outside its maps; images that are too
            small for the network.
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
        raise ValueError(f"a position in {layer} ({size}) is {legal}, not {position!r}")
    if not all(isinstance(i, int | np.integer) for i in at):
        raise ValueError(f"a position in {layer} ({size}) is whole numbers, not {position!r}")
    if not all(0 <= i < side for i, side in zip(at, shape, strict=False)):
        raise ValueError(f"{layer} is {size} for these images: there is no position {tuple(map(int, at))}")
    return tuple(int(i) for i in at)
