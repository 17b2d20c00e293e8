"""Class model visualization: the picture that a network takes for its class most of all.

Simonyan, Vedaldi & Zisserman, Deep Inside Convolutional Networks: Visualising Image Classification Models and
Saliency Maps, 2013, section 2.
"""

from typing import Any

from jaxtyping import Array

from vizsynth import priors
from vizsynth.core.entry import entry
from vizsynth.synthesis.features.pictures import USUAL, Optimization, Size, check_pictures, maximize
from vizsynth.types import Keys, Network, Synthesis, Target


def _check(
    net: Any, target: Any, key: Any, steps: int, size: Size, optimization: Optimization, state: Any
) -> None:
    check_pictures(net, target, size, optimization.transform, steps, state, key)


@entry(static=("steps", "size"), check=_check, many=True)
def visualize_class(
    net: Network,
    target: Target,
    *,
    key: Keys | None = None,
    steps: int = 256,
    size: Size = 224,
    optimization: Optimization = USUAL,
    l2: float | Array = 0.0,
    state: Any = None,
) -> Synthesis:
    """Maximize S_c(I) − λ ‖I‖², the class's score less the L2 norm of the picture (section 2).

    Args:
        target: a label means the logit S_c, as in the paper: the probability also rises when other classes
            fall.
        size: of the pictures: a side, or (height, width).
        optimization: the parametrization, transforms and optimizer (`vizsynth.Optimization`).
        l2: λ; ‖I‖ is the distance from grey.

    Returns:
        The pictures `[n, size, size, 3]` in [0, 1], the objective at each step and the state. Departures:
        the defaults are those of later work (a Fourier parametrization, transforms, Adam), which give
        pictures that can be recognized. The paper's own are
        `Optimization(Pixels(std=0.0), none, optax.sgd)` and a λ above 0.

    Raises:
        TypeError, ValueError: a target that the network does not have; pictures too small for it; no key.

    Example:
        >>> import jax, vizsynth
        >>> from vizsynth.models.sequential import Conv, GlobalMean
        >>> net = vizsynth.models.sequential([Conv(8), GlobalMean()], key=jax.random.key(0))
        >>> made = vizsynth.visualize_class(net, [3, 7], key=jax.random.key(1), steps=2, size=24)
        >>> made.images.shape, made.trace.shape
        ((2, 24, 24, 3), (2, 2))
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
        penalty=lambda image: l2 * priors.l2(image),
        state=state,
    )
