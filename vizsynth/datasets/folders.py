"""List and read folders of images, with a folder per class or none."""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from vizsynth.files import ImageFileError, list_images, read_pixels

THREADS = 4  # Pillow releases the interpreter's lock to decode


class Listing(NamedTuple):
    """The pictures of a folder, in a fixed order."""

    paths: tuple[Path, ...]
    labels: Int[np.ndarray, " n"] | None
    """The number of each picture's class; None for a folder without classes."""
    classes: tuple[str, ...]
    """The names of the class folders, sorted; empty for a folder without classes."""


class Skipped(NamedTuple):
    """A file that could not be read, and the reason."""

    path: Path
    reason: str


def list_folder(folder: str | os.PathLike[str], *, labelled: bool | None = None) -> Listing:
    """List the pictures of a folder, or of the class folders in it.

    Classes, and the pictures in each, are sorted by name. Pictures beside class folders, hidden files and
    hidden folders are left out.

    Args:
        folder: the folder.
        labelled: True requires class folders; False lists the folder's own pictures; None takes class folders
            if no picture lies beside them.

    Raises:
        FileNotFoundError: there is no such folder.
        ImageFileError: `folder` is a file, or it or a class folder holds no picture.
        ValueError: with `labelled`, there are fewer than two class folders.

    >>> import tempfile
    >>> import vizsynth
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("cat/1.png", "cat/2.png", "dog/1.png"):
    ...         vizsynth.write_image(f"{folder}/{name}", np.zeros((4, 4)))
    ...     listing = list_folder(folder)
    >>> listing.classes, listing.labels.tolist()
    (('cat', 'dog'), [0, 0, 1])
    """
    folder = Path(folder)
    inside = _class_folders(folder)
    if labelled is False or (labelled is None and not _only_classes(folder, inside)):
        return Listing(tuple(list_images(folder)), None, ())
    if labelled and len(inside) < 2:
        found = f"only one, {inside[0].name}" if inside else "none"
        raise ValueError(
            f"{folder} must hold a folder of pictures for each of at least two classes; it holds {found}"
        )
    paths, labels = [], []
    for label, name in enumerate(inside):
        pictures = list_images(name)
        paths += pictures
        labels += [label] * len(pictures)
    return Listing(tuple(paths), np.asarray(labels, np.int32), tuple(name.name for name in inside))


def _class_folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        list_images(folder)  # raises the reason
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _only_classes(folder: Path, inside: list[Path]) -> bool:
    try:
        list_images(folder)
    except ImageFileError:
        return bool(inside)
    return False


def read_batches(
    paths: Sequence[Path], size: int | tuple[int, int], *, batch_size: int, skipped: list[Skipped]
) -> Iterator[tuple[Int[np.ndarray, " b"], Float[np.ndarray, "b h w 3"]]]:
    """Read pictures batch by batch, two batches ahead of the caller. Unreadable pictures are skipped.

    Args:
        paths: the pictures, of any sizes.
        size: in pixels, a square or `(height, width)`: each picture is resized to cover it and cropped to its
            center.
        batch_size: pictures per batch; the last batch may be smaller.
        skipped: receives the unreadable files.

    Yields:
        The indices in `paths` of a batch's pictures, int64 `[b]`, and the pictures, `[b, h, w, 3]` in [0, 1].

    >>> import tempfile
    >>> import vizsynth
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     vizsynth.write_image(f"{folder}/1.png", np.zeros((4, 6)))
    ...     _ = Path(f"{folder}/2.png").write_text("no picture")
    ...     skipped = []
    ...     batches = list(read_batches(list_images(folder), 4, batch_size=2, skipped=skipped))
    >>> [(places.tolist(), images.shape) for places, images in batches]
    [([0], (1, 4, 4, 3))]
    >>> [bad.path.name for bad in skipped]
    ['2.png']
    """
    box = (size, size) if isinstance(size, int) else size
    found: list[tuple[int, np.ndarray]] = []
    for place, result in enumerate(read_ahead(paths, box, 2 * batch_size)):
        try:
            found.append((place, result.result()))
        except (ImageFileError, OSError) as error:
            skipped.append(Skipped(Path(paths[place]), str(error)))
        if len(found) == batch_size:
            yield _batch(found)
            found = []
    if found:
        yield _batch(found)


def read_ahead(paths: Iterable[Path], size: tuple[int, int], count: int) -> Iterator[Future[np.ndarray]]:
    """Yield the pictures in order; threads read the next `count`, and none beyond."""
    pool = ThreadPoolExecutor(THREADS)
    rest = iter(paths)
    waiting = deque(pool.submit(read_pixels, path, size) for path in islice(rest, count))
    try:
        while waiting:
            first = waiting.popleft()
            waiting.extend(pool.submit(read_pixels, path, size) for path in islice(rest, 1))
            yield first
    finally:  # also if the caller stops early
        pool.shutdown(wait=True, cancel_futures=True)


def _batch(found: list[tuple[int, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray([place for place, _ in found]), np.stack([image for _, image in found])
