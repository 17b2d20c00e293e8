"""Images on a plane: `python -m experiments.embedding [--quick] [--out DIR] [--seed N]`.

After van der Maaten & Hinton, Visualizing Data using t-SNE, 2008: squares of photos as SqueezeNet sees
them, and digits on textures as a small network does, by PCA and by t-SNE. Written are `NAME_pca.png`,
`NAME_tsne.png` (frames tell the class) and `NAME_grid.png`, the t-SNE plane brought to a grid, for both sets;
`embedding.json` with how pure the neighborhoods are, on planes of features and of pixels; `caption.md`.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import colormaps

import vizsynth
from experiments import figure
from experiments.nearest_neighbors import Given, digits, photos, pixels
from vizsynth import figures
from vizsynth.cli.sheets import laid_out
from vizsynth.files import write_image
from vizsynth.images import resize

NEAR = 10
SIDE, SMALL = 1000, 40


def purity(points: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean share of the nearest on the plane that are of the same class."""
    near = vizsynth.nearest_neighbors(points.astype(np.float32), k=NEAR)
    return float(vizsynth.same_class_share(near.indices, labels).mean())


def draw(out: Path, name: str, given: Given, planes: dict[str, np.ndarray]) -> None:
    """Draw the images at their points, and the last plane as a grid."""
    small = np.asarray(resize(jnp.asarray(given.images), (SMALL, SMALL)))
    frames = np.asarray(colormaps["tab10"](given.labels % 10))[:, :3]
    for method, points in planes.items():
        plane = figures.scatter(points, small, size=(SIDE, SIDE), frames=frames)
        write_image(out / f"{name}_{method}.png", plane)
    cells = vizsynth.grid_layout(planes["tsne"])
    write_image(out / f"{name}_grid.png", laid_out(list(small), cells, pad=1))


def run(out: Path, *, quick: bool = False, seed: int = 0) -> None:
    """Embed, count and draw."""
    out.mkdir(parents=True, exist_ok=True)
    n = 40 if quick else 400
    perplexity = 5.0 if quick else 30.0
    key = jax.random.key(seed)
    record: dict[str, Any] = {"images": n, "nearest": NEAR, "perplexity": perplexity}
    for name, given in {"photos": photos(seed, n), "digits": digits(seed, n)}.items():
        vectors = {
            given.shown: vizsynth.descriptors(given.net, jnp.asarray(given.images), layer=given.shown),
            "pixels": pixels(given.images),
        }
        drawn = {}
        record[name] = {}
        for by, values in vectors.items():
            planes = {
                "pca": vizsynth.embed_pca(values),
                "tsne": vizsynth.embed_tsne(values, key=key, perplexity=perplexity),
            }
            record[name][by] = {method: purity(points, given.labels) for method, points in planes.items()}
            drawn = drawn or planes
            print(f"{name}, {by}: {record[name][by]}", flush=True)
        draw(out, name, given, drawn)
    photo, digit = record["photos"], record["digits"]
    caption = (
        f"PCA (Pearson, 1901) and t-SNE (van der Maaten & Hinton, 2008) of {n} squares of photos and {n} "
        f"digits on textures. Of the {NEAR} nearest on the t-SNE plane, {photo['fire7']['tsne']:.0%} are of "
        f"the same photo by SqueezeNet's fire7 and {photo['pixels']['tsne']:.0%} by pixels; "
        f"{digit['relu4']['tsne']:.0%} are the same digit by a small network's last maps and "
        f"{digit['pixels']['tsne']:.0%} by pixels."
    )
    figure.tell(out, "embedding", record, caption)


def main() -> None:
    """Read the command line."""
    given = figure.options(__doc__, "embedding", quick="few images").parse_args()
    run(given.out, quick=given.quick, seed=given.seed)


if __name__ == "__main__":
    main()
