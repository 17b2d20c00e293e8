"""`vizsynth embed`: the images of a folder on a plane, those alike to a network side by side."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from vizsynth.cli import common, folders, options
from vizsynth.cli.folders import OfFolder
from vizsynth.cli.settings import command_of, option

PLANE, GRID = "embedding.png", "grid.png"
SIDE, SMALL = 1200, 48
PALETTE = "tab10"
NEAR = 10  # neighbors whose classes are compared
METHODS = ("tsne", "pca")


@dataclass(frozen=True, kw_only=True)
class Settings(OfFolder):
    """Of `vizsynth embed`."""

    method: str = option("tsne", "tsne or pca", "--method", "-m", type=click.Choice(METHODS), metavar="NAME")
    perplexity: float | None = option(
        None, "How many neighbors count in t-SNE [30, or a third of the images]", type=click.FloatRange(1),
        metavar="N", record=None
    )  # fmt: skip
    most: int = option(1600, "Pictures drawn, at most", type=click.IntRange(4), metavar="N", record=None)
    out: Path | None = options.out("NAME-embedding")


@command_of(Settings)
def command(settings: Settings) -> None:
    """Lay the images of FOLDER out by what a layer says of them.

    Writes them at their points, on a grid, and numbers.json with the points; for
    a folder of class folders also how pure the neighborhoods are.
    """
    import jax

    import vizsynth
    from vizsynth.cli.sheets import laid_out
    from vizsynth.figures import scatter

    common.need_extra("sklearn", "inspection")
    common.need_extra("matplotlib")
    method, seed = settings.method, settings.seed
    if method != "tsne" and settings.perplexity is not None:
        raise common.BadInput(f"{method} has no perplexity; leave it out, or give --method tsne")
    net = common.load_network(settings.network, settings.weights)
    layer = folders.descriptor_layer(net, settings.layer)
    folder = folders.open_for(
        settings, settings.folder, {"layer": layer, "perplexity_given": settings.perplexity}
    )
    folder.check([PLANE, GRID])
    held = settings.described(net, layer, least=4)
    n = len(held.paths)
    near = settings.perplexity or min(30.0, n / 3)
    if near >= n:
        raise common.BadInput(f"a perplexity of {near:g} needs more than {n} images; give less")

    def plane(values: np.ndarray) -> np.ndarray:
        if method == "pca":
            return vizsynth.embed_pca(values)
        return vizsynth.embed_tsne(values, key=jax.random.key(seed), perplexity=near)

    common.say(f"{method} of {n} images ...", settings.quiet)
    points = plane(held.descriptors)
    purity: dict[str, float] | None = None
    if held.labels is not None:
        purity = {layer: _purity(points, held.labels), "pixels": _purity(plane(held.pixels), held.labels)}
    drawn = np.sort(np.random.default_rng(seed).permutation(n)[: settings.most])
    pictures = folders.thumbnails([held.paths[i] for i in drawn], SMALL)
    cells = vizsynth.grid_layout(points[drawn])
    frames = None if held.labels is None else _colors(len(held.classes))[held.labels[drawn]]
    numbers: dict[str, Any] = {
        "images": n,
        "skipped": held.skipped,
        "perplexity": near if method == "tsne" else None,
        "same_class_share": purity,
        "neighbors_compared": min(NEAR, n - 1),
        "points": [
            {"image": name, "x": round(float(x), 4), "y": round(float(y), 4)}
            for name, (x, y) in zip(held.names, points, strict=True)
        ],
    }
    pictures_of = {
        PLANE: scatter(points[drawn], pictures, size=(SIDE, SIDE), frames=frames),
        GRID: laid_out(pictures, cells),
    }
    count = numbers["neighbors_compared"]
    lines = [
        f"{share:6.1%} of the {count} nearest on the plane by {by} are of the same class"
        for by, share in (purity or {}).items()
    ]
    settings.write(folder, pictures_of, numbers, *lines)


def _purity(points: np.ndarray, labels: np.ndarray) -> float:
    import vizsynth

    near = vizsynth.nearest_neighbors(points.astype(np.float32), k=min(NEAR, len(points) - 1))
    return float(vizsynth.same_class_share(near.indices, labels).mean())


def _colors(count: int) -> np.ndarray:
    """Return a colour for each class; they come again after ten."""
    from matplotlib import colormaps

    return np.asarray(colormaps[PALETTE](np.arange(count) % 10))[:, :3]
