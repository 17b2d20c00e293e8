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
    """Return guided backpropagation times Grad-CAM, upsampled linearly to the image.

    Returns:
        The signed map `[n, h, w, 3]`, unscaled. Captum's `GuidedGradCam` takes the nearest neighbour
        by default: give it `interpolate_mode="bilinear"`.

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
