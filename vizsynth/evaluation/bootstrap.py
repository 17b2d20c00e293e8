"""The bootstrap: the interval of a mean over images.

Efron & Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3 (the percentile interval).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vizsynth.core.chunks import check_count, each
from vizsynth.core.entry import entry, is_on_host
from vizsynth.evaluation.pixels import check_finite
from vizsynth.types import Key


class Interval(NamedTuple):
    """A mean and the ends of its interval."""

    mean: Float[Array, "..."]
    low: Float[Array, "..."]
    high: Float[Array, "..."]


def _check(values: Any, samples: int, level: Any, batch_size: int) -> None:
    check_count(samples, "samples")
    check_count(batch_size, "batch_size")
    if np.ndim(values) < 1 or 0 in np.shape(values):
        raise ValueError(f"values must be [n, ...], at least one, not {np.shape(values)}")
    if not jnp.issubdtype(jnp.result_type(values), jnp.floating):
        raise TypeError("values must be float")
    check_finite(values, "values")
    if is_on_host(level) and not 0 < float(level) < 1:
        raise ValueError(f"level must lie in (0, 1), not {level}")


@entry(static=("samples", "batch_size"), check=_check)
def bootstrap_mean(
    values: Float[Array, "n ..."],
    *,
    key: Key,
    samples: int = 1000,
    level: float | Array = 0.95,
    batch_size: int = 64,
) -> Interval:
    """Return the mean, and the (1 ∓ level)/2 quantiles of the means of n values drawn with replacement.

    Args:
        values: `[n, ...]`, one per image; the axes after the first are drawn together, so two methods'
            values side by side are resampled by the same images.
        samples: the number of draws.
        level: the interval's coverage.

    Returns:
        Interval(mean, low, high), each of the shape of one value.

    Raises:
        TypeError, ValueError: the values are not finite floats, `samples` is below 1, or `level` outside (0,
        1).

    Example:
        >>> import jax, vizsynth
        >>> hits = jax.numpy.asarray([1.0, 0.0, 1.0, 1.0] * 25)
        >>> mean, low, high = vizsynth.bootstrap_mean(hits, key=jax.random.key(0))
        >>> float(mean), bool(0.6 < low < 0.75 < high < 0.9)
        (0.75, True)
    """
    n = values.shape[0]

    def resampled(sample: Array) -> Float[Array, "..."]:
        drawn = jax.random.randint(jax.random.fold_in(key, sample), (n,), 0, n, jnp.int32)
        return values[drawn].mean(axis=0)

    means = each(resampled, jnp.arange(samples), batch_size)
    tail = (1 - jnp.asarray(level, values.dtype)) / 2
    low, high = jnp.quantile(means, jnp.stack([tail, 1 - tail]), axis=0)
    return Interval(values.mean(axis=0), low, high)
