"""Grad-CAM++.

Chattopadhyay, Sarkar, Howlader & Balasubramanian, Grad-CAM++: Improved Visual Explanations for Deep
Convolutional Networks, 2017, section 3.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vizsynth.core.entry import entry
from vizsynth.maps.grad_cam import layer_gradient
from vizsynth.types import Heatmaps, Images, Network, Target


@entry(static=("layer",))
def grad_cam_pp(
    net: Network, images: Images, target: Target, *, layer: str, eps: float | Array = 0.0
) -> Heatmaps:
    """Return L = relu(Σ_k w_k A^k), w_k = Σ_ij α_kij relu(g_kij).

    With g = ∂S/∂A^k_ij, α_kij = g² / (2 g² + g³ Σ_ab A^k_ab) (section 3.2, eq. 19), 0 where g is 0.

    Args:
        eps: a numerical floor of the denominator.

    Returns:
        The maps at the layer's resolution `[n, h', w']`, at least 0, unscaled. (Departure: the paper
        differentiates Y = exp(S), which multiplies every weight of an image by exp(S). This factor
        overflows and changes the scale alone, so it is omitted.) pytorch-grad-cam adds `eps=1e-6` to the
        denominator, which dominates small gradients.

    Raises:
        ValueError: a layer without spatial extent.

    Example:
        >>> import jax, vizsynth
        >>> net = vizsynth.load("squeezenet1_1")
        >>> images = jax.random.uniform(jax.random.key(1), (2, 64, 64, 3))
        >>> vizsynth.grad_cam_pp(net, images, net(images).argmax(-1), layer="fire9").shape
        (2, 3, 3)
    """
    A, g = layer_gradient(net, images, target, layer)
    total = A.sum(axis=(1, 2), keepdims=True)
    # α g of eq. 19, divided by g³: exact, without overflow or underflow.
    slope = jnp.where(g > 0, g, 1)
    bottom = 2 / slope + total + jnp.asarray(eps, g.dtype) / slope / slope / slope
    positive = (g > 0) & (bottom != 0)
    w = jnp.where(positive, 1 / jnp.where(positive, bottom, 1), 0)
    w = jnp.where(jnp.isfinite(total) & jnp.isfinite(g), w, jnp.nan).sum(axis=(1, 2))
    return jax.nn.relu(jnp.einsum("nk,nijk->nij", w, A))
