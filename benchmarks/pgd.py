"""How much faster is PGD in one compiled program than torchattacks' and Foolbox's?

8 images, in the ball of the largest value, from the images themselves: 40 steps on the small network of
digits (64 px, its own weights), and 3 on VGG-16 (224 px, random weights), where a step takes seconds.

    python -m benchmarks.pgd [--turns 7] [--peers]

1.3 was wanted. On VGG-16 a step is the gradient of eight images. The network of digits is so small (16 to 64
channels) that its convolutions run at a third of the rate of large products, and too narrow for Winograd's
tiles to pay. The first layer's gradient, three outputs, is a product of
matrices that takes half as long as a convolution.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import vizsynth
from benchmarks.peers import nhwc, published, relative_error, torch_images, torch_sequential, torch_vgg16
from benchmarks.timing import Row, alone, compare, forward_flops
from vizsynth.planted import WEIGHTS, planted

EPSILON, ALPHA, COUNT = 8 / 255, 2 / 255, 8
STEPS, LARGE_STEPS = 40, 3


def beside(module: Any, images: Any, labels: Any, steps: int) -> dict[str, Callable[[], Any]]:
    """Return the attacks of both peers."""
    import torch

    torchattacks, foolbox = published("torchattacks"), published("foolbox")
    attack = torchattacks.PGD(module, eps=EPSILON, alpha=ALPHA, steps=steps, random_start=False)
    attack.device = torch.device("cpu")
    peer_images, peer_labels = torch_images(images), torch.from_numpy(np.array(labels)).long()
    bounded = foolbox.PyTorchModel(module, bounds=(0, 1))
    linf = foolbox.attacks.LinfPGD(abs_stepsize=ALPHA, steps=steps, random_start=False)
    return {
        "torchattacks": lambda: attack(peer_images, peer_labels),
        "Foolbox": lambda: linf.run(bounded, peer_images, peer_labels, epsilon=EPSILON),
    }


def attack_rows(name: str, net: Any, module: Any, images: Any, steps: int, turns: int) -> list[Row]:
    """Return one attack of a batch, beside both peers if their network is given."""
    fast = vizsynth.prepare(net)
    labels = jax.jit(lambda net, images: net(images).argmax(axis=-1))(fast, images)
    peers = {} if module is None else beside(module, images, labels, steps)

    def ours() -> jax.Array:
        return vizsynth.pgd(fast, images, labels, epsilon=EPSILON, step_size=ALPHA, steps=steps)

    def error(peer: str) -> Callable[[], float]:
        # The sign of a gradient that is all but 0 turns with its rounding: on VGG-16, of a value in a
        # thousand at the first step, and of more later. PyTorch's two layouts are as far apart.
        return lambda: relative_error(ours(), nhwc(peers[peer]()))

    work = f"PGD, {steps} steps, {COUNT} images, {name}"
    flops = COUNT * steps * 2 * forward_flops(net, images.shape[1:3])
    return compare(work, ours, peers, turns=turns, errors={peer: error(peer) for peer in peers}, flops=flops)


def rows(turns: int = 7, peers: bool = False) -> list[Row]:
    """Return those of both networks."""
    small = vizsynth.load(str(WEIGHTS))
    digits = jnp.asarray(planted(0, COUNT, split="test").images)
    module = torch_sequential(small) if peers else None
    found = attack_rows("digits, 64 px", small, module, digits, STEPS, turns)
    network_key, image_key = jax.random.split(jax.random.key(0))
    net = vizsynth.models.vgg16(key=network_key)
    images = jax.random.uniform(image_key, (COUNT, 224, 224, 3))
    module = torch_vgg16(net) if peers else None
    return found + attack_rows("VGG-16, 224 px", net, module, images, LARGE_STEPS, turns)


if __name__ == "__main__":
    alone(rows, "PGD.")
