"""Read labelled images from folders of classes, archives and tables.

Threads decode folders larger than memory some batches ahead: Pillow releases the interpreter's lock. Grain,
with as many threads and the same decoder, was not faster (232 images per second against 262, photos of
451x300 to 128 pixels).
"""

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vizsynth.core.paths import check_regular_file
from vizsynth.datasets.cifar import is_cifar, read_cifar10
from vizsynth.datasets.digits import read_digits
from vizsynth.datasets.errors import DataError
from vizsynth.datasets.folders import THREADS, Listing, Skipped, list_folder, read_batches
from vizsynth.datasets.mnist import is_mnist, read_mnist
from vizsynth.files import ImageFileError, read_pixels
from vizsynth.training.data import Examples, Parts

MEMORY = 2 << 30  # bytes of pixels in memory; larger folders are read again in each epoch
_TRAINING, _HELD_OUT = ("train", "training"), ("val", "valid", "validation", "test")


def read_labelled(
    path: str | os.PathLike[str],
    size: int | tuple[int, int],
    *,
    skipped: list[Skipped],
    memory: int = MEMORY,
) -> Parts:
    """Read labelled images of any known layout.

    Args:
        path: a folder with a folder per class, or with such folders in its `train` and its `val` or
            `test`; CIFAR-10's archive or folder; MNIST's folder; a CSV of pixels and labels.
        size: in pixels, a square or `(height, width)`: each image is resized to it.
        skipped: receives the unreadable images.
        memory: bytes of pixels to keep in memory; a larger folder becomes a source that reads its images
            during training.

    Returns:
        The training images, `Examples` or a `Streamed` source; and the images that the set holds out, or
        None.

    Raises:
        FileNotFoundError: there is no such path.
        ValueError: there are no labelled images or only one class, or an archive is damaged.

    >>> import tempfile
    >>> import vizsynth
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("cat/1.png", "cat/2.png", "dog/1.png"):
    ...         vizsynth.write_image(f"{folder}/{name}", np.full((6, 4), 0.2))
    ...     data, held_out = read_labelled(folder, 4, skipped=[])
    >>> data.classes, data.labels.tolist(), data.images.shape, int(data.images[0, 0, 0, 0]), held_out
    (('cat', 'dog'), [0, 0, 1], (3, 4, 4, 3), 51, None)
    """
    path = Path(path)
    box = (size, size) if isinstance(size, int) else size
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}: give a folder of class folders, an archive or a CSV")
    if not path.is_dir():
        check_regular_file(path, DataError)
    if is_cifar(path):
        return Parts(*(_resized(part, box) for part in read_cifar10(path)))
    if path.is_dir() and is_mnist(path):
        return Parts(*(None if part is None else _resized(part, box) for part in read_mnist(path)))
    if path.is_file():
        if not path.name.endswith((".csv", ".csv.gz")):
            raise DataError(
                f"{path} is no set of labelled images: give a folder of class folders, CIFAR-10's .tar.gz, "
                "MNIST's folder, or a CSV"
            )
        return Parts(_resized(read_digits(path), box), None)
    training = next((path / name for name in _TRAINING if (path / name).is_dir()), None)
    held_out = next((path / name for name in _HELD_OUT if (path / name).is_dir()), None)
    if training is None or held_out is None:
        return Parts(_folder(list_folder(path, labelled=True), box, skipped, memory, path), None)
    lists = [list_folder(part, labelled=True) for part in (training, held_out)]
    if lists[0].classes != lists[1].classes:
        raise DataError(
            f"{training} and {held_out} must hold the same classes, not {', '.join(lists[0].classes)} and "
            f"{', '.join(lists[1].classes)}"
        )
    return Parts(*(_folder(found, box, skipped, memory, path) for found in lists))


def _folder(
    found: Listing, size: tuple[int, int], skipped: list[Skipped], memory: int, path: Path
) -> "Examples | Streamed":
    labels = np.asarray(found.labels)
    if len(labels) * size[0] * size[1] * 3 > memory:
        return Streamed(found.paths, labels, found.classes, size, skipped)
    images = np.empty((len(labels), *size, 3), np.uint8)
    there = np.zeros(len(labels), bool)
    for places, pixels in read_batches(found.paths, size, batch_size=32, skipped=skipped):
        images[places] = as_bytes(pixels)
        there[places] = True
    left = np.bincount(labels[there], minlength=len(found.classes))
    if not left.all():
        name = found.classes[int(left.argmin())]
        raise DataError(f"no image in {path / name} can be read ({skipped[0].reason}): mend or replace them")
    return Examples(images[there] if not there.all() else images, labels[there], found.classes)


def as_bytes(pixels: np.ndarray) -> np.ndarray:
    """Return pixels in [0, 1] as uint8, rounded.

    >>> as_bytes(np.array([0.0, 0.5, 1.0])).tolist()
    [0, 128, 255]
    """
    return np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)


def _resized(data: Examples, size: tuple[int, int]) -> Examples:
    """Resize images in memory bicubically."""
    if data.images.shape[1:3] == size:
        return data
    height, width = size
    images = [
        np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
        for image in data.images
    ]
    return data._replace(images=np.stack(images))


class Streamed:
    """Labelled images in files, read batch by batch: a source for `vizsynth.fit`.

    The next readable image replaces an unreadable one, which is added to `skipped` once. The contents of a
    batch depend on the files alone.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        labels: np.ndarray,
        classes: tuple[str, ...],
        size: tuple[int, int],
        skipped: list[Skipped] | None = None,
    ):
        """Describe the files.

        Args:
            paths: of the images.
            labels: int `[n]`.
            classes: their names.
            size: the height and the width of the images, resized.
            skipped: receives the unreadable images.
        """
        self.paths = tuple(paths)
        self.labels = np.asarray(labels, np.int32)
        self.classes = classes
        self.size = size
        self.skipped: list[Skipped] = [] if skipped is None else skipped
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()

    def take(self, indices: Any) -> "Streamed":
        """Return a source of some of the images."""
        paths = [self.paths[i] for i in np.arange(len(self.paths))[indices]]
        return Streamed(paths, self.labels[indices], self.classes, self.size, self.skipped)

    def read(self, indices: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the images `[b, h, w, 3]`, uint8, and their labels `[b]`."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="images")
        found = list(self._pool.map(self._one, np.arange(len(self.paths))[indices].tolist()))
        return np.stack([image for image, _ in found]), self.labels[[place for _, place in found]]

    def _one(self, place: int) -> tuple[np.ndarray, int]:
        n = len(self.paths)
        for other in (i % n for i in range(place, place + n)):
            try:
                return as_bytes(read_pixels(self.paths[other], self.size)), other
            except (ImageFileError, OSError) as error:
                with self._lock:
                    if self.paths[other] not in {bad.path for bad in self.skipped}:
                        self.skipped.append(Skipped(self.paths[other], str(error)))
        raise DataError(f"none of the {n} images can be read ({self.skipped[0].reason}): mend them")
