"""Fooling images: a photo is changed, hardly to be seen, until the network says another class.

Szegedy et al., Intriguing properties of neural networks, 2013, section 4, found that it can be done; the
recipe is the one taught since: ascend the other class's logit, in steps of one length, until it is first.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from vizsynth.core.chunks import check_count
from vizsynth.core.entry import entry, is_on_host
from vizsynth.synthesis.attacks.adversarial import best_other, check_classes, l2_norm, logits_of, where
from vizsynth.types import Images, Labels, Network, Synthesis


class Fooled(NamedTuple):
    """Where the fooling of images stands."""

    images: Images
    step: Int[Array, " n"]
    """How many steps were taken: the number that was needed where it is fooled."""
    fooled: Bool[Array, " n"]


def _check(net: Any, images: Array, steps: int, step_size: Any) -> None:
    check_count(steps, "steps")
    check_classes(net, images)
    if is_on_host(step_size) and not (np.asarray(step_size) > 0).all():
        raise ValueError(f"step_size must be above 0, not {step_size}")


@entry(static=("steps",), check=_check, many=True)
def fool(
    net: Network,
    images: Images,
    labels: Labels | Any,
    *,
    steps: int = 100,
    step_size: float | Array = 0.5,
    rival: float | Array = 1.0,
    margin: float | Array = 0.0,
    state: Fooled | None = None,
) -> Synthesis:
    """Take steps x ← clip(x + η g / ‖g‖₂), g = ∂(S_t − ρ max_{k ≠ t} S_k) / ∂x, until class t is first.

    Each image stops by itself when it is fooled; once all are, what is left of the steps costs nothing.

    Args:
        labels: t, the class that each image shall be taken for: one for all, or one an image.
        step_size: η, the Euclidean length of a step, all pixels together, on pixels of 0..1.
        rival: ρ. The recipe as it is taught is ρ = 0, the logit alone: it then happens that a class like t
            rises faster than t itself.
        margin: by how much the logit of t must exceed all others.

    Returns:
        The images `[n, h, w, 3]`, the objective at the beginning of each step (that of the last step from
        there on), and the state: `state.fooled`, and `state.step`, how many steps each image took. An image
        that is of class t to begin with is returned as it is. Where a step would not be finite, the image
        stays what it was before, and its trace is NaN.

    Raises:
        TypeError, ValueError: images or labels that the network cannot take; a step of no length.

    Example:
        >>> import jax, vizsynth
        >>> from vizsynth.models.sequential import Conv, GlobalMean
        >>> net = vizsynth.models.sequential([Conv(8), GlobalMean()], key=jax.random.key(0))
        >>> images = jax.random.uniform(jax.random.key(1), (2, 16, 16, 3))
        >>> vizsynth.fool(net, images, [3, 7], steps=2).images.shape
        (2, 16, 16, 3)
    """
    n = len(images)
    labels = jnp.broadcast_to(labels, (n,))

    def score(x: Images) -> tuple[Array, tuple[Float[Array, " n"], Bool[Array, " n"]]]:
        logits = logits_of(net, x)
        wanted = jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
        others = best_other(logits, labels)
        values = wanted - jnp.asarray(rival, logits.dtype) * others
        return values.sum(), (values, wanted > others + jnp.asarray(margin, logits.dtype))

    def step(state: Fooled) -> tuple[Fooled, Float[Array, " n"]]:
        g, (values, reached) = jax.grad(score, has_aux=True)(state.images)
        norm = jax.vmap(l2_norm)(g)[:, None, None, None]
        moved = state.images + jnp.asarray(step_size, g.dtype) * g / jnp.where(norm > 0, norm, 1)
        sound = jnp.isfinite(moved).all(axis=(1, 2, 3)) & jnp.isfinite(values)
        fooled = state.fooled | (reached & sound)
        go = sound & jnp.logical_not(fooled)
        after = where(go, jnp.clip(moved, 0, 1), state.images)
        values = jnp.where(sound, values, jnp.nan)
        return Fooled(after, state.step + go.astype(jnp.int32), fooled), values

    def unless_done(carry: tuple[Fooled, Array], _: None) -> tuple[tuple[Fooled, Array], Array]:
        state, last = carry
        state, values = jax.lax.cond(state.fooled.all(), lambda state: (state, last), step, state)
        return (state, values), values

    if state is None:
        zeros = jnp.zeros_like(images, jnp.int32, shape=(n,))
        state = Fooled(images, zeros, zeros > 0)
    _, (values, _) = score(state.images)  # the trace of those that are all fooled already
    (state, _), trace = jax.lax.scan(unless_done, (state, values), None, length=steps)
    _, (_, reached) = score(state.images)  # the last step has not been looked at yet
    return Synthesis(state.images, trace.T, state._replace(fooled=state.fooled | reached))


def magnified(before: Images, after: Images, *, factor: float = 10.0) -> Images:
    """Return ½ + factor (x' − x), the perturbation made visible: grey is no change.

    >>> import jax.numpy as jnp
    >>> float(magnified(jnp.zeros((1, 1, 1, 3)), jnp.full((1, 1, 1, 3), 0.025))[0, 0, 0, 0])
    0.75
    """
    return jnp.clip(0.5 + factor * (after - before), 0, 1)
