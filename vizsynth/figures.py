"""Arrays to pictures: colour maps, overlays, grids, labelled sheets, shared scales.

Pictures are NumPy float32 `[h, w, 3]` in [0, 1]. Arguments may be NumPy or JAX arrays. These functions run on
the host; nothing is traced.
"""

import difflib
import math
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import TypeAlias

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont

from vizsynth.core.texts import printable
from vizsynth.images import upsample

Picture: TypeAlias = Float[np.ndarray, "h w 3"]

_INK = 0.2  # dark grey
_PAPER = 1.0

# Blue, white, red: white exactly at zero, ends about equally dark.
_DIVERGING = np.asarray(
    [(0.03, 0.19, 0.50), (0.35, 0.60, 0.86), (1, 1, 1), (0.93, 0.46, 0.36), (0.58, 0.03, 0.10)]
)

# Pillow's own font has ASCII and little else.
_GLYPHS = frozenset("…°±·“”‘’")
_SPELLINGS = {
    "×": "x", "−": "-", "–": "-", "—": "-", "÷": "/", "≤": "<=", "≥": ">=", "≈": "~", "∞": "inf",
    "→": "->", "←": "<-", "∈": "in", "‖": "||", "²": "^2", "³": "^3", "√": "sqrt ", "µ": "u",
    "∑": "sum ", "•": "*", "ß": "ss", "ø": "o",
}  # fmt: skip


def as_picture(image: ArrayLike) -> Picture:
    """Return one picture as float32 `[h, w, 3]` in [0, 1].

    Args:
        image: `[h, w, 3]` or grey `[h, w]`; float in [0, 1] (clipped to it), or uint8.

    Raises:
        TypeError: another dtype.
        ValueError: another shape; NaN or infinity; floats that look like 0..255.

    >>> import numpy as np
    >>> as_picture(np.full((2, 2), 255, np.uint8))[0, 0].tolist()
    [1.0, 1.0, 1.0]
    """
    if not hasattr(image, "dtype"):
        image = np.asarray(image)
    shape = tuple(np.shape(image))
    if not (len(shape) == 2 or (len(shape) == 3 and shape[-1] == 3)) or 0 in shape:
        hint = ""
        if len(shape) == 4:
            hint = "; give one image of the batch (image[0]), or tile them (vizsynth.figures.grid)"
        elif len(shape) == 3 and shape[0] == 3:
            hint = "; it looks like [3, h, w]: give image.transpose(1, 2, 0)"
        elif len(shape) == 3 and shape[-1] == 1:
            hint = "; give image[..., 0]"
        raise ValueError(f"a picture must be [h, w, 3] or [h, w], not {shape}{hint}")
    if image.dtype == np.uint8:  # type: ignore[union-attr]
        pixels = np.asarray(image).astype(np.float32) / 255
    elif jnp.issubdtype(image.dtype, jnp.floating):  # type: ignore[union-attr]
        pixels = _finite(image, "picture")
        if pixels.min() >= 0 and pixels.max() > 2:
            raise ValueError(
                f"a picture must lie in [0, 1]; this one reaches {pixels.max():.4g} and looks like "
                "0..255: give image / 255"
            )
    else:
        raise TypeError(
            f"a picture must be float in [0, 1] or uint8, not {image.dtype}; "  # type: ignore[union-attr]
            "give image.astype('uint8') if it is 0..255"
        )
    pixels = np.clip(pixels, 0, 1)
    return np.repeat(pixels[..., None], 3, axis=-1) if pixels.ndim == 2 else pixels


def heat(
    heatmap: ArrayLike,
    *,
    colormap: str = "viridis",
    low: ArrayLike | None = None,
    high: ArrayLike | None = None,
) -> Picture:
    """Color an unsigned map by a colour map from `low` to `high`; for signed maps take `signed`.

    Values outside are clipped; zeros have the first colour.

    Args:
        heatmap: `[h, w]`.
        colormap: the name of a matplotlib colour map ("viridis", "jet", "gray", ...).
        low: by default 0.
        high: by default the largest value; `shared_range` puts several maps on one scale.

    Raises:
        ValueError: another shape; NaN or infinity; high not above low; an unknown colour map.
        ModuleNotFoundError: matplotlib is not installed.

    >>> import numpy as np
    >>> heat(np.eye(4), colormap="gray")[0, 0].tolist()
    [1.0, 1.0, 1.0]
    """
    values = _map(heatmap)
    return _colors(_scale(values, low, high, values), colormap)


def signed(heatmap: ArrayLike, *, limit: ArrayLike | None = None) -> Picture:
    """Color a signed map: red above zero, white at zero, blue below, symmetric around zero.

    Args:
        heatmap: `[h, w]`, or `[h, w, 3]`, whose channels are summed: the total stays.
        limit: the absolute value of the end colours; by default the map's largest. `shared_limit` puts
            several maps on one scale.

    Raises:
        ValueError: another shape; NaN or infinity; a limit that is not positive.

    >>> import numpy as np
    >>> signed(np.zeros((2, 2)))[0, 0].tolist()
    [1.0, 1.0, 1.0]
    """
    values = _signed_map(heatmap)
    end = float(np.abs(values).max()) if limit is None else _number(limit, "limit")
    if limit is not None and end <= 0:
        raise ValueError(f"limit must be above 0, not {end:g}; shared_limit gives one")
    at = np.clip(values / end, -1, 1) if end > 0 else np.zeros_like(values)
    anchors = np.linspace(-1, 1, len(_DIVERGING))
    return np.stack([np.interp(at, anchors, c) for c in _DIVERGING.T], axis=-1).astype(np.float32)


def overlay(
    image: ArrayLike,
    heatmap: ArrayLike,
    *,
    alpha: ArrayLike = 0.4,
    colormap: str = "jet",
    low: ArrayLike | None = None,
    high: ArrayLike | None = None,
) -> Picture:
    """Blend a coloured map into its image: (1 − α) image + α heat(map).

    The values are first resized to the image (linearly, pixels as areas), then coloured. A common recipe adds
    0.4 heat(map) to the image and rescales the sum, which brightens everything; this blend does not.

    Args:
        image: as for `as_picture`.
        heatmap: `[h', w']` at any resolution.
        alpha: 0 shows the image, 1 the map.
        colormap: the name of a matplotlib colour map.
        low: by default 0.
        high: by default the largest value of the map before resizing.

    Raises:
        ValueError: as `heat`; alpha outside [0, 1].
        ModuleNotFoundError: matplotlib is not installed.

    >>> import numpy as np
    >>> overlay(np.ones((8, 8, 3)), np.eye(2)).shape
    (8, 8, 3)
    """
    picture = as_picture(image)
    weight = np.float32(_number(alpha, "alpha"))
    if not 0 <= weight <= 1:
        raise ValueError(f"alpha must lie in [0, 1], not {weight:g}")
    values = _map(heatmap)
    height, width = picture.shape[:2]
    resized = np.asarray(upsample(jnp.asarray(values), (height, width)))
    colors = _colors(_scale(resized, low, high, values), colormap)
    return np.clip((1 - weight) * picture + weight * colors, 0, 1)


def stretch(
    image: ArrayLike,
    *,
    center: ArrayLike | tuple[float, float, float] = (0.485, 0.456, 0.406),
    percentile: float = 99.5,
) -> Picture:
    """Show the difference of an image from a colour: grey at 0, black and white at the largest differences.

    It makes pictures visible that an optimization keeps near the mean colour.

    Args:
        image: `[h, w, 3]` in [0, 1].
        center: the colour that becomes grey, by default ImageNet's mean.
        percentile: the percentile of absolute differences that becomes black or white.

    Raises:
        ValueError: as `as_picture`.

    >>> import numpy as np
    >>> stretch(np.full((2, 2, 3), 0.5), center=0.5)[0, 0].tolist()
    [0.5, 0.5, 0.5]
    """
    away = as_picture(image) - np.asarray(center, np.float32)
    largest = np.percentile(np.abs(away), percentile)
    return np.clip(0.5 + 0.5 * away / (largest if largest > 0 else 1), 0, 1).astype(np.float32)


def shared_range(heatmaps: Iterable[ArrayLike]) -> tuple[float, float]:
    """Return one scale `(low, high)` for several unsigned maps: 0 and their largest value.

    Args:
        heatmaps: maps `[h, w]`, of equal or different sizes.

    Raises:
        ValueError: no map; another shape; NaN or infinity.

    >>> import numpy as np
    >>> shared_range([np.eye(2), 3 * np.eye(4)])
    (0.0, 3.0)
    """
    highest = [float(_map(heatmap).max()) for heatmap in heatmaps]
    if not highest:
        raise ValueError("shared_range needs at least one map")
    return 0.0, max(highest) if max(highest) > 0 else 1.0


def shared_limit(heatmaps: Iterable[ArrayLike]) -> float:
    """Return one `limit` for several signed maps: their largest absolute value.

    Args:
        heatmaps: maps `[h, w]` or `[h, w, 3]` (channels are summed, as in `signed`).

    Raises:
        ValueError: no map; another shape; NaN or infinity.

    >>> import numpy as np
    >>> shared_limit([np.eye(2), -3 * np.eye(4)])
    3.0
    """
    largest = [float(np.abs(_signed_map(heatmap)).max()) for heatmap in heatmaps]
    if not largest:
        raise ValueError("shared_limit needs at least one map")
    return max(largest) if max(largest) > 0 else 1.0


def clip_percentile(heatmap: ArrayLike, percent: ArrayLike = 99.0) -> Float[np.ndarray, "..."]:
    """Clip a map's magnitudes at a percentile; signs stay.

    A few pixels of a gradient are many times larger than the rest, and make a linear scale black. Clip for
    figures, not for numbers.

    Args:
        heatmap: any shape.
        percent: in (0, 100]; 100 changes nothing, nor does a percentile of 0 (in a map of few non-zero
            pixels).

    Raises:
        ValueError: percent outside (0, 100]; NaN or infinity.

    >>> import numpy as np
    >>> clip_percentile(np.asarray([[-4.0, 1.0, 2.0]]), 50)
    array([[-2.,  1.,  2.]], dtype=float32)
    """
    part = _number(percent, "percent")
    if not 0 < part <= 100:
        raise ValueError(f"percent must lie in (0, 100], not {part:g}")
    values = _finite(heatmap, "heatmap")
    bound = np.percentile(np.abs(values), part).astype(np.float32)
    return np.clip(values, -bound, bound) if bound > 0 else values


def grid(
    images: ArrayLike | Sequence[ArrayLike],
    *,
    columns: int | None = None,
    pad: int = 2,
    background: ArrayLike | tuple[float, float, float] = 1.0,
) -> Picture:
    """Tile pictures of one size, row by row.

    Args:
        images: `[n, h, w, 3]`, or a sequence of pictures (`as_picture`) of one size.
        columns: by default about as many as rows.
        pad: pixels between pictures.
        background: a grey, or an RGB colour, in [0, 1].

    Raises:
        ValueError: no picture; different sizes; fewer than one column; a negative pad.

    >>> import numpy as np
    >>> grid(np.zeros((5, 10, 10, 3)), columns=3).shape
    (22, 34, 3)
    """
    shape = getattr(images, "shape", ())
    if len(shape) == 3 and shape[-1] == 3:  # its rows would count as grey pictures
        raise ValueError(f"grid tiles several pictures, not one {tuple(shape)}; give image[None]")
    pictures = [as_picture(image) for image in images]  # type: ignore[union-attr]
    if not pictures:
        raise ValueError("grid needs at least one picture")
    sizes = sorted({picture.shape[:2] for picture in pictures})
    if len(sizes) > 1:
        raise ValueError(
            f"grid takes pictures of one size, not {', '.join(f'{h}x{w}' for h, w in sizes)}; "
            "resize them (vizsynth.images.resize), or use sheet"
        )
    columns = math.ceil(math.sqrt(len(pictures))) if columns is None else columns
    if columns < 1:
        raise ValueError(f"columns must be at least 1, not {columns}")
    _check_pad(pad)
    (h, w), n_rows = sizes[0], math.ceil(len(pictures) / columns)
    canvas = _canvas(n_rows * (h + pad) - pad, columns * (w + pad) - pad, background)
    for i, picture in enumerate(pictures):
        _paste(canvas, picture, (i // columns) * (h + pad), (i % columns) * (w + pad))
    return canvas


def sheet(
    rows: Sequence[Sequence[ArrayLike | None]],
    *,
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    captions: Sequence[str] | None = None,
    title: str | None = None,
    pad: int = 8,
    font_size: int | None = None,
) -> Picture:
    """Set pictures in labelled rows and columns, on white: one row a method, one column an image.

    Labels wrap at spaces and break at newlines. In Pillow's own font, Greek letters are spelled out (ε:
    epsilon) and accents dropped.

    Args:
        rows: pictures (`as_picture`) of any sizes, centred in their places; `None` leaves a place empty.
        row_labels: one per row, at its left.
        column_labels: one per column, above it.
        captions: one per row, at its right; for instance the range of the raw map.
        title: above the sheet.
        pad: pixels between pictures.
        font_size: the height of the letters in pixels; by default relative to the pictures.

    Raises:
        ValueError: no picture; another number of labels than rows or columns; a negative pad.

    >>> import numpy as np
    >>> picture = np.zeros((32, 32, 3))
    >>> sheet([[picture, picture]], row_labels=["gradient"], column_labels=["cat", "dog"]).shape[2]
    3
    """
    n_columns = max(map(len, rows), default=0)
    padded = [[*row, *[None] * (n_columns - len(row))] for row in rows]
    cells = [[None if cell is None else as_picture(cell) for cell in row] for row in padded]
    given = [cell for row in cells for cell in row if cell is not None]
    if not given:
        raise ValueError("sheet needs at least one picture")
    _check_pad(pad)
    _check_count(row_labels, len(cells), "row_labels", "rows")
    _check_count(captions, len(cells), "captions", "rows")
    _check_count(column_labels, n_columns, "column_labels", "columns")

    side = float(np.median([min(cell.shape[:2]) for cell in given]))
    size = int(np.clip(side / 11, 11, 28)) if font_size is None else font_size
    margin, gap = max(size, pad), max(size // 2, 4)

    heights = [max((c.shape[0] for c in row if c is not None), default=0) for row in cells]
    widths = [
        max((c.shape[1] for c in column if c is not None), default=0) for column in zip(*cells, strict=True)
    ]

    labels = [_text(t, size, 9 * size, "right") for t in row_labels or ()]
    notes = [_text(t, size * 7 // 8, 14 * size, "left") for t in captions or ()]
    for texts in (labels, notes):
        heights = [max(h, len(t)) for h, t in zip(heights, texts, strict=True)] if texts else heights
    heads = [
        _text(t, size, max(w, 4 * size), "center") for t, w in zip(column_labels or (), widths, strict=False)
    ]
    widths = [max(w, t.shape[1]) for w, t in zip(widths, heads, strict=True)] if heads else widths

    lefts = _starts(widths, pad, margin + _widest(labels, gap))
    right = lefts[-1] + widths[-1]
    banner = _text(title, size * 5 // 4, right - lefts[0], "center") if title else None
    header = max(map(len, heads)) + gap if heads else 0
    banner_height = len(banner) + gap * 2 if banner is not None else 0
    tops = _starts(heights, pad, margin + banner_height + header)

    end = right + _widest(notes, gap)
    if banner is not None:  # a long word may be wider than the pictures
        end = max(end, lefts[0] + banner.shape[1])
    canvas = _canvas(tops[-1] + heights[-1] + margin, end + margin, _PAPER)
    for i, row in enumerate(cells):
        for j, cell in enumerate(row):
            if cell is not None:
                _paste_middle(canvas, cell, tops[i], lefts[j], heights[i], widths[j])
    for label, top, height in zip(labels, tops, heights, strict=False):
        _paste_middle(canvas, label, top, lefts[0] - gap - label.shape[1], height, label.shape[1])
    for note, top, height in zip(notes, tops, heights, strict=False):
        _paste_middle(canvas, note, top, right + gap, height, note.shape[1])
    for head, left, width in zip(heads, lefts, widths, strict=False):
        _paste_middle(canvas, head, tops[0] - gap - len(head), left, len(head), width)
    if banner is not None:
        width = right - lefts[0]
        _paste_middle(canvas, banner, margin, lefts[0], len(banner), max(width, banner.shape[1]))
    return canvas


def frame(picture: ArrayLike, color: ArrayLike | tuple[float, float, float], *, width: int = 3) -> Picture:
    """Set a picture in a frame of one colour.

    Args:
        picture: as for `as_picture`.
        color: a grey, or an RGB colour, in [0, 1].
        width: of the frame, in pixels.

    Raises:
        ValueError: a negative width.

    >>> import numpy as np
    >>> frame(np.zeros((4, 6)), (1.0, 0.0, 0.0), width=2).shape
    (8, 10, 3)
    """
    _check_pad(width)
    inside = as_picture(picture)
    canvas = _canvas(inside.shape[0] + 2 * width, inside.shape[1] + 2 * width, color)
    _paste(canvas, inside, width, width)
    return canvas


def scatter(
    points: ArrayLike,
    images: ArrayLike | Sequence[ArrayLike],
    *,
    size: tuple[int, int] = (1000, 1000),
    frames: ArrayLike | None = None,
) -> Picture:
    """Set small pictures on a plane, each centred at its point.

    Later pictures cover earlier ones. The colour of a frame can show a picture's class.

    Args:
        points: `[n, 2]`: (x, y), x to the right and y upwards; their range fills the plane.
        images: n pictures (`as_picture`).
        size: height and width of the result, in pixels.
        frames: `[n, 3]` colours in [0, 1]; None draws no frames.

    Raises:
        ValueError: different numbers of points, colours and pictures; a picture larger than `size`.

    >>> import numpy as np
    >>> scatter(np.array([[0.0, 0.0], [3.0, 1.0]]), np.zeros((2, 8, 8, 3)), size=(40, 60)).shape
    (40, 60, 3)
    """
    where = _finite(points, "points")
    pictures = [as_picture(image) for image in images]  # type: ignore[union-attr]
    colors = None if frames is None else _finite(frames, "frames")
    if where.shape != (len(pictures), 2) or not pictures:
        raise ValueError(f"points must be [{len(pictures)}, 2], one per picture, not {where.shape}")
    if colors is not None and colors.shape != (len(pictures), 3):
        raise ValueError(f"frames must be [{len(pictures)}, 3], one per picture, not {colors.shape}")
    if colors is not None:
        pictures = [frame(p, color, width=2) for p, color in zip(pictures, colors, strict=True)]
    largest = [max(p.shape[axis] for p in pictures) for axis in (0, 1)]
    if largest[0] > size[0] or largest[1] > size[1]:
        raise ValueError(f"pictures of {largest[0]}x{largest[1]} do not fit into {size[0]}x{size[1]} pixels")
    low, extent = where.min(axis=0), np.ptp(where, axis=0)
    unit = np.where(extent > 0, (where - low) / np.where(extent > 0, extent, 1), 0.5)
    canvas = _canvas(*size, 1.0)
    for (x, y), picture in zip(unit, pictures, strict=True):
        room = [side - length for side, length in zip(size, picture.shape[:2], strict=True)]
        _paste(canvas, picture, round((1 - y) * room[0]), round(x * room[1]))
    return canvas


def caption(picture: ArrayLike, text: str, *, font_size: int | None = None) -> Picture:
    """Write a text under a picture, on white, wrapped to its width; a longer word widens the result.

    Args:
        picture: as for `as_picture`.
        text: it wraps at spaces and breaks at newlines.
        font_size: the height of the letters in pixels; by default relative to the picture.

    >>> import numpy as np
    >>> captioned = caption(np.zeros((64, 64, 3)), "tabby 0.37")
    >>> captioned.shape[0] > 64, captioned.shape[1]
    (True, 64)
    """
    above = as_picture(picture)
    height, width = above.shape[:2]
    size = int(np.clip(min(height, width) / 14, 11, 28)) if font_size is None else font_size
    below = _text(text, size, width, "center")
    gap = max(size // 2, 4)
    canvas = _canvas(height + gap + len(below) + gap, max(width, below.shape[1]), _PAPER)
    _paste_middle(canvas, above, 0, 0, height, canvas.shape[1])
    _paste_middle(canvas, below, height + gap, 0, len(below), canvas.shape[1])
    return canvas


def _finite(values: ArrayLike, name: str) -> Float[np.ndarray, "..."]:
    array = np.asarray(values).astype(np.float32)  # through numpy: bfloat16 as well
    wrong = array.size - int(np.isfinite(array).sum())
    if wrong:
        raise ValueError(f"the {name} holds {wrong} values that are NaN or infinite; replace them first")
    return array


def _map(heatmap: ArrayLike) -> Float[np.ndarray, "h w"]:
    values = _finite(heatmap, "heatmap")
    if values.ndim != 2 or not values.size:
        hint = "; give one map of the batch (heatmaps[0]), or show [h, w, 3] with signed"
        raise ValueError(f"a heatmap must be [h, w], not {values.shape}{hint * (values.ndim == 3)}")
    return values


def _signed_map(heatmap: ArrayLike) -> Float[np.ndarray, "h w"]:
    values = _finite(heatmap, "heatmap")
    if values.ndim == 3 and values.shape[-1] == 3:
        values = values.sum(axis=-1)
    if values.ndim != 2 or not values.size:
        hint = "; give one map of the batch (heatmaps[0])" if values.ndim > 2 else ""
        raise ValueError(f"a signed heatmap must be [h, w] or [h, w, 3], not {values.shape}{hint}")
    return values


def _number(value: ArrayLike, name: str) -> float:
    number = float(np.asarray(value))
    if not math.isfinite(number):
        raise ValueError(f"{name} must be a finite number, not {number}")
    return number


def _scale(
    values: np.ndarray, low: ArrayLike | None, high: ArrayLike | None, source: np.ndarray
) -> np.ndarray:
    """Scale values to [0, 1]; by default `low` is 0, `high` the largest value of `source`."""
    start = 0.0 if low is None else _number(low, "low")
    end = float(source.max()) if high is None else _number(high, "high")
    if end <= start:
        if high is not None:
            raise ValueError(f"high must be above low, not low={start:g}, high={end:g}")
        return np.zeros_like(values)  # no value is above `low`
    return np.clip((values.astype(np.float64) - start) / (end - start), 0, 1)


def _colors(values: np.ndarray, colormap: str) -> Picture:
    try:
        from matplotlib import colormaps  # only the tables: no figure, no backend
    except ImportError as error:
        raise ModuleNotFoundError(
            'colour maps need matplotlib: pip install "vizsynth[figures]"', name="matplotlib"
        ) from error
    if colormap not in colormaps:
        near = difflib.get_close_matches(colormap, list(colormaps), n=3)
        raise ValueError(
            f"no colour map is called {colormap!r}; "
            + (f"near names: {', '.join(near)}" if near else "viridis, jet and gray are three")
        )
    return colormaps[colormap](values)[..., :3].astype(np.float32)


def _check_pad(pad: int) -> None:
    if pad < 0:
        raise ValueError(f"pad must be 0 or more pixels, not {pad}")


def _check_count(texts: Sequence[str] | None, count: int, name: str, what: str) -> None:
    if texts is not None and len(texts) != count:
        raise ValueError(f"{name} must be one for each of the {count} {what}, not {len(texts)}")


def _canvas(
    height: int, width: int, color: ArrayLike | tuple[float, float, float]
) -> Float[np.ndarray, "h w 3"]:
    canvas = np.empty((height, width, 3), np.float32)
    canvas[:] = np.clip(np.asarray(color, np.float32), 0, 1)
    return canvas


def _paste(canvas: np.ndarray, picture: np.ndarray, top: int, left: int) -> None:
    canvas[top : top + picture.shape[0], left : left + picture.shape[1]] = picture


def _paste_middle(
    canvas: np.ndarray, picture: np.ndarray, top: int, left: int, height: int, width: int
) -> None:
    down, across = (height - picture.shape[0]) // 2, (width - picture.shape[1]) // 2
    _paste(canvas, picture, top + down, left + across)


def _starts(sizes: Sequence[int], pad: int, first: int) -> list[int]:
    return list(accumulate((size + pad for size in sizes[:-1]), initial=first))


def _widest(texts: Sequence[np.ndarray], gap: int) -> int:
    return max(text.shape[1] for text in texts) + gap if texts else 0


def _text(text: str, size: int, width: int, align: str) -> Picture:
    """Draw a text in lines of at most `width` pixels (a longer word stays whole)."""
    font = ImageFont.load_default(size=size)
    text = "".join(_spelled(letter) for letter in printable(text, keep="\n"))
    lines = [part for line in text.split("\n") for part in _broken(line, font, width)]
    # Every line has the height of the font, so that neighbouring labels share a baseline.
    ascent, descent = font.getmetrics()  # type: ignore[union-attr]
    step = ascent + descent + size // 5
    lengths = [font.getlength(line) for line in lines]
    longest = math.ceil(max(lengths)) + 1
    mask = Image.new("L", (longest, len(lines) * step - size // 5), 0)
    draw = ImageDraw.Draw(mask)
    for i, (line, length) in enumerate(zip(lines, lengths, strict=True)):
        x = {"left": 0.0, "center": (longest - length) / 2, "right": longest - length}[align]
        draw.text((x, i * step), line, fill=255, font=font)
    cover = np.asarray(mask, np.float32)[..., None] / 255
    return np.repeat(_PAPER + (_INK - _PAPER) * cover, 3, axis=-1).astype(np.float32)


def _spelled(letter: str) -> str:
    if letter.isascii() or letter in _GLYPHS:
        return letter
    if letter in _SPELLINGS:
        return _SPELLINGS[letter]
    plain = unicodedata.normalize("NFKD", letter)
    plain = "".join(part for part in plain if not unicodedata.combining(part))
    match unicodedata.name(plain, "").split() if len(plain) == 1 else []:
        case ["GREEK", case, "LETTER", *_, name]:
            return name.capitalize() if case == "CAPITAL" else name.lower()
    return plain


def _broken(line: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    lines: list[str] = []
    for word in line.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines or [""]
