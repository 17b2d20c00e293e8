"""Feature visualization: the picture that excites a neuron, a channel, a direction or a layer most of all.

Olah, Mordvintsev & Schubert, Feature Visualization, 2017; the parametrizations are those of Mordvintsev,
Pezzotti, Schubert & Olah, Differentiable Image Parameterizations, 2018. What is maximized is a score of
`vizsynth.scores`: `Neuron`, `Channel`, `Direction` (with a cosine power), `LayerNorm` (the objective of
DeepDream), `Caricature`, a `Class`, or any sum of them.
"""

from typing import Any

from vizsynth.core import chunks
from vizsynth.core.entry import entry
from vizsynth.synthesis.features.pictures import USUAL, Optimization, Size, check_pictures, maximize
from vizsynth.types import Keys, Network, Synthesis, Target


def _check(
    net: Any,
    target: Any,
    key: Any,
    steps: int,
    size: Size,
    optimization: Optimization,
    state: Any,
    batch_size: int | None,
) -> None:
    check_pictures(net, target, size, optimization.transform, steps, state, key)
    if batch_size is not None:
        chunks.check_count(batch_size, "batch_size")


@entry(static=("steps", "size", "batch_size"), check=_check, many=True)
def visualize_feature(
    net: Network,
    target: Target,
    *,
    key: Keys | None = None,
    steps: int = 256,
    size: Size = 128,
    optimization: Optimization = USUAL,
    state: Any = None,
    batch_size: int | None = None,
) -> Synthesis:
    """Maximize s(τ(x(θ))) over θ: the score of a transformed picture, the transform τ another in each step.

    Args:
        target: a score (`vizsynth.scores`); several pictures are made where its numbers are arrays:
            `Channel("relu4_3", jnp.arange(8))`. A label means the logit of its class.
        size: of the pictures: a side, or (height, width).
        optimization: the parametrization, transforms and optimizer (`vizsynth.Optimization`).

    Returns:
        The pictures `[n, size, size, 3]` in [0, 1], the objective at each step and the state. Where a unit is
        dead on the first picture its gradient is zero, and so no picture comes of it: maximize the layer
        before the ReLU then (`conv4_3`), as Lucid does. Departures: Lucid takes 513 steps, lets the gradient
        through dead ReLUs in the first 16 of them, and transforms all pictures of a batch alike.

    Raises:
        TypeError, ValueError: a layer, channel or label that the network does not have; a direction of
            another length; pictures too small for the network; no key.

    Example:
        >>> import jax, vizsynth
        >>> from vizsynth.scores import Channel
        >>> net = vizsynth.load("squeezenet1_1")
        >>> target = Channel("conv1", jax.numpy.arange(2))
        >>> made = vizsynth.visualize_feature(net, target, key=jax.random.key(0), steps=2, size=32)
        >>> made.images.shape, made.trace.shape
        ((2, 32, 32, 3), (2, 2))
    """
    return maximize(
        net,
        target,
        key=key,
        steps=steps,
        size=size,
        parametrization=optimization.parametrization,
        transform=optimization.transform,
        optimizer=optimization.transformation(),
        state=state,
        batch_size=batch_size,
    )
