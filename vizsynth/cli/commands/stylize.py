"""`vizsynth stylize`: photos in a style that a network has learned, in one pass."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from vizsynth.cli import common, options, styling
from vizsynth.cli.options import Written
from vizsynth.cli.photos import File, Photo, distinct_names, look_at
from vizsynth.cli.settings import argument, command_of, option

SHEET = "sheet.png"
LARGEST = 1024  # pixels: the longer side, unless it is given
MIXED = "mixed"


def _shares(typed: Sequence[str]) -> dict[str, float] | None:
    """Return what was typed as NAME=W, between commas or one by one."""
    found: dict[str, float] = {}
    for part in (part for text in typed for part in text.split(",")):
        name, equals, share = part.strip().rpartition("=")
        try:
            found[name] = float(share)
        except ValueError:
            equals = ""
        if not equals or not np.isfinite(found[name]) or found[name] < 0:
            raise ValueError(f"{part!r} is no share; give NAME=W, W being at least 0: glass=2,strokes=1")
    if found and not any(found.values()):
        raise ValueError("one of the shares must be above 0")
    return found or None


@dataclass(frozen=True, kw_only=True)
class Settings(Written):
    """Of `vizsynth stylize`."""

    photos: tuple[Photo, ...] = argument(metavar="PHOTO...", many=True)
    styles: tuple[str, ...] = option((), "Of this style; may be repeated", "--style", "-s", metavar="NAME")
    mix: dict[str, float] | None = option(
        (), "Between styles: glass=2,strokes=1 for instance", metavar="NAME=W", parse=_shares
    )
    stylizer: File | None = option(None, "As `vizsynth train-style` makes it [ours]", metavar="FILE")
    size: int | None = option(
        None, f"The longer side [PHOTO's, at most {LARGEST}]", type=click.IntRange(33, 8192), metavar="PIXELS"
    )
    out: Path | None = options.out("stylized")


@command_of(Settings)
def command(settings: Settings) -> None:
    """Paint PHOTO in a style that a network has learned: one pass, no steps.

    Writes a picture for each photo and style, a sheet of them and numbers.json
    into DIR.
    """
    import jax.numpy as jnp

    import vizsynth
    from vizsynth.figures import sheet
    from vizsynth.models import find_style, load_stylizer

    photos, styles, mix, size = settings.photos, settings.styles, settings.mix, settings.size
    net = load_stylizer(settings.stylizer and settings.stylizer.path)
    if not styles and mix is None:
        raise common.BadInput(f"name a style, --style {net.styles[0]}; there are: {', '.join(net.styles)}")
    wanted = {name: {name: 1.0} for name in styles}
    if mix is not None:
        wanted[MIXED if MIXED not in net.styles else "+".join(mix)] = mix
    weights = {
        label: np.bincount(
            [find_style(net, name) for name in shares],
            [share / sum(shares.values()) for share in shares.values()],
            len(net.styles),
        ).astype(np.float32)
        for label, shares in wanted.items()
    }
    look_at(photos, settings.quiet)
    names = distinct_names(photos)
    files = {(name, label): f"{name}-{_file_name(label)}.png" for name in names for label in wanted}
    _check_apart(list(files.values()))
    folder = settings.open()
    folder.check([*files.values(), SHEET], inputs=photos)

    made: dict[str, Any] = {}
    rows = []
    told = f"{len(photos)} photo{'s' * (len(photos) > 1)} as {', '.join(wanted)}"
    with common.progress(told, names, settings.quiet) as begin:
        for name, photo in zip(names, photos, strict=True):
            begin(name)
            image = photo.read(styling.scaled(photo.size, size or min(LARGEST, max(photo.size))))
            row = [np.asarray(image)]
            for label in wanted:
                row.append(np.asarray(vizsynth.stylize(net, image[None], jnp.asarray(weights[label])))[0])
                made[files[name, label]] = row[-1]
            rows.append(row)
    numbers = {
        "weights": {label: w.tolist() for label, w in weights.items()},
        "stylizer_styles": list(net.styles),
        "sizes": {name: [row[0].shape[0], row[0].shape[1]] for name, row in zip(names, rows, strict=True)},
    }
    made[SHEET] = sheet(rows, column_labels=["photo", *wanted], row_labels=names)
    settings.write(folder, made, numbers)


def _file_name(style: str) -> str:
    """Return a style's name as a part of a file's."""
    return common.plain_name(
        "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in style)
    )


def _check_apart(files: Sequence[str]) -> None:
    if len(set(files)) < len(files):
        twice = next(file for file in files if files.count(file) > 1)
        raise common.BadInput(
            f"two pictures would be called {twice}; make them one by one, in folders of their own"
        )
