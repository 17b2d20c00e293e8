"""How much faster is Ablation-CAM when only what comes after the layer is run again?

VGG-16 at 224 px, `conv5_3` rectified (512 channels); random weights, the same on both sides.

    python -m benchmarks.ablation_cam [--turns 1]

Needs the `parity` extra and `tests/parity/install_peers.sh`. Of the turns asked for a fifth are taken:
pytorch-grad-cam's take minutes.
"""

import argparse
from typing import Any

import jax
import numpy as np

import vizsynth
from benchmarks.peers import published, relative_error, torch_images, torch_vgg16
from benchmarks.timing import Row, print_rows, rate, row, side_by_side


def rows(turns: int = 1) -> list[Row]:
    """Return the map of one image."""
    published("pytorch_grad_cam")
    from pytorch_grad_cam import AblationCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    network_key, image_key = jax.random.split(jax.random.key(0))
    net = vizsynth.models.vgg16(key=network_key)
    images = jax.random.uniform(image_key, (1, 224, 224, 3))
    label = int(net(images)[0].argmax())
    module, peer_images = torch_vgg16(net), torch_images(images)
    module.requires_grad_(True)
    cam = AblationCAM(model=module, target_layers=[module.features[29]])
    cam.batch_size = 32
    fast = vizsynth.prepare(net)

    def ours() -> jax.Array:
        return vizsynth.ablation_cam(fast, images, label, layer="relu5_3")

    kept: list[np.ndarray] = []

    def theirs() -> np.ndarray:
        targets: Any = [ClassifierOutputTarget(label)]
        kept[:] = [cam(input_tensor=peer_images, targets=targets)]
        return kept[0]

    def scaled(maps: np.ndarray) -> np.ndarray:
        """Scale and resize as pytorch-grad-cam does."""
        import cv2

        low = maps - maps.min()
        return np.asarray(cv2.resize((low / (1e-7 + low.max())).astype(np.float32), (224, 224)))

    peer = "pytorch-grad-cam"
    times = side_by_side({"ours": ours, peer: theirs}, turns=max(1, turns // 5))
    error = relative_error(scaled(np.asarray(ours()[0])), kept[0][0])
    return [row("Ablation-CAM, VGG-16, 224 px, relu5_3", peer, times, "ours", peer, error=error)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Ablation-CAM beside pytorch-grad-cam's.")
    parser.add_argument("--turns", type=int, default=1)
    chosen = parser.parse_args()
    print(f"matrix products: {rate() / 1e9:.0f} GFLOP/s")
    print_rows(rows(chosen.turns))


if __name__ == "__main__":
    main()
