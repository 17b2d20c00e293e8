"""Class visualization with better regularizers.

Yosinski, Clune, Nguyen, Fuchs & Lipson, Understanding Neural Networks Through Deep Visualization, 2015,
section 3: x ← r_θ(x + η ∂S/∂x), where r_θ decays, blurs, and sets to the mean colour the pixels of small
norm and of small contribution. Each is a transformation of `vizsynth.updates`; the paper's table 1 names
four settings.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from vizsynth import updates
from vizsynth.core.entry import entry
from vizsynth.core.pytrees import pytree
from vizsynth.parametrizations import Pixels
from vizsynth.synthesis.features.pictures import Size, check_pictures, maximize
from vizsynth.types import Image, Images, Keys, Network, Synthesis, Target

Number = Any  # an int, a float or an array: a leaf

MEAN_COLOR = (0.485, 0.456, 0.406)
"""ImageNet's, which is zero once the mean is subtracted, as in the paper."""

# The paper's pixels are 0..255: a step of η there is η / 255² on pixels of 0..1.
_PER_PIXEL = 1 / 255**2


@pytree
@dataclass(frozen=True)
class Settings:
    """The strength of each regularizer; 0 leaves it out."""

    decay: Number = 0.0
    """How much of the way to the mean colour each step goes."""
    blur_sigma: Number = 0.0
    """The standard deviation of the blur, in pixels, at most 1."""
    blur_every: Number = 0
    """How many steps lie between two blurs."""
    norm_percentile: Number = 0.0
    """The percentage of pixels, those of the smallest norm, that are set to the mean colour."""
    contribution_percentile: Number = 0.0
    """The same of pixels of small contribution."""
    progress: Number = jnp.inf
    """How much a step is to raise a linear objective; infinity: each step is `largest_rate` long."""
    largest_rate: Number = 100.0 * _PER_PIXEL
    """η, or its upper limit."""


BLUR_AND_NORM = Settings(blur_sigma=0.5, blur_every=4, norm_percentile=50.0, progress=2.0)
"""Blur, and small norms gone; 500 steps."""
DECAY_AND_NORM = Settings(decay=0.3, norm_percentile=20.0)
"""Strong decay, and small norms gone; 750 steps."""
DECAY_AND_BLUR = Settings(decay=1e-4, blur_sigma=1.0, blur_every=4)
"""Little decay, and a stronger blur; 1000 steps."""
BLUR_AND_CONTRIBUTION = Settings(
    blur_sigma=0.5, blur_every=4, contribution_percentile=90.0, progress=2.0, largest_rate=1e8 * _PER_PIXEL
)
"""Blur, and small contributions gone; 1000 steps."""

TABLE = {
    "blur-and-norm": (BLUR_AND_NORM, 500),
    "decay-and-norm": (DECAY_AND_NORM, 750),
    "decay-and-blur": (DECAY_AND_BLUR, 1000),
    "blur-and-contribution": (BLUR_AND_CONTRIBUTION, 1000),
}
"""The four settings of table 1 by name, each with its number of steps (those of the authors' code)."""


def regularized(
    settings: Settings, center: Any = MEAN_COLOR, *, rate: Number = 1.0
) -> optax.GradientTransformation:
    """Return the whole step as an optax transformation, in the order of the authors' code.

    >>> step = regularized(DECAY_AND_BLUR)
    >>> x = jnp.full((4, 4, 3), 0.5)
    >>> u, _ = step.update(x, step.init(x), x, grad=x)
    >>> u.shape
    (4, 4, 3)
    """
    return optax.chain(
        optax.scale(-1),
        updates.scale_to_progress(rate * settings.progress, rate * settings.largest_rate),
        updates.decay_to(center, settings.decay),
        updates.blur_every(settings.blur_sigma, settings.blur_every),
        updates.clip_small_norm(settings.norm_percentile, center),
        updates.clip_small_contribution(settings.contribution_percentile, center),
        updates.keep_in_box(0.0, 1.0),
    )


@pytree
@dataclass(frozen=True)
class _NoiseAround:
    """Pixels around a colour."""

    center: Any
    std: Number = 10 / 255

    def init(self, key: Any, size: tuple[int, int]) -> Image:
        noise = Pixels(std=self.std, mean=0.0).init(key, size)
        return jnp.clip(noise + jnp.broadcast_to(jnp.asarray(self.center, noise.dtype), noise.shape), 0, 1)

    def encode(self, image: Image) -> Image:
        return image

    def decode(self, params: Image, size: tuple[int, int]) -> Image:
        del size
        return params


def _check(net: Any, target: Any, key: Any, steps: int, size: Size, state: Any) -> None:
    check_pictures(net, target, size, None, steps, state, key)


@entry(static=("steps", "size"), check=_check, many=True)
def visualize_regularized(
    net: Network,
    target: Target,
    *,
    key: Keys | None = None,
    settings: Settings = BLUR_AND_NORM,
    steps: int = 500,
    size: Size = 224,
    rate: float | Array = 1.0,
    center: Any = MEAN_COLOR,
    start: Images | None = None,
    state: Any = None,
) -> Synthesis:
    """Take steps x ← r_θ(x + η ∂S/∂x): gradient ascent, each step regularized (section 3).

    Args:
        key: for the first picture (noise of 10/255 around the centre): one for all, or one a picture. It may
            be left out where a state is given.
        settings: the strengths; `vizsynth.synthesis.features.yosinski` has the paper's four by name.
        size: of the pictures: a side, or (height, width).
        rate: a factor of the settings' steps, which were made for CaffeNet: a network whose logits change
            less with a pixel needs more (SqueezeNet about 10).
        center: the mean colour `(3,)`, from which norms and contributions are counted.
        start: pictures to begin with, instead of noise.

    Returns:
        The pictures `[n, size, size, 3]` in [0, 1], the objective at each step and the state. They lie close
        to the mean colour: `vizsynth.figures.stretch` shows them as the paper does. Departures: the authors'
        code cuts pixels to their range at the beginning of a step, here it is at its end; their steps of η on
        pixels of 0..255 are steps of η / 255² on ours.

    Raises:
        TypeError, ValueError: a target that the network does not have; pictures too small for it; no key.

    Example:
        >>> import jax, vizsynth
        >>> from vizsynth.models.sequential import Conv, GlobalMean
        >>> net = vizsynth.models.sequential([Conv(8), GlobalMean()], key=jax.random.key(0))
        >>> vizsynth.visualize_regularized(net, 3, key=jax.random.key(1), steps=2, size=24).images.shape
        (1, 24, 24, 3)
    """
    return maximize(
        net,
        target,
        key=key,
        steps=steps,
        size=size,
        parametrization=_NoiseAround(center),
        transform=None,
        optimizer=regularized(settings, center, rate=rate),
        start=start,
        state=state,
    )


def anneal(first: Settings, last: Settings, share: float | Float[Array, ""]) -> Settings:
    """Return the settings a share of the way from one to another.

    >>> anneal(Settings(decay=0.0), Settings(decay=1.0), 0.25).decay
    0.25
    """
    return jax.tree.map(lambda a, b: a if a == b else a + (b - a) * share, first, last)
