"""How much faster is PGD in one compiled program than torchattacks' and Foolbox's?

8 images, in the ball of the largest value, from the images themselves: 40 steps on the small network of
digits (64 px, its own weights), and 3 on VGG-16 (224 px, random weights), where a step takes seconds.

    python -m benchmarks.pgd [--turns 3] [--steps 40] [--large-steps 3]

Needs the `parity` extra and `tests/parity/install_peers.sh`. On VGG-16 a third of the turns are taken.
"""

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import vizsynth
from benchmarks.peers import nhwc, published, relative_error, torch_images, torch_sequential, torch_vgg16
from benchmarks.timing import Row, print_rows, rate, row, side_by_side
from vizsynth.planted import WEIGHTS, planted

EPSILON, ALPHA, COUNT = 8 / 255, 2 / 255, 8


def attack_rows(name: str, net: Any, module: Any, images: Any, steps: int, turns: int) -> list[Row]:
    """Return one attack of a batch, beside both peers."""
    import torch

    torchattacks, foolbox = published("torchattacks"), published("foolbox")
    fast = vizsynth.prepare(net)
    labels = jax.jit(lambda net, images: net(images).argmax(axis=-1))(fast, images)
    attack = torchattacks.PGD(module, eps=EPSILON, alpha=ALPHA, steps=steps, random_start=False)
    attack.device = torch.device("cpu")
    peer_images, peer_labels = torch_images(images), torch.from_numpy(np.array(labels)).long()
    bounded = foolbox.PyTorchModel(module, bounds=(0, 1))
    linf = foolbox.attacks.LinfPGD(abs_stepsize=ALPHA, steps=steps, random_start=False)

    def ours() -> jax.Array:
        return vizsynth.pgd(fast, images, labels, epsilon=EPSILON, step_size=ALPHA, steps=steps)

    peers: dict[str, Callable[[], Any]] = {
        "torchattacks": lambda: attack(peer_images, peer_labels),
        "Foolbox": lambda: linf.run(bounded, peer_images, peer_labels, epsilon=EPSILON),
    }
    times = side_by_side({"ours": ours, **peers}, turns=turns)
    found, work = ours(), f"PGD, {steps} steps, {COUNT} images, {name}"
    # The sign of a gradient that is all but 0 turns with its rounding: on VGG-16, of a value in a thousand at
    # the first step, and of more later. The images that PyTorch finds in its two layouts are as far apart.
    return [
        row(work, peer, times, "ours", peer, error=relative_error(found, nhwc(call())))
        for peer, call in peers.items()
    ]


def rows(turns: int = 7, steps: int = 40, large_steps: int = 3) -> list[Row]:
    """Return those of both networks."""
    small = vizsynth.load(str(WEIGHTS))
    digits = jnp.asarray(planted(0, COUNT, split="test").images)
    found = attack_rows("digits, 64 px", small, torch_sequential(small), digits, steps, turns)
    network_key, image_key = jax.random.split(jax.random.key(0))
    net = vizsynth.models.vgg16(key=network_key)
    images = jax.random.uniform(image_key, (COUNT, 224, 224, 3))
    large = attack_rows("VGG-16, 224 px", net, torch_vgg16(net), images, large_steps, max(1, turns // 3))
    return [*found, *large]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="PGD beside torchattacks' and Foolbox's.")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40, help="on the network of digits [40]")
    parser.add_argument("--large-steps", type=int, default=3, help="on VGG-16 [3]")
    chosen = parser.parse_args()
    print(f"matrix products: {rate() / 1e9:.0f} GFLOP/s")
    print_rows(rows(chosen.turns, chosen.steps, chosen.large_steps))


if __name__ == "__main__":
    main()
