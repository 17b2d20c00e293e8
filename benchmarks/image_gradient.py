"""How fast are a forward pass and the gradient of a logit with respect to the image, beside PyTorch's?

VGG-16 at 224 px, one image; random weights, the same on both sides, ours prepared (`vizsynth.prepare`).
PyTorch runs in its fastest layout (channels last) with its weights frozen, on as many threads.

    python -m benchmarks.image_gradient [--turns 7] [--steps 40]

Needs the `parity` extra.
"""

import argparse
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

import vizsynth
from benchmarks.peers import relative_error, torch_images, torch_vgg16
from benchmarks.timing import Row, print_rows, rate, row, side_by_side
from vizsynth.types import Images, Network

LABEL = 3


def rows(turns: int = 7, steps: int = 40) -> list[Row]:
    """Return the forward pass, the gradient by itself, and a step of it in a scan."""
    import torch

    network_key, image_key = jax.random.split(jax.random.key(0))
    net = vizsynth.models.vgg16(key=network_key)
    images = jax.random.uniform(image_key, (1, 224, 224, 3))
    module, peer_images = torch_vgg16(net), torch_images(images)
    net = vizsynth.prepare(net)

    def logit(net: Network, images: Images) -> Array:
        return net(images)[0, LABEL]

    forward, gradient = jax.jit(lambda net, x: net(x)), jax.jit(jax.grad(logit, argnums=1))

    @jax.jit
    def ascent(net: Network, images: Images) -> Images:
        def step(x: Images, _: None) -> tuple[Images, None]:
            return x + 1e-3 * jax.grad(logit, argnums=1)(net, x), None

        return jax.lax.scan(step, images, None, length=steps)[0]

    def torch_forward() -> np.ndarray:
        with torch.no_grad():
            return module(peer_images).numpy()

    def torch_gradient() -> np.ndarray:
        x = peer_images.detach().clone(memory_format=torch.channels_last).requires_grad_()
        module(x)[0, LABEL].backward()
        found: Any = x.grad
        return found.numpy().transpose(0, 2, 3, 1)

    calls = {
        "forward": lambda: forward(net, images),
        "PyTorch, forward": torch_forward,
        "gradient": lambda: gradient(net, images),
        "PyTorch, gradient": torch_gradient,
    }
    times = side_by_side(calls, turns=turns)
    error = relative_error(gradient(net, images), torch_gradient())
    found = [
        row("VGG-16 forward, 224 px", "PyTorch", times, "forward", "PyTorch, forward"),
        row("VGG-16 image gradient, 224 px", "PyTorch", times, "gradient", "PyTorch, gradient", error=error),
    ]
    calls = {"scan": lambda: ascent(net, images), "PyTorch": torch_gradient}
    times = side_by_side(calls, turns=max(3, turns // 2))
    work = f"the same, a step of {steps} in a scan"
    return [*found, row(work, "PyTorch", times, "scan", "PyTorch", of=steps)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Forward passes and image gradients beside PyTorch's.")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--steps", type=int, default=40, help="of the scan")
    chosen = parser.parse_args()
    print(f"matrix products: {rate() / 1e9:.0f} GFLOP/s")
    print_rows(rows(chosen.turns, chosen.steps))


if __name__ == "__main__":
    main()
