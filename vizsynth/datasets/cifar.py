"""Read CIFAR-10: Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.

Both published layouts, in folders or `.tar.gz`: "python" (pickles, read without executing them) and "binary"
(per image one byte of label, then 1024 each of red, green and blue).
"""

import gzip
import os
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vizsynth.core.claims import file_size, stand_in
from vizsynth.datasets.errors import AGAIN, DataError
from vizsynth.models.io.pickles import Refused, unpickle
from vizsynth.training.data import Examples, Parts

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PIXELS = 3 * 32 * 32
_TRAINING = tuple(f"data_batch_{i}" for i in range(1, 6))
_PYTHON = (*_TRAINING, "test_batch")
_BINARY = tuple(f"{name}.bin" for name in _PYTHON)
_NAMES = ("batches.meta", "batches.meta.txt")
_MOST = 40_000_000  # bytes per batch; the largest has 31 million
_MOST_UNPACKED = 1 << 28  # bytes per archive; the larger has 187 million


def is_cifar(path: Path) -> bool:
    """Tell by the names in a folder or an archive whether it holds CIFAR-10's batches.

    >>> is_cifar(Path("no such folder"))
    False
    """
    if path.is_dir():
        return _folder(path) is not None
    if path.suffix not in (".gz", ".tgz", ".tar") or not path.is_file():
        return False
    try:
        with _opened(path) as archive:
            return any(Path(member.name).name in (*_PYTHON, *_BINARY) for member in archive)
    except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error):
        return path.name.startswith("cifar")


class _Bounded:
    """A file that raises if more than `most` bytes are read from it."""

    def __init__(self, path: Path, file: Any, most: int):
        self.path, self.file = path, file
        self.most = self.left = most

    def read(self, count: int) -> bytes:
        data = self.file.read(min(count, self.left + 1))
        self.left -= len(data)
        if self.left < 0:
            raise DataError(f"{self.path} unpacks to more than {self.most:,} bytes, more than CIFAR-10 has")
        return data


@contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    """Open an archive, to be read once from its beginning."""
    file_size(path)  # raises for a pipe
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        inside: Any = _Bounded(path, gzip.GzipFile(fileobj=file) if packed else file, _MOST_UNPACKED)
        with tarfile.open(fileobj=inside, mode="r|") as archive:
            yield archive


def _folder(path: Path) -> Path | None:
    """Return the folder of the batches: this one, or one inside with the name that the archive gives it."""
    inside = (path / name for name in ("cifar-10-batches-py", "cifar-10-batches-bin"))
    for folder in (path, *inside):
        if any((folder / name).is_file() for name in (*_PYTHON, *_BINARY)):
            return folder
    return None


def read_cifar10(path: str | os.PathLike[str]) -> Parts:
    """Read CIFAR-10: five batches for training, one held out.

    Args:
        path: `cifar-10-python.tar.gz`, `cifar-10-binary.tar.gz`, or the folder that one of them unpacks to.

    Returns:
        The training examples, and the examples of the test batch.

    Raises:
        DataError: the file or a batch is missing, damaged or cut off, a label lies outside 0..9, or a pickle
            asks for more than arrays.
    """
    path = Path(path)
    found = _from_folder(path) if path.is_dir() else _from_archive(path)
    binary = not any(name in found for name in _PYTHON)
    wanted = _BINARY if binary else _PYTHON
    if lacking := [name for name in wanted if name not in found]:
        raise DataError(f"{path} lacks {', '.join(lacking)} of CIFAR-10's batches: {AGAIN}")
    batches = []
    for name in wanted:
        images, labels = (_binary if binary else _pickled)(found[name], f"{path}: {name}")
        wrong = labels[(labels < 0) | (labels > 9)]
        if len(wrong):
            raise DataError(f"{path}: {name} has the label {wrong[0]}, outside 0..9: {AGAIN}")
        planes = images.reshape(-1, 3, 32, 32)
        batches.append((planes.transpose(0, 2, 3, 1), labels.astype(np.int32)))
    classes = _classes(found, path)
    training, held_out = (
        Examples(
            np.concatenate([images for images, _ in part]),
            np.concatenate([labels for _, labels in part]),
            classes,
        )
        for part in (batches[:-1], batches[-1:])
    )
    return Parts(training, held_out)


def _from_folder(path: Path) -> dict[str, bytes]:
    folder = _folder(path)
    if folder is None:
        raise DataError(
            f"{path} holds no batches of CIFAR-10 ({_PYTHON[0]}, or {_BINARY[0]}): give the folder that "
            "cifar-10-python.tar.gz unpacks to, or the archive itself"
        )
    files = [folder / name for name in (*_PYTHON, *_BINARY, *_NAMES) if (folder / name).is_file()]
    try:
        if large := [file for file in files if file_size(file) > _MOST]:
            raise DataError(f"{large[0]} is larger than any of CIFAR-10's batches: {AGAIN}")
        if pointers := [f"{file} {told}" for file in files if (told := stand_in(file)) is not None]:
            raise DataError(pointers[0])
        return {file.name: file.read_bytes() for file in files}
    except OSError as error:
        raise DataError(f"cannot read {error.filename}: {error.strerror or error}") from None


def _from_archive(path: Path) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    try:
        if (instead := stand_in(path)) is not None:
            raise DataError(f"{path} {instead}")
        with _opened(path) as archive:
            for member in archive:
                name = Path(member.name).name
                if name not in (*_PYTHON, *_BINARY, *_NAMES) or not member.isfile():
                    continue
                if name in found:
                    raise DataError(f"{path} holds {name} twice: {AGAIN}")
                file = None if member.issparse() or member.size > _MOST else archive.extractfile(member)
                if file is None:
                    raise DataError(f"{path}: {name} is larger than any of CIFAR-10's batches: {AGAIN}")
                found[name] = file.read()
    except FileNotFoundError:
        raise DataError(
            f"there is no {path}: give cifar-10-python.tar.gz or cifar-10-binary.tar.gz"
        ) from None
    except DataError:
        raise
    except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{path} is damaged or cut off ({type(error).__name__}): {AGAIN}") from None
    return found


def _binary(data: bytes, what: str) -> tuple[np.ndarray, np.ndarray]:
    if not data or len(data) % (1 + PIXELS):
        raise DataError(
            f"{what} has {len(data)} bytes, not a multiple of {1 + PIXELS} per image: it is cut off; {AGAIN}"
        )
    rows = np.frombuffer(data, np.uint8).reshape(-1, 1 + PIXELS)
    return rows[:, 1:], rows[:, 0].astype(np.int64)


def _pickled(data: bytes, what: str) -> tuple[np.ndarray, np.ndarray]:
    batch = _unpickled(data, what)
    pixels: Any = batch.get("data")
    labels: Any = batch.get("labels")
    if (
        not isinstance(pixels, np.ndarray)
        or not isinstance(labels, list | tuple | np.ndarray)
        or pixels.dtype != np.uint8
        or pixels.shape != (len(labels), PIXELS)
        or not len(labels)
    ):
        raise DataError(f"{what} must hold data, uint8 [n, {PIXELS}], and n labels, as CIFAR-10's: {AGAIN}")
    if not all(isinstance(label, int | np.integer) and abs(int(label)) < 1 << 31 for label in labels):
        raise DataError(f"{what} has labels that are not integers: {AGAIN}")
    return pixels, np.asarray(labels, np.int64)


def _unpickled(data: bytes, what: str) -> Mapping[str, Any]:
    try:
        found = unpickle(data)
    except Refused as error:
        raise DataError(
            f"{what} is refused, because reading it could run code ({error}): take CIFAR-10's own archive"
        ) from None
    except Exception as error:  # a damaged pickle can raise any exception
        raise DataError(f"{what} is damaged or cut off ({type(error).__name__}): {AGAIN}") from None
    if not isinstance(found, Mapping):
        raise DataError(f"{what} is no batch of CIFAR-10: {AGAIN}")
    return found


def _classes(found: Mapping[str, bytes], path: Path) -> tuple[str, ...]:
    if "batches.meta.txt" in found:
        names = found["batches.meta.txt"].decode("utf-8", "replace").split()
    elif "batches.meta" in found:
        names = _unpickled(found["batches.meta"], f"{path}: batches.meta").get("label_names", ())
        names = names if isinstance(names, list | tuple) else ()
        names = [n.decode("utf-8", "replace") if isinstance(n, bytes) else n for n in names]
    else:
        names = []
    good = all(isinstance(name, str) for name in names) and len(names) == len(set(names)) == 10
    return tuple(names) if good else CLASSES
