"""Which images are alike to a network? `python -m experiments.nearest_neighbors [--quick] [--out DIR]`.

After Krizhevsky, Sutskever & Hinton, ImageNet Classification with Deep Convolutional Neural Networks, 2012,
figure 4 right: squares of the photos' right halves ask for their nearest among those of the left halves,
and digits on textures for theirs among other digits. Written are `photos.png` and `digits.png`, a row a
query: the nearest by features, then by pixels, framed green where of the same class;
`nearest_neighbors.json`, with the share of the same class by each layer; `caption.md`.
"""

from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

import vizsynth
from experiments import figure
from experiments.photo_crops import CLASSES, photo_crops
from experiments.planted_network import trained
from experiments.training import as_floats
from vizsynth.cli.sheets import neighbor_sheet
from vizsynth.files import write_image
from vizsynth.images import resize
from vizsynth.inspection.neighbours import Neighbors
from vizsynth.planted import planted

K = 5
SIDE = 96
PIXELS = 32  # the side at which pixels are compared


class Given(NamedTuple):
    """Images that are searched, images that ask, and by which layers."""

    net: Any
    images: Float[np.ndarray, "n h w 3"]
    labels: Int[np.ndarray, " n"]
    queries: Float[np.ndarray, "q h w 3"]
    query_labels: Int[np.ndarray, " q"]
    layers: tuple[str, ...]
    shown: str


def photos(seed: int, n: int) -> Given:
    """Return squares of photos, as SqueezeNet sees them."""
    searched, asking = (
        photo_crops(CLASSES, n // len(CLASSES), SIDE, half=half, seed=seed) for half in ("left", "right")
    )
    return Given(
        vizsynth.load("squeezenet1_1"),
        as_floats(searched.images),
        searched.labels,
        as_floats(asking.images),
        asking.labels,
        ("relu1", "fire3", "fire5", "fire7", "fire9"),
        "fire7",
    )


def digits(seed: int, n: int) -> Given:
    """Return digits on textures, as the network that reads them sees them."""
    searched, asking = (planted(s, n, split="test") for s in (2 * seed, 2 * seed + 1))
    layers = ("relu1", "relu2", "relu3", "relu4", "logits")
    return Given(
        trained(), searched.images, searched.labels, asking.images, asking.labels, layers, "relu4"
    )  # fmt: skip


def pixels(images: np.ndarray) -> Float[Array, "n d"]:
    """Return images as vectors of a few pixels."""
    small = resize(jnp.asarray(images), (PIXELS, PIXELS))
    return small.reshape(len(images), -1)


def searched(given: Given) -> dict[str, Neighbors]:
    """Return each query's nearest, by pixels and by each layer."""
    found = {"pixels": vizsynth.nearest_neighbors(pixels(given.images), pixels(given.queries), k=K)}
    for layer in given.layers:
        values, queries = (
            vizsynth.descriptors(given.net, jnp.asarray(x), layer=layer)
            for x in (given.images, given.queries)
        )
        found[layer] = vizsynth.nearest_neighbors(values, queries, k=K)
    return found


def draw(path: Path, given: Given, found: dict[str, Neighbors]) -> None:
    """Draw the first query of each class beside its nearest."""
    first = np.unique(given.query_labels, return_index=True)[1]
    nearest = {by: np.asarray(found[by].indices)[first] for by in (given.shown, "pixels")}
    pictures = {by: [list(given.images[row]) for row in places] for by, places in nearest.items()}
    classes = given.query_labels[first][:, None]
    same = {by: given.labels[places] == classes for by, places in nearest.items()}
    write_image(path, neighbor_sheet(list(given.queries[first]), pictures, same))


def run(out: Path, *, quick: bool = False, seed: int = 0) -> None:
    """Search, count and draw."""
    out.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {"k": K}
    for name, given in {
        "photos": photos(seed, 40 if quick else 600),
        "digits": digits(seed, 40 if quick else 1000),
    }.items():
        found = searched(given)
        shares = {
            by: float(vizsynth.same_class_share(near.indices, given.labels, given.query_labels).mean())
            for by, near in found.items()
        }
        record[name] = {"images": len(given.images), "same_class_share": shares}
        told = ", ".join(f"{by} {share:.1%}" for by, share in shares.items())
        print(f"{name}: of the {K} nearest are of the same class: {told}", flush=True)
        draw(out / f"{name}.png", given, found)
    by_photo, by_digit = (record[name]["same_class_share"] for name in ("photos", "digits"))
    caption = (
        f"Nearest neighbours (Krizhevsky, Sutskever & Hinton, 2012): of the {K} nearest squares of other "
        f"halves of the photos, {by_photo['fire7']:.0%} by SqueezeNet's fire7 and "
        f"{by_photo['pixels']:.0%} by pixels are of the same photo; of digits on textures "
        f"{by_digit['relu4']:.0%} by a small network's last maps and {by_digit['pixels']:.0%} by pixels "
        "are the same digit."
    )
    figure.tell(out, "nearest_neighbors", record, caption)


def main() -> None:
    """Read the command line."""
    given = figure.options(__doc__, "nearest_neighbors", quick="few images").parse_args()
    run(given.out, quick=given.quick, seed=given.seed)


if __name__ == "__main__":
    main()
