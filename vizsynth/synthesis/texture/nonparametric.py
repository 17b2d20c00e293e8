"""What the syntheses that copy from a source texture share: its neighbourhoods, and the draw among them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from vizsynth.core.chunks import check_count
from vizsynth.core.entry import as_image, is_on_host
from vizsynth.synthesis.features.pictures import as_size
from vizsynth.types import Image, Key

HIGHEST = lax.Precision.HIGHEST  # differences of large sums: no shortened floats
Number = float | Float[Array, ""]


def check_texture(texture: Any, size: Any) -> None:
    """Raise where the source or the size of the picture cannot be taken."""
    as_image(texture, name="texture")
    sides = size if isinstance(size, tuple) else (size,)
    if len(sides) not in (1, 2):
        raise ValueError(f"size must be a side or (height, width), not {size!r}")
    for side in sides:
        check_count(side, "size")


def check_window(texture: Any, size: Any, window: Any, *, odd: bool = True, name: str = "window") -> None:
    """Raise where a window is no (odd) number of pixels, or does not fit in the source or in the picture."""
    check_count(window, name)
    if odd and window % 2 == 0:
        raise ValueError(f"{name} must be odd, so that it has a middle, not {window}; give {window + 1}")
    for what, (h, w) in (("the texture", np.shape(texture)[:2]), ("size", as_size(size))):
        if min(h, w) < window:
            raise ValueError(
                f"{what} of {h}x{w} is smaller than the {name}, {window}; give a {name} of at most "
                f"{min(h, w)}, or a larger one"
            )


def check_at_least_0(value: Any, name: str) -> None:
    """Raise where a number has a value that is negative or not finite."""
    if is_on_host(value) and not 0 <= np.asarray(value) < np.inf:
        raise ValueError(f"{name} must be at least 0, not {value}")


def centred(texture: Image) -> Image:
    """Return the texture less its mean colour: expanded squares then cancel least."""
    return texture - texture.mean(axis=(0, 1), keepdims=True)


def windows(texture: Float[Array, "h w c"], window: int) -> Float[Array, "m n c"]:
    """Return the m windows of n = window² pixels that lie wholly in the texture, in raster order.

    >>> windows(jnp.arange(12.0).reshape(3, 4, 1), 3)[:, 0, 0].tolist()
    [0.0, 1.0]
    """
    h, w = texture.shape[:2]
    first = np.arange(h - window + 1)[:, None] * w + np.arange(w - window + 1)[None, :]
    within = np.arange(window)[:, None] * w + np.arange(window)[None, :]
    return gathered(texture, first.reshape(-1), within.reshape(-1))


def gathered(
    level: Float[Array, "h w c"], base: Int[np.ndarray, " m"], offsets: Int[np.ndarray, " n"]
) -> Float[Array, "m n c"]:
    """Return the pixels at base + offset, counted in raster order.

    >>> gathered(jnp.arange(6.0).reshape(2, 3, 1), np.array([0, 3]), np.array([0, 2]))[..., 0].tolist()
    [[0.0, 2.0], [3.0, 5.0]]
    """
    at = jnp.asarray(base, jnp.int32)[:, None] + jnp.asarray(offsets, jnp.int32)[None, :]
    return level.reshape(-1, level.shape[-1])[at]


Place = tuple[Int[Array, ""] | int, Int[Array, ""] | int]


def _corner(at: Place) -> list[Array]:
    return [jnp.asarray(i, jnp.int32) for i in (*at, 0)]  # of one type also where integers are of 64 bits


def cut(canvas: Float[Array, "h w c"], at: Place, side: int) -> Float[Array, "side side c"]:
    """Return the square whose first pixel is at (row, column).

    >>> cut(jnp.arange(9.0).reshape(3, 3, 1), (1, 0), 2)[..., 0].tolist()
    [[3.0, 4.0], [6.0, 7.0]]
    """
    return lax.dynamic_slice(canvas, _corner(at), (side, side, canvas.shape[-1]))


def paste(canvas: Float[Array, "h w c"], piece: Float[Array, "h2 w2 c"], at: Place) -> Float[Array, "h w c"]:
    """Return the canvas with a piece whose first pixel is at (row, column).

    >>> paste(jnp.zeros((2, 2, 1)), jnp.ones((1, 2, 1)), (1, 0))[..., 0].tolist()
    [[0.0, 0.0], [1.0, 1.0]]
    """
    return lax.dynamic_update_slice(canvas, piece, _corner(at))


def near_least(
    errors: Float[Array, "*m"], tolerance: Number, *, scale: Float[Array, ""]
) -> Bool[Array, "*m"]:
    """Tell which errors are at most (1 + tolerance) times the least, or differ from that by rounding alone.

    The errors are sums of squares, expanded: differences of sums as large as `scale`.

    >>> near_least(jnp.asarray([2.0, 1.0, 1.05]), 0.1, scale=jnp.zeros(())).tolist()
    [False, True, True]
    """
    least = errors.min() * (1 + jnp.asarray(tolerance, errors.dtype))
    return errors <= jax.nn.relu(least) + 32 * jnp.finfo(errors.dtype).eps.astype(errors.dtype) * scale


def draw(key: Key, possible: Bool[Array, " m"]) -> Int[Array, ""]:
    """Return the index of one that is possible, all being equally likely: the r-th, r = randint(key).

    >>> int(draw(jax.random.key(0), jnp.asarray([False, True, False])))
    1
    """
    counted = jnp.cumsum(possible.astype(jnp.int32))
    r = jax.random.randint(key, (), 0, counted[-1], jnp.int32)
    return jnp.argmax(counted > r)
