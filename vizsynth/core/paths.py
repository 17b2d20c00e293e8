"""Paths to no regular file, and paths that are not UTF-8."""

import hashlib
import os
import stat
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

_KINDS = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a folder"}


def check_regular_file(path: str | os.PathLike[str], error: type[Exception] = ValueError) -> None:
    """Raise an error if a path leads to anything but a regular file.

    Opening a pipe may block, and a device may have no end. A missing file is left to the caller's `open`.

    >>> check_regular_file("/dev/null")
    Traceback (most recent call last):
        ...
    ValueError: /dev/null is a device, not a file; save its content in a file, and give that
    """
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "a device")
        remedy = "" if stat.S_ISDIR(mode) else "; save its content in a file, and give that"
        raise error(f"{os.fspath(path)} is {kind}, not a file{remedy}")


def utf8_path(path: Path) -> Path:
    """Return a path to the same place in UTF-8, the only encoding that libraries in C++ take.

    A folder with another path is reached by a link, removed at the end of the process.

    >>> utf8_path(Path("/tmp/cat/state")).as_posix()
    '/tmp/cat/state'
    """
    try:
        os.fspath(path).encode()
        return path
    except UnicodeEncodeError:
        folder = os.fsencode(path.absolute().parent)
        link = Path(_links().name) / hashlib.sha256(folder).hexdigest()[:16]
        with suppress(FileExistsError):
            os.symlink(folder, os.fsencode(link))
        return link / path.name


@cache
def _links() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="vizsynth-")
