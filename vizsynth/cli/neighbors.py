"""`vizsynth neighbors`: which images of a folder are alike to a network, beside those of alike pixels."""

from pathlib import Path
from typing import Any

import click
import numpy as np

from vizsynth.cli import common, folders
from vizsynth.cli.output import OutputFolder
from vizsynth.cli.photos import digest, look_at

SHEET = "neighbors.png"
SIDE = 96


@click.command("neighbors")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--query", "-Q", "queries", multiple=True, type=click.Path(path_type=Path), metavar="PHOTO",
    help="Whose neighbors; may be repeated [every image's].",
)  # fmt: skip
@click.option("-k", "k", type=click.IntRange(1), default=5, metavar="N", help="How many neighbors [5].")
@click.option(
    "--rows", type=click.IntRange(1, 100), default=8, metavar="N", help="Of the sheet, at most [8]."
)
@common.network
@common.weights
@common.layer
@common.size
@common.seed
@common.out("out/NAME-neighbors")
@common.overwrite
@common.as_json
@common.quiet
def command(
    folder: Path,
    queries: tuple[Path, ...],
    k: int,
    rows: int,
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
    """Find the images of FOLDER that lie nearest in a layer, and in pixels.

    In a folder of class folders neighbors of the same class are framed green,
    others red, and their shares are told. Writes a sheet and numbers.json.
    """
    import jax

    import vizsynth

    for query in queries:
        look_at(query)
    origin = {
        "command": "neighbors", "folder": folders.described_folder(folder),
        "queries": [digest(path) for path in queries],
        "network": network, "weights": weights, "layer": layer, "size": size, "k": k, "seed": seed,
    }  # fmt: skip
    chosen = OutputFolder(
        out or common.usual_folder(folder.resolve().name, "-neighbors"), origin, overwrite=overwrite
    )
    chosen.check([SHEET], inputs=queries)
    net = common.load_network(network, weights)
    layer = folders.descriptor_layer(net, layer)
    seen_at = size or min(common.input_size(net))
    least = k + (not queries)
    held = folders.describe_folder(folder, net, layer, size=seen_at, least=least, quiet=quiet)
    asked = _described(queries, net, layer, seen_at) if queries else None

    by_layer, by_pixels = asked if asked is not None else (None, None)
    found = {
        layer: vizsynth.nearest_neighbors(held.descriptors, by_layer, k=k),
        "pixels": vizsynth.nearest_neighbors(held.pixels, by_pixels, k=k),
    }
    indices = {by: np.asarray(near.indices) for by, near in found.items()}
    distances = {by: np.asarray(near.distances).round(6).tolist() for by, near in found.items()}
    shares: dict[str, float] | None = None
    if held.labels is not None and asked is None:
        shares = {
            by: float(vizsynth.same_class_share(places, held.labels).mean()) for by, places in indices.items()
        }
    names = list(queries) if queries else list(held.paths)
    shown = _rows(held.labels if asked is None else None, len(names), rows, seed)
    numbers = {
        "layer": layer,
        "images": len(held.paths),
        "skipped": held.skipped,
        "same_class_share": shares,
        "neighbors": [
            {
                "image": str(query) if queries else held.names[i],
                **{
                    by: [
                        {"image": held.names[j], "distance": distance}
                        for j, distance in zip(places[i], distances[by][i], strict=True)
                    ]
                    for by, places in indices.items()
                },
            }
            for i, query in enumerate(names)
        ],
        "versions": common.versions(),
        "device": jax.devices()[0].device_kind,
    }
    title = f"{network}, {layer}: the nearest of {len(held.paths)} images"
    files = chosen.write({SHEET: _sheet(names, shown, indices, held, asked is None, title)}, numbers)
    if as_json:
        common.tell_json({**origin, **numbers, "out": str(chosen.path), "files": files})
        return
    for by, share in (shares or {}).items():
        common.tell(f"{share:6.1%} of the {k} nearest by {by} are of the same class")
    common.tell(f"wrote into {chosen.path}: {', '.join(files)}")


def _described(paths: tuple[Path, ...], net: Any, layer: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    kept, values, pixels, skipped = folders.describe(
        paths, net, layer, size=size, what="queries", quiet=True
    )  # fmt: skip
    if len(kept) < len(paths):
        raise common.BadInput(skipped[0]["reason"])
    return values, pixels


def _rows(labels: np.ndarray | None, n: int, rows: int, seed: int) -> list[int]:
    """Return which queries the sheet shows: one of each class in turn, or any."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(n)
    if n <= rows:
        return list(range(n))
    if labels is None:
        return sorted(order[:rows].tolist())
    turn = np.zeros(n, int)  # how many of its class come before it
    for label in np.unique(labels):
        turn[order[labels[order] == label]] = np.arange((labels == label).sum())
    return order[np.lexsort((labels[order], turn[order]))][:rows].tolist()


def _sheet(
    names: list[Path],
    shown: list[int],
    indices: dict[str, np.ndarray],
    held: folders.Described,
    among_themselves: bool,
    title: str,
) -> np.ndarray:
    from vizsynth.cli.sheets import neighbor_sheet

    labels = held.labels if among_themselves else None
    pictures = {
        by: [folders.thumbnails([held.paths[j] for j in places[i]], SIDE) for i in shown]
        for by, places in indices.items()
    }
    same = None
    if labels is not None:
        same = {by: labels[places[shown]] == labels[shown][:, None] for by, places in indices.items()}
    queries = folders.thumbnails([names[i] for i in shown], SIDE)
    return neighbor_sheet(queries, pictures, same, title=title)
