"""Guided Grad-CAM.

Selvaraju, Cogswell, Das, Vedantam, Parikh & Batra, Grad-CAM: Visual Explanations from Deep Networks via
Gradient-based Localization, 2016, section 3.2.
"""

from jaxtyping import Array, Float

from vizsynth.core.entry import entry
from vizsynth.images import upsample
from vizsynth.maps.grad_cam import grad_cam
from vizsynth.maps.guided_backprop import guided_backprop
from vizsynth.types import Images, Network, Target


@entry(static=("layer",))
def guided_grad_cam(net: Network, images: Images, target: Target, *, layer: str) -> Float[Array, "n h w 3"]:
    """Return guided backpropagation times Grad-CAM, which is upsampled linearly to the image.

    Args:
        net: a network.
        images: float RGB in [0, 1], `[n, h, w, 3]`.
        target: a label, one label an image, or a score (`vizsynth.scores`).
        layer: the layer whose maps A are weighted, as for `grad_cam`.

    Returns:
        The signed map `[n, h, w, 3]`, unscaled. Captum's `GuidedGradCam` upsamples to the nearest
        neighbour unless it is given `interpolate_mode="bilinear"`.

    Raises:
        TypeError, ValueError: images or a target that the network cannot take; a layer that it does
            not have, or that has no spatial extent.

    Example:
        >>> import jax, vizsynth
        >>> net = vizsynth.load("squeezenet1_1")
        >>> images = jax.random.uniform(jax.random.key(1), (2, 64, 64, 3))
        >>> vizsynth.guided_grad_cam(net, images, net(images).argmax(-1), layer="fire9").shape
        (2, 64, 64, 3)
    """
    coarse = grad_cam(net, images, target, layer=layer)
    fine = guided_backprop(net, images, target)
    return fine * upsample(coarse, (images.shape[1], images.shape[2]))[..., None]
