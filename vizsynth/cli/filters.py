"""`vizsynth filters`: the kernels of a convolution."""

from pathlib import Path
from typing import Any

import click
import numpy as np

from vizsynth.cli import common
from vizsynth.cli.output import OutputFolder

SHEET = "filters.png"
COLORED, GREY = 1024, 16  # how many filters are drawn at most, unless it is said
CHANNELS = 32  # of each grey filter
SIDES = {True: 48, False: 20}  # pixels of a tile, with colours and without


@click.command("filters")
@common.network
@common.weights
@click.option("--layer", "-l", metavar="NAME", help="A convolution [the first].")
@click.option("--shared", is_flag=True, help="All on one scale [each on its own].")
@click.option("--count", type=click.IntRange(1), metavar="N", help="How many, at most [all; grey ones 16].")
@common.out("out/NETWORK-filters")
@common.overwrite
@common.as_json
@common.quiet
def command(
    network: str,
    weights: str | None,
    layer: str | None,
    shared: bool,
    count: int | None,
    out: Path | None,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Show the filters of a network.

    Those of the first convolution in colours, those of a deeper one in grey: a
    row each, a tile for each channel that it weighs. Grey is a weight of 0.
    Writes filters.png and numbers.json into DIR.
    """
    import vizsynth
    from vizsynth.cli.sheets import filter_sheet
    from vizsynth.inspection.filters import kernels

    net = common.load_network(network, weights)
    chosen = next(iter(kernels(net))) if layer is None else common.pick_layer(net, layer)
    filters = vizsynth.filters(net, chosen)
    colored = filters.shape[-1] == 3
    origin = {"command": "filters", "network": network, "weights": weights, "layer": chosen}
    folder = OutputFolder(
        out or common.usual_folder(Path(network).stem, "-filters"), origin, overwrite=overwrite
    )
    folder.check([SHEET])

    drawn = filters[: count or (COLORED if colored else GREY)]
    columns: int | None = None
    tiles: Any = vizsynth.filter_colors(drawn, shared=shared) if colored else None
    if tiles is None:
        greys = np.asarray(vizsynth.filter_greys(drawn, shared=shared))[:, :CHANNELS]
        columns = greys.shape[1]
        tiles = greys.reshape(-1, *greys.shape[2:])
    largest = np.abs(np.asarray(filters)).max(axis=(1, 2, 3))
    numbers = {
        "shape": {"filters": filters.shape[0], "height": filters.shape[1], "width": filters.shape[2],
                  "channels": filters.shape[3]},
        "drawn": {"filters": drawn.shape[0], "channels": columns or 3},
        "shared_scale": shared,
        "largest_weights": [round(float(value), 6) for value in largest],
        "versions": common.versions(),
    }  # fmt: skip
    files = folder.write({SHEET: filter_sheet(tiles, side=SIDES[colored], columns=columns)}, numbers)
    if as_json:
        common.tell_json({**origin, **numbers, "out": str(folder.path), "files": files})
        return
    k, h, w, c = filters.shape
    cut = (
        f"; drawn are {drawn.shape[0]} over {columns} channels"
        if columns and (drawn.shape[0], columns) != (k, c)
        else ""
    )
    common.say(f"{chosen}: {k} filters of {h}x{w} over {c} channels{cut}", quiet)
    common.tell(f"wrote into {folder.path}: {', '.join(files)}")
