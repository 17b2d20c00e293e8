"""Diverse pictures of one feature: several that excite it, and are unlike one another.

Olah, Mordvintsev & Schubert, Feature Visualization, 2017, section "Diversity": what a feature answers to is
often of several kinds, and one picture shows one of them.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from vizsynth import scores
from vizsynth.core.entry import entry
from vizsynth.synthesis.features.pictures import (
    USUAL,
    Optimization,
    Size,
    check_pictures,
    check_together,
    maximize_together,
)
from vizsynth.types import Activations, Key, Network, Synthesis, Target

_LEAST_SQUARE = 1e-10


def likeness(values: Float[Array, "n ... c"]) -> Float[Array, ""]:
    """Return Σ_{i≠j} ⟨G_i, G_j⟩ / n of the Gram matrices G_i = A_iᵀ A_i, each divided by its norm.

    All pairs at once: Σ_{i≠j} ⟨G_i, G_j⟩ = ‖Σ_i G_i‖² − Σ_i ‖G_i‖². It lies in [0, n − 1] after a ReLU.

    >>> float(likeness(jnp.asarray([[1.0, 0.0], [0.0, 2.0]]))), float(likeness(jnp.ones((3, 2))))
    (0.0, 2.0)
    """
    n, channels = values.shape[0], values.shape[-1]
    flat = values.reshape(n, -1, channels)
    grams = jnp.einsum("npc,npd->ncd", flat, flat, precision="highest").reshape(n, -1)
    squares = (grams * grams).sum(axis=1, keepdims=True)
    grams = grams / jnp.sqrt(jnp.maximum(squares, jnp.asarray(_LEAST_SQUARE, grams.dtype)))
    together = grams.sum(axis=0)
    return ((together * together).sum() - (grams * grams).sum()) / n


def _check(
    net: Any,
    target: Any,
    layer: str,
    count: int,
    key: Any,
    steps: int,
    size: Size,
    optimization: Optimization,
    state: Any,
) -> None:
    check_pictures(
        net, target, size, optimization.transform, steps, None, key if state is None else state.key
    )
    check_pictures(net, scores.LayerNorm(layer), size, optimization.transform, steps, state, key)
    check_together(count, state)
    if (asked := scores.count(target)) is not None:
        raise ValueError(f"diverse pictures are of one target, not of {asked}")


@entry(static=("layer", "count", "steps", "size"), check=_check, many=True)
def visualize_diverse(
    net: Network,
    target: Target,
    *,
    layer: str,
    count: int = 4,
    diversity: float | Array = 100.0,
    key: Key | None = None,
    steps: int = 256,
    size: Size = 128,
    optimization: Optimization = USUAL,
    state: Any = None,
) -> Synthesis:
    """Maximize mean_i s(x_i) − λ Σ_{i≠j} ⟨G_i, G_j⟩ / n over n pictures.

    G_i = A_iᵀ A_i / ‖A_iᵀ A_i‖ is the Gram matrix of a layer.

    Args:
        target: one score, or one label.
        layer: whose Gram matrices (the style of the pictures) are to differ.
        count: n, how many pictures.
        diversity: λ. A score is as large as the network's activations are: where the pictures are alike,
            give more; where they no longer show the feature, less.
        size: of the pictures: a side, or (height, width).
        optimization: the parametrization, transforms and optimizer (`vizsynth.Optimization`).

    Returns:
        The pictures `[count, size, size, 3]` in [0, 1], the one objective at each step, `[1, steps]`, and the
        one state. They depend on one another, so another count gives other pictures. This is
        `channel(...) - 1e2 * diversity(layer)` of Lucid.

    Raises:
        TypeError, ValueError: a target or layer that the network does not have; several targets; fewer than
            two pictures; no key, or several; pictures too small for the network.

    Example:
        >>> import jax, vizsynth
        >>> from vizsynth.scores import Channel
        >>> net = vizsynth.load("squeezenet1_1")
        >>> options = {"layer": "relu1", "count": 2, "steps": 2, "size": 32}
        >>> made = vizsynth.visualize_diverse(net, Channel("conv1", 7), key=jax.random.key(0), **options)
        >>> made.images.shape, made.trace.shape
        ((2, 32, 32, 3), (1, 2))
    """

    def objective(activations: Activations) -> Float[Array, ""]:
        value = target(activations).mean()
        return value - jnp.asarray(diversity, value.dtype) * likeness(activations[layer])

    return maximize_together(
        net,
        objective,
        tuple(dict.fromkeys((*target.layers, layer))),
        count=count,
        key=key,
        steps=steps,
        size=size,
        parametrization=optimization.parametrization,
        transform=optimization.transform,
        optimizer=optimization.transformation(),
        state=state,
    )
