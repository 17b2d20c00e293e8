"""How fast are whole maps beside those of Captum and pytorch-grad-cam?

VGG-16 at 224 px, one image; random weights, the same on both sides, ours prepared (`vizsynth.prepare`).

    python -m benchmarks.maps [--turns 7] [--peers]

3 and, by hand, 1.3 were wanted of Grad-CAM, and 1.5 of the sums over samples. Beside PyTorch by hand it is a
forward pass (`benchmarks.image_gradient`), and the sums are gradients of five images at once: by the profile
of SmoothGrad one part in a hundred is its noise, and no other part is spent elsewhere. From run to run its
gradients took 0.99 to 1.19 s for five images, integrated gradients' as well.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import vizsynth
from benchmarks.peers import nhwc, published, relative_error, torch_images, torch_vgg16
from benchmarks.timing import Row, alone, compare, forward_flops

CONV5_3 = 28  # its place among torchvision's features
AT_ONCE = 5  # images, on both sides


def beside_grad_cam(module: Any, images: Any, label: int) -> dict[str, Callable[[], np.ndarray]]:
    """Return pytorch-grad-cam's map, and one by hand that runs the tail alone."""
    import torch

    published("pytorch_grad_cam")
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    cam = GradCAM(model=module, target_layers=[module.features[CONV5_3 + 1]])

    def theirs() -> np.ndarray:
        module.requires_grad_(True)  # it takes the weights' gradients as well, and fails without
        targets: Any = [ClassifierOutputTarget(label)]
        found = cam(input_tensor=images, targets=targets)
        module.requires_grad_(False)
        return found

    def by_hand() -> np.ndarray:
        with torch.no_grad():
            h = module.features[: CONV5_3 + 2]((images - module.mean) / module.std)
        h.requires_grad_()
        module.classifier(module.features[CONV5_3 + 2 :](h).flatten(1))[0, label].backward()
        weights: Any = h.grad
        return (weights.mean((2, 3), keepdim=True) * h).sum(1).relu().detach().numpy()

    return {"pytorch-grad-cam": theirs, "PyTorch by hand": by_hand}


def beside_paths(module: Any, images: Any, label: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return Captum's integrated gradients and its SmoothGrad."""
    from captum.attr import IntegratedGradients, NoiseTunnel, Saliency

    integrated, noisy = IntegratedGradients(module), NoiseTunnel(Saliency(module))

    def path() -> np.ndarray:
        found: Any = integrated.attribute(images, target=label, n_steps=50, internal_batch_size=AT_ONCE)
        return nhwc(found)

    def smooth() -> np.ndarray:
        found: Any = noisy.attribute(
            images, nt_samples=25, nt_samples_batch_size=AT_ONCE, stdevs=0.15, target=label, abs=False
        )
        return found.detach().numpy()

    return path, smooth


def rows(turns: int = 7, peers: bool = False) -> list[Row]:
    """Return Grad-CAM, integrated gradients and SmoothGrad."""
    network_key, image_key = jax.random.split(jax.random.key(0))
    net = vizsynth.models.vgg16(key=network_key)
    images = jax.random.uniform(image_key, (1, 224, 224, 3))
    flops = forward_flops(net, (224, 224))
    fast = vizsynth.prepare(net)
    label = int(fast(images)[0].argmax())  # of others the maps may be 0 everywhere
    cams: dict[str, Callable[[], Any]] = {}
    path = smooth = None
    if peers:
        module, peer_images = torch_vgg16(net), torch_images(images)
        cams = dict(beside_grad_cam(module, peer_images, label))
        path, smooth = beside_paths(module, peer_images, label)

    def cam() -> jax.Array:
        return vizsynth.grad_cam(fast, images, label, layer="relu5_3")

    def integrated() -> jax.Array:
        return vizsynth.integrated_gradients(fast, images, label, steps=50)

    def smoothed() -> jax.Array:
        return vizsynth.smooth_grad(fast, images, label, key=jax.random.key(0), samples=25)

    by_hand = "PyTorch by hand"
    errors = {by_hand: lambda: relative_error(cam(), cams[by_hand]())} if peers else None
    found = compare("Grad-CAM, VGG-16 conv5_3", cam, cams, turns=turns, errors=errors)
    found += compare(
        "integrated gradients, VGG-16, 50 steps",
        integrated,
        {"Captum": path} if path else {},
        turns=turns,
        errors={"Captum": lambda: relative_error(integrated(), path())} if path else None,
        flops=100 * flops,
    )
    return found + compare(
        "SmoothGrad, VGG-16, 25 samples",
        smoothed,
        {"Captum": smooth} if smooth else {},
        turns=turns,
        flops=50 * flops,
    )


if __name__ == "__main__":
    alone(rows, "Whole maps.")
