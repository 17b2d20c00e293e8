"""How fast is the gradient of deep features of a large image, beside PyTorch's?

VGG-19's trunk at 512 px, the sum over relu5_1, one image; random weights, the same on both sides. PyTorch
runs in its fastest layout (channels last), to the same layer, with its weights frozen. It is the work of a
step of style transfer but for the losses (`benchmarks.style`).

    python -m benchmarks.trunk [--turns 7] [--steps 5]

Needs the `parity` extra.
"""

import argparse
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

import vizsynth
from benchmarks.peers import nhwc, relative_error, torch_features, torch_images, torch_vgg16
from benchmarks.timing import Row, print_rows, rate, row, side_by_side
from vizsynth.taps import run
from vizsynth.types import Images, Network

LAYER, SIZE = "relu5_1", 512


def rows(turns: int = 7, steps: int = 5) -> list[Row]:
    """Return the gradient by itself, and a step of it in a scan."""
    network_key, image_key = jax.random.split(jax.random.key(0))
    net = vizsynth.models.vgg19(num_classes=None, key=network_key)
    images = jax.random.uniform(image_key, (1, SIZE, SIZE, 3))
    module, peer_images = torch_vgg16(net), torch_images(images)
    fast = vizsynth.prepare(net)

    def total(net: Network, images: Images) -> Array:
        return run(net, images, (LAYER,))[1][LAYER].sum()

    gradient = jax.jit(jax.grad(total, argnums=1))

    @jax.jit
    def ascent(net: Network, images: Images) -> Images:
        def step(x: Images, _: None) -> tuple[Images, None]:
            return x + 1e-6 * jax.grad(total, argnums=1)(net, x), None

        return jax.lax.scan(step, images, None, length=steps)[0]

    def theirs() -> np.ndarray:
        x: Any = peer_images.detach().clone().requires_grad_()
        torch_features(module, x, (LAYER,))[LAYER].sum().backward()
        return nhwc(x.grad)

    times = side_by_side({"ours": lambda: gradient(fast, images), "PyTorch": theirs}, turns=turns)
    error = relative_error(gradient(fast, images), theirs())
    work = f"VGG-19 trunk, gradient of {LAYER}, {SIZE} px"
    found = row(work, "PyTorch", times, "ours", "PyTorch", error=error)
    times = side_by_side({"ours": lambda: ascent(fast, images), "PyTorch": theirs}, turns=max(1, turns // 2))
    work = f"{work}, a step of {steps} in a scan"
    return [found, row(work, "PyTorch", times, "ours", "PyTorch", of=steps)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Gradients of a trunk's features beside PyTorch's.")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--steps", type=int, default=5, help="of the scan")
    chosen = parser.parse_args()
    print(f"matrix products: {rate() / 1e9:.0f} GFLOP/s")
    print_rows(rows(chosen.turns, chosen.steps))


if __name__ == "__main__":
    main()
