"""How much faster is Ablation-CAM when only what comes after the layer is run again?

VGG-16 at 224 px, `conv5_3` rectified (512 channels); random weights, the same on both sides.

    python -m benchmarks.ablation_cam [--turns 3]

Needs the `parity` extra and tests/parity/install_peers.sh.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

import vizsynth
from benchmarks.peers import relative_error, torch_images, torch_vgg16
from benchmarks.timing import side_by_side


def main() -> None:
    """Print the times, their ratio, and how far the maps are apart."""
    parser = argparse.ArgumentParser(description="Ablation-CAM beside pytorch-grad-cam's.")
    parser.add_argument("--turns", type=int, default=1)
    chosen = parser.parse_args()

    sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "parity"))
    from peers import peer  # type: ignore[attr-defined]  # tests/parity/peers.py

    peer("pytorch_grad_cam")
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

    def ours() -> jax.Array:
        return vizsynth.ablation_cam(net, images, label, layer="relu5_3")

    def theirs() -> np.ndarray:
        targets: Any = [ClassifierOutputTarget(label)]
        return cam(input_tensor=peer_images, targets=targets)

    def scaled(maps: np.ndarray) -> np.ndarray:
        """Scale and resize as pytorch-grad-cam does."""
        import cv2

        low = maps - maps.min()
        return np.asarray(cv2.resize((low / (1e-7 + low.max())).astype(np.float32), (224, 224)))

    times = side_by_side({"ours": ours, "pytorch-grad-cam": theirs}, turns=chosen.turns)
    print(f"VGG-16, 224 px, relu5_3, {jax.devices()[0].device_kind}, jax {jax.__version__}")
    print(f"ours {times.median('ours'):.2f} s, pytorch-grad-cam {times.median('pytorch-grad-cam'):.2f} s")
    print(f"  {times.ratio_line('pytorch-grad-cam', 'ours')}")
    print(f"  maps differ by {relative_error(scaled(np.asarray(ours()[0])), theirs()[0]):.1e} of their norm")


if __name__ == "__main__":
    main()
