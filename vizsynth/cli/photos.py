"""Photos that commands are given."""

import hashlib
import os
from collections.abc import Iterable
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from vizsynth.cli.common import BadInput, plain_name, say
from vizsynth.core.paths import check_regular_file

LONGEST = 8  # how many times longer than wide a photo may be
LARGEST = 1024  # pixels: the longer side of a photo as it is shown


class File(os.PathLike[str]):
    """A file that a command is given, and that numbers.json describes by its name and content."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.name, self.stem = self.path.name, self.path.stem

    def __fspath__(self) -> str:
        """Return the path, so that it stands where a path may stand."""
        return str(self.path)

    @cached_property
    def digest(self) -> str:
        """What tells the file from all others."""
        return digest(self.path)

    @property
    def described(self) -> dict[str, str]:
        """What numbers.json says of it."""
        return {"name": self.name, "sha256": self.digest}


class Photo(File):
    """A photo: opened when something of it is needed, decoded once for all sizes."""

    @cached_property
    def _look(self) -> Any:
        return _decoded(self).look

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self._look.size

    @property
    def note(self) -> str:
        """What is converted when it is read."""
        if self._look.transparent:
            return "it may be transparent; it is laid over white"
        return "it is grey; its three channels are alike" if self._look.grey else ""

    def pixels(self, size: int | tuple[int, int] | None = None) -> np.ndarray:
        """Return it at a size, as `vizsynth.read_image` has it: an int is the shorter side."""
        return _decoded(self).pixels(size)

    def read(self, size: int | tuple[int, int] | None = None) -> Any:
        """Return the same as an array of JAX."""
        import jax.numpy as jnp

        return jnp.asarray(self.pixels(size))

    def shown(self) -> np.ndarray:
        """Return it as it is shown: its longer side at most `LARGEST` pixels."""
        shorter, longer = sorted(self.size)
        return self.pixels(None if longer <= LARGEST else max(1, round(shorter * LARGEST / longer)))


@lru_cache(maxsize=4)  # several may be large
def _decoded(photo: Photo) -> Any:
    from vizsynth.files import Decoded, open_picture

    with open_picture(photo.path) as image:
        shorter, longer = sorted(image.size)
        found = Decoded(image, photo.path) if longer <= LONGEST * shorter else None
    if found is None:
        raise BadInput(
            f"{photo.path} is more than {LONGEST} times as long as it is wide; cut out the part that counts"
        )
    return found


def look_at(photos: Iterable[Photo], quiet: bool) -> None:
    """Check that photos can be read; say what is converted, once for each file."""
    for photo in {photo.path: photo for photo in photos}.values():
        if photo.note:
            say(f"{photo.path}: {photo.note}", quiet)


def distinct_names(paths: Iterable[Photo | Path]) -> list[str]:
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


def digest(path: str | os.PathLike[str]) -> str:
    """Return what tells a file from all others."""
    check_regular_file(path)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
