"""How long does a call take to return, beside its results?

Ten gradients of sixteen images by SqueezeNet 1.1 with ImageNet's weights, the images on the device, each call
before the results of the one before are there. On a CPU at most 32 programs wait at once.

    python -m benchmarks.dispatch [--turns 5] [--size 224]
"""

import argparse
import time
from statistics import median

import jax

import vizsynth

CALLS, IMAGES = 10, 16


def main() -> None:
    """Print how long the calls took to return, how long their results, and the share."""
    parser = argparse.ArgumentParser(description="How long calls take to return, beside their results.")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--size", type=int, default=224)
    chosen = parser.parse_args()

    net = vizsynth.load("squeezenet1_1")
    images = jax.random.uniform(jax.random.key(0), (IMAGES, chosen.size, chosen.size, 3))
    labels = net(images).argmax(axis=-1)
    jax.block_until_ready(vizsynth.gradient(net, images, labels))

    returned, there = [], []
    for _ in range(chosen.turns):
        begun = time.perf_counter()
        results = [vizsynth.gradient(net, images, labels) for _ in range(CALLS)]
        returned.append(time.perf_counter() - begun)
        jax.block_until_ready(results)
        there.append(time.perf_counter() - begun)
    shares = [a / b for a, b in zip(returned, there, strict=True)]
    print(f"{CALLS} gradients of {IMAGES} images, SqueezeNet 1.1, {chosen.size} px, ", end="")
    print(f"{jax.devices()[0].device_kind}, {chosen.turns} turns")
    print(
        f"the calls return after {median(returned):.4f} s, the results are there after {median(there):.3f} s"
    )
    print(f"  share: {median(shares):.4f} (greatest {max(shares):.4f})")


if __name__ == "__main__":
    main()
