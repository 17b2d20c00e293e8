"""Transformations of the update of a picture, for optax.

Use them in `optax.chain` beside optax's own. `vizsynth.ascent` passes the raw gradient of −J (`grad`) to
those that take it. Some constrain the picture after the update; put these last.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from vizsynth.images import gaussian_blur

Number = Any  # a float or an array
Gradient = optax.GradientTransformation


def normalize_by_mean_abs() -> Gradient:
    """Divide by the mean absolute value, g / mean |g|; zeros stay zeros.

    Mordvintsev, Olah & Tyka, Inceptionism: Going Deeper into Neural Networks, 2015 (its code).

    >>> step = normalize_by_mean_abs()
    >>> step.update(jnp.asarray([1.0, -3.0]), step.init(None))[0].tolist()
    [0.5, -1.5]
    """

    def one(g: Array) -> Array:
        mean = jnp.abs(g).mean()
        return g / jnp.where(mean > 0, mean, jnp.ones_like(mean))

    return optax.stateless(lambda updates, params: jax.tree.map(one, updates))


def normalize_by_norm() -> Gradient:
    """Divide by the Euclidean norm of the whole, g / ‖g‖; zeros stay zeros.

    >>> step = normalize_by_norm()
    >>> [round(v, 3) for v in step.update(jnp.asarray([3.0, -4.0]), step.init(None))[0].tolist()]
    [0.6, -0.8]
    """

    def update(updates: Any, params: Any) -> Any:
        del params
        norm = optax.tree.norm(updates)
        return jax.tree.map(lambda g: g / jnp.where(norm > 0, norm, jnp.ones_like(norm)), updates)

    return optax.stateless(update)


def scale_to_progress(desired: Number, largest: Number = jnp.inf) -> Gradient:
    """Scale by min(desired / ‖g‖², largest): a linear objective then rises by `desired` per step.

    Yosinski, Clune, Nguyen, Fuchs & Lipson, Understanding Neural Networks Through Deep Visualization, 2015
    (its code). The sign stays: chain it with `optax.scale(-1)`.

    >>> step = scale_to_progress(1.0)
    >>> [round(v, 3) for v in step.update(jnp.asarray([3.0, 4.0]), step.init(None))[0].tolist()]
    [0.12, 0.16]
    """

    def update(updates: Any, params: Any) -> Any:
        del params
        squared = optax.tree.norm(updates, squared=True)
        rate = jnp.asarray(desired, squared.dtype) / jnp.where(squared > 0, squared, jnp.ones_like(squared))
        rate = jnp.minimum(rate, jnp.asarray(largest, squared.dtype))
        return jax.tree.map(lambda g: rate * g, updates)

    return optax.stateless(update)


def then(function: Callable[[Any], Any]) -> Gradient:
    """Apply a function to the picture after the update: x ← f(x + u).

    >>> step = then(lambda x: jnp.clip(x, 0, 1))
    >>> step.update(jnp.asarray([2.0]), step.init(None), jnp.asarray([0.25]))[0].tolist()
    [0.75]
    """

    def update(updates: Any, params: Any) -> Any:
        after = function(optax.apply_updates(params, updates))
        return jax.tree.map(jnp.subtract, after, params)

    return optax.stateless(update)


def keep_in_box(low: Number = 0.0, high: Number = 1.0) -> Gradient:
    """Clip the picture to [low, high]."""

    def cut(x: Array) -> Array:
        return jnp.clip(x, jnp.asarray(low, x.dtype), jnp.asarray(high, x.dtype))

    return then(lambda params: jax.tree.map(cut, params))


def decay_to(center: Any, rate: Number) -> Gradient:
    """Pull the picture towards a colour: x ← x − rate (x − center), the L2 decay of Yosinski et al., 2015."""

    def pulled(x: Array) -> Array:
        middle = _like(center, x)
        return middle + (1 - jnp.asarray(rate, x.dtype)) * (x - middle)

    return then(lambda params: jax.tree.map(pulled, params))


class Counted(NamedTuple):
    """The number of updates so far."""

    updates: Int[Array, ""]


def blur_every(sigma: Number, every: Number, *, radius: int = 4) -> Gradient:
    """Blur the picture in steps 0, every, 2·every, ...; never if `every` or σ is 0.

    Yosinski et al., 2015, Gaussian blur. The kernel is cut at `radius` pixels: give 4 σ or more.
    """

    def init(params: Any) -> Counted:
        del params
        return Counted(jnp.zeros((), jnp.int32))

    def update(updates: Any, state: Counted, params: Any = None) -> tuple[Any, Counted]:
        period = jnp.asarray(every, jnp.int32)
        due = (period > 0) & (state.updates % jnp.maximum(period, 1) == 0) & (jnp.asarray(sigma) > 0)
        positive = jnp.maximum(jnp.asarray(sigma, float), 1e-3)

        def blurred(x: Array) -> Array:
            smooth = gaussian_blur(x, positive.astype(x.dtype), radius=radius)
            return jnp.where(due, smooth, x)

        after = jax.tree.map(blurred, optax.apply_updates(params, updates))
        return jax.tree.map(jnp.subtract, after, params), Counted(state.updates + 1)

    return optax.GradientTransformation(init, update)  # type: ignore[arg-type]  # a state of our own


def clip_small_norm(percentile: Number, center: Any = 0.0) -> Gradient:
    """Set the percentage of pixels with the smallest norm ‖x_ij − center‖ to the centre.

    Yosinski et al., 2015: without unimportant pixels, the picture shows the object alone.
    """

    def clipped(x: Array) -> Array:
        middle = _like(center, x)
        norm = jnp.linalg.norm(x - middle, axis=-1)
        return _without_smallest(x, norm, percentile, middle)

    return then(lambda params: jax.tree.map(clipped, params))


def clip_small_contribution(percentile: Number, center: Any = 0.0) -> optax.GradientTransformationExtraArgs:
    """Set the pixels with the smallest contribution |Σ_c g_ijc (x_ijc − center_c)| to the centre.

    Yosinski et al., 2015: the contribution is the drop of the objective, to first order, without the pixel.
    The gradient is that before the update, the picture that after it.
    """

    def update(updates: Any, state: Any, params: Any = None, *, grad: Any, **_: Any) -> tuple[Any, Any]:
        def clipped(x: Array, g: Array) -> Array:
            middle = _like(center, x)
            contribution = jnp.abs((g * (x - middle)).sum(axis=-1))
            return _without_smallest(x, contribution, percentile, middle)

        after = jax.tree.map(clipped, optax.apply_updates(params, updates), grad)
        return jax.tree.map(jnp.subtract, after, params), state

    return optax.GradientTransformationExtraArgs(
        lambda params: optax.EmptyState(),
        update,  # type: ignore[arg-type]  # it takes the gradient
    )


class Averaged(NamedTuple):
    """The state of an optimizer with averaged iterates."""

    inner: Any
    total: Any
    """Σ_t (1 − d) d^(T − t) x_t"""
    weight: Float[Array, ""]
    """The sum of the weights, 1 − d^T."""


def average_iterates(optimizer: Gradient, decay: Number) -> optax.GradientTransformationExtraArgs:
    """Also keep the mean of the iterates, m_T = Σ_t d^(T − t) x_t / Σ_t d^(T − t); the steps stay equal.

    Polyak & Juditsky, Acceleration of Stochastic Approximation by Averaging, 1992. `averaged` gives the mean.

    >>> step = average_iterates(optax.sgd(1.0), 0.5)
    >>> memory = step.init(x := jnp.asarray([4.0]))
    >>> for _ in range(2):
    ...     update, memory = step.update(jnp.asarray([1.0]), memory, x)
    ...     x = x + update
    >>> round(float(averaged(memory)[0]), 4), float(x[0])
    (2.3333, 2.0)
    """
    optimizer = optax.with_extra_args_support(optimizer)

    def init(params: Any) -> Averaged:
        weight = jnp.zeros((), jax.tree.leaves(params)[0].dtype)
        return Averaged(optimizer.init(params), jax.tree.map(jnp.zeros_like, params), weight)

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Averaged]:
        updates, inner = optimizer.update(updates, state.inner, params, **extra)
        d = jnp.asarray(decay, state.weight.dtype)

        def mixed(total: Array, x: Array) -> Array:
            return d.astype(x.dtype) * total + (1 - d.astype(x.dtype)) * x

        total = jax.tree.map(mixed, state.total, optax.apply_updates(params, updates))
        return updates, Averaged(inner, total, d * state.weight + (1 - d))

    return optax.GradientTransformationExtraArgs(init, update)


def averaged(memory: Averaged) -> Any:
    """Return the mean of the iterates of `average_iterates`; zeros before the first step."""
    weight = jnp.where(memory.weight > 0, memory.weight, jnp.ones_like(memory.weight))
    return jax.tree.map(lambda total: total / weight.astype(total.dtype), memory.total)


def _like(center: Any, x: Array) -> Array:
    return jnp.broadcast_to(jnp.asarray(center, x.dtype), x.shape)


def _without_smallest(x: Array, of: Array, percentile: Number, center: Array) -> Array:
    """Replace the pixels whose value `of` lies below its percentile; 0 replaces none."""
    limit = jnp.percentile(of, jnp.asarray(percentile, of.dtype))
    return jnp.where((of < limit)[..., None], center, x)
