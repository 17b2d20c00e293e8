"""A page that shows pictures: static, beside them, without a server or anything from elsewhere.

`python -m experiments` and `vizsynth report` write theirs with it.
"""

import html
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from vizsynth.core.atomic import write_atomic
from vizsynth.core.texts import printable
from vizsynth.files import open_picture

TEMPLATE = Path(__file__).parents[2] / "data" / "page.html.j2"


class Picture(NamedTuple):
    """A picture of a figure. Paths are relative to the page."""

    path: str
    label: str
    """What stands beneath it."""
    alt: str
    """What it shows, for those who do not see it."""


class Table(NamedTuple):
    """Numbers in rows; the first cell of a row is its head."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


class Figure(NamedTuple):
    """Pictures that belong together, and what is said of them."""

    name: str
    """What a link leads to: of letters, digits, `-` and `_`."""
    title: str
    caption: str
    """Markdown's code, links and paragraphs; all else stands as it is, as all of a `literal` text does."""
    pictures: Sequence[Picture] = ()
    record: str | None = None
    """The file of its numbers, relative to the page."""
    command: str | None = None
    """What makes it."""
    seconds: float | None = None
    """How long that took."""
    rows: Sequence[str] = ()
    """Which rows of the index it shows."""
    table: Table | None = None


class Comparison(NamedTuple):
    """Pictures of one thing, of one size, to be laid over each other."""

    title: str
    layers: Sequence[Picture]


def write_page(
    path: str | os.PathLike[str],
    title: str,
    themes: Mapping[str, Sequence[Figure]],
    comparisons: Sequence[Comparison] = (),
    *,
    intro: str = "",
    rows: Mapping[str, str] | None = None,
) -> None:
    """Write a page of figures by theme, with a slider to compare pictures; it appears whole or not at all.

    Args:
        path: of the page; a file that is there is replaced. Missing folders are made.
        title: of the page.
        themes: the figures by what stands above them; a theme without figures is left out.
        comparisons: each at least two pictures of one size.
        intro: what stands beneath the title, written as a caption is.
        rows: an index at the end: what each row says, by the names that figures give their rows.

    Raises:
        ModuleNotFoundError: jinja2 is not installed.
        FileNotFoundError: a picture, or a record, that is not there.
        ValueError: a comparison of fewer than two pictures, or of several sizes; figures of one name.
        OSError: the page cannot be written.

    >>> import tempfile
    >>> import numpy as np
    >>> from vizsynth.files import write_image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_image(f"{folder}/grey.png", np.full((4, 6), 0.5))
    ...     grey = Figure("grey", "Grey", "All of it.", [Picture("grey.png", "grey", "a grey picture")])
    ...     write_page(f"{folder}/index.html", "Pictures", {"Dull": [grey]})
    ...     'src="grey.png"' in Path(f"{folder}/index.html").read_text()
    True
    """
    try:
        from jinja2 import Environment
        from markupsafe import Markup  # comes with jinja2
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "the page needs jinja2: pip install 'vizsynth[cli]'", name="jinja2"
        ) from None

    path = Path(path)
    figures = [figure for of in themes.values() for figure in of]
    names = [figure.name for figure in figures]
    if again := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two figures are called {again[0]}; a link would lead to the first alone")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"told": lambda text: Markup(told(text)), "href": _href}
    text = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        title=title,
        intro=intro,
        themes={theme: [_shown(path.parent, f) for f in of] for theme, of in themes.items() if of},
        comparisons=[_compared(path.parent, comparison) for comparison in comparisons],
        rows=rows or {},
        shown_by={row: [f for f in figures if row in f.rows] for row in rows or {}},
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, printable(text, keep="\n"))


def told(text: str) -> str:
    """Return a caption as HTML: Markdown's paragraphs, code and links, all else as it is written.

    >>> told("Of `a` & b.")
    '<p>Of <code>a</code> &amp; b.</p>'
    """
    safe = _MARKS.sub(_marked, html.escape(text.strip(), quote=False))
    return "".join(f"<p>{part}</p>" for part in re.split(r"\n\s*\n", safe) if part)


_MARKS = re.compile(r"\\([\\`\[\]])|`([^`]+)`|\[((?:\\.|[^\]\\])+)\]\((https?://[^)\s\"]+)\)")


def _marked(found: re.Match[str]) -> str:
    itself, code, text, address = found.groups()
    if itself:
        return itself
    return f"<code>{code}</code>" if code else f'<a href="{address}">{_MARKS.sub(_marked, text)}</a>'


def _href(path: str) -> str:
    return quote(os.fsencode(path))


def _shown(folder: Path, figure: Figure) -> dict[str, Any]:
    if figure.record is not None and not (folder / figure.record).is_file():
        raise FileNotFoundError(f"there is no {folder / figure.record}, the numbers of {figure.name}")
    return figure._asdict() | {"pictures": [_sized(folder, picture) for picture in figure.pictures]}


def _sized(folder: Path, picture: Picture) -> dict[str, Any]:
    try:
        with open_picture(folder / picture.path) as image:
            width, height = image.size
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no picture {folder / picture.path} for the page") from None
    return {
        "src": _href(picture.path),
        "label": picture.label,
        "alt": picture.alt,
        "width": width,
        "height": height,
    }


def _compared(folder: Path, comparison: Comparison) -> dict[str, Any]:
    layers = [_sized(folder, layer) for layer in comparison.layers]
    if len(layers) < 2:
        raise ValueError(f"{comparison.title}: at least two pictures are compared, not {len(layers)}")
    if len(sizes := {(layer["width"], layer["height"]) for layer in layers}) > 1:
        found = ", ".join(f"{w}x{h}" for w, h in sorted(sizes))
        raise ValueError(f"{comparison.title}: pictures of one size are compared, not of {found} pixels")
    return {"title": comparison.title, "layers": layers}
