"""SmoothGrad, its square, and VarGrad: statistics of a map under noise.

Smilkov, Thorat, Kim, Viégas & Wattenberg, SmoothGrad: removing noise by adding noise, 2017, section 2.
Hooker, Erhan, Kindermans & Kim, A Benchmark for Interpretability Methods in Deep Neural Networks, 2018
(the square). Adebayo, Gilmer, Goodfellow & Kim, Local Explanation Methods for Deep Neural Networks Lack
Sensitivity to Parameter Values, 2018 (the variance).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from vizsynth.core.chunks import check_count, fold, keys_for, masked_sum
from vizsynth.core.entry import entry, is_on_host
from vizsynth.maps.gradient import gradient
from vizsynth.types import Images, Keys, Network, Target

Map = Callable[[Network, Images, Any], Float[Array, "n ..."]]


class _Moments(NamedTuple):
    """The number n, the mean and the sum of squared deviations of the samples so far."""

    n: Float[Array, ""]
    mean: Float[Array, "n ..."]
    deviation: Float[Array, "n ..."]


def _check(samples: int, batch_size: int, noise: Any, images: Array, key: Array) -> None:
    check_count(samples, "samples")
    check_count(batch_size, "batch_size")
    keys_for(key, len(images))
    if is_on_host(noise) and np.any(np.asarray(noise) < 0):
        raise ValueError(f"noise must not be negative, not {noise}")


def _moments(
    net: Network,
    images: Images,
    target: Any,
    key: Keys,
    samples: int,
    noise: float | Array,
    of: Map,
    batch_size: int,
) -> _Moments:
    """Return the moments of the map under noise, by the parallel form of Welford's update.

    Chan, Golub & LeVeque, Updating Formulae and a Pairwise Algorithm for Computing Sample Variances,
    1979: unlike E[a²] − E[a]², it has no cancellation.
    """
    keys = keys_for(key, images.shape[0])
    spread = images.max(axis=(1, 2, 3)) - images.min(axis=(1, 2, 3))
    sigma = jnp.asarray(noise, images.dtype) * spread

    def noisy_map(sample: Array) -> Array:
        def draw(key: Array) -> Array:
            # Always in float32: every precision then gets the same draws, and bfloat16's own are coarse.
            return jax.random.normal(jax.random.fold_in(key, sample), images.shape[1:], jnp.float32)

        epsilon = jax.vmap(draw)(keys).astype(images.dtype)
        return of(net, images + sigma[:, None, None, None] * epsilon, target)

    def update(seen: _Moments, chunk: Array, valid: Bool[Array, " b"]) -> _Moments:
        maps = jax.vmap(noisy_map)(chunk)
        count = valid.sum().astype(maps.dtype)
        mean = masked_sum(maps, valid) / count
        deviation = masked_sum((maps - mean[None]) ** 2, valid)
        both = seen.n + count
        shift = mean - seen.mean
        return _Moments(
            both,
            seen.mean + shift * (count / both),
            seen.deviation + deviation + shift**2 * (seen.n * count / both),
        )

    shape = jax.eval_shape(noisy_map, jax.ShapeDtypeStruct((), jnp.int32))
    nothing = jnp.zeros_like(shape)
    empty = _Moments(jnp.zeros((), shape.dtype), nothing, nothing)
    return fold(update, empty, jnp.arange(samples), batch_size)


@entry(static=("samples", "of", "batch_size"), check=_check, many=True)
def smooth_grad(
    net: Network,
    images: Images,
    target: Target,
    *,
    key: Keys,
    samples: int = 50,
    noise: float | Array = 0.15,
    of: Map = gradient,
    batch_size: int = 5,
) -> Float[Array, "n ..."]:
    """Return the mean of a map under noise, (1/N) Σ M(x + ε), ε ~ N(0, σ²), x the images (section 2).

    Args:
        key: images with one key share their draws.
        samples: N; the paper sees little gain beyond 50.
        noise: σ relative to each image's range, σ / (x_max − x_min); the paper takes 0.1 to 0.2.
            (Captum's `stdevs` is σ itself.)
        of: the map M, any function of (net, images, target) such as `vizsynth.gradient` or
            `functools.partial(vizsynth.grad_cam, layer="fire9")`.

    Returns:
        The mean of the maps of `of`, signed.

    Raises:
        ValueError: samples below 1; negative noise.

    Example:
        >>> import jax, vizsynth
        >>> net = vizsynth.load("squeezenet1_1")
        >>> images = jax.random.uniform(jax.random.key(1), (1, 64, 64, 3))
        >>> vizsynth.smooth_grad(net, images, 281, key=jax.random.key(2), samples=4).shape
        (1, 64, 64, 3)
    """
    return _moments(net, images, target, key, samples, noise, of, batch_size).mean


@entry(static=("samples", "of", "batch_size"), check=_check, many=True)
def smooth_grad_squared(
    net: Network,
    images: Images,
    target: Target,
    *,
    key: Keys,
    samples: int = 50,
    noise: float | Array = 0.15,
    of: Map = gradient,
    batch_size: int = 5,
) -> Float[Array, "n ..."]:
    """Return the mean square of a map under noise, (1/N) Σ M(x + ε)² (Hooker et al., section 3.1).

    Args and Raises: as for `smooth_grad`.

    Returns:
        The mean square of the maps of `of`, at least 0.

    Example:
        >>> import jax, vizsynth
        >>> net = vizsynth.load("squeezenet1_1")
        >>> images = jax.random.uniform(jax.random.key(1), (1, 64, 64, 3))
        >>> vizsynth.smooth_grad_squared(net, images, 281, key=jax.random.key(2), samples=4).shape
        (1, 64, 64, 3)
    """
    moments = _moments(net, images, target, key, samples, noise, of, batch_size)
    return moments.deviation / samples + moments.mean**2


@entry(static=("samples", "of", "batch_size"), check=_check, many=True)
def var_grad(
    net: Network,
    images: Images,
    target: Target,
    *,
    key: Keys,
    samples: int = 50,
    noise: float | Array = 0.15,
    of: Map = gradient,
    batch_size: int = 5,
) -> Float[Array, "n ..."]:
    """Return the variance of a map under noise, (1/N) Σ (M(x + ε) − mean)² (Adebayo et al., section 2).

    Args and Raises: as for `smooth_grad`.

    Returns:
        The biased variance of the maps of `of`, at least 0, as Captum's `vargrad`. Times N / (N − 1), it is
        unbiased.

    Example:
        >>> import jax, vizsynth
        >>> net = vizsynth.load("squeezenet1_1")
        >>> images = jax.random.uniform(jax.random.key(1), (1, 64, 64, 3))
        >>> vizsynth.var_grad(net, images, 281, key=jax.random.key(2), samples=4).shape
        (1, 64, 64, 3)
    """
    return _moments(net, images, target, key, samples, noise, of, batch_size).deviation / samples
