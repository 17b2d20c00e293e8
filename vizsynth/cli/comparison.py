"""The comparison sheet: one row a method, all rows on one scale."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vizsynth.cli.methods import Method

SIDE = 260  # pixels: the longer side of each picture
BRIGHTEST = 99.5  # percent: a few pixels may lie beyond the end of the scale


def comparison(
    photo: np.ndarray,
    methods: Sequence[Method],
    maps: Mapping[str, list[np.ndarray]],
    classes: list[str],
    title: str,
) -> np.ndarray:
    """Return a sheet of every method's maps for the classes, and the first laid over the photo.

    Methods have different units, so each is divided by its own largest absolute value (over all of the
    classes); then red is 1, white 0 and blue -1 everywhere in the sheet. The range of the values as they
    were stands at the right of each row.
    """
    import jax.numpy as jnp

    from vizsynth.figures import overlay, sheet, signed
    from vizsynth.images import resize, upsample

    scale = min(1.0, SIDE / max(photo.shape[:2]))
    size = (max(1, round(photo.shape[0] * scale)), max(1, round(photo.shape[1] * scale)))
    small = np.asarray(resize(jnp.asarray(photo), size))
    rows: list[list[Any]] = [[small]]
    labels, ranges = ["photo"], [""]
    for method in methods:
        raw = maps[method.name]
        flat = [one_a_pixel(method, m) for m in raw]
        large = [np.asarray(upsample(jnp.asarray(m), photo.shape[:2])) for m in flat]
        limit = float(np.percentile(np.abs(large), BRIGHTEST)) or 1.0
        shown = [np.asarray(upsample(jnp.asarray(m), size)) / limit for m in flat]
        speaks_for = np.clip(shown[0], 0, 1)
        rows.append([*(signed(m, limit=1.0) for m in shown), overlay(small, speaks_for, low=0.0, high=1.0)])
        labels.append(method.name)
        low, high = min(m.min() for m in raw), max(m.max() for m in raw)
        ranges.append(f"{low:.3g} to\n{high:.3g}")
    heads = [*classes, f"{classes[0]}, over the photo"]
    rows[0] += [None] * (len(heads) - 1)
    return sheet(rows, row_labels=labels, column_labels=heads, captions=ranges, title=title)


def one_a_pixel(method: Method, raw: np.ndarray) -> np.ndarray:
    """Return the number that is shown at each pixel: its channels' sum; of a relief, from the least up."""
    flat = raw.sum(axis=-1) if raw.ndim == 3 else raw
    return flat - flat.min() if method.figure == "relief" else flat
