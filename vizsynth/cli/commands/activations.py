"""`vizsynth activations`: what each channel of some layers makes of a photo."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from vizsynth.cli import common, options
from vizsynth.cli.options import Written
from vizsynth.cli.photos import Photo
from vizsynth.cli.settings import argument, command_of, option

SHEET = "sheet.png"
SHOWN = 16  # channels of each layer in the sheet
SIDE = 72  # pixels of a tile, about
MOST = 10  # layers, unless they are named


@dataclass(frozen=True, kw_only=True)
class Settings(Written):
    """Of `vizsynth activations`."""

    photo: Photo = argument()
    network: str = options.network(record="numbers")
    weights: str | None = options.weights(record=None)
    layers: tuple[str, ...] = options.layers("Which; may be repeated [the first ten of maps]", record=None)
    columns: int = option(16, "Channels in a row", type=click.IntRange(1, 64), metavar="N", record=None)
    raw: bool = option(False, "Each from its least to its largest value", record="numbers")
    size: int | None = options.size(record=None)
    out: Path | None = options.out("NAME-activations")


@command_of(Settings)
def command(settings: Settings) -> None:
    """Show what a network's layers make of PHOTO, channel by channel.

    Each channel is drawn less its mean over its deviation; channels that are 0
    everywhere are crossed out. Writes a picture a layer, a sheet of their first
    channels and numbers.json into DIR.
    """
    import jax.numpy as jnp

    import vizsynth
    from vizsynth.cli.sheets import activation_sheet, raw_activation_sheet
    from vizsynth.figures import sheet

    common.need_extra("matplotlib")
    photo = settings.photo
    net = common.load_network(settings.network, settings.weights)
    image = photo.pixels(settings.size or min(common.input_size(net)))
    chosen = _layers(net, settings.layers, (image.shape[0], image.shape[1]))
    folder = settings.open(photo.stem)
    folder.check([*(f"{layer}.png" for layer in chosen), SHEET], inputs=[photo])

    with common.progress(photo.name, ["activations", "pictures"], settings.quiet) as begin:
        begin("activations")
        seen = vizsynth.features(net, jnp.asarray(image[None]), chosen)
        begin("pictures")
        pictures: dict[str, Any] = {}
        rows, numbers = [], {}
        for layer in chosen:
            A = np.asarray(seen[layer][0])
            values, dead, constant = (np.asarray(a[0]) for a in vizsynth.activation_tiles(seen[layer]))

            def drawn(count: int, across: int, A: Any = A, found: Any = (values, dead, constant)) -> Any:
                if settings.raw:
                    return raw_activation_sheet(A, channels=count, columns=across, side=SIDE)
                return activation_sheet(*(a[:count] for a in found), columns=across, side=SIDE)

            pictures[f"{layer}.png"] = drawn(len(values), settings.columns)
            rows.append([drawn(SHOWN, SHOWN)])
            numbers[layer] = {
                "shape": list(A.shape),
                "dead": np.flatnonzero(dead).tolist(),
                "constant": np.flatnonzero(constant & ~dead).tolist(),
                "zeros": round(float((A == 0).mean()), 4),
            }
    title = f"{net.record.network}: the first channels of each layer"
    pictures[SHEET] = sheet(rows, row_labels=chosen, font_size=16, title=title)
    lines = []
    for layer, found in numbers.items():
        h, w, c = found["shape"]
        dead = len(found["dead"])
        lines.append(f"{layer:12} {h}x{w}, {c} channels, {dead} of them dead; {found['zeros']:.0%} is 0")
    record = {**common.seen(net, settings.weights, image), "layers": numbers}
    settings.write(folder, pictures, record, *lines)


def _layers(net: Any, typed: tuple[str, ...], size: tuple[int, int]) -> list[str]:
    """Return the layers that were typed, or the first that are maps and come after a ReLU or a pool."""
    from vizsynth.inspection.patches import map_layers

    maps = map_layers(net, size)
    if typed:
        named = list(dict.fromkeys(common.pick_layer(net, name) for name in typed))
        if flat := [name for name in named if name not in maps]:
            raise common.BadInput(f"{flat[0]} has no maps to draw; the layers that have: {', '.join(maps)}")
        return named
    blocks = {name for name in maps if any(other.startswith(f"{name}.") for other in maps)}
    outer = [
        name for name in maps
        if name in blocks or (not name.startswith("conv") and name.split(".")[0] not in blocks
                              and name.rpartition(".")[0] not in blocks)
    ]  # fmt: skip
    return (outer or list(maps))[:MOST]
