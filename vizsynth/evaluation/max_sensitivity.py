"""Max-sensitivity: the largest change of a map under a small change of the image.

Yeh, Hsieh, Suggala, Inouye & Ravikumar, On the (In)fidelity and Sensitivity of Explanations, 2019,
section 3.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vizsynth.core.chunks import check_count, each, keys_for
from vizsynth.core.entry import entry, is_on_host
from vizsynth.evaluation.pixels import ratio
from vizsynth.types import Images, Keys, Network, Target

Map = Callable[[Network, Images, Any], Float[Array, "n ..."]]


class Sensitivity(NamedTuple):
    """The largest change of each image's map."""

    values: Float[Array, " n"]
    relative: Float[Array, " n"]
    """As a share of the map's norm; 0 if the map is 0."""


def _check(images: Array, key: Array, samples: int, radius: Any, batch_size: int) -> None:
    check_count(samples, "samples")
    check_count(batch_size, "batch_size")
    keys_for(key, len(images))
    if is_on_host(radius) and not 0 < float(radius) < 1:
        raise ValueError(f"radius must lie in (0, 1), the images' unit, not {radius}")


@entry(static=("of", "samples", "batch_size"), check=_check, many=True)
def max_sensitivity(
    net: Network,
    images: Images,
    target: Target,
    *,
    of: Map,
    key: Keys,
    radius: float | Array = 0.02,
    samples: int = 10,
    batch_size: int = 4,
) -> Sensitivity:
    """Return SENS_MAX = max over ‖y − x‖ ≤ r of ‖Φ(f, y) − Φ(f, x)‖, by sampling y (section 3).

    Args:
        of: the map Φ, any function of (net, images, target) such as `vizsynth.gradient` or
            `functools.partial(vizsynth.grad_cam, layer="fire9")`.
        radius: r, in the images' unit: y is uniform in the cube |y − x| ≤ r, unclipped.
        samples: the number of y; more can only raise the maximum.

    Returns:
        Sensitivity(values `[n]`, Euclidean norms in the map's unit; relative `[n]`). Captum's
        `sensitivity_max` is `relative`.

    Raises:
        ValueError: `radius` is outside (0, 1), or `samples` below 1.

    Example:
        >>> import jax, vizsynth
        >>> from vizsynth.models.sequential import Conv, GlobalMean
        >>> net = vizsynth.models.sequential([Conv(4), GlobalMean()], key=jax.random.key(0))
        >>> images = jax.random.uniform(jax.random.key(1), (2, 16, 16, 3))
        >>> found = vizsynth.max_sensitivity(net, images, 1, of=vizsynth.gradient, key=jax.random.key(2))
        >>> bool((found.relative < 1e-5).all())  # the gradient of a linear network is constant
        True
    """
    keys = keys_for(key, images.shape[0])
    still = of(net, images, target)

    def norm(maps: Float[Array, "n ..."]) -> Float[Array, " n"]:
        return jnp.sqrt((maps**2).sum(axis=tuple(range(1, maps.ndim))))

    def moved(sample: Array) -> Float[Array, " n"]:
        def draw(key: Array) -> Array:
            key = jax.random.fold_in(key, sample)
            return jax.random.uniform(key, images.shape[1:], images.dtype, minval=-1, maxval=1)

        y = images + jnp.asarray(radius, images.dtype) * jax.vmap(draw)(keys)
        return norm(of(net, y, target) - still)

    values = each(moved, jnp.arange(samples), batch_size).max(axis=0)
    return Sensitivity(values, ratio(values, norm(still)))
