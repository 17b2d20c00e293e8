"""`vizsynth filters`: the kernels of a convolution."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vizsynth.cli import common, options
from vizsynth.cli.options import Written
from vizsynth.cli.settings import command_of, option

SHEET = "filters.png"
COLORED, GREY = 1024, 16  # how many filters are drawn at most, unless it is said
CHANNELS = 32  # of each grey filter
SIDES = {True: 48, False: 20}  # pixels of a tile, with colours and without


@dataclass(frozen=True, kw_only=True)
class Settings(Written):
    """Of `vizsynth filters`."""

    network: str = options.network()
    weights: str | None = options.weights()
    layer: str | None = options.layer("A convolution [the first]")
    shared: bool = option(False, "All on one scale [each on its own]", record=None)
    count: int | None = option(
        None, "How many, at most [all; grey ones 16]", type=options.COUNT, metavar="N", record=None
    )
    out: Path | None = options.out("NETWORK-filters")


@command_of(Settings)
def command(settings: Settings) -> None:
    """Show the filters of a network.

    Those of the first convolution in colours, those of a deeper one in grey: a
    row each, a tile for each channel that it weighs. Grey is a weight of 0.
    Writes filters.png and numbers.json into DIR.
    """
    import vizsynth
    from vizsynth.cli.sheets import filter_sheet
    from vizsynth.inspection.filters import kernels

    net = common.load_network(settings.network, settings.weights)
    typed = settings.layer
    chosen = next(iter(kernels(net))) if typed is None else common.pick_layer(net, typed)
    filters = vizsynth.filters(net, chosen)
    colored = filters.shape[-1] == 3
    folder = settings.open(Path(settings.network).stem, resolved={"layer": chosen})
    folder.check([SHEET])

    drawn = filters[: settings.count or (COLORED if colored else GREY)]
    columns: int | None = None
    tiles: Any = vizsynth.filter_colors(drawn, shared=settings.shared) if colored else None
    if tiles is None:
        greys = np.asarray(vizsynth.filter_greys(drawn, shared=settings.shared))[:, :CHANNELS]
        columns = greys.shape[1]
        tiles = greys.reshape(-1, *greys.shape[2:])
    largest = np.abs(np.asarray(filters)).max(axis=(1, 2, 3))
    numbers = {
        "shape": {"filters": filters.shape[0], "height": filters.shape[1], "width": filters.shape[2],
                  "channels": filters.shape[3]},
        "drawn": {"filters": drawn.shape[0], "channels": columns or 3},
        "shared_scale": settings.shared,
        "largest_weights": [round(float(value), 6) for value in largest],
    }  # fmt: skip
    k, h, w, c = filters.shape
    part = columns and (drawn.shape[0], columns) != (k, c)
    cut = f"; drawn are {drawn.shape[0]} over {columns} channels" if part else ""
    picture = filter_sheet(tiles, side=SIDES[colored], columns=columns)
    if not settings.as_json:
        common.say(f"{chosen}: {k} filters of {h}x{w} over {c} channels{cut}", settings.quiet)
    settings.write(folder, {SHEET: picture}, numbers)
