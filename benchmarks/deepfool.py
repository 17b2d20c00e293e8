"""How much faster is DeepFool for a batch than image by image and class by class?

16 images, 10 classes, at most 50 steps, overshoot 0.02: the small network of digits (64 px, its own weights),
and SqueezeNet with a fresh last layer (224 px). torchattacks takes each class's gradient of each image by
itself, and leaves out the images that are fooled already; Foolbox goes class by class, as a batch. Foolbox
does what ours does; torchattacks applies the overshoot to each step, so its images are others.

    python -m benchmarks.deepfool [--turns 7] [--peers]

5 was wanted beside torchattacks. On SqueezeNet most of the time are the gradients of the ten classes, which
torchattacks computes as well, if one by one.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import vizsynth
from benchmarks.peers import nhwc, published, relative_error, torch_images, torch_sequential, torch_squeezenet
from benchmarks.timing import Row, alone, compare
from vizsynth.planted import WEIGHTS, planted

COUNT, STEPS, OVERSHOOT = 16, 50, 0.02


def beside(module: Any, images: Any, labels: Any) -> dict[str, Callable[[], Any]]:
    """Return the attacks of both peers."""
    import torch

    torchattacks, foolbox = published("torchattacks"), published("foolbox")
    attack = torchattacks.DeepFool(module, steps=STEPS, overshoot=OVERSHOOT)
    attack.device = torch.device("cpu")
    peer_images, peer_labels = torch_images(images), torch.from_numpy(np.array(labels)).long()
    bounded = foolbox.PyTorchModel(module, bounds=(0, 1))
    l2 = foolbox.attacks.L2DeepFoolAttack(steps=STEPS, candidates=10, overshoot=OVERSHOOT)
    return {
        "torchattacks": lambda: attack(peer_images, peer_labels),
        "Foolbox": lambda: l2.run(bounded, peer_images, peer_labels),
    }


def attack_rows(name: str, net: Any, module: Any, images: Any, turns: int) -> list[Row]:
    """Return one attack of a batch, beside both peers if their network is given."""
    labels = jax.jit(lambda net, images: net(images).argmax(axis=-1))(net, images)
    fast = vizsynth.prepare(net)
    peers = {} if module is None else beside(module, images, labels)

    def ours() -> jax.Array:
        return vizsynth.deepfool(fast, images, labels, steps=STEPS, candidates=10, overshoot=OVERSHOOT)

    errors = {"Foolbox": lambda: relative_error(ours(), nhwc(peers["Foolbox"]()))}
    return compare(f"DeepFool, {COUNT} images, 10 classes, {name}", ours, peers, turns=turns, errors=errors)


def rows(turns: int = 7, peers: bool = False) -> list[Row]:
    """Return those of both networks."""
    small = vizsynth.load(str(WEIGHTS))
    digits = jnp.asarray(planted(0, COUNT, split="test").images)
    module = torch_sequential(small) if peers else None
    found = attack_rows("digits, 64 px", small, module, digits, turns)
    head_key, image_key = jax.random.split(jax.random.key(0))
    names = [str(i) for i in range(10)]
    net = vizsynth.models.with_classes(vizsynth.load("squeezenet1_1"), names, key=head_key)
    images = jax.random.uniform(image_key, (COUNT, 224, 224, 3))
    module = torch_squeezenet(net) if peers else None
    return found + attack_rows("SqueezeNet, 224 px", net, module, images, turns)


if __name__ == "__main__":
    alone(rows, "DeepFool.")
