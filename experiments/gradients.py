"""What do gradients say of a photo? `python -m experiments.gradients [--quick] [--out DIR] [--seed N]`.

Written are

- `gradients.png`: photos, and every map that is made of gradients with respect to their pixels;
- `completeness.png`: how far the integrated gradients' sum is from F(x) − F(x′), by quadrature and by steps;
- `gradients.json`: classes, ranges, errors; `caption.md`: what the pictures show.

Simonyan et al., 2013 (gradient, saliency); Zeiler & Fergus, 2013 (deconvnet); Springenberg et al., 2014
(guided backpropagation); Shrikumar et al., 2016 (input × gradient); Sundararajan et al., 2017 (integrated
gradients); Smilkov et al., 2017, Hooker et al., 2018, Adebayo et al., 2018 (SmoothGrad, its square, VarGrad).
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import vizsynth
from experiments import attributions, figure
from experiments.attributions import NETWORK, Method, bright, red_and_blue
from vizsynth.files import read_image
from vizsynth.scores import Class
from vizsynth.taps import evaluate

BASELINE = 0.5  # grey: black would leave out what is dark


def largest(maps: Array) -> Array:
    """Return each pixel's largest channel, with its sign: a gradient's channels do not add up to anything."""
    index = jnp.abs(maps).argmax(axis=-1, keepdims=True)
    return jnp.take_along_axis(maps, index, axis=-1)[..., 0]


def methods(key: Array, samples: int, steps: int) -> dict[str, Method]:
    """Return every method that is made of gradients."""
    draws: dict[str, Any] = {"key": key, "samples": samples}

    def pixelwise(function: Any, **options: Any) -> Any:
        return lambda net, x, labels: largest(function(net, x, labels, **options))

    return {
        "gradient": Method(pixelwise(vizsynth.gradient), red_and_blue),
        "saliency": Method(vizsynth.saliency, bright),
        "deconvnet": Method(pixelwise(vizsynth.deconvnet), red_and_blue),
        "guided backpropagation": Method(pixelwise(vizsynth.guided_backprop), red_and_blue),
        "input × gradient": Method(vizsynth.input_x_gradient, red_and_blue),
        "integrated gradients": Method(
            partial(vizsynth.integrated_gradients, baseline=BASELINE, steps=steps), red_and_blue
        ),
        "SmoothGrad": Method(pixelwise(vizsynth.smooth_grad, **draws), red_and_blue),
        "SmoothGrad squared": Method(pixelwise(vizsynth.smooth_grad_squared, **draws), bright),
        "VarGrad": Method(pixelwise(vizsynth.var_grad, **draws), bright),
    }


def riemann(net: Any, x: Array, label: Array, steps: int) -> float:
    """Return what the paper's own sum (eq. 3) lacks: |Σ_k ... / m − (F(x) − F(x′))|."""
    start = jnp.full_like(x, BASELINE)

    def along(total: Array, k: Array) -> tuple[Array, None]:
        path = start + k / steps * (x - start)
        return total + jax.grad(lambda x: evaluate(net, x, Class(label)).sum())(path), None

    gradients, _ = jax.lax.scan(along, jnp.zeros_like(x), jnp.arange(1, steps + 1, dtype=x.dtype))
    found = ((x - start) * gradients / steps).sum()
    return float(jnp.abs(found - (evaluate(net, x, Class(label)) - evaluate(net, start, Class(label)))[0]))


def errors(net: Any, x: Array, label: Array, counts: Sequence[int]) -> dict[str, list[float]]:
    """Return how far either quadrature is from complete, for each number of steps."""
    legendre = [
        float(jnp.abs(vizsynth.completeness(net, x, label, found, baseline=BASELINE))[0])
        for n in counts
        for found in [vizsynth.integrated_gradients(net, x, label, baseline=BASELINE, steps=n)]
    ]
    return {"Gauss-Legendre": legendre, "Riemann, as the paper": [riemann(net, x, label, n) for n in counts]}


def draw_errors(path: Path, counts: Sequence[int], found: dict[str, list[float]], change: float) -> None:
    """Draw the errors against the steps."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(6, 3.6), layout="constrained")
    axes = drawn.subplots()
    for name, values in found.items():
        axes.loglog(counts, np.maximum(values, 1e-7), marker="o", label=name)
    axes.axhline(0.01 * abs(change), color="0.6", lw=0.8, ls="--", label="1 % of F(x) − F(x′)")
    axes.set(xlabel="gradients along the path", ylabel="what the sum lacks")
    axes.legend(fontsize=8)
    drawn.savefig(path, dpi=120)


def run(
    out: Path,
    *,
    quick: bool = False,
    seed: int = 0,
    images: Sequence[Path] = attributions.DEFAULT,
) -> None:
    """Make all pictures."""
    out.mkdir(parents=True, exist_ok=True)
    net = vizsynth.load(NETWORK)
    side, samples, steps = (128, 8, 8) if quick else (227, 50, 64)
    paths = images[:1] if quick else images
    table = methods(jax.random.key(seed), samples, steps)
    numbers = attributions.explain(out, "gradients", net, paths, table, side=side, rows=2)

    counts = (2, 4, 8) if quick else (2, 4, 8, 16, 32, 64, 128)
    x = read_image(paths[0], (side, side))[None]
    label = jnp.asarray([numbers[paths[0].stem]["label"]])
    target = Class(label)
    change = float((evaluate(net, x, target) - evaluate(net, jnp.full_like(x, BASELINE), target))[0])
    found = errors(net, x, label, counts)
    draw_errors(out / "completeness.png", counts, found, change)
    for name, values in found.items():
        print(f"{name:24}" + "  ".join(f"{n}: {v:.4f}" for n, v in zip(counts, values, strict=True)))

    record = {
        "network": NETWORK,
        "seed": seed,
        "size": side,
        "samples": samples,
        "steps": steps,
        "baseline": BASELINE,
        "photos": numbers,
        "completeness": {"change": change, "steps": counts, **found},
    }
    legendre, of_paper = (values[-1] for values in found.values())
    caption = (
        f"Maps from gradients of the likeliest class's logit, {NETWORK}, {side}x{side} px, seed {seed}: "
        f"SmoothGrad, its square and VarGrad from {samples} noisy copies, integrated gradients from grey in "
        f"{steps} steps. Red speaks for the class, blue against it; bright is much, whatever its sign. Of "
        f"{paths[0].stem}, the sum of the integrated gradients lacks {legendre:.3g} of {change:.3g} by "
        f"Gauss-Legendre quadrature of {counts[-1]} steps, and {of_paper:.3g} by the paper's sum. Simonyan "
        "et al., 2013; Zeiler & Fergus, 2013; Springenberg et al., 2014; Shrikumar et al., 2016; "
        "Sundararajan et al., 2017; Smilkov et al., 2017; Hooker et al., 2018; Adebayo et al., 2018."
    )
    figure.tell(out, "gradients", record, caption, [path.stem for path in paths])


if __name__ == "__main__":
    attributions.main(run, __doc__, "gradients")
