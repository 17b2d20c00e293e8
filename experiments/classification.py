"""What is in the photo? `python -m experiments.classification [--quick] [--out DIR] [--seed N]`.

Written are `classification.png`: photos, each above the network's likeliest classes; `classification.json`:
the classes and their probabilities; `caption.md`: what the picture shows.

Iandola et al., SqueezeNet, 2016 (version 1.1, its ImageNet weights).
"""

from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np

import vizsynth
from experiments import attributions, figure
from experiments.attributions import NETWORK, probabilities
from experiments.figure import PHOTOS
from vizsynth.files import read_image

SHOWN = ("chelsea", "coffee", "flower", "china", "rocket", "astronaut", "camera", "brick")
IMAGES = tuple(PHOTOS / f"{name}.jpg" for name in SHOWN)
TOP = 5


def draw(path: Path, photos: Sequence[np.ndarray], found: Sequence[list[tuple[str, float]]]) -> None:
    """Draw each photo, and its classes as bars beneath it."""
    from matplotlib.figure import Figure

    columns = min(4, len(photos))
    rows = -(-len(photos) // columns)
    drawn = Figure(figsize=(3.4 * columns, 4.9 * rows), layout="constrained")
    grid = drawn.add_gridspec(2 * rows, columns, height_ratios=[3, 1.6] * rows)
    for i, (photo, classes) in enumerate(zip(photos, found, strict=True)):
        row, column = divmod(i, columns)
        shown = drawn.add_subplot(grid[2 * row, column])
        shown.imshow(photo)
        shown.axis("off")
        bars = drawn.add_subplot(grid[2 * row + 1, column])
        values = [p for _, p in classes][::-1]
        bars.barh(range(len(values)), values, color="#a9c8e8")
        bars.set(xlim=(0, 1), yticks=[], xticks=[])
        for place, (name, p) in enumerate(reversed(classes)):
            bars.text(0.01, place, f"{p:.0%}  {name}", va="center", fontsize=9)
        bars.spines[:].set_visible(False)
    drawn.savefig(path, dpi=100)


def run(out: Path, *, quick: bool = False, seed: int = 0, images: Sequence[Path] = IMAGES) -> None:
    """Make the picture. Nothing is drawn at random: the seed is recorded alone."""
    out.mkdir(parents=True, exist_ok=True)
    net = vizsynth.load(NETWORK)
    paths = images[:4] if quick else images
    photos = jnp.stack([jnp.asarray(read_image(path, (227, 227))) for path in paths])
    chances = np.asarray(probabilities(net, photos))
    found = []
    for path, p in zip(paths, chances, strict=True):
        best = np.argsort(-p, kind="stable")[:TOP]
        found.append([(net.labels[int(c)], float(p[c])) for c in best])
        print(f"{path.stem:20}" + "  ".join(f"{p:.1%} {name}" for name, p in found[-1]))
    draw(out / "classification.png", [np.asarray(photo) for photo in photos], found)
    names = [path.stem for path in paths]
    record = {
        "network": "squeezenet1_1",
        "size": 227,
        "seed": seed,
        "photos": dict(zip(names, found, strict=True)),
    }
    caption = (
        f"The {TOP} likeliest of ImageNet's 1,000 classes for photos of 227x227 px, SqueezeNet 1.1 (Iandola "
        "et al., 2016), with their probabilities. It has no class for a face, a flower in general or a "
        "wall: there it says what is nearest."
    )
    figure.tell(out, "classification", record, caption, names)


if __name__ == "__main__":
    attributions.main(run, __doc__, "classification", IMAGES)
