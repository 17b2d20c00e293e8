"""How much faster is PGD in one compiled program than torchattacks'?

SqueezeNet 1.1 with its ImageNet weights, 8 images of 224 px, 10 steps from the images.

    python -m benchmarks.pgd [--turns 3]

Needs the `parity` extra and `tests/parity/install_peers.sh`.
"""

import argparse

import jax
import numpy as np

import vizsynth
from benchmarks.peers import torch_images, torch_squeezenet
from benchmarks.timing import side_by_side

EPSILON, ALPHA, STEPS = 8 / 255, 2 / 255, 10


def main() -> None:
    """Print the times, their ratio, and how much of the images is the same."""
    parser = argparse.ArgumentParser(description="PGD beside torchattacks'.")
    parser.add_argument("--turns", type=int, default=3)
    chosen = parser.parse_args()

    import torch
    import torchattacks

    net = vizsynth.load("squeezenet1_1")
    images = jax.random.uniform(jax.random.key(0), (8, 224, 224, 3))
    labels = jax.jit(lambda net, images: net(images).argmax(axis=-1))(net, images)
    module = torch_squeezenet(net)
    attack = torchattacks.PGD(module, eps=EPSILON, alpha=ALPHA, steps=STEPS, random_start=False)
    attack.device = torch.device("cpu")
    peer_images = torch_images(images)
    peer_labels = torch.from_numpy(np.array(labels)).long()

    def ours() -> jax.Array:
        return vizsynth.pgd(net, images, labels, epsilon=EPSILON, step_size=ALPHA, steps=STEPS)

    def peer() -> np.ndarray:
        return attack(peer_images, peer_labels).numpy()

    times = side_by_side({"ours": ours, "torchattacks": peer}, turns=chosen.turns)
    apart = np.abs(np.asarray(ours()) - peer().transpose(0, 2, 3, 1))
    print(
        f"SqueezeNet, 8 images, 224 px, {STEPS} steps, {jax.devices()[0].device_kind}, jax {jax.__version__}"
    )
    print(f"ours {times.median('ours'):.2f} s, torchattacks {times.median('torchattacks'):.2f} s")
    print(f"  {times.ratio_line('torchattacks', 'ours')}")
    print(f"  {(apart < 1e-6).mean():.2%} of the values are the same: the sign of a gradient near 0 turns")


if __name__ == "__main__":
    main()
