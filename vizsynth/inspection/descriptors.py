"""Descriptors: one vector per image from a layer.

Babenko & Lempitsky, Aggregating Deep Convolutional Features for Image Retrieval, 2015: the sum over positions
(section 3), a multiple of the mean. Fully connected layers are used directly, as in Krizhevsky, Sutskever &
Hinton, ImageNet Classification with Deep Convolutional Neural Networks, 2012, section 6.1.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from vizsynth import taps
from vizsynth.core.chunks import check_count, in_groups
from vizsynth.core.entry import entry
from vizsynth.types import Images, Network


def _check(net: Any, images: Any, layer: Any, batch_size: Any) -> None:
    check_count(batch_size, "batch_size")
    taps.shapes(net, images[:1], (layer,))


@entry(static=("layer", "batch_size"), check=_check)
def descriptors(
    net: Network, images: Images, *, layer: str, batch_size: int = 32
) -> Float[Array, "n channels"]:
    """Return a vector per image: the mean of a layer over positions, d_c = (1/hw) Σ_ij A_ijc.

    A layer without positions (`fc7`, `logits`) is returned unchanged.

    Returns:
        `[n, channels]`.

    Example:
        >>> import jax, jax.numpy as jnp, vizsynth
        >>> net = vizsynth.load("squeezenet1_1")
        >>> vizsynth.descriptors(net, jnp.zeros((2, 64, 64, 3)), layer="fire9").shape
        (2, 512)

    Departures: the paper also weights positions by their distance from the center, whitens, and normalizes to
    length 1.
    """

    def of(images: Images) -> Float[Array, "b channels"]:
        value = taps.run(net, images, (layer,))[1][layer]
        return value.mean(axis=tuple(range(1, value.ndim - 1)))

    return jnp.asarray(in_groups(of, images, batch_size))
