"""How much faster is DeepFool for a batch than image by image and class by class?

16 images, 10 classes, at most 50 steps, overshoot 0.02: the small network of digits (64 px, its own weights),
and SqueezeNet with a fresh last layer (224 px). torchattacks takes each class's gradient of each image by
itself, and leaves out the images that are fooled already; Foolbox goes class by class, as a batch. Foolbox
does what ours does; torchattacks applies the overshoot to each step, so its images are others.

    python -m benchmarks.deepfool [--turns 7]

Needs the `parity` extra and `tests/parity/install_peers.sh`. On SqueezeNet a third of the turns are taken.
"""

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import vizsynth
from benchmarks.peers import nhwc, published, relative_error, torch_images, torch_sequential, torch_squeezenet
from benchmarks.timing import Row, print_rows, rate, row, side_by_side
from vizsynth.planted import WEIGHTS, planted

COUNT, STEPS, OVERSHOOT = 16, 50, 0.02


def attack_rows(name: str, net: Any, module: Any, images: Any, turns: int) -> list[Row]:
    """Return one attack of a batch, beside both peers."""
    import torch

    torchattacks, foolbox = published("torchattacks"), published("foolbox")
    labels = jax.jit(lambda net, images: net(images).argmax(axis=-1))(net, images)
    fast = vizsynth.prepare(net)
    attack = torchattacks.DeepFool(module, steps=STEPS, overshoot=OVERSHOOT)
    attack.device = torch.device("cpu")
    peer_images, peer_labels = torch_images(images), torch.from_numpy(np.array(labels)).long()
    bounded = foolbox.PyTorchModel(module, bounds=(0, 1))
    l2 = foolbox.attacks.L2DeepFoolAttack(steps=STEPS, candidates=10, overshoot=OVERSHOOT)

    def ours() -> jax.Array:
        return vizsynth.deepfool(fast, images, labels, steps=STEPS, candidates=10, overshoot=OVERSHOOT)

    peers: dict[str, Callable[[], Any]] = {
        "torchattacks": lambda: attack(peer_images, peer_labels),
        "Foolbox": lambda: l2.run(bounded, peer_images, peer_labels),
    }
    times = side_by_side({"ours": ours, **peers}, turns=turns)
    error = relative_error(ours(), nhwc(peers["Foolbox"]()))
    work = f"DeepFool, {COUNT} images, 10 classes, {name}"
    return [
        row(work, "torchattacks", times, "ours", "torchattacks"),
        row(work, "Foolbox", times, "ours", "Foolbox", error=error),
    ]


def rows(turns: int = 7) -> list[Row]:
    """Return those of both networks."""
    small = vizsynth.load(str(WEIGHTS))
    digits = jnp.asarray(planted(0, COUNT, split="test").images)
    found = attack_rows("digits, 64 px", small, torch_sequential(small), digits, turns)
    head_key, image_key = jax.random.split(jax.random.key(0))
    names = [str(i) for i in range(10)]
    net = vizsynth.models.with_classes(vizsynth.load("squeezenet1_1"), names, key=head_key)
    images = jax.random.uniform(image_key, (COUNT, 224, 224, 3))
    large = attack_rows("SqueezeNet, 224 px", net, torch_squeezenet(net), images, max(1, turns // 3))
    return [*found, *large]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="DeepFool beside torchattacks' and Foolbox's.")
    parser.add_argument("--turns", type=int, default=7)
    chosen = parser.parse_args()
    print(f"matrix products: {rate() / 1e9:.0f} GFLOP/s")
    print_rows(rows(chosen.turns))


if __name__ == "__main__":
    main()
