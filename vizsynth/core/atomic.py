"""Files that appear whole or not at all, and records that are read back."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vizsynth.core.claims import parse_json

LARGEST = 1 << 28  # bytes of a record
FULL = (errno.ENOSPC, errno.EDQUOT)


def write_atomic(
    path: str | os.PathLike[str], content: bytes | str, *, new: bool = False, sync: bool = False
) -> None:
    """Write a file beside its place and move it there; a link in its place is replaced, not followed.

    Args:
        path: of the file; its folder is there.
        content: all of it. Text becomes UTF-8.
        new: whether there must be none. Of several that try at once, one succeeds.
        sync: whether the file and its name are on the disk, not only in the system's memory, at the end.

    Raises:
        FileExistsError: there is one, and it was to be new.
        OSError: it cannot be written; nothing is left over.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_atomic(f"{folder}/a.txt", "first")
    ...     write_atomic(f"{folder}/a.txt", b"second")
    ...     Path(f"{folder}/a.txt").read_text(), os.listdir(folder)
    ('second', ['a.txt'])
    """
    path = Path(path)
    # What is no Unicode, in a file's name, becomes an escape of JSON.
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    temporary = path.parent / f".{secrets.token_hex(8)}.tmp"  # the same folder, so the same file system
    try:
        with temporary.open("xb") as file:
            file.write(data)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        if new:
            _move_new(temporary, path)
        else:
            os.replace(temporary, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error  # the name asked for
    finally:
        temporary.unlink(missing_ok=True)
    if sync:
        sync_folder(path.parent)


def _move_new(temporary: Path, path: Path) -> None:
    try:
        os.link(temporary, path)  # appears whole, and fails where there is one
    except FileExistsError:
        raise
    except OSError:  # a file system without links: nothing better than to look first
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
        os.replace(temporary, path)


def sync_folder(folder: Path) -> None:
    """Let the names in a folder be on the disk, too, where the system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def read_record(path: Path) -> dict[str, Any] | None:
    """Return the JSON object of a regular file; None where there is none, or something else.

    A link is not followed, a pipe not waited for, and a file that is too large not read.
    """
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > LARGEST:
            return None
        record = parse_json(path.read_bytes(), most=None)
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def is_plain(name: object) -> bool:
    """Tell whether a name, such as a file may give it, is one plain component of a path.

    >>> [is_plain(name) for name in ("step-4", "../victim", "/etc", "..", "a/b", "", 4)]
    [True, False, False, False, False, False, False]
    """
    return isinstance(name, str) and name not in ("", ".", "..") and not set(name) & set("/\\\0")


@contextmanager
def full_disk_told(what: str) -> Iterator[None]:
    """Raise OSError, with what cannot be done, where a library tells of a full disk in words of its own."""
    try:
        yield
    except Exception as error:
        number = full_disk(error)
        if number is None:
            raise
        raise OSError(number, f"{what}: {os.strerror(number)}") from error


def full_disk(error: BaseException) -> int | None:
    """Return the system's number where an error is of a full disk, or of a quota that is used up.

    >>> full_disk(ValueError("RESOURCE_EXHAUSTED: writing a: No space left on device")) == errno.ENOSPC
    True
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if error.errno in FULL else None
    return next((number for number in FULL if os.strerror(number) in str(error)), None)


def told(error: OSError) -> str:
    """Return an error of the system as a person is told it.

    >>> told(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a.png"))
    "the disk is full: No space left on device: 'a.png'; make room on it"
    """
    text = str(error).removeprefix(f"[Errno {error.errno}] ")
    return f"the disk is full: {text}; make room on it" if full_disk(error) is not None else text
