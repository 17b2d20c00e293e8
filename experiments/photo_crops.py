"""Squares of photos, a class each, whose left half is for training and whose right half is held out.

So no pixel is in both.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from experiments.figure import PHOTOS
from vizsynth import training
from vizsynth.files import open_picture

CLASSES = (
    *("astronaut", "brick", "camera", "chelsea", "coffee"),
    *("grass", "gravel", "hubble_deep_field", "retina", "rocket"),
)
"""The photos that are in the public domain or CC0."""


def photo_crops(
    names: Sequence[str],
    count: int,
    side: int,
    *,
    half: str,
    seed: int = 0,
    low: float = 0.25,
    high: float = 0.5,
    grey: bool = False,
    even: bool = False,
) -> training.Examples:
    """Return squares from the left or the right half of photos, a class each.

    Args:
        names: of the photos, the classes.
        count: how many of each.
        side: what they are brought to, in pixels.
        half: `"left"` or `"right"`.
        seed: of places, sizes and mirrorings.
        low: the least side of a square, over the photo's shorter side.
        high: the largest.
        grey: whether colours are taken away, which give most photos away.
        even: whether all squares get the same brightness and contrast, which give textures away.
    """
    rng = np.random.default_rng([seed, half == "right"])
    images, labels = [], []
    for label, name in enumerate(names):
        with open_picture(PHOTOS / f"{name}.jpg") as file:
            photo = file.convert("L").convert("RGB") if grey else file.convert("RGB")
        middle = photo.width // 2
        begin, end = (0, middle) if half == "left" else (middle, photo.width)
        for _ in range(count):
            length = int(rng.uniform(low, high) * min(photo.size))
            left, top = rng.integers(begin, end - length + 1), rng.integers(photo.height - length + 1)
            square = photo.crop((int(left), int(top), int(left) + length, int(top) + length))
            square = np.asarray(square.resize((side, side), Image.Resampling.BICUBIC))
            if even:
                away = (square - square.mean()) / max(float(square.std()), 1.0)
                square = np.clip(128 + 48 * away, 0, 255).astype(np.uint8)
            images.append(square[:, ::-1] if rng.random() < 0.5 else square)
            labels.append(label)
    return training.Examples(np.stack(images), np.asarray(labels, np.int32), tuple(names))
