"""The page of all figures: what lies in their folders, collected."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from vizsynth.cli.report.page import Comparison, Figure, Picture, write_page
from vizsynth.files import open_picture

LOG, MADE, PAGE = "log.txt", "made.json", "index.html"
COMPARE, LABELS = "compare", "labels.json"
TITLE = "vizsynth: the figures"


class Entry(NamedTuple):
    """A figure as the page lists it."""

    name: str
    """The folder that it lies in."""
    title: str
    rows: tuple[str, ...] = ()
    """Which rows of the index it shows."""


def described(out: Path, entry: Entry) -> Figure | None:
    """Return what the page says of a figure; None where it was not made."""
    folder = out / entry.name
    if not (folder / MADE).is_file():
        return None
    made = json.loads((folder / MADE).read_text())
    caption = (folder / "caption.md").read_text(encoding="utf-8").strip()
    first = re.split(r"(?<=[^A-Z])\. ", caption)[0]  # Doe, J. is no end
    pictures = []
    for path in sorted(folder.glob("*.png")):
        part = re.sub(r"[_-](?!\d)", " ", path.stem)  # squeezenet1_1 is a name
        pictures.append(Picture(f"{entry.name}/{path.name}", part, f"{entry.title}, {part}: {first}"))
    record = f"{entry.name}/{entry.name}.json"
    return Figure(
        entry.name,
        entry.title,
        caption,
        pictures,
        record=record if (out / record).is_file() else None,
        command=made["command"],
        seconds=made["seconds"],
        rows=entry.rows,
    )


def comparisons(out: Path, entries: Sequence[Entry]) -> list[Comparison]:
    """Return what figures have laid down to be compared: of each photo one comparison, of all of them.

    A figure lays down `compare/PHOTO/labels.json`, which says by the stems of the pictures beside it, all of
    one size, what they are; the first is the photo. One of another size than those of the figures before
    is a comparison by itself.
    """
    found: dict[tuple[str, tuple[int, int]], dict[str, Picture]] = {}
    for entry in entries:
        for labels in sorted((out / entry.name / COMPARE).glob(f"*/{LABELS}")):
            photo, named = labels.parent.name, json.loads(labels.read_text(encoding="utf-8"))
            place = f"{entry.name}/{COMPARE}/{photo}"
            first = next(iter(named))
            with open_picture(out / place / f"{first}.png") as image:
                layers = found.setdefault((photo, image.size), {})
            for stem, label in named.items():
                if stem == first and layers:
                    continue  # the photo is there
                told = f"{label} ({entry.title})" if label in layers else label
                layers[told] = Picture(f"{place}/{stem}.png", told, f"{photo}: {told}")
    photos = [photo for photo, _ in found]
    return [
        Comparison(photo if photos.count(photo) == 1 else f"{photo}, {width}x{height}", list(layers.values()))
        for (photo, (width, height)), layers in found.items()
    ]


def build(out: Path, themes: Mapping[str, Sequence[Entry]], *, rows: Mapping[str, str] | None = None) -> Path:
    """Write the page of all figures that are in the folder; return its path.

    Args:
        out: the folder of figures' folders.
        themes: which figures, in order.
        rows: what each row of the index says.
    """
    made = {
        theme: [(entry, figure) for entry in of if (figure := described(out, entry)) is not None]
        for theme, of in themes.items()
    }
    entries = [entry for of in made.values() for entry, _ in of]
    figures = {theme: [figure for _, figure in of] for theme, of in made.items()}
    write_page(out / PAGE, TITLE, figures, comparisons(out, entries), rows=rows)
    return out / PAGE
