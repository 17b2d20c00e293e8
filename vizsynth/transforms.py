"""Robustness transforms: small random changes that the objective of a picture must survive.

Each is a callable `(key, image) -> image` on one picture `[h, w, c]`, differentiable, and a pytree whose
numbers are leaves. `Sequence` chains them. Olah, Mordvintsev & Schubert, Feature Visualization, 2017, section
"Transformation robustness"; the recipe of its code is `standard`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vizsynth.core.pytrees import pytree
from vizsynth.images import gaussian_blur, resize, roll, transform_affine
from vizsynth.types import Key

Number = Any  # an int, a float or an array: a leaf
Before = Float[Array, "h w c"]
After = Float[Array, "h2 w2 c"]
Transform = Callable[[Key, Before], After]
_STATIC = {"static": True}


@pytree
@dataclass(frozen=True)
class Pad:
    """Surround the picture with `pixels` of one value."""

    pixels: int = field(default=12, metadata=_STATIC)
    value: Number = 0.5

    def __call__(self, key: Key, image: Before) -> After:
        """Return the larger picture."""
        del key
        sides = [(0, 0)] * (image.ndim - 3) + [(self.pixels, self.pixels)] * 2 + [(0, 0)]
        return jnp.pad(image, sides, constant_values=jnp.asarray(self.value, image.dtype))


@pytree
@dataclass(frozen=True)
class Jitter:
    """Crop the picture at a random place, `pixels` smaller along each side."""

    pixels: int = field(default=8, metadata=_STATIC)

    def __call__(self, key: Key, image: Before) -> After:
        """Return the smaller picture."""
        h, w, c = image.shape
        if min(h, w) <= self.pixels:
            raise ValueError(f"a jitter of {self.pixels} pixels leaves nothing of a picture of {h}x{w}")
        top, left = jax.random.randint(key, (2,), 0, self.pixels + 1)
        size = (h - self.pixels, w - self.pixels, c)
        return jax.lax.dynamic_slice(image, (top, left, jnp.zeros_like(top)), size)


@pytree
@dataclass(frozen=True)
class Roll:
    """Roll the picture by up to `pixels` along each axis; nothing is lost."""

    pixels: int = field(default=8, metadata=_STATIC)

    def __call__(self, key: Key, image: Before) -> After:
        """Return the rolled picture."""
        shift = jax.random.randint(key, (2,), -self.pixels, self.pixels + 1)
        return roll(image, (shift[0], shift[1]))


@pytree
@dataclass(frozen=True)
class Mirror:
    """Exchange left and right with probability 1/2."""

    def __call__(self, key: Key, image: Before) -> After:
        """Return the picture, or its mirror image."""
        return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


@pytree
@dataclass(frozen=True)
class Scale:
    """Zoom about the middle by a factor drawn evenly from [low, high]; the size stays.

    Pixels from outside are `fill`. Departure: Lucid resizes the picture, by one of eleven factors.
    """

    low: Number = 0.9
    high: Number = 1.1
    fill: Number = 0.5

    def __call__(self, key: Key, image: Before) -> After:
        """Return the zoomed picture."""
        low, high = (jnp.asarray(v, image.dtype) for v in (self.low, self.high))
        factor = jax.random.uniform(key, (), image.dtype) * (high - low) + low
        return transform_affine(image, jnp.eye(2, dtype=image.dtype) / factor, fill=self.fill)


@pytree
@dataclass(frozen=True)
class Rotate:
    """Turn about the middle by an angle drawn evenly from [−degrees, degrees]; the size stays."""

    degrees: Number = 10.0
    fill: Number = 0.5

    def __call__(self, key: Key, image: Before) -> After:
        """Return the turned picture."""
        limit = jnp.asarray(self.degrees, image.dtype) * (jnp.pi / 180)
        angle = (jax.random.uniform(key, (), image.dtype) * 2 - 1) * limit
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        matrix = jnp.stack([jnp.stack([cos, sin]), jnp.stack([-sin, cos])])
        return transform_affine(image, matrix, fill=self.fill)


@pytree
@dataclass(frozen=True)
class Crop:
    """Crop a square of random side, `low` to `high` of the shorter side, and resize it to `size`.

    Its middle is drawn from a normal distribution around the picture's, as Horama does.
    """

    size: int = field(default=224, metadata=_STATIC)
    low: Number = 0.2
    high: Number = 0.25
    spread: Number = 0.15

    def __call__(self, key: Key, image: Before) -> After:
        """Return the part of the picture, `[size, size, c]`."""
        h, w, _ = image.shape
        size_key, place_key = jax.random.split(key)
        low, high, spread = (jnp.asarray(v, image.dtype) for v in (self.low, self.high, self.spread))
        share = jax.random.uniform(size_key, (), image.dtype) * (high - low) + low
        side = share * min(h, w)
        whole = jnp.asarray((h, w), image.dtype)
        middle = (jax.random.normal(place_key, (2,), image.dtype) * spread + 0.5) * whole
        middle = jnp.clip(middle, side / 2, whole - side / 2)
        scale = self.size / side
        return jax.image.scale_and_translate(
            image,
            (self.size, self.size, image.shape[2]),
            (0, 1),
            jnp.stack([scale, scale]),
            self.size / 2 - middle * scale,
            "linear",
        )


@pytree
@dataclass(frozen=True)
class Noise:
    """Add Gaussian noise of a standard deviation."""

    std: Number = 0.05

    def __call__(self, key: Key, image: Before) -> After:
        """Return the noisy picture."""
        noise = jax.random.normal(key, image.shape, image.dtype)
        return image + jnp.asarray(self.std, image.dtype) * noise


@pytree
@dataclass(frozen=True)
class Blur:
    """Blur by a Gaussian whose standard deviation is drawn evenly from [0, sigma] pixels."""

    sigma: Number = 1.0
    radius: int = field(default=4, metadata=_STATIC)

    def __call__(self, key: Key, image: Before) -> After:
        """Return the blurred picture."""
        sigma = jax.random.uniform(key, (), image.dtype) * jnp.asarray(self.sigma, image.dtype) + 1e-3
        return gaussian_blur(image, sigma, radius=self.radius)


@pytree
@dataclass(frozen=True)
class Resize:
    """Resize the picture to `(height, width)`."""

    size: tuple[int, int] = field(metadata=_STATIC)

    def __call__(self, key: Key, image: Before) -> After:
        """Return the resized picture."""
        del key
        return resize(image, self.size)


@pytree
@dataclass(frozen=True)
class Sequence:
    """A chain of transforms, each with a key of its own; an empty chain changes nothing.

    >>> import jax, jax.numpy as jnp
    >>> both = Sequence((Pad(4), Jitter(4)))
    >>> both(jax.random.key(0), jnp.zeros((32, 32, 3))).shape
    (36, 36, 3)
    """

    transforms: tuple[Any, ...] = ()

    def __call__(self, key: Key, image: Before) -> After:
        """Return the transformed picture."""
        for i, transform in enumerate(self.transforms):
            image = transform(jax.random.fold_in(key, i), image)
        return image


none = Sequence()
"""The identity."""

standard = Sequence((Pad(12), Jitter(8), Scale(0.9, 1.1), Rotate(10.0), Jitter(4)))
"""Pad, jitter, scale, rotate, jitter: the recipe of Lucid."""


def transformed(transform: Any, keys: Array, images: Float[Array, "n h w c"]) -> Float[Array, "n _ _ c"]:
    """Transform each picture of a batch with its own key.

    >>> import jax, jax.numpy as jnp
    >>> transformed(none, jax.random.split(jax.random.key(0), 2), jnp.zeros((2, 8, 8, 3))).shape
    (2, 8, 8, 3)
    """
    return jax.vmap(transform)(keys, images)
