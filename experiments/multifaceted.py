"""What kinds of digits are there? `python -m experiments.multifaceted [--quick] [--out DIR] [--seed N]`.

The planted digits of one class come light on dark and dark on light, in many colours and hands. Images that
the planted network was not trained on are cut out around their digit and divided into facets by its last
maps; each facet's mean image begins a picture of the class. Written are, after Nguyen, Yosinski & Clune,
Multifaceted Feature Visualization, 2016,

- `facets.png`: a column a facet: four of its images, their mean, and the picture; beside them pictures that
  begin with noise;
- `plane.png`: the images on the plane of t-SNE, coloured by facet;
- `multifaceted.json`: settings, sizes, scores, seconds; `caption.md`: what the pictures show.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

import vizsynth
from experiments import figure
from experiments.planted_network import LAST_MAPS, SIZE, trained
from vizsynth import figures
from vizsynth.files import write_image
from vizsynth.planted import planted
from vizsynth.synthesis.features.multifaceted import PHASES, Facets, shortened

SIDE = 40  # of the squares around the digits
ENLARGED = 3


def cut_out(label: int, n: int, seed: int) -> Float[np.ndarray, "m side side 3"]:
    """Return squares around the digits of one class, of n planted images; past an edge it repeats."""
    data = planted(seed, n, split="test", size=SIZE)
    edge, squares = SIDE // 2, []
    kept = data.labels == label
    for image, (top, left, bottom, right) in zip(data.images[kept], data.boxes[kept], strict=True):
        y, x = (top + bottom) // 2, (left + right) // 2
        padded = np.pad(image, ((edge, edge), (edge, edge), (0, 0)), "edge")
        squares.append(padded[y : y + SIDE, x : x + SIDE])
    return np.stack(squares)


def enlarged(image: Any) -> np.ndarray:
    """Return the picture with pixels that can be seen."""
    return np.kron(np.asarray(image, np.float32), np.ones((ENLARGED, ENLARGED, 1), np.float32))


def draw_plane(path: Path, found: Facets, images: np.ndarray) -> None:
    """Draw each image where it lies, in a frame of its facet's colour."""
    from matplotlib import colormaps

    side, width = SIDE // 2, 900
    colors = colormaps["tab10"](np.arange(10))[:, :3].astype(np.float32)
    low, extent = found.layout.min(axis=0), np.ptp(found.layout, axis=0).max()
    plane = np.ones((width + side + 4, width + side + 4, 3), np.float32)
    for image, label, (x, y) in zip(images, found.labels, (found.layout - low) / extent, strict=True):
        top, left = int(y * width), int(x * width)
        plane[top : top + side + 4, left : left + side + 4] = colors[label % 10]
        plane[top + 2 : top + 2 + side, left + 2 : left + 2 + side] = image[::2, ::2]
    write_image(path, plane)


def spread_of(pictures: Any) -> float:
    """Return how much pictures differ: the mean distance of two, in root mean squares of a pixel."""
    pictures = np.asarray(pictures, np.float64)
    away = np.sqrt(((pictures[:, None] - pictures[None]) ** 2).mean(axis=(2, 3, 4)))
    return float(away[np.triu_indices(len(pictures), 1)].mean())


def probability(net: Any, images: Any, label: int) -> list[float]:
    """Return how probable the class is to the network."""
    return np.asarray(jax.nn.softmax(net(images)))[:, label].astype(float).round(3).tolist()


def run(
    out: Path, *, quick: bool = False, seed: int = 0, digits: Sequence[int] = (7, 4), count: int = 4
) -> None:
    """Make all pictures."""
    out.mkdir(parents=True, exist_ok=True)
    net = trained()
    n, share = (400, 0.02) if quick else (3000, 0.2)
    phases = shortened(PHASES, share)
    steps = sum(int(phase.steps) for phase in phases)
    found, rows, labels = {}, [], []
    for digit in digits:
        began = time.perf_counter()
        images = cut_out(digit, n, seed)
        kinds = vizsynth.facets(
            net, images, LAST_MAPS, count=count, perplexity=min(30, len(images) // 4), seed=seed
        )
        settings: dict[str, Any] = {"phases": phases, "steps": steps}
        keys = jax.random.split(jax.random.key(seed), count)
        starts = jnp.asarray(kinds.images)
        made = vizsynth.visualize_facets(net, digit, starts, key=keys, **settings)
        noise = np.random.default_rng(seed).normal(0.5, 8 / 255, starts.shape).astype(np.float32)
        plain = vizsynth.visualize_facets(net, digit, jnp.asarray(noise), key=keys, **settings)
        numbers = {
            "images": len(images),
            "facet_sizes": np.bincount(kinds.labels, minlength=count).tolist(),
            "probability": probability(net, made.images, digit),
            "probability_of_start": probability(net, starts, digit),
            "difference_of_facets": round(spread_of(made.images), 3),
            "difference_from_noise": round(spread_of(plain.images), 3),
            "seconds": round(time.perf_counter() - began, 1),
        }
        print(f"digit {digit}: " + "  ".join(f"{k} {v}" for k, v in numbers.items()), flush=True)
        found[str(digit)] = numbers
        for k in range(4):
            rows.append([enlarged(images[i]) for i in kinds.nearest[:, k]])
            labels.append(f"digit {digit}: images of the facet" if k == 0 else "")
        rows += [[enlarged(x) for x in part] for part in (kinds.images, made.images, plain.images)]
        labels += ["mean of the nearest", "picture that begins there", "pictures that begin with noise"]
        if digit == digits[0]:
            draw_plane(out / "plane.png", kinds, images)
    heads = [f"facet {k + 1}" for k in range(count)]
    write_image(out / "facets.png", figures.sheet(rows, row_labels=labels, column_labels=heads, pad=4))
    record = {"seed": seed, "planted_images": n, "steps": steps, "layer": LAST_MAPS, "digits": found}
    told = "; ".join(
        f"digit {digit}: {v['images']} images, pictures differ by {v['difference_of_facets']} from facet to "
        f"facet, by {v['difference_from_noise']} where they begin with noise"
        for digit, v in found.items()
    )
    caption = (
        "Multifaceted feature visualization (Nguyen, Yosinski & Clune, 2016) of the planted network, which "
        f"has ten classes and reads digits of 20 to 28 pixels. Facets: {LAST_MAPS} averaged over positions, "
        f"PCA, t-SNE and k-means, {count} of them, seed {seed}; each picture begins with the mean of the 15 "
        f"images nearest to the middle of its facet and takes {steps} steps. {told} (root mean square of a "
        "pixel). The plane falls into two islands: digits lighter and darker than their ground, as they were "
        "planted; within an island facets differ little. From noise come fragments of digits. A "
        "picture keeps much of the colour of its mean image, so the colour of the ground is no finding."
    )
    figure.tell(out, "multifaceted", record, caption)


def main() -> None:
    """Read the command line."""
    parser = figure.options(__doc__, "multifaceted", quick="few images, few steps")
    parser.add_argument("--digits", type=int, nargs="+", default=(7, 4))
    parser.add_argument("--facets", type=int, default=4)
    given = parser.parse_args()
    run(given.out, quick=given.quick, seed=given.seed, digits=given.digits, count=given.facets)


if __name__ == "__main__":
    main()
