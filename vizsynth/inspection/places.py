"""Where in one image a channel answers most, each place apart from the others."""

import numpy as np
from jaxtyping import Float


def strongest_places(
    values: Float[np.ndarray, "h w"], count: int, *, apart: int = 1
) -> list[tuple[int, int]]:
    """Return the positions of the largest values above 0, the largest first, none within `apart` of another.

    Args:
        values: a channel's activations.
        count: at most how many.
        apart: a position is left out where one before it is at most so many rows and columns away; 0 leaves
            none out. Of equal values the first row's goes first.

    Raises:
        ValueError: a count below 1; a distance below 0.

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
