"""The pictures of three styles, by a program and a seed: glass in lead, strokes along a flow, a woodcut."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy import ndimage
from scipy.spatial import KDTree

STYLE_SIDE = 256

Texture = Float[np.ndarray, "side side 3"]


def _noise(rng: np.random.Generator, side: int, scale: float) -> Float[np.ndarray, "side side"]:
    """Return smooth noise on a torus, of mean 0 and deviation 1."""
    x = ndimage.gaussian_filter(rng.normal(size=(side, side)), scale, mode="wrap")
    return (x - x.mean()) / x.std()


def _step(x: np.ndarray, width: float) -> np.ndarray:
    """Return a smooth step from 0 to 1."""
    return 1 / (1 + np.exp(-np.clip(x / width, -50, 50)))


def _along(x: np.ndarray, flow: tuple[np.ndarray, np.ndarray], length: int) -> np.ndarray:
    """Return the mean of `x` along a flow: Cabral & Leedom's line integral convolution, 1993."""

    def at(values: np.ndarray, place: np.ndarray) -> np.ndarray:
        return ndimage.map_coordinates(values, place, order=1, mode="grid-wrap")

    total = np.zeros_like(x)
    for sign in (1, -1):
        place = np.stack(np.meshgrid(*[np.arange(len(x), dtype=float)] * 2, indexing="ij"))
        for _ in range(length):
            total += np.stack([at(x[..., c], place) for c in range(x.shape[-1])], axis=-1)
            down, right = (at(part, place) for part in flow)
            speed = np.hypot(down, right) + 1e-9
            place = place + sign * np.stack([down / speed, right / speed])
    return total / (2 * length)


def glass(rng: np.random.Generator, side: int = STYLE_SIDE) -> Texture:
    """Return cells of coloured glass, held by lead: the cells of Voronoi around random points."""
    colours = np.array(
        [
            (0.80, 0.05, 0.08),
            (0.02, 0.15, 0.65),
            (0.98, 0.72, 0.05),
            (0.02, 0.45, 0.25),
            (0.90, 0.35, 0.05),
            (0.45, 0.08, 0.50),
            (0.10, 0.55, 0.80),
        ]
    )
    points = rng.uniform(0, side, (150, 2))
    pixels = np.stack(np.meshgrid(*[np.arange(side) + 0.5] * 2, indexing="ij"), axis=-1)
    away, nearest = KDTree(points, boxsize=side).query(pixels, k=2)
    first, second = np.moveaxis(np.asarray(nearest), -1, 0)
    between = (points[first] - points[second] + side / 2) % side - side / 2
    border = (away[..., 1] ** 2 - away[..., 0] ** 2) / (2 * np.linalg.norm(between, axis=-1))
    which = rng.integers(len(colours), size=len(points))
    light = rng.uniform(0.75, 1.25, len(points))[first] * (1 + 0.12 * _noise(rng, side, 3))
    clear = _step(border - 1.8, 0.35)[..., None]
    return np.clip(colours[which][first] * light[..., None] * clear + 0.03 * (1 - clear), 0, 1)


def strokes(rng: np.random.Generator, side: int = STYLE_SIDE) -> Texture:
    """Return strokes of blue and yellow along the contours of a smooth landscape."""
    palette = np.array(
        [
            (0.03, 0.08, 0.30),
            (0.08, 0.25, 0.62),
            (0.25, 0.55, 0.80),
            (0.75, 0.85, 0.75),
            (0.98, 0.85, 0.30),
            (0.95, 0.60, 0.10),
        ]
    )
    down, right = np.gradient(_noise(rng, side, 18))
    flow = (-right, down)
    level = 0.8 * _noise(rng, side, 14) + 0.9 * _noise(rng, side, 1.2)
    place = np.clip((level + 2.2) / 4.4, 0, 1) * (len(palette) - 1)
    colour = np.stack([np.interp(place, np.arange(len(palette)), c) for c in palette.T], axis=-1)
    colour = _along(colour, flow, 12)
    mean = colour.mean(axis=(0, 1))
    ridges = _along(_noise(rng, side, 0.8)[..., None], flow, 9)
    return np.clip(mean + 1.9 * (colour - mean) + 0.1 * ridges / ridges.std(), 0, 1)


def woodcut(rng: np.random.Generator, side: int = STYLE_SIDE) -> Texture:
    """Return black lines that swell and bend, on paper with patches of red."""
    bend, tone, patch = (_noise(rng, side, scale) for scale in (26, 16, 20))
    lines = np.sin(2 * np.pi * np.arange(side)[:, None] / 8 + 5 * bend)
    ink = _step(lines + 0.75 * tone, 0.12)[..., None]
    red = _step(patch - 0.7, 0.05)[..., None]
    under = (1 - red) * np.array((0.95, 0.90, 0.78)) + red * np.array((0.75, 0.10, 0.06))
    return np.clip(under * (1 - ink) + ink * np.array((0.06, 0.05, 0.05)), 0, 1)


STYLES: dict[str, Callable[[np.random.Generator], Texture]] = {
    "glass": glass,
    "strokes": strokes,
    "woodcut": woodcut,
}


def pictures() -> Float[Array, "styles side side 3"]:
    """Return the pictures of the styles: always the same."""
    made = [make(np.random.default_rng(i)) for i, make in enumerate(STYLES.values())]
    return jnp.asarray(np.stack(made), jnp.float32)
