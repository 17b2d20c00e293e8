"""`vizsynth patches`: which pieces of a folder's images excite each channel most."""

import csv
import io
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import click
import numpy as np

from vizsynth.cli import common, folders, making, options
from vizsynth.cli.options import Written
from vizsynth.cli.settings import argument, command_of, option
from vizsynth.core.signals import exit_code

SHEET, TABLE = "patches.png", "patches.csv"
DRAWN = 12  # channels in the sheet, unless they are named
SIDE = 60  # pixels of a patch in the sheet, about
SAVED_EVERY = 30.0  # seconds


class Search(NamedTuple):
    """Where a search stands: all that is saved."""

    step: Any
    """The place in the listing of the next image."""
    patches: Any


def _channels(typed: str) -> tuple[int, ...]:
    parts = [part.strip() for part in typed.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise ValueError(f"{typed!r} is no list of channels, such as 0,5,17")
    return tuple(dict.fromkeys(map(int, parts)))


@dataclass(frozen=True, kw_only=True)
class Settings(Written):
    """Of `vizsynth patches`."""

    folder: Path = argument()
    network: str = options.network()
    weights: str | None = options.weights()
    layer: str | None = options.layer()
    k: int = option(9, "Patches a channel", "-k", type=click.IntRange(1, 100), metavar="N")
    channels: tuple[int, ...] | None = option(
        None, "Which the sheet shows [twelve of them]", "--channels", "-c", metavar="N,...", parse=_channels,
        record=None,
    )  # fmt: skip
    guided: bool = option(True, "Beside each what made it strong [yes]", "--guided/--no-guided", record=None)
    size: int | None = options.size()
    batch: int = options.batch(16, "How many at a time", 1024)
    resume: bool = options.resume()
    out: Path | None = options.out("FOLDER-patches")


@command_of(Settings)
def command(settings: Settings) -> None:
    """Find what in the images of FOLDER excites each channel of a layer most.

    Of each image the strongest place, of all images the strongest K, cut to
    exactly what the neuron sees. Writes a sheet of some channels, patches.csv
    (every channel: file, activation, box) and numbers.json into DIR.
    """
    import vizsynth
    from vizsynth.datasets.folders import list_folder

    folder, k, quiet = settings.folder, settings.k, settings.quiet
    paths = list_folder(folder).paths
    names = [str(path.relative_to(folder)) for path in paths]
    net = common.load_network(settings.network, settings.weights)
    layer = common.pick_layer(net, settings.layer)
    side = settings.size or min(common.input_size(net))
    start = vizsynth.no_patches(net, layer, (side, side), k=k)
    count = start.values.shape[0]
    if wrong := [c for c in settings.channels or () if c >= count]:
        raise common.BadInput(f"{layer} has the channels 0..{count - 1}, and no {wrong[0]}")
    chosen = folders.open_for(settings, folder, {"layer": layer, "size": side})
    chosen.check([SHEET, TABLE], inputs=paths)

    with chosen.working() as state:
        patches, skipped = _searched(
            net, paths, start, layer=layer, side=side, batch=settings.batch, state=state,
            origin=chosen.origin, quiet=quiet,
        )  # fmt: skip
        folders.tell_skipped(skipped, quiet)
        read = len(paths) - len(skipped)
        if read == 0:
            chosen.discard()
            raise common.BadInput(
                f"none of the {len(paths)} images in {folder} can be read: {skipped[0].reason}"
            )
        if read < k:
            common.say(f"there are {read} images, so {read} patches a channel, not {k}", quiet)
        boxes = vizsynth.patch_boxes(net, patches, layer=layer, image_size=(side, side))
        found = {
            name: np.asarray(values) for name, values in zip(patches._fields, patches, strict=True)
        } | {"boxes": boxes}  # fmt: skip
        strongest = found["values"][:, 0]
        alive = np.flatnonzero(strongest > 0)
        among = alive if alive.size else np.arange(count)
        spread = among[np.linspace(0, len(among) - 1, min(DRAWN, len(among))).astype(int)]
        channels = list(settings.channels or spread.tolist())
        with common.progress(folder.name, ["the sheet"], quiet) as begin:
            begin("the sheet")
            picture = _sheet(net, layer, channels, found, paths, side, settings.guided)
        numbers = {
            "images": read,
            "skipped": folders.as_record(skipped),
            "patches_a_channel": min(read, k),
            "channels": count,
            "dead": np.flatnonzero(strongest == 0).tolist(),
            "field": [int(n) for n in _largest(boxes)],
            "drawn": channels,
        }
        told = f"{layer}: {count} channels, {len(numbers['dead'])} dead in all {read} images"
        settings.write(chosen, {SHEET: picture, TABLE: _table(found, names)}, numbers, told)
    chosen.discard()


def _searched(
    net: Any,
    paths: Sequence[Path],
    start: Any,
    *,
    layer: str,
    side: int,
    batch: int,
    state: Path,
    origin: dict[str, Any],
    quiet: bool,
) -> tuple[Any, list[Any]]:
    """Go through the images, from where a search was stopped; return the patches and what was skipped."""
    import jax

    import vizsynth
    from vizsynth import ascent
    from vizsynth.datasets.folders import Skipped, read_batches
    from vizsynth.inspection.patches import filled

    search = Search(np.asarray(0, np.int32), start)
    skipped: list[Skipped] = []
    if ascent.has_checkpoint(state):
        search = ascent.restore(state, search)
        beside = ascent.beside(state)
        try:
            reasons = zip(beside["skipped"], beside["reasons"], strict=True)
            skipped = [Skipped(paths[place], str(reason)) for place, reason in reasons]
        except (LookupError, TypeError, ValueError):
            raise common.BadInput(f"{state} is damaged; --overwrite begins anew") from None
    places = {path: place for place, path in enumerate(paths)}

    def save() -> None:
        # One may have been read ahead: it comes again.
        known = [one for one in skipped if places[one.path] < int(search.step)]
        beside = {
            "skipped": np.asarray([places[one.path] for one in known], np.int64),
            "reasons": np.asarray([one.reason for one in known], np.str_),
        }
        ascent.save(state, search, origin, beside)

    first = int(search.step)
    saved = time.monotonic()
    rest = read_batches(paths[first:], side, batch_size=batch, skipped=skipped)
    with (
        making.bar(layer, len(paths), quiet, "images") as advance,
        making.patient() as asked_to_stop,
        closing(cast(Any, rest)),
    ):
        advance(first, np.zeros((1, 0)))
        for indices, images in rest:
            full, images = filled(indices + first, images, batch)
            patches = vizsynth.update_patches(
                net, images, patches=search.patches, layer=layer, indices=full.astype(np.int32)
            )
            search = Search(
                np.asarray(first + int(indices[-1]) + 1, np.int32), jax.block_until_ready(patches)
            )
            advance(int(search.step), np.zeros((1, 0)))
            stop = asked_to_stop()
            if stop or time.monotonic() - saved >= SAVED_EVERY:
                save()
                saved = time.monotonic()
            if stop:
                raise making.Stopped(
                    f"interrupted after {int(search.step)} of {len(paths)} images; --resume goes on",
                    exit_code(stop),
                )
    return search.patches, skipped


def _largest(boxes: np.ndarray) -> np.ndarray:
    """Return the height and width of the largest patch."""
    return (boxes[..., 2:] - boxes[..., :2]).max(axis=(0, 1))


def _sheet(
    net: Any,
    layer: str,
    channels: list[int],
    found: dict[str, np.ndarray],
    paths: Sequence[Path],
    side: int,
    guided: bool,
) -> np.ndarray:
    import jax.numpy as jnp

    import vizsynth
    from vizsynth.cli.sheets import patch_sheet
    from vizsynth.files import read_pixels
    from vizsynth.scores import Neuron

    cells, maps, notes = {}, {}, {}
    for c in channels:
        there = found["images"][c] >= 0
        images = [read_pixels(paths[i], (side, side)) for i in found["images"][c][there]]
        cells[c] = list(zip(images, found["boxes"][c][there], strict=True))
        values = found["values"][c][there]
        notes[c] = f"channel {c}: {values[0]:.3g} to {values[-1]:.3g}" if len(values) else f"channel {c}"
        if len(values) and values[0] == 0:
            notes[c] = f"channel {c}: dead"
        if guided and images:
            where = (jnp.asarray(found[name][c][there]) for name in ("rows", "columns"))
            score = Neuron(layer, jnp.asarray(c), *where)
            maps[c] = np.asarray(vizsynth.guided_backprop(net, jnp.asarray(np.stack(images)), score))
    return patch_sheet(
        cells, notes=notes, maps=(lambda c, i: maps[c][i]) if guided else None, side=SIDE, columns=3
    )


def _table(found: dict[str, np.ndarray], names: Sequence[str]) -> str:
    """Return every patch as a line of comma-separated values."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    heads = ("channel", "rank", "activation", "file", "row", "column", "top", "left", "bottom", "right")
    table.writerow(heads)
    for c, rank in np.ndindex(found["images"].shape):
        image = int(found["images"][c, rank])
        if image >= 0:
            numbers = (found[name][c, rank] for name in ("rows", "columns"))
            value = f"{float(found['values'][c, rank]):.7g}"
            table.writerow([c, rank + 1, value, names[image], *numbers, *found["boxes"][c, rank]])
    return text.getvalue()
