"""Arrays in a file: names, shapes and precisions are known before any array is read."""

import math
from collections.abc import Callable, Collection
from typing import NamedTuple

import numpy as np

from vizsynth.core.claims import shown

MOST = 20_000  # arrays per file; the largest networks have about a thousand
LONGEST = 500  # characters of a name


class WeightsError(ValueError):
    """Weights that cannot be read, or that do not fit the network."""


class Stored(NamedTuple):
    """An array that is read when it is needed."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]

    @property
    def nbytes(self) -> int:
        """The size of the array in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def outline(self) -> np.ndarray:
        """Return zeros of this shape, broadcast from a single zero: they take no memory.

        >>> Stored((1 << 20, 1 << 20), np.dtype("f4"), lambda: np.zeros(0)).outline().shape
        (1048576, 1048576)
        """
        return np.broadcast_to(np.zeros((), self.dtype), self.shape)


def of_array(array: np.ndarray) -> Stored:
    """Wrap an array that is in memory already.

    >>> of_array(np.ones(3)).shape
    (3,)
    """
    return Stored(array.shape, array.dtype, lambda: array)


def check_names(path: object, names: Collection[str]) -> None:
    """Raise if a file holds more arrays than any network, or if a name is too long for one.

    >>> check_names("evil.pkl", ["a" * 1000])
    Traceback (most recent call last):
    vizsynth.models.io.stored.WeightsError: evil.pkl: an array's name has 1,000 characters: aaaaaaaaa...
    """
    if len(names) > MOST:
        raise WeightsError(f"{path} holds {len(names):,} arrays, more than any network")
    for name in names:
        if len(name) > LONGEST:
            raise WeightsError(f"{path}: an array's name has {len(name):,} characters: {shown(name)}")
