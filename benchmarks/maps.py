"""How fast are whole maps beside those of Captum and pytorch-grad-cam?

VGG-16 at 224 px, one image; random weights, the same on both sides, ours prepared (`vizsynth.prepare`).

    python -m benchmarks.maps [--turns 3]

Needs the `parity` extra and `tests/parity/install_peers.sh`.
"""

import argparse
from typing import Any

import jax
import numpy as np

import vizsynth
from benchmarks.peers import published, relative_error, torch_images, torch_vgg16
from benchmarks.timing import Row, print_rows, rate, row, side_by_side

CONV5_3 = 28  # its place among torchvision's features


def grad_cam_rows(net: Any, images: Any, label: int, module: Any, peer_images: Any, turns: int) -> list[Row]:
    """Return Grad-CAM beside pytorch-grad-cam, and beside PyTorch by hand, which runs the tail alone."""
    import torch

    published("pytorch_grad_cam")
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    cam = GradCAM(model=module, target_layers=[module.features[CONV5_3 + 1]])

    def theirs() -> np.ndarray:
        module.requires_grad_(True)  # it takes the weights' gradients as well, and fails without
        targets: Any = [ClassifierOutputTarget(label)]
        found = cam(input_tensor=peer_images, targets=targets)
        module.requires_grad_(False)
        return found

    def by_hand() -> np.ndarray:
        with torch.no_grad():
            h = module.features[: CONV5_3 + 2]((peer_images - module.mean) / module.std)
        h.requires_grad_()
        module.classifier(module.features[CONV5_3 + 2 :](h).flatten(1))[0, label].backward()
        weights: Any = h.grad
        return (weights.mean((2, 3), keepdim=True) * h).sum(1).relu().detach().numpy()

    def ours() -> jax.Array:
        return vizsynth.grad_cam(net, images, label, layer="relu5_3")

    times = side_by_side({"ours": ours, "by hand": by_hand, "pytorch-grad-cam": theirs}, turns=turns)
    error = relative_error(ours(), by_hand())
    return [
        row("Grad-CAM, conv5_3", "pytorch-grad-cam", times, "ours", "pytorch-grad-cam"),
        row("Grad-CAM, conv5_3", "PyTorch by hand", times, "ours", "by hand", error=error),
    ]


def path_rows(net: Any, images: Any, label: int, module: Any, peer_images: Any, turns: int) -> list[Row]:
    """Return integrated gradients and SmoothGrad beside Captum's."""
    from captum.attr import IntegratedGradients, NoiseTunnel, Saliency

    integrated, noisy = IntegratedGradients(module), NoiseTunnel(Saliency(module))

    def ours() -> jax.Array:
        return vizsynth.integrated_gradients(net, images, label, steps=50)

    def theirs() -> np.ndarray:
        found: Any = integrated.attribute(peer_images, target=label, n_steps=50, internal_batch_size=5)
        return found.detach().numpy().transpose(0, 2, 3, 1)

    times = side_by_side({"ours": ours, "Captum": theirs}, turns=turns)
    found = [
        row(
            "integrated gradients, 50 steps",
            "Captum",
            times,
            "ours",
            "Captum",
            error=relative_error(ours(), theirs()),
        )
    ]

    def smooth() -> jax.Array:
        return vizsynth.smooth_grad(net, images, label, key=jax.random.key(0), samples=25)

    def captum_smooth() -> np.ndarray:
        found: Any = noisy.attribute(
            peer_images, nt_samples=25, nt_samples_batch_size=5, stdevs=0.15, target=label, abs=False
        )
        return found.detach().numpy()

    times = side_by_side({"ours": smooth, "Captum": captum_smooth}, turns=turns)
    return [*found, row("SmoothGrad, 25 samples", "Captum", times, "ours", "Captum")]


def rows(turns: int = 3) -> list[Row]:
    """Return all of them."""
    network_key, image_key = jax.random.split(jax.random.key(0))
    net = vizsynth.models.vgg16(key=network_key)
    images = jax.random.uniform(image_key, (1, 224, 224, 3))
    module, peer_images = torch_vgg16(net), torch_images(images)
    net = vizsynth.prepare(net)
    label = int(net(images)[0].argmax())  # of others the maps may be 0 everywhere
    setting = (net, images, label, module, peer_images)
    return [*grad_cam_rows(*setting, 2 * turns + 1), *path_rows(*setting, turns)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Maps beside Captum's and pytorch-grad-cam's.")
    parser.add_argument("--turns", type=int, default=3)
    chosen = parser.parse_args()
    print(f"matrix products: {rate() / 1e9:.0f} GFLOP/s")
    print_rows(rows(chosen.turns))


if __name__ == "__main__":
    main()
