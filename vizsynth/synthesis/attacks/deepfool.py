"""DeepFool: the nearest boundary of the linearized classifier, again and again.

Moosavi-Dezfooli, Fawzi & Frossard, DeepFool: a Simple and Accurate Method to Fool Deep Neural Networks, 2015,
section 3 (algorithm 2).
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int
from optax.projections import projection_box

from vizsynth.core.chunks import check_count, each
from vizsynth.core.entry import entry, is_on_host
from vizsynth.synthesis.attacks.adversarial import (
    check_attack,
    check_range,
    class_count,
    l2_norm,
    logits_of,
    reached,
    times,
    where,
)
from vizsynth.types import Images, Labels, Logits, Network

CANDIDATES = 10
"""How many classes are compared where it is not said."""


def check_deepfool(
    net: Any,
    images: Array,
    *,
    steps: int,
    candidates: int | None,
    overshoot: Any,
    margin: Any,
    batch_size: int,
) -> None:
    """Raise if the attack cannot be made."""
    check_count(steps, "steps")
    check_count(batch_size, "batch_size")
    check_attack(net, images, {})
    for name, value, usual in (("overshoot", overshoot, 0.02), ("margin", margin, 0)):
        if is_on_host(value) and not np.all(np.asarray(value) >= 0):
            raise ValueError(f"{name} must not be negative, not {value}; the paper's is {usual}")
    if candidates is None:
        return
    check_count(candidates, "candidates")
    if candidates < 2:
        raise ValueError("candidates must be at least 2, the label and another class, not 1")
    if candidates > (classes := class_count(net, images)):
        raise ValueError(
            f"candidates must be at most the network's {classes} classes, not {candidates}; "
            f"give candidates={classes}"
        )


class _State(NamedTuple):
    step: Int[Array, ""]
    x: Images
    moved: Images
    """r̂, the sum of the steps."""
    fooled: Bool[Array, " n"]
    """Whether x was given another label when it was last looked at."""
    classes: Int[Array, "n k"]


def _candidates(logits: Logits, labels: Labels, count: int) -> Int[Array, "n k"]:
    """Return each image's label, then the other classes with the largest logits."""
    mine = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
    others = lax.top_k(jnp.where(mine, -jnp.inf, logits), count - 1)[1]
    return jnp.concatenate([labels[:, None].astype(others.dtype), others], axis=1)


def nearest_fooling(
    net: Network,
    images: Images,
    labels: Labels,
    *,
    steps: int,
    candidates: int | None,
    overshoot: float | Array,
    margin: float | Array,
    batch_size: int,
) -> tuple[Images, Bool[Array, " n"]]:
    """Return the images moved until they are not given their labels, and whether they are not."""
    moved = partial(
        _moved,
        steps=steps,
        candidates=candidates or min(CANDIDATES, class_count(net, images)),
        overshoot=overshoot,
        margin=margin,
        batch_size=batch_size,
    )

    def one_by_one(net: Network, images: Images, labels: Labels) -> tuple[Images, Bool[Array, " n"]]:
        def one(given: tuple[Array, Array]) -> tuple[Array, Array]:
            found, fooled = moved(net, given[0][None], given[1][None])
            return found[0], fooled[0]

        return lax.map(one, (images, labels))

    # On a CPU, classes fill the cores, and an image that is fooled does not wait for the slowest.
    return lax.platform_dependent(net, images, labels, cpu=one_by_one, default=moved)


def _moved(
    net: Network,
    images: Images,
    labels: Labels,
    *,
    steps: int,
    candidates: int,
    overshoot: float | Array,
    margin: float | Array,
    batch_size: int,
) -> tuple[Images, Bool[Array, " n"]]:
    f = partial(logits_of, net)
    reach = 1 + jnp.asarray(overshoot, images.dtype)

    def smallest_step(logits: Logits, pull: Any, classes: Int[Array, "n k"]) -> Images:
        def gradient(k: Int[Array, " n"]) -> Images:
            """Return w_k: the difference of two gradients is one backward pass."""
            one_hot = partial(jax.nn.one_hot, num_classes=logits.shape[-1], dtype=logits.dtype)
            return pull(one_hot(k) - one_hot(classes[:, 0]))[0]

        w = each(gradient, classes[:, 1:].T, batch_size)
        values = jnp.take_along_axis(logits, classes, axis=1).T.astype(images.dtype)
        distance = jnp.abs(values[1:] - values[:1])
        norm = jax.vmap(jax.vmap(l2_norm))(w)
        usable = norm > 0  # two classes may have the same gradient: their boundary is nowhere
        safe = jnp.where(usable, norm, jnp.ones_like(norm))
        distance = jnp.where(usable, distance / safe, jnp.inf)
        nearest = distance.argmin(axis=0)[None]

        def pick(values: Array) -> Array:
            return jnp.take_along_axis(values, nearest, axis=0)[0]

        length = distance + jnp.asarray(margin, distance.dtype)
        length = pick(jnp.where(usable, length, jnp.zeros_like(length)) / safe)
        return times(length, jnp.take_along_axis(w, nearest[..., None, None, None], axis=0)[0])

    def step(state: _State) -> _State:
        # One forward pass tells whether the label is gone, and is the one that the gradients go back through.
        logits, pull = jax.vjp(f, state.x)
        fooled = reached(logits, labels, targeted=False)
        # Fixed at the images: the classes to compare with.
        classes = jnp.where(state.step == 0, _candidates(logits, labels, candidates), state.classes)

        def moved() -> tuple[Images, Images]:
            moved = where(fooled, state.moved, state.moved + smallest_step(logits, pull, classes))
            return where(fooled, state.x, projection_box(images + reach * moved, 0.0, 1.0)), moved

        last = fooled.all() | (state.step == steps)
        x, r = lax.cond(last, lambda: (state.x, state.moved), moved)
        return _State(state.step + 1, x, r, fooled, classes)

    def going_on(state: _State) -> Bool[Array, ""]:
        return (state.step <= steps) & ~state.fooled.all()

    none = jnp.zeros_like(images, bool, shape=(len(images),))
    classes = jnp.zeros_like(images, jnp.int32, shape=(len(images), candidates))
    end = lax.while_loop(going_on, step, _State(jnp.int32(0), images, jnp.zeros_like(images), none, classes))
    return end.x, end.fooled


@entry(
    static=("steps", "candidates", "batch_size"), check=check_deepfool, check_images=check_range, many=True
)
def deepfool(
    net: Network,
    images: Images,
    labels: Labels,
    *,
    steps: int = 50,
    candidates: int | None = None,
    overshoot: float | Array = 0.02,
    margin: float | Array = 1e-4,
    batch_size: int = 9,
) -> Images:
    """Return x₀ + (1 + η) Σ_i r_i, r_i = |f_l| / ‖w_l‖₂² w_l at the nearest boundary l of x_i (algorithm 2).

    w_k = ∇f_k(x_i) − ∇f_y(x_i) and f_k = f_k(x_i) − f_y(x_i) for each other class k, and l is that with the
    least |f_k| / ‖w_k‖₂. Each r_i is longer by a margin. An image stops moving as soon as it is not given
    its label.

    Args:
        labels: y: one for all images, or one an image. An image that is not given it stays as it is.
        candidates: how many classes are compared: the label and the others with the largest logits at x₀.
            None is 10, as in the authors' program, or all where there are fewer.
        overshoot: η, at least 0; the paper's is 0.02.
        margin: what is added to the length of each r_i, at least 0, in units of intensity. The paper's is 0;
            the authors' program adds 1e-4, without which an image that stands within rounding of a boundary
            may never cross it.
        batch_size: how many classes' gradients are computed at once; memory grows with it.

    Returns:
        The adversarial images, in [0, 1].
        Departures, as in the authors' program: only the best classes of x₀ are compared, and the
        gradients are taken at x₀ + (1 + η) Σ r, clipped to [0, 1], where it is also seen whether the label
        has changed. Foolbox's `L2DeepFoolAttack` is the same. torchattacks' `DeepFool` compares all classes
        (`candidates` of their number), has no margin, and applies 1 + η to each step from where it stands.

    Raises:
        TypeError, ValueError: images outside [0, 1] or labels that the network cannot take; steps below 1;
            fewer than 2 candidates or more than there are classes; a network of one class; a negative
            overshoot or margin.

    Example:
        >>> import jax, vizsynth
        >>> from vizsynth.models.sequential import Conv, GlobalMean
        >>> net = vizsynth.models.sequential([Conv(8), GlobalMean()], key=jax.random.key(0))
        >>> images = jax.random.uniform(jax.random.key(1), (2, 16, 16, 3))
        >>> vizsynth.deepfool(net, images, net(images).argmax(axis=-1), steps=3, candidates=3).shape
        (2, 16, 16, 3)
    """
    return nearest_fooling(
        net,
        images,
        labels,
        steps=steps,
        candidates=candidates,
        overshoot=overshoot,
        margin=margin,
        batch_size=batch_size,
    )[0]
