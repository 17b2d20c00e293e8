"""Read MNIST: LeCun, Cortes & Burges' files in IDX format, compressed or not.

An IDX file is a magic number (two zeros, the type of the numbers, the number of dimensions), each dimension
as four bytes, big-endian, and the numbers.
"""

import math
import os
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from vizsynth.datasets.errors import AGAIN, DataError
from vizsynth.datasets.packed import read_unpacked
from vizsynth.training.data import Examples, Parts

_PARTS = {"train": "training", "t10k": "held out"}
_UBYTE = 8


def read_idx(path: str | os.PathLike[str]) -> Shaped[np.ndarray, "..."]:
    """Read an IDX file of bytes, `.gz` or not.

    Raises:
        DataError: the file is missing, cut off or too long, or has another magic number.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "labels-idx1-ubyte"
    ...     _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))
    ...     read_idx(path)
    array([7, 2, 1], dtype=uint8)
    """
    path = Path(path)
    data = read_unpacked(path)
    if len(data) < 4 or data[:3] != bytes([0, 0, _UBYTE]) or not 1 <= data[3] <= 4:
        raise DataError(
            f"{path} is no IDX file of bytes: it begins with {data[:4].hex(' ') or 'nothing'}, not with "
            "00 00 08 and a number of dimensions; give MNIST's published files"
        )
    dimensions = data[3]
    start = 4 + 4 * dimensions
    shape = tuple(int(n) for n in np.frombuffer(data[4:start], ">u4")) if len(data) >= start else ()
    if 0 in shape[1:]:
        raise DataError(f"{path} says that its images have {' x '.join(map(str, shape[1:]))} pixels: {AGAIN}")
    if len(shape) != dimensions or len(data) - start != math.prod(shape):
        wanted = " x ".join(map(str, shape)) or "more"
        raise DataError(f"{path} must hold {wanted} bytes, not {max(0, len(data) - start)}: {AGAIN}")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def is_mnist(folder: Path) -> bool:
    """Tell whether a folder holds MNIST's files.

    >>> is_mnist(Path("no such folder"))
    False
    """
    return any(_find(folder, part, "images") for part in _PARTS)


def _find(folder: Path, part: str, what: str) -> Path | None:
    dimensions = 3 if what == "images" else 1
    names = [f"{part}-{what}{mark}idx{dimensions}-ubyte{end}" for mark in "-." for end in ("", ".gz")]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def read_mnist(folder: str | os.PathLike[str]) -> Parts:
    """Read MNIST, or a set in the same layout (Fashion-MNIST, KMNIST), as RGB.

    Args:
        folder: with `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte` and
            `t10k-labels-idx1-ubyte`, or their `.gz`. `t10k` may be missing.

    Returns:
        The training examples, and the held-out ones (`t10k`), or None without them.

    Raises:
        DataError: a file is missing or damaged, or the files differ in length.
    """
    folder = Path(folder)
    parts = []
    for part, what in _PARTS.items():
        images, labels = (_find(folder, part, kind) for kind in ("images", "labels"))
        if images is None and labels is None:
            parts.append(None)
            continue
        if images is None or labels is None:
            lacking = "images-idx3" if images is None else "labels-idx1"
            raise DataError(f"{folder} lacks {part}-{lacking}-ubyte, the {what} part's: put it there")
        pixels, answers = read_idx(images), read_idx(labels)
        if pixels.ndim != 3 or answers.ndim != 1 or len(pixels) != len(answers) or not len(pixels):
            raise DataError(
                f"{images} holds {pixels.shape} and {labels} {answers.shape}: they must hold n images and "
                f"their n labels; {AGAIN}"
            )
        parts.append((pixels, answers.astype(np.int32)))
    training, held_out = parts
    if training is None:
        raise DataError(f"{folder} lacks train-images-idx3-ubyte and train-labels-idx1-ubyte: put them there")
    classes = tuple(str(i) for i in range(1 + max(int(p[1].max()) for p in parts if p is not None)))
    made = [None if p is None else Examples(as_rgb(p[0]), p[1], classes) for p in (training, held_out)]
    return Parts(*made)


def as_rgb(grey: Shaped[np.ndarray, "n h w"]) -> Shaped[np.ndarray, "n h w 3"]:
    """Repeat the channel of grey images three times."""
    return np.repeat(grey[..., None], 3, axis=-1)
