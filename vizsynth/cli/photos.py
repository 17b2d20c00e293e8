"""Photos that commands are given."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vizsynth.cli.common import BadInput, plain_name
from vizsynth.core.paths import check_regular_file

LONGEST = 8  # how many times longer than wide a photo may be


def read_photo(path: Path, side: int) -> Any:
    """Return the photo with its shorter side brought to so many pixels."""
    from vizsynth.files import read_image

    _check_sides(path)
    return read_image(path, side)


def look_at(path: Path) -> tuple[tuple[int, int], str]:
    """Return a picture's height and width as it stands, and what is converted when it is read."""
    from vizsynth import files

    _check_sides(path)
    found = files.look_at(path)  # says what is wrong with a file that is no picture
    note = "it is grey; its three channels are alike" if found.grey else ""
    return found.size, "it may be transparent; it is laid over white" if found.transparent else note


def _check_sides(path: Path) -> None:
    from vizsynth.files import image_sides

    shorter, longer = image_sides(path)
    if longer > LONGEST * shorter:
        raise BadInput(
            f"{path} is more than {LONGEST} times as long as it is wide; cut out the part that counts"
        )


def distinct_names(paths: Iterable[Path]) -> list[str]:
    """Return a name for a file of ours for each of others: theirs, without the suffix, each another.

    >>> distinct_names([Path("a/cat.jpg"), Path("b/cat.png"), Path("...jpg")])
    ['cat', 'cat-2', 'unnamed']
    """
    found: list[str] = []
    for path in paths:
        stem = name = plain_name(path.stem)
        count = 2
        while name in found:
            name, count = f"{stem}-{count}", count + 1
        found.append(name)
    return found


def digest(path: Path) -> str:
    """Return what tells a file from all others."""
    check_regular_file(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
