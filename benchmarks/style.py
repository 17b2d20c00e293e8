"""How fast is style transfer, beside a PyTorch loop written as neural-style-pt is?

VGG-19's trunk, content relu4_2, style relu1_1 .. relu5_1, Adam on the pixels; random weights, the same on
both sides, which take the same steps from the same photo. A call computes the targets as well.

    python -m benchmarks.style [--turns 7] [--peers]

1.5 was wanted. Besides the trunk's gradient a step has the Gram matrices of five layers and their gradients.
Tried: their gradient as one product where autodiff takes two; a resumed run no longer equalled an
uninterrupted one to the last bit.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import vizsynth
from benchmarks.peers import nhwc, relative_error, torch_features, torch_gram, torch_images, torch_vgg16
from benchmarks.timing import Row, alone, compare
from experiments.figure import PHOTOS
from vizsynth.files import read_image
from vizsynth.parametrizations import Pixels
from vizsynth.synthesis.texture.gatys import VGG_LAYERS

CONTENT = "relu4_2"
RATE = 0.02
SIZE, STEPS = 512, 3
PEER = "PyTorch loop, as neural-style-pt"


def beside(net: Any, content: Any, style: Any) -> Callable[[], np.ndarray]:
    """Return PyTorch's steps."""
    import torch

    module = torch_vgg16(net)

    def theirs() -> np.ndarray:
        with torch.no_grad():
            P = torch_features(module, torch_images(content[None]), (CONTENT,))[CONTENT]
            wanted = torch_features(module, torch_images(style[None]), VGG_LAYERS)
            wanted = {layer: torch_gram(A) for layer, A in wanted.items()}
        x = torch_images(content[None]).requires_grad_()
        descent = torch.optim.Adam([x], lr=RATE)
        for _ in range(STEPS):
            descent.zero_grad()
            seen = torch_features(module, x, (*VGG_LAYERS, CONTENT))
            terms = [((torch_gram(seen[k]) - G) ** 2).sum() / (G**2).sum() for k, G in wanted.items()]
            L = ((seen[CONTENT] - P) ** 2).sum() / (P**2).sum()
            L = L + 10 * sum(terms[1:], start=terms[0]) / len(terms)
            L.backward()
            descent.step()
        return nhwc(x)

    return theirs


def rows(turns: int = 7, peers: bool = False) -> list[Row]:
    """Return some steps and their targets."""
    net = vizsynth.models.vgg19(num_classes=None, key=jax.random.key(0))
    fast = vizsynth.prepare(net)
    content, style = (
        vizsynth.images.resize(jnp.asarray(read_image(PHOTOS / f"{name}.jpg")), (SIZE, SIZE))
        for name in ("chelsea", "ihc")
    )
    options: dict[str, Any] = {
        "parametrization": Pixels(),
        "optimizer": optax.adam,
        "learning_rate": RATE,
        "steps": STEPS,
    }
    begun = vizsynth.transfer_style(fast, content, [style], key=jax.random.key(0), **{**options, "steps": 0})

    def ours() -> jax.Array:
        return vizsynth.transfer_style(fast, content, [style], state=begun.state, **options).state.params

    theirs = beside(net, content, style) if peers else None
    return compare(
        f"style transfer, VGG-19, {SIZE} px, {STEPS} steps and their targets",
        ours,
        {PEER: theirs} if theirs else {},
        turns=turns,
        errors={PEER: lambda: relative_error(ours(), theirs())} if theirs else None,
    )


if __name__ == "__main__":
    alone(rows, "Steps of style transfer.")
