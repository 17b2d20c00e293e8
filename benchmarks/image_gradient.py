"""How fast are a forward pass and the gradient of a logit with respect to the image, beside PyTorch's?

VGG-16 at 224 px, one image; random weights, the same on both sides, ours prepared (`vizsynth.prepare`) and
compiled by `jax.jit`.
PyTorch runs in its fastest layout (channels last) with its weights frozen, on as many threads.

Eight images are timed by `vmap` beside a batch of eight, and a step in a scan beside one outside it. The
compiled programs of the eight call the same convolutions and products, on arrays of the same sizes; but the
last layer's gradient is the same for all, which `vmap` sees.

    python -m benchmarks.image_gradient [--turns 7] [--peers]

1.5, 1.3 and 1.4 were wanted of the forward pass, the gradient and the step in the scan.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import vizsynth
from benchmarks.peers import nhwc, relative_error, torch_images, torch_vgg16
from benchmarks.timing import Row, alone, compare, forward_flops
from vizsynth.types import Images, Network

LABEL = 3
STEPS = 40  # of the scan
PEER = "PyTorch"


def beside(net: Any, images: Any) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return PyTorch's forward pass and its gradient."""
    import torch

    module, peer_images = torch_vgg16(net), torch_images(images)

    def forward() -> np.ndarray:
        with torch.no_grad():
            return module(peer_images).numpy()

    def gradient() -> np.ndarray:
        x = peer_images.detach().clone(memory_format=torch.channels_last).requires_grad_()
        module(x)[0, LABEL].backward()
        return nhwc(x.grad)

    return forward, gradient


def rows(turns: int = 7, peers: bool = False) -> list[Row]:
    """Return the forward pass, the gradient by itself, a step of it in a scan, and eight of them."""
    network_key, image_key = jax.random.split(jax.random.key(0))
    net = vizsynth.models.vgg16(key=network_key)
    images = jax.random.uniform(image_key, (1, 224, 224, 3))
    flops = forward_flops(net, (224, 224))
    theirs, their_gradient = beside(net, images) if peers else (None, None)
    net = vizsynth.prepare(net)

    def logit(net: Network, images: Images) -> Array:
        return net(images)[0, LABEL]

    forward, gradient = jax.jit(lambda net, x: net(x)), jax.jit(jax.grad(logit, argnums=1))

    @jax.jit
    def ascent(net: Network, images: Images) -> Images:
        def step(x: Images, _: None) -> tuple[Images, None]:
            return x + 1e-3 * jax.grad(logit, argnums=1)(net, x), None

        return jax.lax.scan(step, images, None, length=STEPS)[0]

    def eight(net: Network, images: Images) -> Images:
        return jax.grad(lambda images: net(images)[:, LABEL].sum())(images)

    mapped = jax.jit(jax.vmap(jax.grad(lambda x, net: net(x[None])[0, LABEL]), in_axes=(0, None)))
    batch, together = jnp.repeat(images, 8, axis=0), jax.jit(eight)

    def once() -> Images:
        return gradient(net, images)

    found = compare(
        "VGG-16 forward, 224 px",
        lambda: forward(net, images),
        {PEER: theirs} if theirs else {},
        turns=turns,
        errors={PEER: lambda: relative_error(forward(net, images), theirs())} if theirs else None,
        flops=flops,
    )
    work = "VGG-16 image gradient, 224 px"
    gradients = {PEER: their_gradient} if their_gradient else {}
    errors = {PEER: lambda: relative_error(once(), their_gradient())} if their_gradient else None
    found += compare(work, once, gradients, turns=turns, errors=errors, flops=2 * flops)
    # The step outside takes the place of a peer: at least 1 is wanted.
    found += compare(
        f"{work}, a step of {STEPS} in a scan",
        lambda: ascent(net, images),
        {**gradients, "ours, outside the scan": once},
        turns=turns,
        of=STEPS,
        flops=2 * flops,
    )
    return found + compare(
        f"{work}, vmap of 8",
        lambda: mapped(batch, net),
        {"ours, a batch of 8": lambda: together(net, batch)},
        turns=turns,
        errors={"ours, a batch of 8": lambda: relative_error(mapped(batch, net), together(net, batch))},
        flops=16 * flops,
    )


if __name__ == "__main__":
    alone(rows, "Forward passes and image gradients.")
