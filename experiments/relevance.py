"""Where does the score go? `python -m experiments.relevance [--quick] [--out DIR] [--seed N]`.

Layer-wise relevance propagation hands the class's score down, layer by layer, to the pixels. Written are

- `relevance.png`: photos, and the relevance of their pixels by several composites of rules;
- `conservation.png`: what is left of the score at each layer, and how much biases and ε have taken;
- `relevance.json`: classes, ranges, sums; `caption.md`: what the pictures show.

Bach et al., On Pixel-Wise Explanations by Layer-Wise Relevance Propagation, 2015; Montavon et al., Explaining
NonLinear Classification Decisions with Deep Taylor Decomposition, 2015; Kohlbrenner et al., Towards Best
Practice in Explaining Neural Network Decisions with LRP, 2019.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import vizsynth
from experiments import attributions, figure
from experiments.attributions import NETWORK, Method, red_and_blue
from vizsynth import rules
from vizsynth.files import read_image
from vizsynth.rules import Composite
from vizsynth.scores import Class
from vizsynth.taps import evaluate

COMPOSITES = {
    "LRP, ε": Composite(conv=rules.Epsilon(), linear=rules.Epsilon()),
    "LRP, α2 β1": Composite(conv=rules.AlphaBeta(alpha=2.0, beta=1.0), linear=rules.Epsilon()),
    "LRP, γ": Composite(conv=rules.Gamma(), linear=rules.Epsilon()),
    "LRP, z+": rules.EPSILON_PLUS,
    "LRP, z+ flat": rules.EPSILON_PLUS_FLAT,
    "LRP, γ z-box": rules.EPSILON_GAMMA_BOX,
}
LAYERS = ("conv1", "fire2", "fire3", "fire4", "fire5", "fire6", "fire7", "fire8", "fire9")


def conserved(net: Any, x: Array, label: Array, composite: Composite) -> dict[str, Any]:
    """Return the score, what of it is found at each layer and in the pixels, and what was lost on the way."""
    found = vizsynth.relevance(net, x, label, composite=composite, layers=LAYERS)
    return {
        "score": float(evaluate(net, x, Class(label))[0]),
        "layers": {name: float(R.sum()) for name, R in found.layers.items()},
        "pixels": float(found.images.sum()),
        "lost": float(sum(jnp.sum(v) for v in found.lost.values())),
    }


def draw(path: Path, found: dict[str, dict[str, Any]]) -> None:
    """Draw the sums from the logits down, and the pixels' with all that was lost added."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(8, 4), layout="constrained")
    axes = drawn.subplots()
    for name, numbers in found.items():
        values = [*(numbers["layers"][layer] for layer in reversed(LAYERS)), numbers["pixels"]]
        axes.plot(
            [*reversed(LAYERS), "pixels"], np.array(values) / numbers["score"], marker="o", ms=4, label=name
        )
    axes.axhline(1, color="0.6", lw=0.8)
    axes.set(xlabel="handed down to", ylabel="sum of the relevance / score")
    drawn.legend(loc="outside right upper", fontsize=8)
    drawn.savefig(path, dpi=120)


def run(
    out: Path, *, quick: bool = False, seed: int = 0, images: Sequence[Path] = attributions.DEFAULT
) -> None:
    """Make all pictures. Nothing is drawn at random: the seed is recorded alone."""
    out.mkdir(parents=True, exist_ok=True)
    net = vizsynth.load(NETWORK)
    side = 128 if quick else 227
    paths = images[:1] if quick else images
    composites = dict(list(COMPOSITES.items())[-3:]) if quick else COMPOSITES
    table = {
        name: Method(partial(vizsynth.lrp, composite=composite), red_and_blue)
        for name, composite in composites.items()
    }
    numbers = attributions.explain(out, "relevance", net, paths, table, side=side)

    x = read_image(paths[0], (side, side))[None]
    label = jnp.asarray([numbers[paths[0].stem]["label"]])
    sums = {name: conserved(net, x, label, composite) for name, composite in composites.items()}
    draw(out / "conservation.png", sums)
    for name, found in sums.items():
        print(
            f"{name:14} score {found['score']:.4f} = pixels {found['pixels']:.4f} + lost {found['lost']:.4f}"
        )
    worst = max(abs(f["score"] - f["pixels"] - f["lost"]) / abs(f["score"]) for f in sums.values())
    record = {
        "network": NETWORK,
        "seed": seed,
        "size": side,
        "photos": numbers,
        "conservation": sums,
    }
    caption = (
        "Layer-wise relevance propagation (Bach et al., 2015; Kohlbrenner et al., 2019) from the likeliest "
        f"class's logit, {NETWORK}, {side}x{side} px: red speaks for the class, blue against it. The rules "
        "are the convolutions' (and the first's, where one is named after them). What reaches the pixels "
        f"and what biases and ε have taken add up to the score, through all branches, to {worst:.0e} of it."
    )
    figure.tell(out, "relevance", record, caption, [path.stem for path in paths])


if __name__ == "__main__":
    attributions.main(run, __doc__, "relevance")
