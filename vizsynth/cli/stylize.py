"""`vizsynth stylize`: photos in a style that a network has learned, in one pass."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from vizsynth.cli import common, styling
from vizsynth.cli.output import OutputFolder
from vizsynth.cli.photos import digest

SHEET = "sheet.png"
LARGEST = 1024  # pixels: the longer side, unless it is given
MIXED = "mixed"


def _shares(
    context: click.Context, parameter: click.Parameter, typed: tuple[str, ...]
) -> dict[str, float] | None:
    """Return what was typed as NAME=W, between commas or one by one."""
    found: dict[str, float] = {}
    for part in (part for text in typed for part in text.split(",")):
        name, equals, share = part.strip().rpartition("=")
        try:
            found[name] = float(share)
        except ValueError:
            equals = ""
        if not equals or not np.isfinite(found[name]) or found[name] < 0:
            raise click.BadParameter(
                f"{part!r} is no share; give NAME=W, W being at least 0: glass=2,strokes=1",
                context,
                parameter,
            )
    if found and not any(found.values()):
        raise click.BadParameter("one of the shares must be above 0", context, parameter)
    return found or None


@click.command("stylize")
@click.argument("photos", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PHOTO...")
@click.option(
    "--style", "-s", "styles", multiple=True, metavar="NAME", help="Of this style; may be repeated."
)
@click.option(
    "--mix", multiple=True, metavar="NAME=W", callback=_shares,
    help="Between styles: glass=2,strokes=1 for instance.",
)  # fmt: skip
@click.option(
    "--stylizer", type=click.Path(path_type=Path), metavar="FILE",
    help="As `vizsynth train-style` makes it [ours].",
)  # fmt: skip
@click.option(
    "--size", type=click.IntRange(33, 8192), metavar="PIXELS",
    help=f"The longer side [PHOTO's, at most {LARGEST}].",
)  # fmt: skip
@common.out("out/stylized")
@common.overwrite
@common.as_json
@common.quiet
def command(
    photos: tuple[Path, ...],
    styles: tuple[str, ...],
    mix: dict[str, float] | None,
    stylizer: Path | None,
    size: int | None,
    out: Path | None,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Paint PHOTO in a style that a network has learned: one pass, no steps.

    Writes a picture for each photo and style, a sheet of them and numbers.json
    into DIR.
    """
    import jax
    import jax.numpy as jnp

    import vizsynth
    from vizsynth.figures import sheet
    from vizsynth.models import find_style, load_stylizer

    net = load_stylizer(stylizer)
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
    pictures = styling.given(photos, quiet)
    names = styling.names(pictures)
    files = {(name, label): f"{name}-{_file_name(label)}.png" for name in names for label in wanted}
    _check_apart(list(files.values()))
    origin = {
        "command": "stylize", "photos": [p.described for p in pictures], "styles": list(styles), "mix": mix,
        "stylizer": None if stylizer is None else {"name": stylizer.name, "sha256": digest(stylizer)},
        "size": size,
    }  # fmt: skip
    folder = OutputFolder(out or common.usual_folder("stylized"), origin, overwrite=overwrite)
    folder.check([*files.values(), SHEET], inputs=photos)

    made: dict[str, Any] = {}
    rows = []
    told = f"{len(pictures)} photo{'s' * (len(pictures) > 1)} as {', '.join(wanted)}"
    with common.progress(told, names, quiet) as begin:
        for name, picture in zip(names, pictures, strict=True):
            begin(name)
            image = picture.read(styling.scaled(picture.size, size or min(LARGEST, max(picture.size))))
            row = [np.asarray(image)]
            for label in wanted:
                row.append(np.asarray(vizsynth.stylize(net, image[None], jnp.asarray(weights[label])))[0])
                made[files[name, label]] = row[-1]
            rows.append(row)
    numbers = {
        "weights": {label: w.tolist() for label, w in weights.items()},
        "stylizer_styles": list(net.styles),
        "sizes": {name: [row[0].shape[0], row[0].shape[1]] for name, row in zip(names, rows, strict=True)},
        "versions": common.versions(),
        "device": jax.devices()[0].device_kind,
    }
    made[SHEET] = sheet(rows, column_labels=["photo", *wanted], row_labels=names)
    written = folder.write(made, numbers)
    if as_json:
        common.tell_json({**origin, **numbers, "out": str(folder.path), "files": written})
    else:
        common.tell(f"wrote into {folder.path}: {', '.join(written)}")


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
