"""Check the claims of a file before use.

A file from a stranger may claim anything: four gigabytes in fourteen kilobytes, ten million layers, endlessly
nested lists. Readers check here before they read on. A false claim raises a short `ValueError`, to which the
reader adds the file and the remedy.
"""

import dataclasses
import json
import math
import os
import stat
import types
import zipfile
import zlib
from functools import lru_cache
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np

TIMES, FREE = 64, 64 << 20  # compression makes tables of digits ten times smaller, weights hardly
MOST_TEXT = 8 << 20  # characters of a description; Keras' largest network has one million
DEEPEST = 100  # lists in lists
LARGEST = 1 << 24  # the largest number in the description of a network
SHOWN = 120  # characters of a value in a message


def file_size(path: str | os.PathLike[str]) -> int:
    """Return the size of a regular file: reading a pipe may block, reading a device may never end.

    Raises:
        OSError: no such file; a folder, a pipe or a device.

    >>> file_size("/dev/null")
    Traceback (most recent call last):
    OSError: [Errno 22] it is a pipe or a device, not a file: '/dev/null'
    """
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(21, "Is a directory", os.fspath(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(22, "it is a pipe or a device, not a file", os.fspath(path))
    return status.st_size


def most_unpacked(packed: int) -> int:
    """Return the largest allowed number of bytes after unpacking.

    >>> most_unpacked(1000) == FREE, most_unpacked(1 << 30) == TIMES << 30
    (True, True)
    """
    return max(FREE, TIMES * packed)


def stand_in(path: str | os.PathLike[str]) -> str | None:
    """Return a message if a file is a pointer or a web page in place of the wanted file; else None.

    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "weights.pth"
    ...     _ = path.write_text("version https://git-lfs.github.com/spec/v1\\noid sha256:0\\nsize 12\\n")
    ...     stand_in(path)
    'is a Git LFS pointer, not the file of 12 bytes that it stands for: run `git lfs pull`, or download that'
    """
    try:
        file_size(path)
        with open(path, "rb") as file:
            start = file.read(512)
    except OSError:
        return None
    if start.startswith(b"version https://git-lfs.github.com/spec/"):
        sizes = [line[5:].strip() for line in start.splitlines() if line.startswith(b"size ")]
        what = f"the file of {int(sizes[0]):,} bytes" if sizes and sizes[0].isdigit() else "the file"
        return f"is a Git LFS pointer, not {what} that it stands for: run `git lfs pull`, or download that"
    if start.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
        return "is a web page: download the file that the page is about"
    return None


def parse_json(text: str | bytes, *, most: int | None = MOST_TEXT) -> Any:
    """Return the value of a JSON text.

    Args:
        text: of a file, or of a part of one.
        most: the largest length; None if it grows with the user's own data.

    Raises:
        ValueError: not JSON, too long, or nested too deep.

    >>> parse_json("[" * 1000 + "]" * 1000)
    Traceback (most recent call last):
    ValueError: its lists are more than 100 deep
    """
    if most is not None and len(text) > most:
        raise ValueError(f"its description has {len(text):,} characters, more than {most:,}")
    try:
        tree = json.loads(text)
    except RecursionError:
        raise ValueError(f"its lists are more than {DEEPEST} deep") from None
    level = [[tree]]
    for _ in range(DEEPEST + 1):
        within = (node.values() if isinstance(node, dict) else node for node in level)
        level = [child for children in within for child in children if isinstance(child, dict | list)]
        if not level:
            return tree
    raise ValueError(f"its lists are more than {DEEPEST} deep")


def read_npz(path: str | os.PathLike[str], *, most: int) -> dict[str, np.ndarray]:
    """Return the arrays of a file of NumPy's `savez`.

    Args:
        path: of the file.
        most: the largest number of bytes of all arrays; a larger file is not read.

    Raises:
        OSError: no such file.
        ValueError: a damaged file; more bytes; an array that claims more bytes than it has.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/maps.npz", a=np.ones(2))
    ...     read_npz(f"{folder}/maps.npz", most=1000)
    {'a': array([1., 1.])}
    """
    headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    file_size(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > most + 256 * len(members):
                raise ValueError(f"it holds more than {most:,} bytes")
            for member in members:
                with archive.open(member) as file:
                    shape, _, dtype = headers[np.lib.format.read_magic(file)](file)
                if dtype.hasobject or math.prod(shape) * dtype.itemsize > member.file_size:
                    raise ValueError("an array is larger than its file")
        with np.load(path) as kept:
            return {name: kept[name] for name in kept.files}
    except (zipfile.BadZipFile, zlib.error, EOFError, LookupError, RuntimeError) as error:
        raise ValueError(f"it is damaged ({error})") from None


def shown(value: Any) -> str:
    """Return a value for a message, shortened.

    >>> shown("a" * 1000)[-5:]
    'aa...'
    """
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def check_fields(record: Any, *, zero: tuple[str, ...] = ()) -> None:
    """Raise unless the fields of a dataclass, also of nested ones, match their annotations.

    Integers must be from 1 to `LARGEST`; floats must be finite.

    Args:
        record: from the claims of a file.
        zero: the fields that may be 0.

    Raises:
        ValueError: a wrong field; the message names it.

    >>> from vizsynth.models.sequential import Dense
    >>> check_fields(Dense(-1))
    Traceback (most recent call last):
    ValueError: features must be a whole number from 1 to 16777216, not -1
    """
    hints = _hints(type(record))
    for field in dataclasses.fields(record):
        value, least = getattr(record, field.name), 0 if field.name in zero else 1
        if not _is(value, hints[field.name], zero, least):
            raise ValueError(f"{field.name} must be {_called(hints[field.name], least)}, not {shown(value)}")


_hints = lru_cache(get_type_hints)


def _is(value: Any, hint: Any, zero: tuple[str, ...], least: int) -> bool:
    parts = get_args(hint)
    if get_origin(hint) in (Union, types.UnionType):
        return any(_is(value, part, zero, least) for part in parts)
    if get_origin(hint) is tuple:
        if parts[-1:] == (Ellipsis,) and isinstance(value, tuple):
            parts = parts[:1] * len(value)
        same = isinstance(value, tuple) and len(value) == len(parts)
        return same and all(_is(v, part, zero, least) for v, part in zip(value, parts, strict=True))
    if hint is int:
        return type(value) is int and least <= value <= LARGEST
    if hint is float:
        return type(value) in (int, float) and abs(value) < 1e30 and math.isfinite(value)
    if not isinstance(value, hint):
        return False
    if dataclasses.is_dataclass(value):
        check_fields(value, zero=zero)
    return True


def _called(hint: Any, least: int) -> str:
    parts = [_called(part, least) for part in get_args(hint) if part is not Ellipsis]
    if get_origin(hint) is tuple:
        return f"a list of {parts[0]}" if Ellipsis in get_args(hint) else f"{len(parts)} of {parts[0]}"
    if parts:
        return " or ".join(parts)
    words = {int: f"a whole number from {least} to {LARGEST}", float: "a number", str: "a text"}
    return (words | {bool: "true or false", type(None): "nothing"}).get(hint) or hint.__name__
