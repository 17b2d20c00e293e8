"""What files say of themselves, held against what is so before anything is made of it.

A file that comes from somebody else may say anything: four gigabytes in fourteen kilobytes, ten million
layers, lists in lists without end. Each reader asks here before it reads on. What is found wrong is a
`ValueError` that says so in a few words; the reader adds whose file it is, and what to do.
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

TIMES, FREE = 64, 64 << 20  # tables of digits shrink to a tenth, and weights hardly
MOST_TEXT = 8 << 20  # characters of a description; that of the largest network of Keras has one million
DEEPEST = 100  # lists in lists
LARGEST = 1 << 24  # of the numbers that describe a network
SHOWN = 120  # characters of what came


def file_size(path: str | os.PathLike[str]) -> int:
    """Return the size of an ordinary file. A pipe would be waited for, and a device has no end.

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
    """Return the most bytes that so many packed ones may become.

    >>> most_unpacked(1000) == FREE, most_unpacked(1 << 30) == TIMES << 30
    (True, True)
    """
    return max(FREE, TIMES * packed)


def stand_in(path: str | os.PathLike[str]) -> str | None:
    """Return what a file is that stands where another should be, and what to do; or None.

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
    """Return what JSON says.

    Args:
        text: of a file, or of a part of one.
        most: how long it may be; None where it grows with what the user has.

    Raises:
        ValueError: it is no JSON, too long, or too deep for whoever goes through it.

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
    """Return the arrays that NumPy's `savez` wrote.

    Args:
        path: of the file.
        most: how many bytes all of them may have; more than are wanted are not read.

    Raises:
        OSError: no such file.
        ValueError: a damaged one; more bytes, or arrays that say that they have more than they do.

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
    """Return what came, for a message, and no more of it than fits there.

    >>> shown("a" * 1000)[-5:]
    'aa...'
    """
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def check_fields(record: Any, *, zero: tuple[str, ...] = ()) -> None:
    """Raise unless each field of a dataclass, and of those in it, is what its annotation says.

    Whole numbers are from 1 to `LARGEST`; others are finite.

    Args:
        record: what was made of what a file says.
        zero: the fields that may be 0.

    Raises:
        ValueError: a field that is not; the message names it.

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
