"""Sheets of what inspection finds: filters, activations, patches, neighbours; pictures from arrays.

Small tiles are enlarged by repeating their pixels, so that a weight or an activation stays a square.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Bool, Int

from vizsynth.figures import Picture, as_picture, caption, frame, grid, heat, sheet
from vizsynth.images import resize

_MARGIN = 14
_DEAD, _CONSTANT, _MARK = 0.0, 0.35, 0.9
_SAME, _OTHER = (0.2, 0.65, 0.3), (0.85, 0.15, 0.15)
Box = Sequence[int] | Int[np.ndarray, " 4"]


def fitted(picture: ArrayLike, side: int) -> Picture:
    """Bring a picture near a side: each pixel repeated where it is smaller, resized where it is larger.

    >>> fitted(np.zeros((3, 3, 3)), 10).shape
    (9, 9, 3)
    """
    pixels = as_picture(picture)
    longest = max(pixels.shape[:2])
    if longest > side:
        h, w = (max(1, round(n * side / longest)) for n in pixels.shape[:2])
        return np.clip(np.asarray(resize(jnp.asarray(pixels), (h, w))), 0, 1)
    factor = max(1, round(side / longest))
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)


def filter_sheet(pictures: ArrayLike, *, side: int = 36, columns: int | None = None) -> Picture:
    """Tile filters in a square, or in columns.

    Args:
        pictures: `[n, h, w, 3]`, or grey `[n, h, w]`.
        side: about how many pixels a tile has.
        columns: by default as many as rows.

    >>> filter_sheet(np.zeros((4, 3, 3, 3)), side=9).shape
    (20, 20, 3)
    """
    return grid([fitted(tile, side) for tile in np.asarray(pictures)], columns=columns)


def activation_sheet(
    values: ArrayLike,
    dead: Any,
    constant: Any,
    *,
    columns: int = 16,
    side: int = 48,
    colormap: str = "viridis",
) -> Picture:
    """Tile the channels of a layer for one image; dead ones are black and crossed, constant ones struck.

    Args:
        values: `Tiles.values` of an image, `[c, h, w]` in [0, 1].
        dead: which channels are 0 everywhere.
        constant: which are the same everywhere.
        columns: how many stand in a row.
        side: about how many pixels a tile has.
        colormap: of matplotlib's.

    >>> activation_sheet(np.zeros((20, 6, 6)), np.zeros(20, bool), np.zeros(20, bool), side=12).shape
    (25, 207, 3)
    """
    cells = []
    for tile, is_dead, is_constant in zip(np.asarray(values), dead, constant, strict=True):
        colored = fitted(heat(tile, colormap=colormap, low=0, high=1), side)
        cells.append(_marked(colored.shape[:2], bool(is_dead)) if is_dead or is_constant else colored)
    return grid(cells, columns=min(columns, len(cells)), pad=1)


def raw_activation_sheet(
    activations: ArrayLike, *, channels: int = 32, columns: int = 4, side: int = 64
) -> Picture:
    """Tile the first channels of a layer, each from its least to its largest value; eight rows of four.

    >>> raw_activation_sheet(np.zeros((6, 6, 40)), side=6).shape
    (55, 27, 3)
    """
    cells = []
    for channel in np.asarray(activations)[..., :channels].transpose(2, 0, 1):
        low, high = float(channel.min()), float(channel.max())
        shape = fitted(channel * 0, side).shape[:2]
        flat = low == high
        cells.append(
            _marked(shape, high == 0) if flat else fitted(heat((channel - low) / (high - low), high=1), side)
        )
    return grid(cells, columns=min(columns, len(cells)), pad=1)


def _marked(shape: tuple[int, ...], dead: bool) -> Picture:
    """Return a tile that says that there is nothing to see: struck, and crossed if dead."""
    h, w = shape[0], shape[1]
    tile = np.full((h, w), _DEAD if dead else _CONSTANT, np.float32)
    steps = np.linspace(0, 1, 4 * max(h, w))
    rows, left = np.round(steps * (h - 1)).astype(int), np.round(steps * (w - 1)).astype(int)
    tile[rows, left] = _MARK
    if dead:
        tile[rows, w - 1 - left] = _MARK
    return as_picture(tile)


def cut(
    image: ArrayLike, box: Box, size: tuple[int, int] | None = None, *, background: float = 1.0
) -> Picture:
    """Cut a box out of an image, and set it where it would lie in one of the whole size.

    What a neuron sees is cut at the image's border: the missing part is background, on that side.

    >>> cut(np.zeros((8, 8, 3)), (0, 5, 3, 8), (4, 3)).mean(axis=(1, 2)).tolist()
    [1.0, 0.0, 0.0, 0.0]
    """
    picture = as_picture(image)
    top, left, bottom, right = (int(n) for n in box)
    piece = picture[top:bottom, left:right]
    if size is None:
        return piece
    pads = []
    for whole, begin, end, length in zip(size, (top, left), (bottom, right), picture.shape[:2], strict=True):
        missing = max(0, whole - (end - begin))
        at_begin, at_end = begin == 0, end == length
        before = missing // 2 if at_begin == at_end else missing if at_begin else 0
        pads.append((before, missing - before))
    return np.pad(piece, (*pads, (0, 0)), constant_values=background)


def relief(gradient: ArrayLike, *, percentile: float = 99.0) -> Picture:
    """Show a signed map in colours, ½ + ½ R / r: grey where it is 0.

    r is a percentile of |R| where R is not 0: a few pixels many times the rest would leave all else grey.

    >>> relief(np.zeros((2, 2, 3)))[0, 0].tolist()
    [0.5, 0.5, 0.5]
    """
    values = np.asarray(gradient, np.float32)
    there = np.abs(values[values != 0])
    limit = np.percentile(there, percentile) if there.size else 1
    return as_picture(0.5 + 0.5 * np.clip(values / limit, -1, 1))


def patch_sheet(
    channels: Mapping[int, Sequence[tuple[ArrayLike, Box]]],
    *,
    notes: Mapping[int, str],
    maps: Callable[[int, int], ArrayLike] | None = None,
    side: int = 48,
    columns: int = 2,
) -> Picture:
    """Set the strongest patches of channels in squares, and what guided backpropagation makes of them beside.

    Args:
        channels: for each channel its images and boxes, the strongest first.
        notes: what stands under each channel.
        maps: `maps(channel, place)` is the signed map of an image, `[h, w, 3]`; None shows patches alone.
        side: about how many pixels a patch has.
        columns: how many channels stand side by side.

    >>> channels = {3: [(np.zeros((8, 8, 3)), (0, 0, 4, 4))]}
    >>> patch_sheet(channels, notes={3: "channel 3"}, side=8, columns=1).shape[2]
    3
    """
    cells = []
    for channel, found in channels.items():
        across = max(1, math.ceil(math.sqrt(len(found))))
        size = (
            max((int(box[2]) - int(box[0]) for _, box in found), default=1),
            max((int(box[3]) - int(box[1]) for _, box in found), default=1),
        )
        block = [cut(image, box, size) for image, box in found]
        blocks = [block]
        if maps is not None:  # what a neuron does not see is 0 in its map: the scale is that of the box
            reliefs = [relief(maps(channel, place)) for place in range(len(found))]
            boxes = [box for _, box in found]
            blocks.append([cut(r, box, size) for r, box in zip(reliefs, boxes, strict=True)])
        empty = [np.ones((*size, 3))]
        grids = [grid([fitted(p, side) for p in b or empty], columns=across) for b in blocks]
        cells.append(caption(grid(grids, columns=len(grids), pad=6), notes[channel]))
    height = max(cell.shape[0] for cell in cells)
    width = max(cell.shape[1] for cell in cells)
    cells = [
        np.pad(c, ((0, height - c.shape[0]), (0, width - c.shape[1]), (0, 0)), constant_values=1)
        for c in cells
    ]
    sheet = grid(cells, columns=columns, pad=_MARGIN)
    return np.pad(sheet, ((_MARGIN, _MARGIN), (_MARGIN, _MARGIN), (0, 0)), constant_values=1)


def neighbor_sheet(
    queries: Sequence[ArrayLike],
    found: Mapping[str, Sequence[Sequence[ArrayLike]]],
    same: Mapping[str, Bool[np.ndarray, "q k"]] | None = None,
    *,
    title: str | None = None,
) -> Picture:
    """Set each query beside its neighbors: a row a query, what they were found by from left to right.

    Args:
        queries: q pictures.
        found: by what they were found, and for each query the pictures of its k neighbors.
        same: whether each neighbor is of its query's class: a green frame if so, else a red one; None draws
            no frames.
        title: above all.

    >>> rows = [[np.zeros((8, 8))] * 2] * 3
    >>> neighbor_sheet([np.zeros((8, 8))] * 3, {"a layer": rows, "pixels": rows}).shape[2]
    3
    """
    table: list[list[ArrayLike | None]] = []
    for i, query in enumerate(queries):
        row: list[ArrayLike | None] = [query]
        for by, pictures in found.items():
            kinds = None if same is None else same[by][i].tolist()
            row += [None, *(pictures[i] if kinds is None else map(_framed, pictures[i], kinds))]
        table.append(row)
    counts = {by: len(pictures[0]) for by, pictures in found.items()}
    heads = ["query"] + [text for by, k in counts.items() for text in ("", f"by {by}", *[""] * (k - 1))]
    return sheet(table, column_labels=heads, title=title, pad=4)


def _framed(picture: ArrayLike, same: bool) -> Picture:
    return frame(picture, _SAME if same else _OTHER)


def laid_out(images: Sequence[ArrayLike], cells: Int[np.ndarray, "n 2"], *, pad: int = 2) -> Picture:
    """Set pictures of one size into the cells of a grid, `(row, column)` each; other cells stay white.

    >>> laid_out([np.zeros((4, 4))] * 2, np.array([[0, 0], [1, 2]])).shape
    (10, 16, 3)
    """
    pictures = np.stack([as_picture(image) for image in images])
    rows, columns = cells.max(axis=0) + 1
    board = np.ones((rows * columns, *pictures.shape[1:]), np.float32)
    board[cells[:, 0] * columns + cells[:, 1]] = pictures
    return grid(board, columns=int(columns), pad=pad)
