"""XGrad-CAM.

Fu, Hu, Dong, Guo, Gao & Li, Axiom-based Grad-CAM: Towards Accurate Visualization and Explanation of
CNNs, 2020, section 3.3.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vizsynth.core.entry import entry
from vizsynth.maps.grad_cam import layer_gradient
from vizsynth.types import Heatmaps, Images, Network, Target


@entry(static=("layer",))
def xgrad_cam(
    net: Network, images: Images, target: Target, *, layer: str, eps: float | Array = 1e-7
) -> Heatmaps:
    """Return L = relu(Σ_k w_k A^k), w_k = Σ_ij A^k_ij g_kij / Σ_ij A^k_ij (eq. 8), g = ∂S/∂A.

    Args:
        eps: a numerical floor, added to the denominator. The weight of a dead channel, with a denominator of
            0, is 0.

    Returns:
        The maps at the layer's resolution `[n, h', w']`, at least 0, unscaled. Take a layer after its
        ReLU, or the sum in the denominator may vanish.

    Raises:
        ValueError: a layer without spatial extent.

    Example:
        >>> import jax, vizsynth
        >>> net = vizsynth.load("squeezenet1_1")
        >>> images = jax.random.uniform(jax.random.key(1), (2, 64, 64, 3))
        >>> vizsynth.xgrad_cam(net, images, net(images).argmax(-1), layer="fire9").shape
        (2, 3, 3)
    """
    A, g = layer_gradient(net, images, target, layer)
    bottom = A.sum(axis=(1, 2)) + jnp.asarray(eps, A.dtype)
    w = (A * g).sum(axis=(1, 2)) / jnp.where(bottom == 0, 1, bottom)
    return jax.nn.relu(jnp.einsum("nk,nijk->nij", w, A))
