"""Is a step of gradient ascent on an image as fast inside `lax.scan` as outside it?

XLA's CPU compiler has fast convolutions that it does not use inside loops, in the layout that JAX's
own gradient of a convolution asks for. The functions of vizsynth compute with `ops.fast`, which asks in a
layout for which it makes no difference; `ops.plain`, JAX's own gradient, shows what happens otherwise.

    python -m benchmarks.scan_gradient [--turns 5] [--steps 5] [--size 224]
"""

import argparse
from collections.abc import Callable

import jax
from jaxtyping import Array

import vizsynth
from benchmarks.timing import side_by_side
from vizsynth import ops
from vizsynth.types import Images, Network


def outside_and_inside(
    net: Network, images: Images, table: ops.Ops, steps: int
) -> dict[str, Callable[[], Images]]:
    """Return the same steps, one call each and all of them in one scan."""

    def step(net: Network, images: Images) -> Images:
        def objective(images: Images) -> Array:
            return net(images, ops=table).mean()

        return images + 1e-3 * jax.grad(objective)(images)

    @jax.jit
    def loop(net: Network, images: Images) -> Images:
        return jax.lax.scan(lambda x, _: (step(net, x), None), images, None, length=steps)[0]

    single = jax.jit(step)

    def one_by_one() -> Images:
        x = images
        for _ in range(steps):
            x = single(net, x)
        return x

    return {"outside": one_by_one, "inside": lambda: loop(net, images)}


def main() -> None:
    """Print seconds a step, and how many times as long a step takes inside the loop."""
    parser = argparse.ArgumentParser(description="A step of gradient ascent inside and outside a scan.")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5, help="of the scan; time is given per step")
    parser.add_argument("--size", type=int, default=224, help="of the image, in pixels")
    chosen = parser.parse_args()

    network_key, image_key = jax.random.split(jax.random.key(0))
    net = vizsynth.models.vgg16(num_classes=None, key=network_key)
    images = jax.random.uniform(image_key, (1, chosen.size, chosen.size, 3))
    print(f"VGG-16 trunk, {chosen.size} px, {jax.devices()[0].device_kind}, jax {jax.__version__}")
    for name, table in (("fast", ops.fast), ("plain", ops.plain)):
        calls = outside_and_inside(net, images, table, chosen.steps)
        times = side_by_side(calls, turns=chosen.turns)
        outside, inside = (times.median(side) / chosen.steps for side in ("outside", "inside"))
        print(f"ops.{name}: a step takes {outside:.3f} s outside the scan, {inside:.3f} s inside")
        print(f"  {times.ratio_line('inside', 'outside')}")


if __name__ == "__main__":
    main()
