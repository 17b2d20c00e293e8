"""The L2 attack of Carlini and Wagner.

Carlini & Wagner, Towards Evaluating the Robustness of Neural Networks, 2016, sections V and VI.A.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from vizsynth.core.chunks import check_count
from vizsynth.core.entry import entry, is_on_host
from vizsynth.synthesis.attacks.adversarial import best_other, check_attack, check_range, logits_of, where
from vizsynth.types import Images, Labels, Logits, Network

Numbers = Float[Array, " n"]

# Keeps the inverse of tanh finite at black and white.
_INSIDE = 0.999999


class _Best(NamedTuple):
    """The nearest adversarial image so far, and the square of its distance."""

    images: Images
    squared_distance: Numbers


class _Descent(NamedTuple):
    """A descent with c held."""

    w: Images
    adam: Any
    succeeded: Bool[Array, " n"]
    best: _Best


class _Search(NamedTuple):
    """The binary search for c."""

    c: Numbers
    low: Numbers
    high: Numbers
    best: _Best


def _check(
    net: Any,
    images: Array,
    searches: int,
    steps: int,
    c: Any,
    learning_rate: Any,
    confidence: Any,
) -> None:
    check_count(searches, "searches")
    check_count(steps, "steps")
    check_attack(net, images, {"c": c, "learning_rate": learning_rate})
    if is_on_host(confidence) and not np.all(np.asarray(confidence) >= 0):
        raise ValueError(f"confidence must not be negative, not {confidence}; the least is 0")


def _margin(logits: Logits, labels: Labels, targeted: bool) -> Numbers:
    """Return how far the goal is: below 0, it is reached."""
    mine = jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
    other = best_other(logits, labels)
    return other - mine if targeted else mine - other


@entry(static=("searches", "steps", "targeted"), check=_check, check_images=check_range, many=True)
def carlini_wagner(
    net: Network,
    images: Images,
    labels: Labels,
    *,
    confidence: float | Array = 0.0,
    searches: int = 9,
    steps: int = 1000,
    learning_rate: float | Array = 0.01,
    c: float | Array = 1e-3,
    targeted: bool = False,
) -> Images:
    """Return the x' = ½(tanh(w) + 1) nearest to x that fools, while ‖x' − x‖₂² + c f(x') is minimized over w.

    f(x') = max(Z_y − max_{i ≠ y} Z_i, −κ), Z the logits; where targeted, max(max_{i ≠ t} Z_i − Z_t, −κ)
    (VI.A). For each image c grows tenfold until it is fooled; then its interval is halved.

    Args:
        labels: y, or where targeted t: one for all images, or one an image.
        confidence: κ, at least 0: by how much the goal must be exceeded.
        searches: how many c are tried for each image.
        steps: of Adam with each c; the paper takes 10,000.
        c: the first c.
        targeted: the labels are those to reach.

    Returns:
        The adversarial images, in [0, 1]; an image that is never fooled, or is fooled as it stands, is
        returned as it is. Departures: the paper starts at random points too; here, as in the authors'
        program, w starts at the image. Theirs, and Foolbox's, may end before the last step where the loss of
        the whole batch stands still; ours takes every step, as an image must not depend on its batch.
        Foolbox's `L2CarliniWagnerAttack` returns a black image where it finds none. torchattacks' `CW` holds
        c = 1, so it is `searches=1, c=1`, and sees a negative logit of a target as 0.

    Raises:
        TypeError, ValueError: images outside [0, 1] or labels that the network cannot take; searches or steps
            below 1; c or learning_rate not above 0; a negative confidence.

    Example:
        >>> import jax, vizsynth
        >>> from vizsynth.models.sequential import Conv, GlobalMean
        >>> net = vizsynth.models.sequential([Conv(8), GlobalMean()], key=jax.random.key(0))
        >>> images = jax.random.uniform(jax.random.key(1), (1, 16, 16, 3))
        >>> labels = net(images).argmax(axis=-1)
        >>> vizsynth.carlini_wagner(net, images, labels, searches=2, steps=3).shape
        (1, 16, 16, 3)
    """
    # At least float32: 0.999999 is 1 in bfloat16.
    precise = images.dtype if jnp.finfo(images.dtype).bits >= 32 else jnp.float32
    x = images.astype(precise)
    kappa = jnp.asarray(confidence, precise)
    w_image = jnp.arctanh((2 * x - 1) * _INSIDE)
    adam = optax.adam(jnp.asarray(learning_rate, precise))

    def distance(logits: Logits) -> Numbers:
        return _margin(logits, labels, targeted).astype(precise) + kappa

    def objective(w: Images, c: Numbers) -> tuple[Float[Array, ""], tuple[Images, Numbers, Numbers]]:
        moved = (jnp.tanh(w) + 1) / 2
        squared = jnp.square(moved - x).sum(axis=(1, 2, 3))
        left = distance(logits_of(net, moved.astype(images.dtype)))
        loss = squared + c * jax.nn.relu(left)  # max(f, −κ) + κ
        return loss.sum(), (moved, squared, left)

    def descend(search: _Search) -> _Descent:
        def step(_: Int[Array, ""], state: _Descent) -> _Descent:
            (_, (moved, squared, left)), g = jax.value_and_grad(objective, has_aux=True)(state.w, search.c)
            with jax.numpy_dtype_promotion("standard"):  # optax raises decays to an integer count
                updates, moments = adam.update(g, state.adam)
            success = left < 0
            nearer = success & (squared < state.best.squared_distance)
            best = _Best(
                where(nearer, moved, state.best.images),
                jnp.where(nearer, squared, state.best.squared_distance),
            )
            w = jnp.asarray(optax.apply_updates(state.w, updates))
            return _Descent(w, moments, state.succeeded | success, best)

        never = jnp.zeros_like(search.c, bool)
        return lax.fori_loop(0, steps, step, _Descent(w_image, adam.init(w_image), never, search.best))

    def try_c(_: Int[Array, ""], search: _Search) -> _Search:
        end = descend(search)
        high = jnp.where(end.succeeded, search.c, search.high)
        low = jnp.where(end.succeeded, search.low, search.c)
        c = jnp.where(jnp.isinf(high), 10 * search.c, (low + high) / 2)
        return _Search(c, low, high, end.best)

    fooled = distance(logits_of(net, images)) < 0
    unbounded = jnp.full_like(x, jnp.inf, shape=(len(x),))
    best = _Best(x, jnp.where(fooled, jnp.zeros_like(unbounded), unbounded))
    first = jnp.full_like(unbounded, c)
    found = lax.fori_loop(0, searches, try_c, _Search(first, jnp.zeros_like(unbounded), unbounded, best))
    return found.best.images.astype(images.dtype)
