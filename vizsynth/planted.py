"""Digits planted at known places on textured backgrounds: labelled images with known evidence.

A map that explains the digit should lie in its box. The digits are scikit-learn's, of 8x8 pixels; the
backgrounds are crops of three photos of textures; size, place and colours vary. Training and held-out images
share neither digits nor parts of the textures.
"""

from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from PIL import Image

from vizsynth.files import open_picture

DATA = Path(__file__).parent / "data" / "planted"
WEIGHTS = DATA / "network.safetensors"
"""A small network that reads the digits, for `vizsynth.load`; its last maps are the layer `relu4`."""
TEXTURES = ("brick", "grass", "gravel")
DIGIT_SIZES = (0.30, 0.44)  # of the image's side
CONTRAST = 0.4  # the least difference in brightness between digit and background

Split = Literal["train", "test"]


class Planted(NamedTuple):
    """Images, and the digits in them."""

    images: Float[np.ndarray, "n h w 3"]
    labels: Int[np.ndarray, " n"]
    boxes: Int[np.ndarray, "n 4"]
    """Top, left, bottom, right; half open: the tight box of the digit's strokes."""
    other_labels: Int[np.ndarray, " n"]
    """The second digit, of another class; -1 for none."""
    other_boxes: Int[np.ndarray, "n 4"]
    """The box of the second digit; all 0 for none."""
    masks: Bool[np.ndarray, "n h w"]
    """The pixels of the first digit's strokes."""


@cache
def _digits(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Return the 8x8 digits in [0, 1] and their labels; every fifth is held out."""
    with np.load(DATA / "digits.npz") as kept:
        digits, labels = kept["digits"], kept["labels"].astype(int)
    held_out = np.arange(len(labels)) % 5 == 0
    chosen = held_out if split == "test" else ~held_out
    return (digits[chosen] / 16).astype(np.float32).reshape(-1, 8, 8), labels[chosen]


@cache
def _texture(name: str, split: Split) -> Image.Image:
    """Return a texture in grey: its left 60 % for training, the rest held out."""
    with open_picture(DATA / f"{name}.jpg") as photo:
        grey = photo.convert("F")
    cut = int(grey.width * 0.6)
    return grey.crop((0, 0, cut, grey.height) if split == "train" else (cut, 0, grey.width, grey.height))


def _resized(image: Image.Image, size: int) -> np.ndarray:
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC), np.float32)


def _background(rng: np.random.Generator, size: int, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Return a crop of a texture in two random colours, and the mean of the two."""
    texture = _texture(TEXTURES[rng.integers(len(TEXTURES))], split)
    side = int(rng.integers(size, min(2 * size, *texture.size) + 1))
    left, top = (int(rng.integers(extent - side + 1)) for extent in texture.size)
    grey = _resized(texture.crop((left, top, left + side, top + side)), size)
    grey = np.clip((grey - grey.mean()) / (4 * grey.std() + 1e-6), -1, 1)
    color = rng.uniform(0.15, 0.85, 3).astype(np.float32)
    tint = rng.uniform(0.1, 0.4, 3).astype(np.float32)
    return np.clip(color + grey[..., None] * tint, 0, 1), color


def _plant(
    rng: np.random.Generator, image: np.ndarray, ground: np.ndarray, digit: np.ndarray, room: tuple[int, int]
) -> tuple[np.ndarray, tuple[int, int, int, int], np.ndarray]:
    """Return the image with a digit between two columns, the digit's box and its strokes."""
    size = image.shape[0]
    side = int(rng.integers(round(DIGIT_SIZES[0] * size), round(DIGIT_SIZES[1] * size) + 1))
    side = min(side, room[1] - room[0])
    strokes = np.clip(_resized(Image.fromarray(digit), side), 0, 1)
    top, left = int(rng.integers(size - side + 1)), int(rng.integers(room[0], room[1] - side + 1))
    while True:
        ink = rng.uniform(0, 1, 3).astype(np.float32)
        if abs(float(ink.mean() - ground.mean())) >= CONTRAST:
            break
    image = image.copy()
    patch = image[top : top + side, left : left + side]
    image[top : top + side, left : left + side] += strokes[..., None] * (ink - patch)
    mask = np.zeros((size, size), bool)
    mask[top : top + side, left : left + side] = strokes > 0.25
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    box = (int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
    return image, box, mask


def planted(
    seed: int,
    n: int,
    *,
    split: Split = "train",
    size: int = 64,
    distractor: bool = False,
    start: int = 0,
) -> Planted:
    """Return n images with one digit each, or with a second one of another class (`distractor`).

    Image i depends on the seed, the split and i, not on n.

    Args:
        seed: of the set.
        n: the number of images.
        split: of the digits and textures.
        size: side of the images in pixels.
        distractor: plant a second digit of another class beside the first, in its own half.
        start: the number of the first image.

    Returns:
        Planted: images float32 `[n, size, size, 3]` in [0, 1], labels and boxes of both digits, and masks of
            the first.

    Raises:
        ValueError: fewer than one image; images under 32 pixels.
    """
    if n < 1 or size < 32 or start < 0:
        raise ValueError(
            f"n must be at least 1, size at least 32 and start at least 0, not {n}, {size}, {start}"
        )
    digits, classes = _digits(split)
    images = np.empty((n, size, size, 3), np.float32)
    labels = np.full((2, n), -1)
    boxes = np.zeros((2, n, 4), int)
    masks = np.zeros((2, n, size, size), bool)
    for i in range(n):
        rng = np.random.default_rng([seed, split == "test", distractor, start + i])
        image, ground = _background(rng, size, split)
        halves = [(0, size)]
        if distractor:
            halves = [(0, size // 2), (size // 2, size)]
            rng.shuffle(halves)
        for k, room in enumerate(halves):
            others = np.flatnonzero(classes != labels[0, i]) if k else np.arange(len(classes))
            which = rng.choice(others)
            labels[k, i] = classes[which]
            image, boxes[k, i], masks[k, i] = _plant(rng, image, ground, digits[which], room)
        images[i] = np.clip(image, 0, 1)
    return Planted(images, labels[0], boxes[0], labels[1], boxes[1], masks[0])
