"""What the scripts that explain photos share: the photos, the maps of each method, sheets and comparisons.

For each photo the pictures also go to `compare/PHOTO/`, larger: the page lays any two over each other.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from experiments import figure
from experiments.figure import PHOTOS
from vizsynth import figures
from vizsynth.files import read_image, write_image
from vizsynth.images import resize, upsample

NETWORK = "squeezenet1_1"  # the one whose classes are in the package
DEFAULT = (PHOTOS / "chelsea.jpg", PHOTOS / "coffee.jpg", PHOTOS / "flower.jpg")
LARGE = 454  # pixels of a side: twice what SqueezeNet sees
Look = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(photo, a map of its size) -> a picture."""


def bright(photo: np.ndarray, heatmap: np.ndarray) -> np.ndarray:
    """Show how large each value is, whatever its sign; the largest percent is cut."""
    del photo
    return figures.heat(figures.clip_percentile(np.abs(heatmap)), colormap="inferno")


def red_and_blue(photo: np.ndarray, heatmap: np.ndarray) -> np.ndarray:
    """Show what speaks for the class in red, against it in blue; the largest percent is cut."""
    del photo
    return figures.signed(figures.clip_percentile(heatmap))


def over_photo(photo: np.ndarray, heatmap: np.ndarray) -> np.ndarray:
    """Lay what speaks for the class over the photo."""
    return figures.overlay(photo, heatmap, alpha=0.4, colormap="jet")


class Method(NamedTuple):
    """A method, what is asked of it, and how its map is shown."""

    maps: Callable[[Any, Array, Array], Array]
    """(net, images, labels) -> `[n, h, w]` or `[n, h, w, 3]`."""
    look: Look


@jax.jit
def probabilities(net: Any, images: Array) -> Array:
    """Return the probability of each class, `[n, classes]`."""
    return jax.nn.softmax(net(images))


def flat(maps: Array) -> Array:
    """Return a number a pixel: the sum of the channels."""
    return maps.sum(axis=-1) if maps.ndim == 4 else maps


def explain(
    out: Path,
    name: str,
    net: Any,
    paths: Sequence[Path],
    methods: Mapping[str, Method],
    *,
    side: int,
    rows: int = 1,
) -> dict[str, Any]:
    """Explain each photo's likeliest class by each method; draw `NAME.png`; return the numbers.

    Args:
        out: the script's folder.
        name: of the sheet.
        net: a network with classes.
        paths: the photos, each cut to a square.
        methods: by what they are called.
        side: of the photos as the network sees them, and in the sheet.
        rows: into how many rows the methods of a photo are broken.
    """
    cells: list[list[np.ndarray | None]] = []
    names, numbers = [], {}
    for path in paths:
        photo, large = (read_image(path, (n, n)) for n in (side, LARGE))
        p = np.asarray(probabilities(net, photo[None])[0])
        label = int(p.argmax())
        pictures, ranges = {"the photo": np.asarray(large)}, {}
        for method, (maps, look) in methods.items():
            began = time.perf_counter()
            found = np.asarray(flat(maps(net, photo[None], jnp.asarray([label]))))[0]
            seconds = round(time.perf_counter() - began, 1)
            pictures[method] = look(
                np.asarray(large), np.asarray(upsample(jnp.asarray(found), (LARGE, LARGE)))
            )
            ranges[method] = {"min": float(found.min()), "max": float(found.max()), "seconds": seconds}
            print(f"{path.stem:12} {method:28} {ranges[method]['min']:+.3g} to {ranges[method]['max']:+.3g}")
        compare(out / "compare" / path.stem, pictures)
        shown: list[np.ndarray | None] = [
            figures.caption(_smaller(picture, side), text) for text, picture in pictures.items()
        ]
        columns = -(-len(shown) // rows)
        cells += [shown[i : i + columns] for i in range(0, len(shown), columns)]
        names.append(f"{path.stem}: {net.labels[label]} ({p[label]:.0%})")
        numbers[path.stem] = {
            "label": label,
            "class": net.labels[label],
            "p": float(p[label]),
            "maps": ranges,
        }
    labels = [text for text in names for text in (text, *[""] * (rows - 1))]
    write_image(out / f"{name}.png", figures.sheet(cells, row_labels=labels))
    return numbers


def _smaller(picture: np.ndarray, side: int) -> np.ndarray:
    return np.clip(np.asarray(resize(jnp.asarray(picture), (side, side))), 0, 1)


def compare(folder: Path, pictures: Mapping[str, np.ndarray]) -> None:
    """Write pictures of one size, and what each is called."""
    labels = {}
    for text, picture in pictures.items():
        stem = "".join(c if c.isalnum() else "-" for c in text.lower()) if labels else "photo"
        write_image(folder / f"{stem}.png", picture)
        labels[stem] = text
    (folder / "labels.json").write_text(json.dumps(labels, indent=1) + "\n")


def main(run: Callable[..., None], doc: str | None, name: str, images: Sequence[Path] = DEFAULT) -> None:
    """Read the command line of a script that explains photos, and run it."""
    parser = figure.options(doc, name, quick="few photos, small, few samples")
    parser.add_argument("--images", type=Path, nargs="+", default=images, metavar="PHOTO")
    given = parser.parse_args()
    run(given.out, quick=given.quick, seed=given.seed, images=given.images)
