"""How much faster is incremental occlusion than running the network for every window, as Captum does?

VGG-16 at 224 px, windows of 32 px every 16 px, 169 of them; random weights, the same on both sides.

    python -m benchmarks.occlusion [--turns 7] [--peers]

10 was wanted. A window of 32 px changes 10 of 14 rows of positions by relu5_1, and all by relu5_3: most of
the last block is done again for each window, and the dense layers for all (a fifteenth of the time). The rest
is Winograd's products, at the rate that they have.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import vizsynth
from benchmarks.peers import relative_error, torch_images, torch_vgg16
from benchmarks.timing import Row, alone, compare
from vizsynth.scores import Class


def beside(net: Any, images: Any) -> Callable[[], np.ndarray]:
    """Return Captum's map."""
    from captum.attr import Occlusion

    peer, peer_images = Occlusion(torch_vgg16(net)), torch_images(images)

    def captum() -> np.ndarray:
        found = peer.attribute(
            peer_images, target=3, sliding_window_shapes=(3, 32, 32), strides=(3, 16, 16), baselines=0.5
        )
        return found.numpy()

    return captum


def rows(turns: int = 7, peers: bool = False) -> list[Row]:
    """Return the map of one image."""
    network_key, image_key = jax.random.split(jax.random.key(0))
    net = vizsynth.models.vgg16(key=network_key)
    images = jax.random.uniform(image_key, (1, 224, 224, 3))
    fast, captum = vizsynth.prepare(net), beside(net, images) if peers else None

    def ours() -> jax.Array:
        return vizsynth.occlusion(fast, images, Class(3), window=32, stride=16, fill=0.5)

    return compare(
        "occlusion, VGG-16, 224 px, 169 windows",
        ours,
        {"Captum": captum} if captum else {},
        turns=turns,
        errors={"Captum": lambda: relative_error(ours()[0], captum()[0, 0])} if captum else None,
    )


if __name__ == "__main__":
    alone(rows, "Occlusion.")
