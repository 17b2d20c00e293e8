"""The squares of photos that the stylizer is trained on: ten photos are few, so they are cut and pasted."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from PIL import Image as Pillow

from experiments.figure import PHOTOS
from vizsynth.files import open_picture

TRAINED_ON = {
    "astronaut": 3,
    "chelsea": 3,
    "coffee": 3,
    "rocket": 3,
    "camera": 2,
    "retina": 1,
    "hubble_deep_field": 1,
    "brick": 1,
    "grass": 1,
    "gravel": 1,
}
"""The photos, and how often each is cut from, in parts of their sum."""

Square = Float[np.ndarray, "side side 3"]


def cut(rng: np.random.Generator, photo: Pillow.Image, side: int) -> Square:
    """Return a square of any size and place, turned and mirrored now and then, its colours changed often."""
    extent = int(np.exp(rng.uniform(np.log(side * 0.5), np.log(min(photo.size)))))
    left, top = (int(rng.integers(length - extent + 1)) for length in photo.size)
    box = (left, top, left + extent, top + extent)
    x = np.asarray(photo.resize((side, side), Pillow.Resampling.BICUBIC, box), np.float32) / 255
    if rng.random() < 0.3:
        x = np.rot90(x, int(rng.integers(4)))
    return recoloured(rng, x) if rng.random() < 0.6 else x


def recoloured(rng: np.random.Generator, x: Square) -> Square:
    """Return a square with its channels in another order, and other brightness, contrast and tint."""
    x = x[..., rng.permutation(3)] if rng.random() < 0.5 else x
    x = x ** np.exp(rng.normal(0, 0.3))
    grey = x.mean(axis=-1, keepdims=True)
    x = grey + (x - grey) * rng.uniform(0.3, 1.6)
    return np.clip(x * rng.uniform(0.6, 1.3, 3) + rng.uniform(-0.15, 0.15, 3), 0, 1).astype(np.float32)


def leaf(rng: np.random.Generator, side: int) -> Float[np.ndarray, "side side 1"]:
    """Return how far each place lies in a shape: an ellipse anywhere, or all on one side of a line."""
    places = np.stack(np.meshgrid(*[np.arange(side)] * 2, indexing="ij"), axis=-1) - rng.uniform(0, side, 2)
    angle = rng.uniform(0, 2 * np.pi)
    axes = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    along = places @ axes
    if rng.random() < 0.4:
        away = along[..., :1]
    else:
        radii = np.exp(rng.uniform(np.log(side / 16), np.log(side / 2), 2))
        away = (1 - np.linalg.norm(along / radii, axis=-1, keepdims=True)) * radii.min()
    return 1 / (1 + np.exp(-np.clip(away / rng.uniform(0.3, 1.5), -30, 30)))


def collage(rng: np.random.Generator, cuts: list[Square]) -> Square:
    """Return one square pasted over another in shapes that hide what was there.

    So pictures of dead leaves are made, whose edges and sizes are like a photo's (Lee, Mumford & Huang,
    Occlusion Models for Natural Images, 2001); here a leaf is a piece of a photo.
    """
    x = cuts[0]
    for square in cuts[1:]:
        over = leaf(rng, len(x))
        x = x + over * (square - x)
    return x.astype(np.float32)


def photographs(
    seed: int, count: int, side: int, *, pasted: float = 0.6
) -> Float[Array, "count side side 3"]:
    """Return squares of the photos that are trained on: a share of them are pasted of two to six cuts."""
    rng = np.random.default_rng(seed)
    chances = np.array(list(TRAINED_ON.values()), float)
    opened = []
    for name in TRAINED_ON:
        with open_picture(PHOTOS / f"{name}.jpg") as photo:
            opened.append(photo.convert("RGB"))
    squares = []
    for _ in range(count):
        pieces = int(rng.integers(2, 7)) if rng.random() < pasted else 1
        which = rng.choice(len(opened), pieces, p=chances / chances.sum())
        squares.append(collage(rng, [cut(rng, opened[i], side) for i in which]))
    return jnp.asarray(np.stack(squares))
