"""What does fast convolution cost in accuracy? Each beside the same network in float64.

VGG-16 at 224 px, one image, random weights. The gradient of a logit is compared twice: as it comes, and with
each ReLU and each pool deciding as float64 decided. In float32 some of the fifteen million decisions turn
over, whatever the convolution, and that is most of what the first number sees.

    python -m benchmarks.errors
"""

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

import vizsynth
from benchmarks.peers import relative_error
from benchmarks.timing import grid
from vizsynth import ops

LABEL = 3
HEAD = "convolutions"


def _windows(x: Array) -> Array:
    """Return the four values of each 2x2 window, as the last axis."""
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 5, 2, 4).reshape(n, h // 2, w // 2, c, 4)


def deciding(into: list[Array]) -> ops.Ops:
    """Return the arithmetic that writes down what each ReLU and each pool decides."""

    def relu(x: Array) -> Array:
        into.append(x > 0)
        return jax.nn.relu(x)

    def max_pool(x: Array, **_: Any) -> Array:
        into.append(_windows(x).argmax(axis=-1))
        return _windows(x).max(axis=-1)

    return ops.fast._replace(relu=relu, max_pool=max_pool)


def decided(decisions: list[Array]) -> ops.Ops:
    """Return the arithmetic in which they decide as they did before."""
    upcoming = iter(decisions)

    def relu(x: Array) -> Array:
        return jnp.where(next(upcoming), x, jnp.zeros_like(x))

    def max_pool(x: Array, **_: Any) -> Array:
        return jnp.take_along_axis(_windows(x), next(upcoming)[..., None], axis=-1)[..., 0]

    return ops.fast._replace(relu=relu, max_pool=max_pool)


def seen(net: Any, images: Array, decisions: list[Array]) -> dict[str, Array]:
    """Return features, logits, and the gradient of one of them in both ways."""

    def gradient(table: Callable[[], ops.Ops]) -> Array:
        return jax.jit(jax.grad(lambda images, net: net(images, ops=table())[0, LABEL]))(images, net)

    return {
        **vizsynth.features(net, images, ("pool5", "logits")),
        "gradient": gradient(lambda: ops.fast),
        "gradient, the same decisions": gradient(lambda: decided(decisions)),
    }


def figures(turns: int = 1) -> dict[str, dict[str, str]]:
    """Return the error of each quantity relative to its norm, by direct and by prepared convolutions."""
    del turns  # always the same
    network_key, image_key = jax.random.split(jax.random.key(0))
    net = vizsynth.models.vgg16(key=network_key)
    images = jax.random.uniform(image_key, (1, 224, 224, 3))
    decisions: list[Array] = []
    with jax.enable_x64(True):
        exact = vizsynth.models.with_precision(net, jnp.float64)
        exact(images.astype(jnp.float64), ops=deciding(decisions))
        truth = seen(exact, images.astype(jnp.float64), decisions)
    found = {}
    for name, network in (("direct", net), ("prepared", vizsynth.prepare(net))):
        errors = seen(network, images, decisions)
        found[name] = {k: f"{relative_error(errors[k], truth[k]):.1e}" for k in truth}
    return found


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(description="Errors of fast convolution.").parse_args()
    print(grid(HEAD, figures()))


if __name__ == "__main__":
    main()
