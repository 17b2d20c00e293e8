"""Occlusion sensitivity.

Zeiler & Fergus, Visualizing and Understanding Convolutional Networks, 2013, section 4.2 and figure 6.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vizsynth import ops
from vizsynth.core.chunks import check_count, each, in_groups
from vizsynth.core.entry import entry
from vizsynth.replay import incremental
from vizsynth.replay.incremental import Changed, Span
from vizsynth.replay.linearity import depends
from vizsynth.scores import Probability
from vizsynth.taps import record, run
from vizsynth.types import Images, Network, Target

Size = int | tuple[int, int]
# Reading a dense layer's weights takes longer than a product with them: groups of windows share the reading.
_AT_THE_HEAD = 8


class _NoHeadError(Exception):
    """The score reads a layer that does not follow a dense layer."""


def _pair(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _check(images: Array, window: Size, stride: Size, fill: Any, batch_size: int) -> None:
    check_count(batch_size, "batch_size")
    shape = images.shape[1:3]
    for name, size in (("window", window), ("stride", stride)):
        for value in _pair(size):
            check_count(value, name)
    if any(w > s for w, s in zip(_pair(window), shape, strict=True)):
        raise ValueError(
            f"a window of {_pair(window)} is larger than the images {shape}; give a smaller window"
        )
    if any(s > w for s, w in zip(_pair(stride), _pair(window), strict=True)):
        raise ValueError(
            f"a stride of {_pair(stride)} leaves pixels between windows of {_pair(window)} uncovered; "
            "give a stride of at most the window"
        )
    if np.shape(fill) not in ((), (3,), images.shape[1:], images.shape):
        raise ValueError(
            f"fill must be a number, a colour (3,), one image {images.shape[1:]} or one per image "
            f"{images.shape}, not {np.shape(fill)}"
        )


def window_starts(size: int, window: int, stride: int) -> np.ndarray:
    """Return the starts of the windows along an axis: every `stride`, until a window reaches the end.

    >>> window_starts(10, window=4, stride=4)
    array([0, 4, 8])
    """
    return np.arange(-(-(size - window) // stride) + 1) * stride


@entry(static=("window", "stride", "batch_size"), check=_check, score=Probability)
def occlusion(
    net: Network,
    images: Images,
    target: Target,
    *,
    window: Size = 32,
    stride: Size = 16,
    fill: Any = 0.5,
    batch_size: int = 26,
) -> Float[Array, "n h w"]:
    """Return, per pixel, the mean of S(x) − S(x with W filled) over the windows W that cover it.

    Only the part of each layer that a window can reach is computed again
    (`vizsynth.replay.incremental`): up to rounding, the result is that of the whole network on each
    filled image.

    Args:
        target: S; labels mean the probability of the class, as in the paper.
        window: the side of the square, or (height, width), in pixels.
        stride: the distance between windows, one number or (down, right), at most the window.
        fill: the content of a filled window: a number (the paper's grey by default), a colour `(3,)` or
            images.

    Returns:
        The mean drop of the score, signed, `[n, h, w]`. The last window of a row or column is cut at the
        image's border. Captum's `Occlusion` with `baselines=fill` gives this map for the score
        `Class(label)`.

    Raises:
        ValueError: a window larger than the image; a stride of 0 or larger than the window; a fill of another
            shape.

    Example:
        >>> import jax, vizsynth
        >>> net = vizsynth.models.squeezenet1_1(key=jax.random.key(0))
        >>> images = jax.random.uniform(jax.random.key(1), (1, 64, 64, 3))
        >>> vizsynth.occlusion(net, images, 281, window=24, stride=20).shape
        (1, 64, 64)
    """
    (height, width), (down, right) = _pair(window), _pair(stride)
    n, h, w, _ = images.shape
    tops, lefts = window_starts(h, height, down), window_starts(w, width, right)
    # A window cut at the border gets the `Span` of the last whole window, and fills only its own pixels.
    rows = Span(np.minimum(tops, h - height), height, h)
    cols = Span(np.minimum(lefts, w - width), width, w)
    in_row = (np.arange(h) >= tops[:, None]) & (np.arange(h) < tops[:, None] + height)  # [rows, h]
    in_col = (np.arange(w) >= lefts[:, None]) & (np.arange(w) < lefts[:, None] + width)
    filled = jnp.broadcast_to(jnp.asarray(fill, images.dtype), images.shape)

    clean: list[Any] = []
    clean_score = target(run(net, images, target.layers, ops=incremental.recording(ops.fast, clean))[1])

    def occluded(at: tuple[Array, Array]) -> Images:
        inside = jnp.asarray(in_row)[at[0]][:, None] & jnp.asarray(in_col)[at[1]][None, :]
        return jnp.where(inside[None, :, :, None], filled, images)

    def drop(at: tuple[Array, Array], whole: bool = False) -> Float[Array, " n"]:
        table = ops.fast if whole else incremental.table(clean, rows, cols, at)
        seen = run(net, occluded(at), target.layers, ops=table)[1]
        seen = {name: a.dense() if isinstance(a, Changed) else a for name, a in seen.items()}
        return clean_score - target(seen)

    def before_head(at: tuple[Array, Array]) -> Array:
        passed: dict[str, Any] = {}
        table = incremental.leaving(incremental.table(clean, rows, cols, at))
        try:
            run(net, occluded(at), (), tap=record(target.layers, passed), ops=table)
        except incremental.HeadReached as head:
            if not passed:
                return head.value
        raise _NoHeadError

    def head(value: Array, images: Images = images) -> Float[Array, " n"]:
        # The images are dead code: all later layers are computed from the value.
        return clean_score - target(run(net, images, target.layers, ops=incremental.resuming(value))[1])

    def check_head(at: tuple[Array, Array]) -> None:
        """Raise if the score reads the images past the first dense layer (a second pooling)."""
        value = jax.tree.map(jnp.zeros_like, jax.eval_shape(before_head, at))
        if depends(partial(head, value), images):
            raise _NoHeadError

    def drops_of(windows: tuple[Array, Array]) -> Float[Array, "k n"]:
        """Run the convolutions for a few windows at a time, then the dense layers for all of them."""
        return jax.vmap(head)(each(before_head, windows, batch_size))

    row, col = (
        a.reshape(-1) for a in jnp.meshgrid(jnp.arange(len(tops)), jnp.arange(len(lefts)), indexing="ij")
    )
    try:
        check_head((row[0], col[0]))
        drops = in_groups(drops_of, (row, col), _AT_THE_HEAD * batch_size)
    except _NoHeadError:
        drops = each(drop, (row, col), batch_size)
    except (TypeError, AttributeError):  # a network that does arithmetic outside of `ops`: run all of it
        drops = each(partial(drop, whole=True), (row, col), batch_size)
    drops = drops.T.reshape(n, len(tops), len(lefts))
    cover = in_row.sum(axis=0)[:, None] * in_col.sum(axis=0)[None, :]
    spread = jnp.einsum(
        "nrc,rh,cw->nhw", drops, jnp.asarray(in_row, drops.dtype), jnp.asarray(in_col, drops.dtype)
    )
    return spread / jnp.asarray(cover, drops.dtype)[None]
