"""Class activation mapping.

Zhou, Khosla, Lapedriza, Oliva & Torralba, Learning Deep Features for Discriminative Localization, 2015,
section 2.
"""

import jax.numpy as jnp

from vizsynth.core.entry import entry
from vizsynth.maps.grad_cam import layer_gradient
from vizsynth.types import Heatmaps, Images, Network, Target


@entry(static=("layer",))
def cam(net: Network, images: Images, target: Target, *, layer: str) -> Heatmaps:
    """Return M_c = Σ_k w_k^c A^k, the maps that global average pooling sums, by the class's weights (eq. 2).

    For S_c = Σ_k w_k^c (1/Z) Σ_ij A^k_ij + b_c the weights are the gradient, w_k^c = Σ_ij ∂S_c/∂A^k_ij,
    wherever the network keeps them.

    Args:
        net: a network.
        images: float RGB in [0, 1], `[n, h, w, 3]`.
        target: a label, one label an image, or a score (`vizsynth.scores`): S_c.
        layer: the layer that global average pooling follows: ResNet's last block, `layer4.1` (18 and 34
            layers) or `layer4.2`; SqueezeNet `relu10`.

    Returns:
        The signed maps at the layer's resolution `[n, h', w']`, unscaled, without the bias; their mean is
        S_c − b_c. torch-cam scales each to [0, 1]. The map is NaN where the maps of the layer do not enter
        the score by their mean alone: `grad_cam` is for such layers. A map that overflows is infinite.

    Raises:
        TypeError, ValueError: images or a target that the network cannot take; a layer that it does
            not have, or that has no spatial extent.

    Example:
        >>> import jax, vizsynth
        >>> net = vizsynth.load("squeezenet1_1")
        >>> images = jax.random.uniform(jax.random.key(1), (2, 64, 64, 3))
        >>> vizsynth.cam(net, images, net(images).argmax(-1), layer="relu10").shape
        (2, 3, 3)
    """
    A, g = layer_gradient(net, images, target, layer)
    w = g.sum(axis=(1, 2))
    unevenness = jnp.abs(g - g.mean(axis=(1, 2), keepdims=True)).max(axis=(1, 2, 3))
    uneven = jnp.isfinite(unevenness) & (unevenness > 0.01 * jnp.abs(g).max(axis=(1, 2, 3)))
    M = jnp.einsum("nk,nijk->nij", w, A)
    M = jnp.where(jnp.isnan(M), jnp.inf, M)  # NaN is the mark of a layer that is not pooled
    return jnp.where(uneven[:, None, None], jnp.nan, M)
