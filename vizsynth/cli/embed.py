"""`vizsynth embed`: the images of a folder on a plane, those alike to a network side by side."""

from pathlib import Path
from typing import Any

import click
import numpy as np

from vizsynth.cli import common, folders
from vizsynth.cli.output import OutputFolder

PLANE, GRID = "embedding.png", "grid.png"
SIDE, SMALL = 1200, 48
PALETTE = "tab10"
NEAR = 10  # neighbors whose classes are compared
METHODS = ("tsne", "pca")


@click.command("embed")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--method", "-m", type=click.Choice(METHODS), default="tsne", metavar="NAME", help="tsne or pca [tsne]."
)
@click.option(
    "--perplexity", type=click.FloatRange(1), metavar="N",
    help="How many neighbors count in t-SNE [30, or a third of the images].",
)  # fmt: skip
@click.option(
    "--most", type=click.IntRange(4), default=1600, metavar="N", help="Pictures drawn, at most [1600]."
)
@common.network
@common.weights
@common.layer
@common.size
@common.seed
@common.out("out/NAME-embedding")
@common.overwrite
@common.as_json
@common.quiet
def command(
    folder: Path,
    method: str,
    perplexity: float | None,
    most: int,
    network: str,
    weights: str | None,
    layer: str | None,
    size: int | None,
    seed: int,
    out: Path | None,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
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
    if method != "tsne" and perplexity is not None:
        raise common.BadInput(f"{method} has no perplexity; leave it out, or give --method tsne")
    origin = {
        "command": "embed", "folder": folders.described_folder(folder),
        "method": method, "perplexity": perplexity,
        "network": network, "weights": weights, "layer": layer, "size": size, "seed": seed,
    }  # fmt: skip
    chosen = OutputFolder(
        out or common.usual_folder(folder.resolve().name, "-embedding"), origin, overwrite=overwrite
    )
    chosen.check([PLANE, GRID])
    net = common.load_network(network, weights)
    layer = folders.descriptor_layer(net, layer)
    seen_at = size or min(common.input_size(net))
    held = folders.describe_folder(folder, net, layer, size=seen_at, least=4, quiet=quiet)
    n = len(held.paths)
    near = perplexity or min(30.0, n / 3)
    if near >= n:
        raise common.BadInput(f"a perplexity of {near:g} needs more than {n} images; give less")

    def plane(values: np.ndarray) -> np.ndarray:
        if method == "pca":
            return vizsynth.embed_pca(values)
        return vizsynth.embed_tsne(values, key=jax.random.key(seed), perplexity=near)

    common.say(f"{method} of {n} images ...", quiet)
    points = plane(held.descriptors)
    purity: dict[str, float] | None = None
    if held.labels is not None:
        purity = {layer: _purity(points, held.labels), "pixels": _purity(plane(held.pixels), held.labels)}
    drawn = np.sort(np.random.default_rng(seed).permutation(n)[:most])
    pictures = folders.thumbnails([held.paths[i] for i in drawn], SMALL)
    cells = vizsynth.grid_layout(points[drawn])
    frames = None if held.labels is None else _colors(len(held.classes))[held.labels[drawn]]
    numbers: dict[str, Any] = {
        "layer": layer,
        "images": n,
        "skipped": held.skipped,
        "perplexity": near if method == "tsne" else None,
        "same_class_share": purity,
        "neighbors_compared": min(NEAR, n - 1),
        "points": [
            {"image": name, "x": round(float(x), 4), "y": round(float(y), 4)}
            for name, (x, y) in zip(held.names, points, strict=True)
        ],
        "versions": common.versions(),
        "device": jax.devices()[0].device_kind,
    }
    pictures_of = {
        PLANE: scatter(points[drawn], pictures, size=(SIDE, SIDE), frames=frames),
        GRID: laid_out(pictures, cells),
    }
    files = chosen.write(pictures_of, numbers)
    if as_json:
        common.tell_json({**origin, **numbers, "out": str(chosen.path), "files": files})
        return
    for by, share in (purity or {}).items():
        common.tell(
            f"{share:6.1%} of the {numbers['neighbors_compared']} nearest on the plane by {by} "
            "are of the same class"
        )
    common.tell(f"wrote into {chosen.path}: {', '.join(files)}")


def _purity(points: np.ndarray, labels: np.ndarray) -> float:
    import vizsynth

    near = vizsynth.nearest_neighbors(points.astype(np.float32), k=min(NEAR, len(points) - 1))
    return float(vizsynth.same_class_share(near.indices, labels).mean())


def _colors(count: int) -> np.ndarray:
    """Return a colour for each class; they come again after ten."""
    from matplotlib import colormaps

    return np.asarray(colormaps[PALETTE](np.arange(count) % 10))[:, :3]
