"""A small network that reads the planted digits: `python -m experiments.planted_network` trains it.

Four convolutions, a global mean and a linear classifier, so that every class activation map is defined
on it; its last maps are 16x16 for images of 64 pixels, and each sees 27 pixels.
"""

import argparse
import time
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from vizsynth.images import Standardize
from vizsynth.models import Weights, load, save, sequential
from vizsynth.models.sequential import Conv, Dense, GlobalMean, MaxPool, ReLU, Sequential
from vizsynth.ops import accelerated
from vizsynth.planted import WEIGHTS, Planted, planted

SIZE = 64
LABELS = tuple(str(digit) for digit in range(10))
STANDARDIZE = Standardize(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
STACK = (
    Conv(16, 5, stride=2),
    ReLU(),
    Conv(32),
    ReLU(),
    MaxPool(2),
    Conv(48),
    ReLU(),
    Conv(64),
    ReLU(),
    GlobalMean(),
    Dense(10),
)
LAST_MAPS = "relu4"


def fresh(seed: int = 0) -> Sequential:
    """Return the network before training."""
    net = sequential(STACK, (SIZE, SIZE, 3), standardize=STANDARDIZE, key=jax.random.key(seed))
    net.labels = LABELS
    return net


def trained() -> Sequential:
    """Return the network with its weights."""
    return load(str(WEIGHTS))


@jax.jit
def _correct(net: Sequential, images: Array, labels: Array) -> Array:
    return net(images).argmax(axis=-1) == labels


def accuracy(net: Sequential, *, n: int = 2000, seed: int = 1) -> float:
    """Return the share of held-out images that the network reads."""
    right = []
    for start in range(0, n, 100):
        part = planted(seed, min(100, n - start), split="test", size=SIZE, start=start)
        right.append(np.asarray(_correct(net, jnp.asarray(part.images), jnp.asarray(part.labels))))
    return float(np.concatenate(right).mean())


def crops(data: Planted, size: int, seed: int) -> Float[np.ndarray, "n size size 3"]:
    """Return a square of each image that holds its digit, at a random place around it."""
    rng = np.random.default_rng(seed)
    parts = []
    for image, (top, left, bottom, right) in zip(data.images, data.boxes, strict=True):
        ends = ((bottom, top, image.shape[0]), (right, left, image.shape[1]))
        y, x = (rng.integers(max(0, end - size), min(first, side - size) + 1) for end, first, side in ends)
        parts.append(image[y : y + size, x : x + size])
    return np.stack(parts)


def fit(
    net: Sequential,
    images: Float[np.ndarray, "n h w 3"],
    labels: Int[np.ndarray, " n"],
    *,
    epochs: int,
    learning_rate: float,
    batch: int = 64,
    seed: int = 0,
) -> Sequential:
    """Return the network after training by cross entropy: AdamW, one cycle of the learning rate."""
    n = len(images)
    steps = n // batch
    schedule = optax.cosine_onecycle_schedule(steps * epochs, learning_rate, pct_start=0.1)
    optimizer = optax.adamw(schedule, weight_decay=1e-4)
    state = optimizer.init(cast(Any, net))  # any pytree will do, whatever optax's types say

    @jax.jit
    def step(net: Any, state: optax.OptState, images: Array, labels: Array) -> tuple:
        def loss(net: Any) -> Array:
            return optax.softmax_cross_entropy_with_integer_labels(accelerated(net)(images), labels).mean()

        value, gradient = jax.value_and_grad(loss)(net)
        updates, state = optimizer.update(gradient, state, net)
        return optax.apply_updates(net, updates), state, value

    rng = np.random.default_rng(seed)
    for epoch in range(epochs):
        began = time.perf_counter()
        losses = []
        for part in rng.permutation(n)[: steps * batch].reshape(steps, batch):
            net, state, value = step(net, state, images[part], labels[part])
            losses.append(value)
        mean = float(jnp.stack(losses).mean())
        side, seconds = images.shape[1], time.perf_counter() - began
        print(f"{side} pixels, epoch {epoch + 1}: loss {mean:.3f}, {seconds:.0f} s", flush=True)
    return net


def train(*, n: int = 12_000, epochs: tuple[int, int] = (8, 5), seed: int = 0) -> Sequential:
    """Return the network, trained on squares of half the side around the digits, then on whole images.

    The global mean dilutes a small digit; the squares get training off the ground, at a quarter of the
    cost.
    """
    data = planted(seed, n, size=SIZE)
    labels = data.labels.astype(np.int32)
    net = fit(fresh(seed), crops(data, SIZE // 2, seed), labels, epochs=epochs[0], learning_rate=4e-3)
    return fit(net, data.images, labels, epochs=epochs[1], learning_rate=2e-3)


def main() -> None:
    """Train, tell the held-out accuracy, and write the weights in half precision."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--epochs", type=int, nargs=2, default=(8, 5), help="on squares, on whole images")
    parser.add_argument("--images", type=int, default=12_000)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    arguments = parser.parse_args()
    net = train(n=arguments.images, epochs=tuple(arguments.epochs))
    record = Weights(
        "planted",
        net.config,
        STANDARDIZE.mean,
        STANDARDIZE.std,
        input_size=(SIZE, SIZE),
        labels=LABELS,
        license="Apache-2.0",
        origin="trained by experiments/planted_network.py on vizsynth/planted.py",
    )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    save(arguments.out, net, record, dtype=np.float16)
    kept = load(str(arguments.out))
    print(f"held-out accuracy {accuracy(kept):.4f}; {arguments.out}: {arguments.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
