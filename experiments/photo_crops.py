"""Squares of the photos that are free of conditions: ten classes, one a photo.

A photo's left half is for training and its right half is held out, so that no pixel is in both.
"""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from PIL import Image

from experiments.figure import PHOTOS

CLASSES = (
    *("astronaut", "brick", "camera", "chelsea", "coffee"),
    *("grass", "gravel", "hubble_deep_field", "retina", "rocket"),
)
"""In the public domain or CC0."""
EXTENT = (0.3, 0.9)
"""The least and the largest side of a square, in parts of the half's shorter side."""

Half = Literal["left", "right"]


class Crops(NamedTuple):
    """Squares and what they are of."""

    images: Float[np.ndarray, "n size size 3"]
    labels: Int[np.ndarray, " n"]


def photo_crops(
    seed: int, n: int, *, half: Half, size: int = 96, classes: tuple[str, ...] = CLASSES
) -> Crops:
    """Return n squares of any size and place, of each class as many, one class after another in turn."""
    rng = np.random.default_rng([seed, half == "right"])
    halves = []
    for name in classes:
        with Image.open(PHOTOS / f"{name}.jpg") as opened:
            photo = opened.convert("RGB")
        middle = photo.width // 2
        box = (0, 0, middle, photo.height) if half == "left" else (middle, 0, photo.width, photo.height)
        halves.append(photo.crop(box))
    labels = np.arange(n) % len(classes)
    images = []
    for label in labels:
        photo = halves[label]
        side = int(rng.uniform(*EXTENT) * min(photo.size))
        left, top = (int(rng.integers(length - side + 1)) for length in photo.size)
        box = (left, top, left + side, top + side)
        images.append(np.asarray(photo.resize((size, size), Image.Resampling.BICUBIC, box), np.float32) / 255)
    return Crops(np.clip(np.stack(images), 0, 1), labels.astype(np.int32))
