"""`vizsynth activations`: what each channel of some layers makes of a photo."""

from pathlib import Path
from typing import Any

import click
import numpy as np

from vizsynth.cli import common
from vizsynth.cli.output import OutputFolder
from vizsynth.cli.photos import digest, read_photo

SHEET = "sheet.png"
SHOWN = 16  # channels of each layer in the sheet
SIDE = 72  # pixels of a tile, about
MOST = 10  # layers, unless they are named


@click.command("activations")
@click.argument("photo", type=click.Path(path_type=Path))
@common.network
@common.weights
@click.option(
    "--layer", "-l", "layers", multiple=True, metavar="NAME",
    help="Which; may be repeated [the first ten of maps].",
)  # fmt: skip
@click.option(
    "--columns", type=click.IntRange(1, 64), default=16, metavar="N", help="Channels in a row [16]."
)
@click.option("--raw", is_flag=True, help="Each from its least to its largest value.")
@common.size
@common.out("out/NAME-activations")
@common.overwrite
@common.as_json
@common.quiet
def command(
    photo: Path,
    network: str,
    weights: str | None,
    layers: tuple[str, ...],
    columns: int,
    raw: bool,
    size: int | None,
    out: Path | None,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Show what a network's layers make of PHOTO, channel by channel.

    Each channel is drawn less its mean over its deviation; channels that are 0
    everywhere are crossed out. Writes a picture a layer, a sheet of their first
    channels and numbers.json into DIR.
    """
    import jax
    import jax.numpy as jnp

    import vizsynth
    from vizsynth.cli.sheets import activation_sheet, raw_activation_sheet
    from vizsynth.figures import sheet

    common.need_extra("matplotlib")
    net = common.load_network(network, weights)
    image = np.asarray(read_photo(photo, size or min(common.input_size(net))))
    chosen = _layers(net, layers, (image.shape[0], image.shape[1]))
    origin = {"command": "activations", "photo": {"name": photo.name, "sha256": digest(photo)}}
    folder = OutputFolder(out or common.usual_folder(photo.stem, "-activations"), origin, overwrite=overwrite)
    folder.check([*(f"{layer}.png" for layer in chosen), SHEET], inputs=[photo])

    with common.progress(photo.name, ["activations", "pictures"], quiet) as begin:
        begin("activations")
        seen = vizsynth.features(net, jnp.asarray(image[None]), chosen)
        begin("pictures")
        pictures: dict[str, Any] = {}
        rows, numbers = [], {}
        for layer in chosen:
            A = np.asarray(seen[layer][0])
            values, dead, constant = (np.asarray(a[0]) for a in vizsynth.activation_tiles(seen[layer]))

            def drawn(count: int, across: int, A: Any = A, found: Any = (values, dead, constant)) -> Any:
                if raw:
                    return raw_activation_sheet(A, channels=count, columns=across, side=SIDE)
                return activation_sheet(*(a[:count] for a in found), columns=across, side=SIDE)

            pictures[f"{layer}.png"] = drawn(len(values), columns)
            rows.append([drawn(SHOWN, SHOWN)])
            numbers[layer] = {
                "shape": list(A.shape),
                "dead": np.flatnonzero(dead).tolist(),
                "constant": np.flatnonzero(constant & ~dead).tolist(),
                "zeros": round(float((A == 0).mean()), 4),
            }
    record = {
        "network": network,
        "weights": {"given": weights, "origin": net.record.origin},
        "seen_at": {"height": image.shape[0], "width": image.shape[1]},
        "raw": raw,
        "layers": numbers,
        "versions": common.versions(),
        "device": jax.devices()[0].device_kind,
    }
    title = f"{net.record.network}: the first channels of each layer"
    pictures[SHEET] = sheet(rows, row_labels=chosen, font_size=16, title=title)
    files = folder.write(pictures, record)
    if as_json:
        common.tell_json({**origin, **record, "out": str(folder.path), "files": files})
        return
    for layer, found in numbers.items():
        h, w, c = found["shape"]
        common.tell(
            f"{layer:12} {h}x{w}, {c} channels, {len(found['dead'])} of them dead; {found['zeros']:.0%} is 0"
        )
    common.tell(f"wrote into {folder.path}: {', '.join(files)}")


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
