"""How much faster is incremental occlusion than running the network for every window, as Captum does?

VGG-16 at 224 px, windows of 32 px every 16 px, 169 of them; random weights, the same on both sides.

    python -m benchmarks.occlusion [--turns 3]

Needs the `parity` extra. Of the turns asked for a third are taken: Captum's take a minute.
"""

import argparse

import jax
import numpy as np

import vizsynth
from benchmarks.peers import relative_error, torch_images, torch_vgg16
from benchmarks.timing import Row, print_rows, rate, row, side_by_side
from vizsynth.scores import Class


def rows(turns: int = 3) -> list[Row]:
    """Return the map of one image."""
    from captum.attr import Occlusion

    network_key, image_key = jax.random.split(jax.random.key(0))
    net = vizsynth.models.vgg16(key=network_key)
    images = jax.random.uniform(image_key, (1, 224, 224, 3))
    peer, peer_images = Occlusion(torch_vgg16(net)), torch_images(images)
    fast = vizsynth.prepare(net)

    def ours() -> jax.Array:
        return vizsynth.occlusion(fast, images, Class(3), window=32, stride=16, fill=0.5)

    def captum() -> np.ndarray:
        found = peer.attribute(
            peer_images, target=3, sliding_window_shapes=(3, 32, 32), strides=(3, 16, 16), baselines=0.5
        )
        return found.numpy()

    times = side_by_side({"ours": ours, "Captum": captum}, turns=max(1, turns // 3))
    error = relative_error(ours()[0], captum()[0, 0])
    work = "occlusion, VGG-16, 224 px, 169 windows"
    return [row(work, "Captum", times, "ours", "Captum", error=error)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Occlusion beside Captum's.")
    parser.add_argument("--turns", type=int, default=3)
    chosen = parser.parse_args()
    print(f"matrix products: {rate() / 1e9:.0f} GFLOP/s")
    print_rows(rows(chosen.turns))


if __name__ == "__main__":
    main()
