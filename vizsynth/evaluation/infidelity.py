"""Infidelity: does the map predict the effect of a perturbation on the score?

Yeh, Hsieh, Suggala, Inouye & Ravikumar, On the (In)fidelity and Sensitivity of Explanations, 2019,
section 2, definition 2.1, and section 3.
"""

from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vizsynth.core.chunks import check_count, each, keys_for
from vizsynth.core.entry import entry, is_on_host
from vizsynth.evaluation.pixels import check_finite, ratio
from vizsynth.taps import evaluate
from vizsynth.types import Images, Keys, Network, Target


class Infidelity(NamedTuple):
    """The infidelity of each image's map, before and after the best scaling."""

    values: Float[Array, " n"]
    scale: Float[Array, " n"]
    """β = E[IᵀΦ Δf] / E[(IᵀΦ)²], the multiple of the map that is least unfaithful."""
    scaled: Float[Array, " n"]
    """The infidelity of βΦ, comparable between maps of different units."""


def _check(
    images: Array,
    attributions: Any,
    key: Any,
    perturbations: Any,
    samples: int,
    noise: Any,
    batch_size: int,
) -> None:
    check_count(samples, "samples")
    check_count(batch_size, "batch_size")
    if tuple(np.shape(attributions)) != images.shape:
        raise ValueError(
            f"attributions must be as the images, {images.shape}, not {tuple(np.shape(attributions))}: one "
            "number per perturbed value"
        )
    check_finite(attributions, "attributions")
    if (key is None) == (perturbations is None):
        raise ValueError("give either a key, for Gaussian perturbations, or the perturbations themselves")
    if key is not None:
        keys_for(key, len(images))
    else:
        shape = tuple(np.shape(perturbations))
        if (
            len(shape) != 5
            or shape[0] < 1
            or shape[1] not in (1, len(images))
            or shape[2:] != images.shape[1:]
        ):
            raise ValueError(
                f"perturbations must be [samples, {', '.join(map(str, images.shape))}], not {shape}"
            )
        check_finite(perturbations, "perturbations")
    if is_on_host(noise) and np.any(np.asarray(noise) <= 0):
        raise ValueError(f"noise must be positive, not {noise}")


@entry(static=("samples", "batch_size"), check=_check, many=True)
def infidelity(
    net: Network,
    images: Images,
    target: Target,
    attributions: Float[Array, "n h w 3"],
    *,
    key: Keys | None = None,
    samples: int = 100,
    noise: float | Array = 0.2,
    perturbations: Float[Array, "samples _n h w 3"] | None = None,
    batch_size: int = 8,
) -> Infidelity:
    """Return INFD = E_I[(Iᵀ Φ − (f(x) − f(x − I)))²] (definition 2.1).

    Args:
        attributions: Φ, `[n, h, w, 3]`, in units of the score per unit of intensity: `gradient`. Maps that
            include the input, such as `integrated_gradients`, predict the removal of whole pixels: divide
            them by x − x′, or use `scaled`.
        key: draws Gaussian perturbations, I ~ N(0, noise²); None if `perturbations` are given.
        samples: the number of draws.
        noise: the standard deviation, in the images' unit. Give the paper's I = x − (x₀ + ε) as
            `perturbations`.
        perturbations: I, `[samples, n, h, w, 3]` (or `[samples, 1, h, w, 3]` for all images), in
            place of `key`.

    Returns:
        Infidelity(values `[n]`, scale β `[n]`, scaled `[n]`), in units of the score squared. Captum's
        `infidelity` is `values`, with `normalize=True` `scaled`.

    Raises:
        TypeError, ValueError: attributions or perturbations have another shape or are not finite; both or
            neither of `key` and `perturbations` are given.

    Example:
        >>> import jax, vizsynth
        >>> from vizsynth.models.sequential import Conv, GlobalMean
        >>> net = vizsynth.models.sequential([Conv(4), GlobalMean()], key=jax.random.key(0))
        >>> images = jax.random.uniform(jax.random.key(1), (2, 16, 16, 3))
        >>> maps = vizsynth.gradient(net, images, 1)  # the network is linear
        >>> found = vizsynth.infidelity(net, images, 1, maps, key=jax.random.key(2), samples=10)
        >>> bool((found.values < 1e-8).all())
        True
    """
    whole = evaluate(net, images, target)

    def perturbation(sample: Array) -> Images:
        if perturbations is not None:
            return jnp.broadcast_to(perturbations[sample].astype(images.dtype), images.shape)

        def draw(key: Array) -> Array:
            return jax.random.normal(jax.random.fold_in(key, sample), images.shape[1:], images.dtype)

        keys = keys_for(cast(Keys, key), images.shape[0])  # `_check`: given if perturbations are not
        return jnp.asarray(noise, images.dtype) * jax.vmap(draw)(keys)

    def both_sides(sample: Array) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        I = perturbation(sample)
        return (I * attributions).sum(axis=(1, 2, 3)), whole - evaluate(net, images - I, target)

    count = samples if perturbations is None else perturbations.shape[0]
    predicted, observed = each(both_sides, jnp.arange(count), batch_size)
    beta = ratio((predicted * observed).mean(axis=0), (predicted**2).mean(axis=0))
    return Infidelity(
        ((predicted - observed) ** 2).mean(axis=0),
        beta,
        ((beta[None] * predicted - observed) ** 2).mean(axis=0),
    )
