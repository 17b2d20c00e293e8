"""`vizsynth neighbors`: which images of a folder are alike to a network, beside those of alike pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from vizsynth.cli import common, folders, options
from vizsynth.cli.folders import OfFolder
from vizsynth.cli.photos import Photo, look_at
from vizsynth.cli.settings import command_of, option

SHEET = "neighbors.png"
SIDE = 96


@dataclass(frozen=True, kw_only=True)
class Settings(OfFolder):
    """Of `vizsynth neighbors`."""

    queries: tuple[Photo, ...] = option(
        (), "Whose neighbors; may be repeated [every image's]", "--query", "-Q", metavar="PHOTO"
    )
    k: int = option(5, "How many neighbors", "-k", type=options.COUNT, metavar="N")
    rows: int = option(8, "Of the sheet, at most", type=click.IntRange(1, 100), metavar="N", record=None)
    out: Path | None = options.out("NAME-neighbors")


@command_of(Settings)
def command(settings: Settings) -> None:
    """Find the images of FOLDER that lie nearest in a layer, and in pixels.

    In a folder of class folders neighbors of the same class are framed green,
    others red, and their shares are told. Writes a sheet and numbers.json.
    """
    import vizsynth

    queries, k = settings.queries, settings.k
    look_at(queries, quiet=True)
    digests = [query.digest for query in queries]
    net = common.load_network(settings.network, settings.weights)
    layer = folders.descriptor_layer(net, settings.layer)
    folder = folders.open_for(settings, settings.folder, {"queries": digests, "layer": layer})
    folder.check([SHEET], inputs=queries)
    held = settings.described(net, layer, least=k + (not queries))
    paths = [query.path for query in queries]
    asked = _described(paths, net, layer, settings.seen_at(net)) if queries else None

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
    names = paths or list(held.paths)
    shown = _rows(held.labels if asked is None else None, len(names), settings.rows, settings.seed)
    numbers = {
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
    }
    title = f"{settings.network}, {layer}: the nearest of {len(held.paths)} images"
    picture = _sheet(names, shown, indices, held, asked is None, title)
    lines = [
        f"{share:6.1%} of the {k} nearest by {by} are of the same class"
        for by, share in (shares or {}).items()
    ]
    settings.write(folder, {SHEET: picture}, numbers, *lines)


def _described(paths: Sequence[Path], net: Any, layer: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    kept, values, pixels, skipped = folders.describe(
        tuple(paths), net, layer, size=size, what="queries", quiet=True
    )
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
