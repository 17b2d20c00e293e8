"""How fast is style transfer, beside a PyTorch loop written as neural-style-pt is?

VGG-19's trunk, content relu4_2, style relu1_1 .. relu5_1, Adam on the pixels; random weights, the same on
both sides, which take the same steps from the same photo. A call computes the targets as well.

    python -m benchmarks.style [--size 512] [--steps 3] [--turns 3]

Needs the `parity` extra.
"""

import argparse
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import vizsynth
from benchmarks.peers import nhwc, relative_error, torch_features, torch_gram, torch_images, torch_vgg16
from benchmarks.timing import Row, print_rows, rate, row, side_by_side
from experiments.figure import PHOTOS
from vizsynth.files import read_image
from vizsynth.parametrizations import Pixels
from vizsynth.synthesis.texture import VGG_LAYERS

CONTENT = "relu4_2"
RATE = 0.02


def rows(turns: int = 7, size: int = 512, steps: int = 3) -> list[Row]:
    """Return some steps and their targets."""
    import torch

    net = vizsynth.models.vgg19(num_classes=None, key=jax.random.key(0))
    module, fast = torch_vgg16(net), vizsynth.prepare(net)
    content, style = (
        vizsynth.images.resize(jnp.asarray(read_image(PHOTOS / f"{name}.jpg")), (size, size))
        for name in ("chelsea", "ihc")
    )
    options: dict[str, Any] = {
        "parametrization": Pixels(),
        "optimizer": optax.adam,
        "learning_rate": RATE,
        "steps": steps,
    }
    begun = vizsynth.transfer_style(fast, content, [style], key=jax.random.key(0), **{**options, "steps": 0})

    def ours() -> jax.Array:
        return vizsynth.transfer_style(fast, content, [style], state=begun.state, **options).state.params

    def theirs() -> np.ndarray:
        with torch.no_grad():
            P = torch_features(module, torch_images(content[None]), (CONTENT,))[CONTENT]
            wanted = torch_features(module, torch_images(style[None]), VGG_LAYERS)
            wanted = {layer: torch_gram(A) for layer, A in wanted.items()}
        x = torch_images(content[None]).requires_grad_()
        descent = torch.optim.Adam([x], lr=RATE)
        for _ in range(steps):
            descent.zero_grad()
            seen = torch_features(module, x, (*VGG_LAYERS, CONTENT))
            terms = [((torch_gram(seen[k]) - G) ** 2).sum() / (G**2).sum() for k, G in wanted.items()]
            L = ((seen[CONTENT] - P) ** 2).sum() / (P**2).sum()
            L = L + 10 * sum(terms[1:], start=terms[0]) / len(terms)
            L.backward()
            descent.step()
        return nhwc(x)

    peer = "PyTorch loop, as neural-style-pt"
    times = side_by_side({"ours": ours, peer: theirs}, turns=max(1, turns // 2))
    work = f"style transfer, VGG-19, {size} px, {steps} steps and their targets"
    return [row(work, peer, times, "ours", peer, error=relative_error(ours(), theirs()))]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Steps of style transfer beside a PyTorch loop.")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=3, help="steps a call [3]")
    parser.add_argument("--turns", type=int, default=7)
    chosen = parser.parse_args()
    print(f"matrix products: {rate() / 1e9:.0f} GFLOP/s")
    print_rows(rows(chosen.turns, chosen.size, chosen.steps))


if __name__ == "__main__":
    main()
