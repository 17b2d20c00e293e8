"""How much faster are 64 class pictures made together than one by one?

SqueezeNet 1.1 with ImageNet's weights, pictures of 64 px, 8 steps each, the same keys; one program makes all
of them, the other is called 64 times. That the pictures are the same is looked at, too: after short steps
along the gradient itself, as Adam's first steps are signs, which turn where a gradient is near 0.

    python -m benchmarks.class_pictures [--turns 3]
"""

import argparse
from typing import Any

import jax
import jax.numpy as jnp
import optax

import vizsynth
from benchmarks.peers import relative_error
from benchmarks.timing import side_by_side

COUNT, SIZE, STEPS = 64, 64, 8


def main() -> None:
    """Print the times, their ratio, and how far the pictures are apart."""
    parser = argparse.ArgumentParser(description="64 class pictures together, and one by one.")
    parser.add_argument("--turns", type=int, default=3)
    chosen = parser.parse_args()

    net = vizsynth.load("squeezenet1_1")
    labels = jnp.arange(COUNT) * 15
    keys = jax.random.split(jax.random.key(0), COUNT)
    options: dict[str, Any] = {"steps": STEPS, "size": SIZE}

    plain = {**options, "optimization": vizsynth.Optimization(optimizer=optax.sgd, learning_rate=1e-4)}

    def together(options: dict[str, Any] = options) -> jax.Array:
        return vizsynth.visualize_class(net, labels, key=keys, **options).images

    def one_by_one(options: dict[str, Any] = options) -> jax.Array:
        made = [vizsynth.visualize_class(net, labels[i], key=keys[i], **options).images for i in range(COUNT)]
        return jnp.concatenate(made)

    times = side_by_side({"together": together, "one by one": one_by_one}, turns=chosen.turns)
    print(f"{COUNT} class pictures, SqueezeNet 1.1, {SIZE} px, {STEPS} steps, {jax.devices()[0].device_kind}")
    print(f"together {times.median('together'):.2f} s, one by one {times.median('one by one'):.2f} s")
    print(f"  {times.ratio_line('one by one', 'together')}")
    for name, chosen_options in (("Adam", options), ("steps along the gradient", plain)):
        apart = relative_error(together(chosen_options), one_by_one(chosen_options))
        print(f"  {name}: pictures differ by {apart:.1e} of their norm")


if __name__ == "__main__":
    main()
