"""The page that shows the figures: static, beside them, without a server or a network."""

import html
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

LOG, MADE, PAGE = "log.txt", "made.json", "index.html"
TEMPLATE = Path(__file__).with_name("gallery.html.j2")


class Entry(NamedTuple):
    """A figure as the page lists it."""

    name: str
    """The folder that it lies in."""
    title: str
    rows: tuple[str, ...] = ()
    """Which rows of the index it shows."""


def described(out: Path, entry: Entry) -> dict[str, Any] | None:
    """Return what the page says of a figure; None where it was not made."""
    name, title, _ = entry
    folder = out / name
    if not (folder / MADE).is_file():
        return None
    made = json.loads((folder / MADE).read_text())
    caption = (folder / "caption.md").read_text(encoding="utf-8").strip()
    first = re.split(r"(?<=[^A-Z])\. ", caption)[0]
    pictures = []
    for path in sorted(folder.glob("*.png")):
        with Image.open(path) as image:
            width, height = image.size
        part = re.sub(r"[_-](?!\d)", " ", path.stem)  # squeezenet1_1 is a name
        pictures.append(
            {
                "path": f"{name}/{path.name}",
                "width": width,
                "height": height,
                "part": part,
                "alt": f"{title}, {part}: {first}",
            }
        )
    record = next((p.name for p in (folder / f"{name}.json",) if p.is_file()), None)
    return {
        "name": name,
        "title": title,
        "caption": linked(caption),
        "pictures": pictures,
        "record": f"{name}/{record}" if record else None,
        "command": made["command"],
        "seconds": made["seconds"],
    }


def linked(text: str) -> str:
    """Return a caption as HTML: Markdown's code and links, all else as it is written."""
    safe = html.escape(text, quote=False)
    safe = re.sub(r"`([^`]+)`", r"<code>\1</code>", safe)
    return re.sub(r"\[([^\]]+)\]\((https?://[^)\s]+)\)", r'<a href="\2">\1</a>', safe)


def build(out: Path, themes: Mapping[str, Sequence[Entry]], *, rows: Mapping[str, str] | None = None) -> Path:
    """Write the page of all figures that are in the folder; return its path.

    Args:
        out: the folder of figures' folders.
        themes: which figures, in order.
        rows: what each row of the index says.
    """
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    shown = {
        theme: [found for entry in figures if (found := described(out, entry)) is not None]
        for theme, figures in themes.items()
    }
    text = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        themes={theme: figures for theme, figures in shown.items() if figures}
    )
    out.mkdir(parents=True, exist_ok=True)
    page = out / PAGE
    written = page.with_suffix(".new")
    written.write_text(text, encoding="utf-8")
    written.replace(page)
    return page
