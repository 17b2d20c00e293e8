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
    """Return M_c = Σ_k w_k^c A^k, the last maps weighted by the weights of the class (eq. 2).

    If S_c (the target) is Σ_k w_k^c (1/Z) Σ_ij A^k_ij + b_c, the weights are its gradient,
    w_k^c = Σ_ij ∂S_c/∂A^k_ij.

    Args:
        layer: the layer before global average pooling: ResNet's last block, `layer4.1` (18 and 34 layers)
            or `layer4.2`; SqueezeNet `relu10`.

    Returns:
        The signed maps at the layer's resolution `[n, h', w']`, unscaled, without the bias; their mean is
        S_c − b_c. torch-cam scales each to [0, 1]. The map is NaN where the maps of the layer do not enter
        the score by their mean alone: `grad_cam` is for such layers. A map that overflows is infinite.

    Raises:
        ValueError: a layer without spatial extent.

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
