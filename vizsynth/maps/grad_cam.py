"""Grad-CAM.

Selvaraju, Cogswell, Das, Vedantam, Parikh & Batra, Grad-CAM: Visual Explanations from Deep Networks via
Gradient-based Localization, 2016, section 3.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vizsynth.core.entry import entry
from vizsynth.taps import evaluate, replace, run
from vizsynth.types import Heatmaps, Images, Maps, Network, Score, Target


def layer_maps(net: Network, images: Images, layer: str) -> Maps:
    """Return the activations A^k of a layer of maps.

    Raises:
        ValueError: a layer without spatial extent, or one that the network does not have.
    """
    A = run(net, images, [layer])[1][layer]
    if A.ndim != 4:
        raise ValueError(
            f"a class activation map needs a layer of maps, but {layer!r} is a vector of {A.shape[-1]}; "
            "take the last convolution or a layer before it"
        )
    return A


def layer_gradient(net: Network, images: Images, target: Score, layer: str) -> tuple[Maps, Maps]:
    """Return the activations A^k of a layer and ∂y^c/∂A^k.

    The layer is computed once; only the layers after it run forward and backward.

    Raises:
        ValueError: a layer without spatial extent, or one that the network does not have.
    """
    A = layer_maps(net, images, layer)

    def y(A: Array) -> Array:
        return evaluate(net, images, target, tap=replace({layer: A})).sum()

    return A, jax.grad(y)(A)


@entry(static=("layer",))
def grad_cam(net: Network, images: Images, target: Target, *, layer: str) -> Heatmaps:
    """Return L = relu(Σ_k α_k A^k), α_k = (1/Z) Σ_ij ∂y^c/∂A^k_ij (section 3, eq. 1 and 2).

    A are the maps of the layer, y^c is the target.

    Args:
        layer: usually the last with spatial extent: VGG `conv5_3` (the paper's) or `relu5_3`, ResNet
            `layer4.2` (50 layers), SqueezeNet `fire9`.

    Returns:
        The maps at the layer's resolution `[n, h', w']`, at least 0, unscaled
        (`vizsynth.images.upsample` and `normalize` bring them to the image). Captum's
        `LayerGradCam` omits the ReLU by default; pytorch-grad-cam scales each map to [0, 1].

        A map of zeros: nothing at this layer speaks for the target, and the ReLU took away what speaks
        against it. Try the target that the network predicts, a later layer, or the signed map of
        `hires_cam`. A map that is not finite, of finite images: numbers grow too large for their precision
        on the way; give network and images in a wider one (`vizsynth.models.with_precision`).

    Raises:
        ValueError: a layer without spatial extent.

    Example:
        >>> import jax, vizsynth
        >>> net = vizsynth.load("squeezenet1_1")
        >>> images = jax.random.uniform(jax.random.key(1), (2, 64, 64, 3))
        >>> vizsynth.grad_cam(net, images, net(images).argmax(-1), layer="fire9").shape
        (2, 3, 3)
    """
    A, dy_dA = layer_gradient(net, images, target, layer)
    alpha = dy_dA.mean(axis=(1, 2))  # eq. 1
    return jax.nn.relu(jnp.einsum("nk,nijk->nij", alpha, A))  # eq. 2
