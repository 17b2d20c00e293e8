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


def look_at(path: Path) -> tuple[tuple[int, int], str]:
    """Return a picture's height and width as it stands, and what is converted when it is read."""
    from PIL import Image

    from vizsynth.cli.common import BadInput
    from vizsynth.files import read_image

    shape = read_image(path, 32).shape[:2]  # says what is wrong with a file that is no picture
    if max(shape) > LONGEST * min(shape):
        raise BadInput(
            f"{path} is more than {LONGEST} times as long as it is wide; cut out the part that counts"
        )
    with Image.open(path) as image:
        width, height = image.size
        turned = image.getexif().get(0x0112, 1) >= 5
        mode, clear = image.mode, image.has_transparency_data
    note = ""
    if clear:
        note = "it may be transparent; it is laid over white"
    elif mode in ("1", "L", "LA", "F") or mode.startswith("I"):
        note = "it is grey; its three channels are alike"
    return ((width, height) if turned else (height, width)), note
