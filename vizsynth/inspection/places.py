"""Find the strongest positions of a channel in an image, apart from each other."""

import numpy as np
from jaxtyping import Float


def strongest_places(
    values: Float[np.ndarray, "h w"], count: int, *, apart: int = 1
) -> list[tuple[int, int]]:
    """Return the positions of the largest positive values, largest first, none within `apart` of another.

    Args:
        values: a channel's activations; ties go to the first in row order.
        count: the most positions to return.
        apart: a position within so many rows and columns of an earlier one is left out; 0 leaves none out.

    Raises:
        ValueError: `count` is below 1, or `apart` below 0.

    >>> strongest_places(np.asarray([[5.0, 4, 0, 3], [0, 0, 0, 0]]), 3)
    [(0, 0), (0, 3)]
    """
    if count < 1 or apart < 0:
        raise ValueError(f"count must be at least 1 and apart at least 0, not {count} and {apart}")
    places: list[tuple[int, int]] = []
    for flat in np.argsort(-values, axis=None, kind="stable"):
        row, column = (int(n) for n in np.unravel_index(flat, values.shape))
        if values[row, column] <= 0 or len(places) == count:
            break
        if all(max(abs(row - r), abs(column - c)) > apart for r, c in places) or apart == 0:
            places.append((row, column))
    return places
