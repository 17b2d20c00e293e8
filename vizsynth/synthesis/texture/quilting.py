"""Image quilting: blocks of a source, laid so that they overlap, and cut where they differ least.

Efros & Freeman, Image Quilting for Texture Synthesis and Transfer, 2001, sections 2 (synthesis) and 3
(transfer).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from vizsynth.core.chunks import check_count
from vizsynth.core.entry import as_image, entry, is_on_host
from vizsynth.images import luminance
from vizsynth.synthesis.features.pictures import Size, as_size
from vizsynth.synthesis.texture.nonparametric import (
    HIGHEST,
    Number,
    Place,
    centred,
    check_at_least_0,
    check_texture,
    check_window,
    cut,
    draw,
    near_least,
    paste,
)
from vizsynth.types import Image, Key


class Layout(NamedTuple):
    """How blocks lie in a picture: rows x cols of side b, each v pixels over those before it."""

    rows: int
    cols: int
    b: int
    v: int

    @property
    def canvas(self) -> tuple[int, int]:
        """The height and the width of all blocks together."""
        step = self.b - self.v
        return self.rows * step + self.v, self.cols * step + self.v


def layout(size: tuple[int, int], block: int, overlap: int | None) -> Layout:
    """Return as many blocks as cover a picture; by default they overlap by a sixth.

    >>> layout((24, 40), 12, None)
    Layout(rows=3, cols=4, b=12, v=2)
    """
    v = overlap or max(1, block // 6)
    rows, cols = (max(1, -(-(side - v) // (block - v))) for side in size)
    return Layout(rows, cols, block, v)


def block_errors(
    image: Float[Array, "h w c"], template: Float[Array, "b b c"], weights: Float[Array, "b b"]
) -> Float[Array, "rows cols"]:
    """Return Σ w ‖s − t‖² for each block s of an image, as one correlation: Σ w ‖s‖² − 2 w s·t + w ‖t‖².

    >>> block_errors(jnp.asarray([[[1.0], [3.0]]]), jnp.ones((1, 1, 1)), jnp.ones((1, 1))).tolist()
    [[0.0, 4.0]]
    """
    weighted = weights[..., None] * template
    squared = jnp.square(image).sum(axis=-1, keepdims=True)
    seen = jnp.concatenate([squared, image], axis=-1)[None]
    kernel = jnp.concatenate([weights[..., None], -2 * weighted], axis=-1)[..., None]
    layout = ("NHWC", "HWIO", "NHWC")
    found = lax.conv_general_dilated(
        seen, kernel, (1, 1), "VALID", dimension_numbers=layout, precision=HIGHEST
    )
    return found[0, :, :, 0] + (weighted * template).sum()


def _path_costs(e: Float[Array, "b v"]) -> Float[Array, "b v"]:
    """Return the least cost of a path from each pixel down to the last row: E_i = e_i + min E_{i+1}."""

    def up(below: Array, row: Array) -> tuple[Array, Array]:
        cost = row + _around(below).min(axis=0)
        return cost, cost

    return lax.scan(up, jnp.zeros_like(e[0]), e, reverse=True)[1]


def _around(costs: Float[Array, " v"]) -> Float[Array, "3 v"]:
    """Return what lies straight, to the left and to the right of each pixel; infinity beyond the ends."""
    wide = jnp.pad(costs, 1, constant_values=jnp.inf)
    return jnp.stack([wide[1:-1], wide[:-2], wide[2:]])


def _walked(costs: Float[Array, "b v"], row: Array, col: Array) -> Int[Array, " b"]:
    """Return the column of the path from (row, col) downwards; above, it is that column."""

    def down(at: Array, x: tuple[Array, Array]) -> tuple[Array, Array]:
        i, costs = x
        turn = jnp.asarray([0, -1, 1])[jnp.argmin(_around(costs)[:, at])]
        at = jnp.where(i > row, at + turn.astype(at.dtype), at)
        return at, at

    return lax.scan(down, col, (jnp.arange(len(costs), dtype=col.dtype), costs))[1]


def minimum_cut(
    e: Float[Array, "b b"], left: Bool[Array, ""] | bool, above: Bool[Array, ""] | bool, *, overlap: int
) -> Bool[Array, "b b"]:
    """Tell which pixels of a block are new, the cuts through its overlaps being those of the least Σ e.

    e is the squared difference from what was there. `left`, `above`: where the block overlaps. With both,
    the two cuts begin at a common pixel of the corner. The pixels of a cut are new.

    >>> e = jnp.asarray([[1.0, 0.0, 9.0], [0.0, 1.0, 9.0], [1.0, 0.0, 9.0]])
    >>> minimum_cut(e, True, False, overlap=2).astype(int).tolist()
    [[0, 1, 1], [1, 1, 1], [0, 1, 1]]
    """
    b, v = len(e), overlap
    left, above = jnp.asarray(left), jnp.asarray(above)
    down, along = _path_costs(e[:, :v]), _path_costs(e[:v].T)
    nothing, never = jnp.zeros((v, v), e.dtype), jnp.full((v, v), jnp.inf, e.dtype)
    total = jnp.where(left, down[:v], nothing) + jnp.where(above, along[:v].T, nothing)
    total = total - jnp.where(left & above, e[:v, :v], nothing)  # the common pixel, counted twice
    i, j = jnp.arange(v)[:, None], jnp.arange(v)[None, :]
    outside = (jnp.logical_not(above) & (i > 0)) | (jnp.logical_not(left) & (j > 0))
    start = jnp.argmin(jnp.where(outside, never, total)).astype(jnp.int32)
    row, col = start // v, start % v
    first_col = jnp.where(left, _walked(down, row, col), 0)
    first_row = jnp.where(above, _walked(along, col, row), 0)
    pixel = jnp.arange(b, dtype=jnp.int32)
    return (pixel[None, :] >= first_col[:, None]) & (pixel[:, None] >= first_row[None, :])


Besides = Callable[[Place], tuple[Float[Array, "rows cols"], Float[Array, ""]]]
"""What else a block at (top, left) shall be like: the error of each block of the source, and its scale."""


def _quilted(
    texture: Image,
    key: Key,
    laid: Layout,
    tolerance: Number,
    *,
    verbatim: bool,
    weight: Number = 1.0,
    besides: Besides | None = None,
) -> Float[Array, "height width 3"]:
    """Lay all blocks, in raster order; `weight` is that of the error of the overlaps."""
    b, v = laid.b, laid.v
    step = b - v
    dtype = texture.dtype
    source = centred(texture)
    rows, cols = source.shape[0] - b + 1, source.shape[1] - b + 1
    edge = jnp.arange(b) < v

    def lay(carry: tuple[Array, Array], x: tuple[Array, Array, Array]) -> tuple[tuple[Array, Array], None]:
        canvas, drawn = carry
        n, i, j = x
        left, above = j > 0, i > 0
        t = cut(canvas, (i * step, j * step), b)  # centred, and as it is
        overlaps = ((edge[None, :] & left) | (edge[:, None] & above)).astype(dtype)
        overlaps = overlaps * jnp.asarray(weight, dtype)
        errors = block_errors(source, t[..., :3], overlaps)
        scale = (overlaps * jnp.square(t[..., :3]).sum(axis=-1)).sum()
        if besides is not None:
            more, more_scale = besides((i * step, j * step))
            errors, scale = errors + more, scale + more_scale
        if not verbatim:
            row, col = drawn[n - 1]
            errors = errors.at[jnp.where(left, row, rows), col + step].set(jnp.inf, mode="drop")
            row, col = drawn[n - laid.cols]
            errors = errors.at[jnp.where(above, row + step, rows), col].set(jnp.inf, mode="drop")
        possible = near_least(errors, tolerance, scale=scale).reshape(-1)
        at = draw(jax.random.fold_in(key, n), possible)
        at = (at // cols, at % cols)
        s = cut(source, at, b)
        e = jnp.square(s - t[..., :3]).sum(axis=-1)
        new = minimum_cut(e, left, above, overlap=v)
        block = jnp.concatenate([s, cut(texture, at, b)], axis=-1)
        block = jnp.where(new[..., None], block, t)
        canvas = paste(canvas, block, (i * step, j * step))
        return (canvas, drawn.at[n].set(jnp.stack(at))), None

    count = laid.rows * laid.cols
    n = jnp.arange(count)
    begun = jnp.zeros((*laid.canvas, 6), dtype), jnp.zeros((count, 2), n.dtype)
    (canvas, _), _ = lax.scan(lay, begun, (n, n // laid.cols, n % laid.cols))
    return canvas[..., 3:]


def check_blocks(texture: Any, size: Any, block: Any, overlap: Any, tolerance: Any) -> None:
    """Raise where blocks do not fit, or overlap by nothing or by more than half."""
    check_window(texture, size, block, odd=False, name="block")
    if block < 2:
        raise ValueError(f"block must be at least 2, not {block}: blocks overlap")
    if overlap is not None:
        check_count(overlap, "overlap")
        if 2 * overlap > block:
            raise ValueError(f"overlap must be at most half the block, {block // 2}, not {overlap}")
    check_at_least_0(tolerance, "tolerance")


def _check(texture: Any, size: Any, block: Any, overlap: Any, tolerance: Any) -> None:
    check_texture(texture, size)
    check_blocks(texture, size, block, overlap, tolerance)


@entry(static=("size", "block", "overlap", "verbatim"), check=_check)
def quilt_texture(
    texture: Image,
    *,
    key: Key,
    size: Size,
    block: int = 18,
    overlap: int | None = None,
    tolerance: Number = 0.1,
    verbatim: bool = False,
) -> Float[Array, "height width 3"]:
    """Lay blocks in raster order, each drawn where Σ (s − t)² over its overlaps is ≤ (1 + tolerance) min.

    In each overlap the new block begins at the cut where Σ (s − t)² is least: E_ij = (s_ij − t_ij)² +
    min(E_{i+1,j−1}, E_{i+1,j}, E_{i+1,j+1}).

    Args:
        texture: the source, float RGB in [0, 1], `[h, w, 3]`.
        size: of the picture, `(height, width)` or its side; at least the block. What the last blocks have
            beyond it is cut off.
        block: the side of the blocks: larger than the texture's parts, much smaller than the source.
        overlap: of neighbouring blocks, at most half of one; a sixth of the block unless given.
        tolerance: of the error, relative to the least; at least 0.
        verbatim: whether a block may be the one that goes on, in the source itself, from the block at its
            left or above it. That one has no error, so that as the paper has it (`True`) no other is ever
            drawn before the source ends, and pieces as large as the source repeat.

    Returns:
        The picture `[height, width, 3]`, pixels of the source. Where a block overlaps at its left and above,
        its two cuts begin at a common pixel of the corner, that with the least sum of both. Departure:
        `verbatim=False`.

    Raises:
        TypeError, ValueError: a texture that is no image or is smaller than the block; a size below the
            block; an overlap of more than half; a negative tolerance; several keys.

    Example:
        >>> import jax, vizsynth
        >>> stripes = jax.numpy.zeros((10, 10, 3)).at[:, ::2].set(1.0)
        >>> made = vizsynth.quilt_texture(stripes, key=jax.random.key(0), size=(7, 12), block=6)
        >>> made.shape, bool((made[:, 2:] == made[:, :-2]).all())
        ((7, 12, 3), True)
    """
    shape = as_size(size)
    canvas = _quilted(texture, key, layout(shape, block, overlap), tolerance, verbatim=verbatim)
    return canvas[: shape[0], : shape[1]]


def _check_transfer(
    texture: Any, content: Any, block: Any, iterations: Any, alpha: Any, tolerance: Any
) -> None:
    size = as_image(content, name="content").shape[:2]
    check_texture(texture, size)
    check_blocks(texture, size, block, None, tolerance)
    check_count(iterations, "iterations")
    if is_on_host(alpha) and not 0 <= np.asarray(alpha) <= 1:
        raise ValueError(f"alpha must lie in [0, 1], not {alpha}")
    if (last := shrinking(block, iterations)[-1]) < _SMALLEST:
        raise ValueError(
            f"blocks of {block} are of {last} pixels in the last of {iterations} iterations, fewer than "
            f"{_SMALLEST}; give larger blocks or fewer iterations"
        )


_SMALLEST = 4


def shrinking(block: int, iterations: int) -> list[int]:
    """Return the side of the blocks in each iteration: each time less by a third.

    >>> shrinking(18, 3)
    [18, 12, 8]
    """
    return [round(block * (2 / 3) ** i) for i in range(iterations)]


def correspondence(texture: Image, content: Float[Array, "h2 w2 3"]) -> tuple[Array, Array]:
    """Return both luminances less their mean, `[h, w, 1]`, that of the content of the texture's deviation.

    >>> texture = jnp.asarray([[[0.0] * 3, [1.0] * 3]])
    >>> [found[0, :, 0].tolist() for found in correspondence(texture, texture / 4)]
    [[-0.5, 0.5], [-0.5, 0.5]]
    """
    source, target = (y - y.mean(keepdims=True) for y in (luminance(texture), luminance(content)))
    deviation = target.std()
    scale = jnp.where(deviation > 0, source.std() / jnp.where(deviation > 0, deviation, 1), 1)
    return source[..., None], (target * scale)[..., None]


@entry(static=("block", "iterations"), check=_check_transfer)
def quilt_transfer(
    texture: Image,
    content: Float[Array, "height width 3"],
    *,
    key: Key,
    block: int = 12,
    iterations: int = 3,
    alpha: Number = 0.1,
    tolerance: Number = 0.1,
) -> Float[Array, "height width 3"]:
    """Quilt the content of the texture: α (Σ_overlaps (s − t)² + Σ (s − t′)²) + (1 − α) Σ (Y_s − Y_c)².

    The second and third sum are over the whole block: t′ is what the iteration before made there, Y the
    luminance.

    Args:
        texture: the source, float RGB in [0, 1], `[h, w, 3]`.
        content: the picture that shall be seen, float RGB in [0, 1], `[height, width, 3]`.
        block: the side of the blocks in the first iteration, less by a third in each that follows. They
            overlap by a sixth.
        iterations: N, how often the whole is quilted.
        alpha: α of the first iteration; that of the last is 1 − α, those between rise evenly: α_i =
            0.8 (i − 1) / (N − 1) + 0.1 if it is 0.1.
        tolerance: of the error, relative to the least; at least 0.

    Returns:
        The picture `[height, width, 3]`, pixels of the texture. Departures: the content's luminance is
        brought to the mean and the deviation of the texture's, of which the paper says nothing; where blocks
        reach beyond the content, its edge repeats.

    Raises:
        TypeError, ValueError: a texture or a content that is no image or is smaller than the block; blocks
            that become smaller than 4 pixels; α outside [0, 1]; a negative tolerance; several keys.

    Example:
        >>> import jax, vizsynth
        >>> texture, content = jax.random.uniform(jax.random.key(0), (2, 16, 20, 3))
        >>> vizsynth.quilt_transfer(texture, content, key=jax.random.key(1), block=8, iterations=2).shape
        (16, 20, 3)
    """
    shape = (content.shape[0], content.shape[1])
    content = content.astype(texture.dtype)
    mean = texture.mean(axis=(0, 1), keepdims=True)
    source_map, content_map = correspondence(texture, content)
    first = jnp.asarray(alpha, texture.dtype)
    made = content  # not looked at

    for i, b in enumerate(shrinking(block, iterations)):
        laid = layout(shape, b, None)
        beyond = [(0, whole - side) for side, whole in zip(shape, laid.canvas, strict=True)]
        target = jnp.pad(content_map, (*beyond, (0, 0)), mode="edge")
        before = jnp.pad(made - mean, (*beyond, (0, 0)), mode="edge")
        weight = first + (1 - 2 * first) * (i / max(1, iterations - 1))
        everywhere = jnp.ones((b, b), texture.dtype)
        parts = [(source_map, target, (1 - weight) * everywhere)]
        if i > 0:
            parts.append((texture - mean, before, weight * everywhere))

        def besides(at: Place, parts: Any = parts, b: int = b) -> tuple[Array, Array]:
            wanted = [(image, cut(whole, at, b), weights) for image, whole, weights in parts]
            errors = [block_errors(image, t, weights) for image, t, weights in wanted]
            scales: list[Array] = [(weights * jnp.square(t).sum(axis=-1)).sum() for _, t, weights in wanted]
            return sum(errors[1:], errors[0]), sum(scales[1:], scales[0])

        key_i = jax.random.fold_in(key, i)
        made = _quilted(texture, key_i, laid, tolerance, verbatim=True, weight=weight, besides=besides)
        made = made[: shape[0], : shape[1]]
    return made
