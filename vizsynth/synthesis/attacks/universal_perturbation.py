"""Universal adversarial perturbations: one for all images.

Moosavi-Dezfooli, Fawzi, Fawzi & Frossard, Universal Adversarial Perturbations, 2016, section 3 (algorithm 1).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int
from optax.projections import projection_box

from vizsynth.core.chunks import check_count, each, fold
from vizsynth.core.entry import entry, is_on_host
from vizsynth.synthesis.attacks.adversarial import (
    Ball,
    check_attack,
    check_range,
    in_ball,
    linf_ball,
    logits_of,
    radius,
    widened,
)
from vizsynth.synthesis.attacks.deepfool import check_deepfool, nearest_fooling
from vizsynth.types import Image, Images, Key, Labels, Network


def _predicted(net: Network, images: Images, batch_size: int) -> Labels:
    def label(image: Image) -> Int[Array, ""]:
        return logits_of(net, image[None])[0].argmax()

    return each(label, images, batch_size)


def _perturbed(images: Images, perturbation: Image) -> Images:
    return projection_box(images + perturbation[None], 0.0, 1.0)


def _rate(
    net: Network, images: Images, perturbation: Image, labels: Labels, batch_size: int
) -> Float[Array, ""]:
    """Return the share of images that are not given their labels; one chunk at a time is perturbed."""

    def step(count: Array, chunk: tuple[Array, Array], valid: Array) -> Array:
        some, labels = chunk
        changed = logits_of(net, _perturbed(some, perturbation)).argmax(axis=-1) != labels
        return count + (changed & valid).sum()

    count = fold(step, jnp.zeros((), int), (images, labels), batch_size)
    return count.astype(images.dtype) / len(images)


def _check_rate(images: Array, perturbation: Any, batch_size: int) -> None:
    check_count(batch_size, "batch_size")
    if np.shape(perturbation) != images.shape[1:]:
        raise ValueError(
            f"perturbation must have the shape of one image, {images.shape[1:]}, not {np.shape(perturbation)}"
        )


@entry(static=("batch_size",), check=_check_rate, check_images=check_range)
def fooling_rate(
    net: Network, images: Images, *, perturbation: Image, batch_size: int = 32
) -> Float[Array, ""]:
    """Return the share of images with k̂(x + v) ≠ k̂(x), k̂ the predicted class (section 3).

    Args:
        images: float RGB in [0, 1], `[n, h, w, 3]`: x. They need no labels.
        perturbation: v, `[h, w, 3]`. x + v is clipped to [0, 1].

    Returns:
        A number in [0, 1].

    Raises:
        TypeError, ValueError: images outside [0, 1]; a perturbation of another shape.

    Example:
        >>> import jax, vizsynth
        >>> from vizsynth.models.sequential import Conv, GlobalMean
        >>> net = vizsynth.models.sequential([Conv(8), GlobalMean()], key=jax.random.key(0))
        >>> images = jax.random.uniform(jax.random.key(1), (2, 16, 16, 3))
        >>> float(vizsynth.fooling_rate(net, images, perturbation=images[0] * 0))
        0.0
    """
    return _rate(net, images, perturbation, _predicted(net, images, batch_size), batch_size)


class _State(NamedTuple):
    epoch: Int[Array, ""]
    v: Image
    rate: Float[Array, ""]


def _check(
    net: Any,
    images: Array,
    epsilon: Any,
    ball: Any,
    rate: Any,
    epochs: int,
    steps: int,
    candidates: int | None,
    overshoot: Any,
    margin: Any,
    batch_size: int,
) -> None:
    check_count(epochs, "epochs")
    if not isinstance(ball, Ball):
        raise TypeError(f"ball must be vizsynth.linf_ball or vizsynth.l2_ball, not {ball!r}")
    if np.shape(epsilon) != ():
        raise ValueError(f"one perturbation has one epsilon, not an array {np.shape(epsilon)}")
    if is_on_host(rate) and not 0 < float(rate) <= 1:
        raise ValueError(f"rate must be a share above 0 and at most 1, not {rate}")
    check_attack(net, images, {"epsilon": epsilon}, ball=ball)
    check_deepfool(
        net,
        images,
        steps=steps,
        candidates=candidates,
        overshoot=overshoot,
        margin=margin,
        batch_size=batch_size,
    )


@entry(
    static=("ball", "epochs", "steps", "candidates", "batch_size"),
    check=_check,
    check_images=check_range,
    many=True,
)
def universal_perturbation(
    net: Network,
    images: Images,
    *,
    epsilon: float | Array,
    ball: Ball = linf_ball,
    rate: float | Array = 0.8,
    epochs: int = 10,
    steps: int = 10,
    candidates: int | None = None,
    overshoot: float | Array = 0.02,
    margin: float | Array = 1e-4,
    key: Key | None = None,
    batch_size: int = 32,
) -> Image:
    """Return v with ‖v‖ ≤ ξ and k̂(x + v) ≠ k̂(x) for most images x (algorithm 1).

    For each image that v does not yet fool, v ← P(v + Δv), Δv the smallest step, by DeepFool, that takes
    x + v over the nearest boundary; P projects on the ball. All images are gone through again until enough
    are fooled.

    Args:
        images: float RGB in [0, 1], `[n, h, w, 3]`: the set X. The paper sees little gain beyond a few
            thousand, and generalization from 500 on.
        epsilon: ξ ≥ 0, the radius of the ball, in units of intensity; the paper's are 10/255 (L∞) and, for
            L2, 2000/255.
        ball: `vizsynth.linf_ball` or `vizsynth.l2_ball`.
        rate: 1 − δ, the share of images to fool; the paper's is 0.8.
        epochs: at most how often all images are gone through.
        steps, candidates, overshoot, margin: as for `vizsynth.deepfool`.
        key: for the order of the images, drawn anew each time. None goes through them as they come.
        batch_size: how many images, or classes' gradients, are run at once.

    Returns:
        The perturbation v, `[h, w, 3]`: add it to images and clip to [0, 1]; `vizsynth.fooling_rate` measures
        it. Departures: x + v is clipped to [0, 1] before the network sees it; as in the authors' program, a
        Δv that does not fool is not added.

    Raises:
        TypeError, ValueError: images outside [0, 1]; epsilon below 0; a rate not in (0, 1]; epochs or
            steps below 1; more candidates than classes.

    Example:
        >>> import jax, vizsynth
        >>> from vizsynth.models.sequential import Conv, GlobalMean
        >>> net = vizsynth.models.sequential([Conv(8), GlobalMean()], key=jax.random.key(0))
        >>> images = jax.random.uniform(jax.random.key(1), (2, 16, 16, 3))
        >>> options = {"epochs": 1, "steps": 2, "candidates": 2}
        >>> vizsynth.universal_perturbation(net, images, epsilon=10 / 255, **options).shape
        (16, 16, 3)
    """
    n = len(images)
    labels = _predicted(net, images, batch_size)
    xi = radius(epsilon, images.dtype)
    nothing = jnp.zeros(images.shape[1:], images.dtype)

    def fool_one_more(i: Int[Array, ""], state: tuple[Image, Array]) -> tuple[Image, Array]:
        v, order = state
        which = order[i]
        label, x = labels[which][None], _perturbed(images[which][None], v)
        # Where v fools the image already, this is x itself.
        further, fooled = nearest_fooling(
            net,
            x,
            label,
            steps=steps,
            candidates=candidates,
            overshoot=overshoot,
            margin=margin,
            batch_size=batch_size,
        )
        moved = widened(v) + (widened(further) - widened(x))[0]
        return jnp.where(fooled[0], in_ball(ball, moved, nothing, xi), v), order

    def epoch(state: _State) -> _State:
        order = jnp.arange(n)
        if key is not None:
            order = jax.random.permutation(jax.random.fold_in(key, state.epoch), n)
        v = lax.fori_loop(0, n, fool_one_more, (state.v, order))[0]
        return _State(state.epoch + 1, v, _rate(net, images, v, labels, batch_size))

    def going_on(state: _State) -> Array:
        return (state.epoch < epochs) & (state.rate < jnp.asarray(rate, images.dtype))

    return lax.while_loop(
        going_on, epoch, _State(jnp.zeros((), jnp.int32), nothing, jnp.zeros((), images.dtype))
    ).v
