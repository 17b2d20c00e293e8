"""Auto-PGD: projected gradient descent that chooses its own step sizes.

Croce & Hein, Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-free
Attacks, 2020, sections 3 (algorithm 1) and 4 (the difference of logits ratio).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int
from optax.losses import softmax_cross_entropy_with_integer_labels

from vizsynth.core.chunks import check_count
from vizsynth.core.entry import entry
from vizsynth.synthesis.attacks.adversarial import (
    STARTS,
    Ball,
    Radius,
    along,
    best_other,
    check_attack,
    check_range,
    check_start,
    class_count,
    linf_ball,
    logits_of,
    one_an_image,
    reached,
    stream,
    where,
    widened,
    within,
)
from vizsynth.types import Images, Keys, Labels, Logits, Network

Numbers = Float[Array, " n"]
Loss = Callable[[Logits, Labels], Numbers]

RHO = 0.75
"""The share of steps between two checkpoints that must have raised the loss."""
ALPHA = 0.75
"""The weight of a step beside that of the one before it."""


def checkpoints(steps: int) -> tuple[int, ...]:
    """Return after how many steps the step size is looked at (section 3.1, in the authors' rounding).

    The first time after 0.22 N steps, then after periods shorter by 0.03 N each, down to 0.06 N.

    >>> checkpoints(100)
    (22, 41, 57, 70, 80, 87, 93, 99)
    """
    period = max(int(0.22 * steps), 1)
    shorter, least = max(int(0.03 * steps), 1), max(int(0.06 * steps), 1)
    found = []
    at = period
    while at <= steps:
        found.append(at)
        period = max(period - shorter, least)
        at += period
    return tuple(found)


class _State(NamedTuple):
    """A run: x, the point before it, the best point, and what is known since the last checkpoint."""

    step: Int[Array, ""]
    x: Images
    before: Images
    g: Images
    loss: Numbers
    best: Images
    best_g: Images
    best_loss: Numbers
    eta: Numbers
    rises: Int[Array, " n"]
    best_at_check: Numbers
    halved: Bool[Array, " n"]
    fooled: Bool[Array, " n"]


class _Found(NamedTuple):
    """The best of all restarts."""

    images: Images
    loss: Numbers
    fooled: Bool[Array, " n"]


def _apgd(
    net: Network,
    images: Images,
    labels: Labels,
    loss: Loss,
    *,
    epsilon: Radius,
    ball: Ball,
    steps: int,
    restarts: int,
    targeted: bool,
    key: Keys | None,
    start: Images | None,
) -> Images:
    n, dtype = len(images), images.dtype
    checks = checkpoints(steps)
    is_check = np.zeros(steps, bool)
    period = np.ones(steps, np.int32)
    for before, at in zip((0, *checks), checks, strict=False):
        is_check[at - 1], period[at - 1] = True, at - before
    enough = jnp.asarray(RHO * period, dtype)
    epsilons = one_an_image(epsilon, images)

    def into(x: Images) -> Images:
        return within(ball, x, images, epsilon)

    def look(x: Images) -> tuple[Numbers, Bool[Array, " n"], Images]:
        def summed(x: Images) -> tuple[Float[Array, ""], tuple[Numbers, Bool[Array, " n"]]]:
            logits = logits_of(net, x)
            losses = loss(logits, labels).astype(dtype)
            return losses.sum(), (losses, reached(logits, labels, targeted))

        (_, (losses, fooled)), g = jax.value_and_grad(summed, has_aux=True)(x)
        return losses, fooled, g

    def step(s: _State) -> _State:
        z = into(along(s.x, s.eta, jax.vmap(ball.steepest)(s.g)))
        at, before, z = widened(s.x), widened(s.before), widened(z)
        a = jnp.where(s.step > 0, jnp.asarray(ALPHA, z.dtype), jnp.asarray(1, z.dtype))
        x = where(s.fooled, s.x, into(at + a * (z - at) + (1 - a) * (at - before)))
        losses, fooled, g = look(x)
        better = ~s.fooled & (losses > s.best_loss)
        best, best_g = where(better, x, s.best), where(better, g, s.best_g)
        best_loss = jnp.where(better, losses, s.best_loss)
        rises = s.rises + (losses > s.loss).astype(jnp.int32)

        check = jnp.asarray(is_check)[s.step]
        slow = rises.astype(dtype) <= enough[s.step]
        idle = ~s.halved & (s.best_at_check >= best_loss)
        halve = check & (slow | idle)
        return _State(
            s.step + 1,
            where(halve & ~fooled, best, x),
            s.x,
            where(halve, best_g, g),
            jnp.where(halve, best_loss, losses),
            best,
            best_g,
            best_loss,
            jnp.where(halve, s.eta / 2, s.eta),
            jnp.where(check, jnp.zeros_like(rises), rises),
            jnp.where(check, best_loss, s.best_at_check),
            jnp.where(check, halve, s.halved),
            s.fooled | fooled,
        )

    def going_on(s: _State) -> Bool[Array, ""]:
        return (s.step < steps) & ~s.fooled.all()

    keys = stream(key, n, STARTS)

    def first_point(restart: Int[Array, ""]) -> Images:
        if start is not None:
            return into(start.astype(dtype))
        if keys is None:
            return images

        def on_the_border(key: Array) -> Array:
            t = ball.uniform(jax.random.fold_in(key, restart), images.shape[1:])
            return t / ball.norm(t)

        return into(along(images, epsilons, jax.vmap(on_the_border)(keys)))

    def run(restart: Int[Array, ""], found: _Found) -> _Found:
        x = where(found.fooled, found.images, first_point(restart))
        losses, fooled, g = look(x)
        nothing = jnp.zeros_like(losses, jnp.int32)
        begin = _State(
            jnp.zeros((), jnp.int32),
            x,
            x,
            g,
            losses,
            x,
            g,
            losses,
            2 * epsilons,
            nothing,
            losses,
            nothing == 0,
            found.fooled | fooled,
        )
        end = lax.while_loop(going_on, step, begin)
        newly = end.fooled & ~found.fooled
        better = newly | (~end.fooled & (end.best_loss > found.loss))
        result = where(end.fooled, end.x, end.best)
        return _Found(
            where(better, result, found.images), jnp.where(better, end.best_loss, found.loss), end.fooled
        )

    nowhere = jnp.full_like(images, -jnp.inf, shape=(n,))
    found = _Found(images, nowhere, reached(logits_of(net, images), labels, targeted))
    return lax.fori_loop(0, restarts, run, found).images


def _check(
    net: Any,
    images: Array,
    epsilon: Any,
    ball: Any,
    steps: int,
    restarts: int,
    key: Any,
    start: Any,
) -> None:
    check_count(steps, "steps")
    check_count(restarts, "restarts")
    if not isinstance(ball, Ball):
        raise TypeError(f"ball must be vizsynth.linf_ball or vizsynth.l2_ball, not {ball!r}")
    check_start(start, images)
    if restarts > 1 and (key is None or start is not None):
        raise ValueError(
            f"{restarts} restarts begin at random points: give key=jax.random.key(seed), and no start"
        )
    check_attack(net, images, {"epsilon": epsilon}, ball=ball, key=key)


def _check_dlr(
    net: Any, images: Array, epsilon: Any, ball: Any, steps: int, restarts: int, key: Any, start: Any
) -> None:
    _check(net, images, epsilon, ball, steps, restarts, key, start)
    if (classes := class_count(net, images)) < 3:
        raise ValueError(
            f"the ratio compares 3 classes, and the network has {classes}; "
            "use apgd_ce, whose loss takes any number"
        )


def difference_of_logits_ratio(logits: Logits, labels: Labels) -> Numbers:
    """Return −(z_y − max_{i ≠ y} z_i) / (z_π1 − z_π3), π the order of the logits, largest first (eq. 6)."""
    mine = jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
    largest = lax.top_k(logits, 3)[0]
    # The floor is the authors': equal logits do not divide by zero.
    return -(mine - best_other(logits, labels)) / (largest[:, 0] - largest[:, 2] + 1e-12)


@entry(static=("ball", "steps", "restarts", "targeted"), check=_check, check_images=check_range, many=True)
def apgd_ce(
    net: Network,
    images: Images,
    labels: Labels,
    *,
    epsilon: Radius,
    ball: Ball = linf_ball,
    steps: int = 100,
    restarts: int = 1,
    targeted: bool = False,
    key: Keys | None = None,
    start: Images | None = None,
) -> Images:
    """Return the images moved by z = P(x + η d), x ← P(x + α(z − x) + (1 − α)(x − x_before)) (algorithm 1).

    The cross entropy rises along d, the steepest direction of the ball's norm; P projects on the ball, then
    on [0, 1]; α = 0.75, and 1 in the first step. The step size η begins at 2 ε and is halved, and x goes
    back to the best point so far, at a checkpoint where at most ρ = 0.75 of the steps since the last one
    raised the loss, or where neither η nor the largest loss has changed since then.

    Args:
        epsilon: ε ≥ 0, the radius of the ball, in units of intensity; one for all, or one an image.
        ball: `vizsynth.linf_ball` or `vizsynth.l2_ball`.
        steps: N; the authors take 100. `vizsynth.synthesis.attacks.apgd.checkpoints` lists the checkpoints.
        restarts: how many runs; the later ones are for those images which the earlier ones did not fool.
        targeted: the labels are those to reach; the cross entropy falls.
        key: for the random starts, on the border of the ball: one for all images, or one an image. None
            starts at the images.
        start: images `[n, h, w, 3]` to start from in place of the random point.

    Returns:
        The images in [0, 1]: the first iterate that is not given its label (where targeted: that is), and
        where there is none, the one with the largest loss of all restarts. Departures: the authors return
        the last such iterate, and an image that is never fooled as it was; their program, and torchattacks'
        `APGD`, compare the first loss with 0, and the loss after going back with that of the point that was
        left, where the paper, and ours, compare with the point that was gone back to. torchattacks' default
        is 10 steps.

    Raises:
        TypeError, ValueError: images outside [0, 1], labels or a key that cannot be taken; epsilon
            below 0; steps or restarts below 1; restarts without a key.

    Example:
        >>> import jax, vizsynth
        >>> from vizsynth.models.sequential import Conv, GlobalMean
        >>> net = vizsynth.models.sequential([Conv(8), GlobalMean()], key=jax.random.key(0))
        >>> images = jax.random.uniform(jax.random.key(1), (1, 16, 16, 3))
        >>> vizsynth.apgd_ce(net, images, 3, epsilon=4 / 255, steps=5, key=jax.random.key(2)).shape
        (1, 16, 16, 3)
    """

    def loss(logits: Logits, labels: Labels) -> Numbers:
        J = softmax_cross_entropy_with_integer_labels(logits, labels)
        return -J if targeted else J

    return _apgd(
        net,
        images,
        labels,
        loss,
        epsilon=epsilon,
        ball=ball,
        steps=steps,
        restarts=restarts,
        targeted=targeted,
        key=key,
        start=start,
    )


@entry(static=("ball", "steps", "restarts"), check=_check_dlr, check_images=check_range, many=True)
def apgd_dlr(
    net: Network,
    images: Images,
    labels: Labels,
    *,
    epsilon: Radius,
    ball: Ball = linf_ball,
    steps: int = 100,
    restarts: int = 1,
    key: Keys | None = None,
    start: Images | None = None,
) -> Images:
    """Return what `apgd_ce` does, for the loss −(z_y − max_{i ≠ y} z_i) / (z_π1 − z_π3), DLR (section 4.2).

    The ratio does not change when the logits are scaled or shifted: a network with large logits, whose cross
    entropy has no gradient to speak of, is attacked as any other.

    Args and Returns: as for `apgd_ce`. It has no target: the authors' targeted ratio is another loss.

    Raises:
        TypeError, ValueError: as for `apgd_ce`; fewer than 3 classes.

    Example:
        >>> import jax, vizsynth
        >>> from vizsynth.models.sequential import Conv, GlobalMean
        >>> net = vizsynth.models.sequential([Conv(8), GlobalMean()], key=jax.random.key(0))
        >>> images = jax.random.uniform(jax.random.key(1), (1, 16, 16, 3))
        >>> vizsynth.apgd_dlr(net, images, 3, epsilon=4 / 255, steps=5, key=jax.random.key(2)).shape
        (1, 16, 16, 3)
    """
    return _apgd(
        net,
        images,
        labels,
        difference_of_logits_ratio,
        epsilon=epsilon,
        ball=ball,
        steps=steps,
        restarts=restarts,
        targeted=False,
        key=key,
        start=start,
    )
