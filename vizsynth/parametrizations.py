"""Parametrizations: a picture in coordinates that are easier to optimize.

Each has `init(key, size)`, which draws parameters, and `decode(params, size)`, which turns them into the
picture `[h, w, 3]` in [0, 1]. All are pytrees whose numbers are leaves; sizes are (height, width).

Mordvintsev, Pezzotti, Schubert & Olah, Differentiable Image Parameterizations, 2018.
"""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from vizsynth.core.pytrees import pytree
from vizsynth.images import correlate_colors, decorrelate_colors, frequencies, resize
from vizsynth.types import Image, Images, Key

Number = Any  # an int, a float or an array: a leaf
Size = tuple[int, int]
_STATIC = {"static": True}
_LOGIT_EDGE = 1e-3  # pictures are clipped to this distance from 0 and 1 before encoding


def _noise(key: Key, shape: tuple[int, ...], std: Number) -> Array:
    noise = jax.random.normal(key, shape, float)
    return jnp.asarray(std, noise.dtype) * noise


def _squash(values: Float[Array, "h w 3"], decorrelated: bool) -> Image:
    return jax.nn.sigmoid(correlate_colors(values) if decorrelated else values)


def _unsquash(image: Image, decorrelated: bool) -> Float[Array, "h w 3"]:
    edge = jnp.asarray(_LOGIT_EDGE, image.dtype)
    logits = jax.scipy.special.logit(jnp.clip(image, edge, 1 - edge))
    return decorrelate_colors(logits) if decorrelated else logits


@pytree
@dataclass(frozen=True)
class Pixels:
    """The picture itself, x = θ, at first grey with a little noise; unbounded without `clip`."""

    std: Number = 0.01
    mean: Number = 0.5
    clip: bool = field(default=False, metadata=_STATIC)
    """Whether to clip to [0, 1]; clipped values have no gradient."""

    def init(self, key: Key, size: Size) -> Image:
        """Return noise around the mean."""
        noise = _noise(key, (*size, 3), self.std)
        return jnp.asarray(self.mean, noise.dtype) + noise

    def encode(self, image: Image) -> Image:
        """Return the parameters of a picture."""
        return image

    def decode(self, params: Image, size: Size) -> Image:
        """Return the picture."""
        del size
        return jnp.clip(params, 0, 1) if self.clip else params


@pytree
@dataclass(frozen=True)
class SigmoidPixels:
    """x = σ(θ Sᵀ): pixels inside (0, 1), with decorrelated colours or not."""

    std: Number = 0.01
    decorrelated: bool = field(default=True, metadata=_STATIC)

    def init(self, key: Key, size: Size) -> Float[Array, "h w 3"]:
        """Return noise."""
        return _noise(key, (*size, 3), self.std)

    def encode(self, image: Image) -> Float[Array, "h w 3"]:
        """Return the parameters of a picture."""
        return _unsquash(image, self.decorrelated)

    def decode(self, params: Float[Array, "h w 3"], size: Size) -> Image:
        """Return the picture."""
        del size
        return _squash(params, self.decorrelated)


def _spectrum_scale(size: Size, decay: Number, dtype: Any) -> Float[Array, "h f 1"]:
    """Return √(hw) / max(f, 1/max(h, w))^decay."""
    lowest = 1 / max(size)
    f = jnp.asarray(frequencies(size).clip(lowest), dtype)
    scale = jnp.asarray((size[0] * size[1]) ** 0.5, dtype) / f ** jnp.asarray(decay, dtype)
    return scale[..., None]


@pytree
@dataclass(frozen=True)
class Fourier:
    """x = σ(F⁻¹(θ s) Sᵀ / 4): a spectrum scaled by s = √(hw) / f^decay, colours decorrelated.

    In these coordinates a step changes each frequency in proportion to its amplitude in photographs (1/f).
    Olah, Mordvintsev & Schubert, Feature Visualization, 2017. For an odd width, Lucid crops a picture that
    is one pixel wider; here the spectrum has the width itself.
    """

    std: Number = 0.01
    decay: Number = 1.0
    decorrelated: bool = field(default=True, metadata=_STATIC)

    def init(self, key: Key, size: Size) -> Float[Array, "h f 3 2"]:
        """Return a random spectrum: real and imaginary parts."""
        return _noise(key, (size[0], size[1] // 2 + 1, 3, 2), self.std)

    def encode(self, image: Image) -> Float[Array, "h f 3 2"]:
        """Return the parameters of a picture, up to clipping to [0.001, 0.999]."""
        size = (image.shape[0], image.shape[1])
        spectrum = jnp.fft.rfft2(4 * _unsquash(image, self.decorrelated), axes=(0, 1))
        scale = _spectrum_scale(size, self.decay, image.dtype)
        return jnp.stack([spectrum.real / scale, spectrum.imag / scale], axis=-1)

    def decode(self, params: Float[Array, "h f 3 2"], size: Size) -> Image:
        """Return the picture."""
        scale = _spectrum_scale(size, self.decay, params.dtype)
        spectrum = jax.lax.complex(params[..., 0] * scale, params[..., 1] * scale)
        return _squash(jnp.fft.irfft2(spectrum, s=size, axes=(0, 1)) / 4, self.decorrelated)


@pytree
@dataclass(frozen=True)
class LaplacianPyramid:
    """x = σ(Σ_k up(θ_k) Sᵀ): a sum of pictures, each half the size of the last, enlarged linearly."""

    levels: int = field(default=4, metadata=_STATIC)
    std: Number = 0.1
    decorrelated: bool = field(default=True, metadata=_STATIC)

    def init(self, key: Key, size: Size) -> tuple[Float[Array, "_ _ 3"], ...]:
        """Return noise in every level."""
        if min(size) >> (self.levels - 1) < 1:
            raise ValueError(f"a pyramid of {self.levels} levels needs a picture larger than {size}")
        return tuple(
            _noise(jax.random.fold_in(key, k), (-(-size[0] >> k), -(-size[1] >> k), 3), self.std)
            for k in range(self.levels)
        )

    def decode(self, params: tuple[Float[Array, "_ _ 3"], ...], size: Size) -> Image:
        """Return the picture."""
        total = params[0]
        for level in params[1:]:
            total = total + resize(level, size)
        return _squash(total, self.decorrelated)


class _Layers(nnx.Module):
    """The network of a CPPN: 1x1 convolutions, as products with matrices."""

    def __init__(self, layers: int, channels: int, *, rngs: nnx.Rngs) -> None:
        widths = [2] + [2 * channels] * (layers - 1)
        kernel = jax.nn.initializers.normal(1.0)

        def scaled(key: Key, shape: Any, dtype: Any = None, out_sharding: Any = None) -> Array:
            del out_sharding
            return kernel(key, shape, dtype) / shape[0] ** 0.5

        self.hidden = nnx.List(
            [nnx.Linear(w, channels, kernel_init=scaled, param_dtype=float, rngs=rngs) for w in widths]
        )
        self.last = nnx.Linear(
            2 * channels, 3, kernel_init=jax.nn.initializers.zeros, param_dtype=float, rngs=rngs
        )

    def __call__(self, x: Float[Array, "p 2"]) -> Float[Array, "p 3"]:
        for layer in self.hidden:
            a = jnp.arctan(layer(x))
            x = jnp.concatenate([a / 0.67, a * a / 0.6], axis=-1)
        return self.last(x)


@pytree
@dataclass(frozen=True)
class Cppn:
    """x(p) = σ(N_θ(p)): a small network computes each pixel from its coordinates, at any resolution.

    Stanley, Compositional Pattern Producing Networks, 2007; layers and units as in Mordvintsev et al., 2018:
    atan concatenated with its square, the last layer zero at first.
    """

    layers: int = field(default=8, metadata=_STATIC)
    channels: int = field(default=24, metadata=_STATIC)

    def init(self, key: Key, size: Size) -> Any:
        """Return the network's weights."""
        del size
        return _Layers(self.layers, self.channels, rngs=nnx.Rngs(params=key))

    def decode(self, params: Any, size: Size) -> Image:
        """Return the picture; coordinates span [−√3, √3] along the longer side."""
        longer = max(size)
        rows, cols = (
            jnp.linspace(-(3**0.5), 3**0.5, side, dtype=float) * (side / longer) if side > 1 else jnp.zeros(1)
            for side in size
        )
        grid = jnp.stack(jnp.meshgrid(rows, cols, indexing="ij"), axis=-1).reshape(-1, 2)
        return jax.nn.sigmoid(params(grid)).reshape(*size, 3)


@pytree
@dataclass(frozen=True)
class Latent:
    """x = G(θ): the code of a generator, `decode(code) -> image [h, w, 3]`.

    Nguyen, Dosovitskiy, Yosinski, Brox & Clune, Synthesizing the preferred inputs for neurons in neural
    networks via deep generator networks, 2016. Give a generator with weights as
    `jax.tree_util.Partial(function, weights)`: the weights are then traced. `low` and `high` bound each unit.
    """

    generator: Any
    shape: tuple[int, ...] = field(metadata=_STATIC)
    std: Number = 1.0
    low: Number = -jnp.inf
    high: Number = jnp.inf

    def init(self, key: Key, size: Size) -> Float[Array, "..."]:
        """Return a random code."""
        del size
        return self._bounded(_noise(key, self.shape, self.std))

    def decode(self, params: Float[Array, "..."], size: Size) -> Image:
        """Return the generator's image of the code, resized if necessary."""
        image = self.generator(self._bounded(params))
        return image if image.shape[:2] == size else resize(image, size)

    def _bounded(self, code: Array) -> Array:
        low, high = (jnp.broadcast_to(jnp.asarray(v, code.dtype), code.shape) for v in (self.low, self.high))
        return jnp.clip(code, low, high)


@pytree
@dataclass(frozen=True)
class MaCo:
    """x = σ(c · standardize(F⁻¹(m e^{iθ})) Sᵀ): the phases θ are optimized, the magnitudes m fixed.

    Fel et al., Unlocking Feature Visualization for Deeper Networks with MAgnitude Constrained
    Optimization, 2023, section 4. `m` comes from `magnitude(photos, size)`.
    """

    magnitude: Float[Array, "h f 3"]
    contrast: Number = 1.0

    def init(self, key: Key, size: Size) -> Float[Array, "h f 3"]:
        """Return random phases."""
        if self.magnitude.shape != (size[0], size[1] // 2 + 1, 3):
            raise ValueError(
                f"the magnitudes {self.magnitude.shape} do not fit a picture {size}: "
                "make them with vizsynth.parametrizations.magnitude(photos, size)"
            )
        return jax.random.uniform(key, self.magnitude.shape, float) * (2 * jnp.pi)

    def decode(self, params: Float[Array, "h f 3"], size: Size) -> Image:
        """Return the picture."""
        m = self.magnitude.astype(params.dtype)
        values = jnp.fft.irfft2(
            jax.lax.complex(m * jnp.cos(params), m * jnp.sin(params)), s=size, axes=(0, 1)
        )
        values = (values - values.mean()) / (values.std() + jnp.asarray(1e-4, values.dtype))
        return _squash(jnp.asarray(self.contrast, values.dtype) * values, decorrelated=True)


def magnitude(photos: Images, size: Size) -> Float[Array, "rows f 3"]:
    """Return the mean magnitude of the photos' spectra, with decorrelated colours: |F(σ⁻¹(x) S⁻ᵀ)|.

    These are the values before the sigmoid of `MaCo.decode`; the authors take the pixels themselves.

    >>> import jax
    >>> magnitude(jax.random.uniform(jax.random.key(0), (2, 16, 16, 3)), (8, 8)).shape
    (8, 5, 3)
    """
    values = jax.vmap(lambda image: _unsquash(image, decorrelated=True))(resize(photos, size))
    values = values - values.mean(axis=(1, 2), keepdims=True)
    return jnp.abs(jnp.fft.rfft2(values, axes=(1, 2))).mean(axis=0)
