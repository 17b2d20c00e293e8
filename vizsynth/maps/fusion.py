"""One map from the maps of several layers."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vizsynth.images import normalize, upsample
from vizsynth.types import Heatmaps


def fuse(heatmaps: Sequence[Float[Array, "n _ _"]], size: tuple[int, int]) -> Heatmaps:
    """Return the mean of rectified maps of several layers, each scaled to a maximum of 1 and upsampled.

    Args:
        heatmaps: maps of the same images, `[n, h_l, w_l]`, one array per layer.
        size: height and width of the result.

    Returns:
        The fused maps, `[n, *size]`, in [0, 1].

    Raises:
        ValueError: no maps, or different numbers of images.

    Example:
        >>> import jax.numpy as jnp
        >>> fuse([jnp.ones((2, 7, 7)), jnp.ones((2, 14, 14))], (28, 28)).shape
        (2, 28, 28)

    Source: pytorch-grad-cam takes the mean of scaled maps for several layers; Jiang et al., LayerCAM,
    2021, section III-C, fuse by the maximum of tanh-scaled maps.
    """
    counts = {len(maps) for maps in heatmaps}
    if len(counts) != 1:
        raise ValueError(
            "fuse takes maps of the same images, of at least one layer; "
            f"the numbers of images are {counts or 'none'}"
        )
    scaled = [upsample(normalize(jax.nn.relu(maps)), size) for maps in heatmaps]
    return jnp.stack(scaled).mean(axis=0)
