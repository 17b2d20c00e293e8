"""Pictures between two features: how they mix.

Olah, Mordvintsev & Schubert, Feature Visualization, 2017, section "Interaction between Neurons".
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from vizsynth import scores
from vizsynth.core.entry import as_score, entry
from vizsynth.synthesis.features.pictures import (
    USUAL,
    Optimization,
    Size,
    check_pictures,
    check_together,
    maximize_together,
)
from vizsynth.types import Activations, Key, Network, Synthesis, Target

_FARTHEST = 4
_DECAY = 2.0


def disagreement(values: Float[Array, "n ..."]) -> Float[Array, ""]:
    """Return Σ_{d=1..4} Σ_i mean (A_i − A_{i+d})² / 2^d: how unlike pictures are that stand near each other.

    >>> float(disagreement(jnp.asarray([[0.0], [1.0], [3.0]])))
    4.75
    """
    flat = values.reshape(values.shape[0], -1)
    total = jnp.zeros((), flat.dtype)
    for d in range(1, min(_FARTHEST, len(flat) - 1) + 1):
        away = flat[d:] - flat[:-d]
        total = total + (away * away).mean(axis=1).sum() / jnp.asarray(_DECAY**d, flat.dtype)
    return total


def _check(
    net: Any,
    first: Any,
    second: Any,
    layer: str,
    count: int,
    key: Any,
    steps: int,
    size: Size,
    optimization: Optimization,
    state: Any,
) -> None:
    some_key = key if state is None else state.key
    for target in (as_score(first, net, None), as_score(second, net, None)):
        if (asked := scores.count(target)) is not None:
            raise ValueError(f"pictures lie between two targets: each is one, not {asked}")
        check_pictures(net, target, size, optimization.transform, steps, None, some_key)
    check_pictures(net, scores.LayerNorm(layer), size, optimization.transform, steps, state, key)
    check_together(count, state)


@entry(static=("layer", "count", "steps", "size"), check=_check, many=True)
def interpolate(
    net: Network,
    first: Target,
    second: Target,
    *,
    layer: str,
    count: int = 5,
    alignment: float | Array = 0.01,
    key: Key | None = None,
    steps: int = 256,
    size: Size = 128,
    optimization: Optimization = USUAL,
    state: Any = None,
) -> Synthesis:
    """Maximize Σ_i [(1 − t_i) s(x_i) + t_i s′(x_i)] − λ Σ_{d=1..4} Σ_i mean (A_i − A_{i+d})² / 2^d.

    The n pictures lie at t_i = i / (n − 1) between the two scores.

    Args:
        first: s, the score (or label) of the first picture.
        second: s′, that of the last.
        layer: A, whose activations are to be alike in neighbouring pictures, so that the same thing stands at
            the same place.
        count: n, how many pictures.
        alignment: λ. The penalty goes by the square of the activations: give less where these are large.
        size: of the pictures: a side, or (height, width).
        optimization: the parametrization, transforms and optimizer (`vizsynth.Optimization`).

    Returns:
        The pictures `[count, size, size, 3]` in [0, 1], from the first to the second, the one objective at
        each step, `[1, steps]`, and the one state. This is Lucid's
        `channel_interpolate(...) + λ alignment(layer)`.

    Raises:
        TypeError, ValueError: targets or a layer that the network does not have; fewer than two pictures; no
            key, or several; pictures too small for the network.

    Example:
        >>> import jax, vizsynth
        >>> from vizsynth.scores import Channel
        >>> net = vizsynth.load("squeezenet1_1")
        >>> a, b = Channel("conv1", 7), Channel("conv1", 8)
        >>> options = {"layer": "relu1", "count": 3, "steps": 2, "size": 32}
        >>> vizsynth.interpolate(net, a, b, key=jax.random.key(0), **options).images.shape
        (3, 32, 32, 3)
    """
    ends = as_score(first, net, None), as_score(second, net, None)

    def objective(activations: Activations) -> Float[Array, ""]:
        before, after = (score(activations) for score in ends)
        t = jnp.arange(count, dtype=before.dtype) / (count - 1)
        value = ((1 - t) * before + t * after).sum()
        return value - jnp.asarray(alignment, value.dtype) * disagreement(activations[layer])

    return maximize_together(
        net,
        objective,
        tuple(dict.fromkeys((*ends[0].layers, *ends[1].layers, layer))),
        count=count,
        key=key,
        steps=steps,
        size=size,
        parametrization=optimization.parametrization,
        transform=optimization.transform,
        optimizer=optimization.transformation(),
        state=state,
    )
