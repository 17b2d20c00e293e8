"""How fast is the gradient of deep features of a large image, beside PyTorch's?

VGG-19's trunk at 512 px, the sum over relu5_1, one image; random weights, the same on both sides. PyTorch
runs in its fastest layout (channels last), to the same layer, with its weights frozen. It is the work of a
step of style transfer but for the losses (`benchmarks.style`).

    python -m benchmarks.trunk [--turns 7] [--peers]

1.5 was wanted. By the profile what is left are the transforms of Winograd's tiles and the first block, which
is direct at this size (`benchmarks.image_gradient`).
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

import vizsynth
from benchmarks.peers import nhwc, relative_error, torch_features, torch_images, torch_vgg16
from benchmarks.timing import Row, alone, compare, forward_flops
from vizsynth.taps import run
from vizsynth.types import Images, Network

LAYER, SIZE = "relu5_1", 512
STEPS = 5  # of the scan
PEER = "PyTorch"


def beside(net: Any, images: Any) -> Callable[[], np.ndarray]:
    """Return PyTorch's gradient."""
    module, peer_images = torch_vgg16(net), torch_images(images)

    def theirs() -> np.ndarray:
        x: Any = peer_images.detach().clone().requires_grad_()
        torch_features(module, x, (LAYER,))[LAYER].sum().backward()
        return nhwc(x.grad)

    return theirs


def rows(turns: int = 7, peers: bool = False) -> list[Row]:
    """Return the gradient by itself, and a step of it in a scan."""
    network_key, image_key = jax.random.split(jax.random.key(0))
    net = vizsynth.models.vgg19(num_classes=None, key=network_key)
    images = jax.random.uniform(image_key, (1, SIZE, SIZE, 3))
    flops = 2 * forward_flops(net, (SIZE, SIZE), until=LAYER)
    theirs = beside(net, images) if peers else None
    fast = vizsynth.prepare(net)

    def total(net: Network, images: Images) -> Array:
        return run(net, images, (LAYER,))[1][LAYER].sum()

    gradient = jax.jit(jax.grad(total, argnums=1))

    @jax.jit
    def ascent(net: Network, images: Images) -> Images:
        def step(x: Images, _: None) -> tuple[Images, None]:
            return x + 1e-6 * jax.grad(total, argnums=1)(net, x), None

        return jax.lax.scan(step, images, None, length=STEPS)[0]

    work = f"VGG-19 trunk, gradient of {LAYER}, {SIZE} px"
    beside_it = {PEER: theirs} if theirs else {}
    errors = {PEER: lambda: relative_error(gradient(fast, images), theirs())} if theirs else None
    found = compare(work, lambda: gradient(fast, images), beside_it, turns=turns, errors=errors, flops=flops)
    return found + compare(
        f"{work}, a step of {STEPS} in a scan",
        lambda: ascent(fast, images),
        beside_it,
        turns=turns,
        of=STEPS,
        flops=flops,
    )


if __name__ == "__main__":
    alone(rows, "Gradients of a trunk's features.")
