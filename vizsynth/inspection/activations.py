"""Activations: the channels of a layer as tiles.

Chollet, Deep Learning with Python, 2017, section 5.4.1: a channel minus its mean, over its standard
deviation, times 64, plus 128, clipped to 0..255.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vizsynth.core.entry import entry

CONTRAST, MIDDLE, WHITE = 64, 128, 255


class Tiles(NamedTuple):
    """The channels of a layer, each on its own scale."""

    values: Float[Array, "n c h w"]
    """In [0, 1]."""
    dead: Bool[Array, "n c"]
    """Whether a channel is 0 everywhere."""
    constant: Bool[Array, "n c"]
    """Whether a channel is constant; dead ones are."""


def _check(activations: Array) -> None:
    if activations.ndim != 4:
        raise ValueError(
            f"activations must be maps [n, h, w, c], not {tuple(activations.shape)}; choose a layer before "
            "the maps are flattened or averaged"
        )


@entry(check=_check)
def activation_tiles(activations: Float[Array, "..."]) -> Tiles:
    """Return each channel as a tile, clip(64 (A − mean A) / std A + 128, 0, 255) / 255.

    Mean and standard deviation are those of the channel in the image. The tile of a constant channel is 128 /
    255, where the recipe divides by 0.

    Args:
        activations: of a layer, `[n, h, w, c]`, as `vizsynth.features` returns them.

    Returns:
        `Tiles(values, dead, constant)`: the tiles `[n, c, h, w]` in [0, 1], and whether a channel is 0, or
        constant, in an image, `[n, c]`. The recipe's numbers are `floor(255 values)`.

    Raises:
        ValueError: the activations have no positions.

    Example:
        >>> import jax.numpy as jnp, vizsynth
        >>> found = vizsynth.activation_tiles(jnp.asarray([0.0, 0.0, 2.0, 2.0]).reshape(1, 2, 2, 1))
        >>> (found.values[0, 0, 0, 0] * 255).tolist(), bool(found.dead[0, 0])
        (64.0, False)
    """
    maps = activations.transpose(0, 3, 1, 2)
    low, high = maps.min(axis=(2, 3), keepdims=True), maps.max(axis=(2, 3), keepdims=True)
    # Divided by a power of two: squares would underflow or overflow.
    size = jnp.exp2(jnp.ceil(jnp.log2(jnp.maximum(jnp.abs(low), jnp.abs(high)))))
    size = jnp.where(jnp.isfinite(size) & (size > 0), size, jnp.ones_like(size))
    maps = maps / size
    constant = low == high
    deviation = maps.std(axis=(2, 3), keepdims=True)
    away = (maps - maps.mean(axis=(2, 3), keepdims=True)) / jnp.where(
        constant, jnp.ones_like(deviation), deviation
    )
    values = jnp.clip(CONTRAST * jnp.where(constant, jnp.zeros_like(away), away) + MIDDLE, 0, WHITE) / WHITE
    return Tiles(values, ((low == 0) & (high == 0))[..., 0, 0], constant[..., 0, 0])
