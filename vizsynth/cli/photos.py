"""Photos that commands are given."""

import hashlib
from pathlib import Path
from typing import Any

LONGEST = 8  # how many times longer than wide a photo may be


def read_photo(path: Path, side: int) -> Any:
    """Return the photo with its shorter side brought to so many pixels."""
    from vizsynth.cli.common import BadInput
    from vizsynth.files import read_image

    shape = read_image(path, 32).shape[:2]  # small, however long the photo is
    if max(shape) > LONGEST * min(shape):
        raise BadInput(
            f"{path} is more than {LONGEST} times as long as it is wide; cut out the part that counts"
        )
    return read_image(path, side)


def digest(path: Path) -> str:
    """Return what tells a file from all others."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
