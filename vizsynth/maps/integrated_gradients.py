"""Integrated gradients.

Sundararajan, Taly & Yan, Axiomatic Attribution for Deep Networks, 2017, sections 3 and 5.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vizsynth.core.chunks import check_count, total
from vizsynth.core.entry import entry, is_on_host
from vizsynth.taps import evaluate
from vizsynth.types import Images, Network, Score, Target


class Integrated(NamedTuple):
    """Attributions and their error of completeness."""

    attributions: Float[Array, "n h w 3"]
    delta: Float[Array, " n"]
    """Σ attributions − (F(x) − F(x′)): zero for the exact integral."""
    steps: Int[Array, " n"]
    """The number of gradients per image in its last round."""


def gauss_legendre(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the nodes α_k in (0, 1) and the weights of Gauss-Legendre quadrature, in float64."""
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    return (1 + nodes) / 2, weights / 2


def _check(images: Array, baseline: Any, batch_size: int, steps: int | None = None) -> None:
    check_count(batch_size, "batch_size")
    if steps is not None:
        check_count(steps, "steps")
    shape = np.shape(baseline)
    if shape not in ((), images.shape, images.shape[1:]):
        raise ValueError(
            f"baseline must be a number, one image {images.shape[1:]} or one per image "
            f"{images.shape}, not {shape}"
        )


def _like(baseline: Any, images: Images) -> Images:
    return jnp.broadcast_to(jnp.asarray(baseline, images.dtype), images.shape)


def _path_gradient(net: Network, images: Images, target: Score, baseline: Images, alpha: Array) -> Images:
    path = baseline + alpha * (images - baseline)
    return jax.grad(lambda path: evaluate(net, path, target).sum())(path)


@entry(static=("steps", "batch_size"), check=_check, many=True)
def integrated_gradients(
    net: Network,
    images: Images,
    target: Target,
    *,
    baseline: Any = 0.0,
    steps: int = 50,
    batch_size: int = 5,
) -> Float[Array, "n h w 3"]:
    """Return (x − x′) ⊙ ∫₀¹ ∂F(x′ + α (x − x′))/∂x dα (section 3, eq. 1).

    x are the images, x′ the baseline, F is the target. The integral is a Gauss-Legendre quadrature,
    Σ_k w_k ∂F(x′ + α_k (x − x′))/∂x.
    (Departure: the paper's eq. 3 is a Riemann sum, which needs many more steps for the same error.)

    Args:
        baseline: x′, the start of the path: a number, one image `[h, w, 3]`, or one per image
            `[n, h, w, 3]`. Black by default.
        steps: the number of gradients along the path.

    Returns:
        The signed attributions `[n, h, w, 3]`; they sum to F(x) − F(x′) up to the quadrature's error,
        which `completeness` returns and `adaptive_integrated_gradients` bounds. Captum's
        `IntegratedGradients(n_steps=50)` gives the same number by default.

    Raises:
        ValueError: a baseline of another shape.

    Example:
        >>> import jax, vizsynth
        >>> net = vizsynth.models.squeezenet1_1(key=jax.random.key(0))
        >>> images = jax.random.uniform(jax.random.key(1), (2, 64, 64, 3))
        >>> vizsynth.integrated_gradients(net, images, 281, steps=8).shape
        (2, 64, 64, 3)
    """
    start = _like(baseline, images)
    nodes, weights = (jnp.asarray(a, images.dtype) for a in gauss_legendre(steps))
    integral = total(
        lambda step: step[1] * _path_gradient(net, images, target, start, step[0]),
        (nodes, weights),
        batch_size,
    )
    return (images - start) * integral


@entry(check=lambda images, baseline: _check(images, baseline, 1))
def completeness(
    net: Network,
    images: Images,
    target: Target,
    attributions: Float[Array, "n h w 3"],
    *,
    baseline: Any = 0.0,
) -> Float[Array, " n"]:
    """Return δ = Σ_i attributions_i − (F(x) − F(x′)), the error of completeness (section 3).

    Args:
        attributions: a map that should sum to the difference of the scores F of x and x′.
        baseline: x′, as for `integrated_gradients`.

    Returns:
        δ per image, in units of score.

    Raises:
        ValueError: a baseline of another shape.

    Example:
        >>> import jax, vizsynth
        >>> net = vizsynth.models.squeezenet1_1(key=jax.random.key(0))
        >>> images = jax.random.uniform(jax.random.key(1), (1, 64, 64, 3))
        >>> maps = vizsynth.integrated_gradients(net, images, 281, steps=16)
        >>> bool(abs(vizsynth.completeness(net, images, 281, maps)[0]) < 0.1)
        True
    """
    start = _like(baseline, images)
    change = evaluate(net, images, target) - evaluate(net, start, target)
    return attributions.sum(axis=(1, 2, 3)) - change


def _check_adaptive(images: Array, baseline: Any, batch_size: int, max_steps: int, tolerance: Any):
    _check(images, baseline, batch_size)
    check_count(max_steps, "max_steps")
    if is_on_host(tolerance) and not float(tolerance) > 0:
        raise ValueError(f"tolerance must be positive, not {tolerance}")


@entry(static=("max_steps", "batch_size"), check=_check_adaptive, many=True)
def adaptive_integrated_gradients(
    net: Network,
    images: Images,
    target: Target,
    *,
    baseline: Any = 0.0,
    tolerance: float | Array = 0.01,
    max_steps: int = 512,
    batch_size: int = 5,
) -> Integrated:
    """Return integrated gradients, doubling the steps until each image is complete to a tolerance.

    An image is done when |δ| ≤ tolerance · |F(x) − F(x′)|, δ as in `completeness`; its map is kept while the
    others continue. The steps are 8, 16, 32, ... up to `max_steps`.

    Args:
        baseline: x′, as for `integrated_gradients`.
        tolerance: the largest relative error of completeness.
        max_steps: the end of doubling; δ shows which images have not reached the tolerance.

    Returns:
        `Integrated(attributions, delta, steps)`.

    Raises:
        ValueError: a baseline of another shape; a tolerance that is not positive.

    Example:
        >>> import jax, vizsynth
        >>> net = vizsynth.models.squeezenet1_1(key=jax.random.key(0))
        >>> images = jax.random.uniform(jax.random.key(1), (1, 64, 64, 3))
        >>> vizsynth.adaptive_integrated_gradients(net, images, 281, max_steps=32).delta.shape
        (1,)
    """
    start = _like(baseline, images)
    change = evaluate(net, images, target) - evaluate(net, start, target)

    counts = [max_steps]
    while counts[0] > 8:
        counts.insert(0, -(-counts[0] // 2))
    rules = [gauss_legendre(count) for count in counts]
    # One table holds all rounds, each padded to whole chunks by steps of weight 0.
    chunks = [-(-count // batch_size) for count in counts]
    table = np.zeros((2, sum(chunks) * batch_size))
    first = np.cumsum([0, *chunks])
    for (nodes, weights), begin in zip(rules, first[:-1], strict=True):
        table[:, begin * batch_size : begin * batch_size + len(nodes)] = nodes, weights
    steps = jnp.asarray(table.reshape(2, -1, batch_size), images.dtype)
    first, counts_ = jnp.asarray(first), jnp.asarray(counts)

    def add_chunk(i: Array, integral: Images) -> Images:
        def gradient(alpha: Array, weight: Array) -> Images:
            return weight * _path_gradient(net, images, target, start, alpha)

        return integral + jax.vmap(gradient)(steps[0, i], steps[1, i]).sum(axis=0)

    def doubled(state: Any) -> Any:
        level, kept = state
        integral = jax.lax.fori_loop(first[level], first[level + 1], add_chunk, jnp.zeros_like(images))
        attributions = (images - start) * integral
        delta = attributions.sum(axis=(1, 2, 3)) - change
        new = Integrated(attributions, delta, jnp.broadcast_to(counts_[level], delta.shape))
        done = is_done(kept)
        keep = lambda old, new: jnp.where(done.reshape(-1, *(1,) * (old.ndim - 1)), old, new)  # noqa: E731
        return level + 1, jax.tree.map(keep, kept, new)

    def is_done(kept: Integrated) -> Array:
        return jnp.abs(kept.delta) <= jnp.asarray(tolerance, images.dtype) * jnp.abs(change)

    def unfinished(state: Any) -> Array:
        level, kept = state
        return (level < len(counts)) & ~is_done(kept).all()

    nothing = Integrated(
        jnp.zeros_like(images),
        jnp.full_like(change, jnp.inf),
        jnp.zeros_like(change, counts_.dtype),
    )
    return jax.lax.while_loop(unfinished, doubled, (jnp.asarray(0), nothing))[1]
