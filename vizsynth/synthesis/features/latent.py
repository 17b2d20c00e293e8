"""Preferred inputs by way of a generator: the code is optimized, the picture is what is made of it.

Nguyen, Dosovitskiy, Yosinski, Brox & Clune, Synthesizing the preferred inputs for neurons in neural networks
via deep generator networks, 2016 (DGN-AM). All that a generator can draw looks like what it was trained on,
so it is a prior that was learned, in the place of those of `vizsynth.priors`.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from vizsynth import updates
from vizsynth.core import chunks
from vizsynth.core.entry import entry, is_on_host
from vizsynth.core.pytrees import pytree
from vizsynth.parametrizations import Latent
from vizsynth.synthesis.features import pictures
from vizsynth.synthesis.features.pictures import Size, check_pictures, maximize
from vizsynth.transforms import none
from vizsynth.types import Image, Keys, Network, Synthesis, Target

Number = Any  # an int, a float or an array: a leaf


@pytree
@dataclass(frozen=True)
class _Codes(Latent):
    """Codes that the update keeps in bounds: to cut them here too would halve the gradient on the bounds."""

    def encode(self, image: Array) -> Float[Array, "..."]:
        return self._bounded(image)

    def decode(self, params: Float[Array, "..."], size: tuple[int, int]) -> Image:
        image = self.generator(params)
        return image if image.shape[:2] == size else jax.image.resize(image, (*size, 3), "linear")


def rate(first: Number, last: Number, over: Number) -> optax.Schedule:
    """Return the learning rate of step t: first + (last − first) t / over, and `last` after that.

    >>> schedule = rate(8.0, 0.0, 4)
    >>> [float(schedule(t)) for t in (0, 1, 9)]
    [8.0, 6.0, 0.0]
    """

    def schedule(count: Any) -> Array:
        share = jnp.clip(jnp.asarray(count, float) / jnp.asarray(over, float), 0, 1)
        begin, end = jnp.asarray(first, float), jnp.asarray(last, float)
        return begin + (end - begin) * share

    return schedule


def _optimizer(low: Array, high: Array, decay: Number, schedule: optax.Schedule) -> Any:
    """Return the step in the order of the authors' code: normalized, cut to the bounds, then decayed."""

    def kept(code: Array) -> Array:
        cut = jnp.clip(code, low.astype(code.dtype), high.astype(code.dtype))
        return jnp.asarray(decay, code.dtype) * cut

    return optax.chain(
        optax.scale(-1),
        updates.normalize_by_mean_abs(),
        optax.scale_by_schedule(schedule),
        updates.then(kept),
    )


def _made(generator: Any, shape: tuple[int, ...]) -> Any:
    """Return the shape of a picture."""
    return jax.eval_shape(generator, jax.ShapeDtypeStruct(shape, jnp.asarray(0.0).dtype)).shape


def _check(
    net: Any,
    target: Any,
    generator: Any,
    shape: tuple[int, ...],
    key: Any,
    steps: int,
    size: Size | None,
    low: Any,
    high: Any,
    decay: Any,
    over: Any,
    transform: Any,
    start: Any,
    state: Any,
    batch_size: int | None,
) -> None:
    leaves = jax.tree.leaves(generator)
    if not callable(generator) or (len(leaves) == 1 and leaves[0] is generator):
        raise TypeError(
            "generator must be a callable that is a pytree, so that its weights are arguments: "
            "jax.tree_util.Partial(function, weights)"
        )
    made = _made(generator, shape)
    if len(made) != 3 or made[-1] != 3:
        raise ValueError(f"the generator must make pictures [h, w, 3] of codes {shape}, not {made}")
    for name, bound, sign in (("low", low, 1), ("high", high, -1)):
        try:
            np.broadcast_shapes(np.shape(bound), shape)
        except ValueError:
            raise ValueError(f"{name} {np.shape(bound)} does not fit codes of the shape {shape}") from None
        if is_on_host(bound) and not (sign * np.asarray(bound) <= 0).all():
            raise ValueError("low must be at most 0 and high at least 0: codes decay towards 0")
    if is_on_host(decay) and not 0 <= float(decay) <= 1:
        raise ValueError(f"decay is a factor in [0, 1], not {decay}: 1 leaves the code as it is")
    if is_on_host(over) and not float(over) > 0:
        raise ValueError(f"over must be above 0, not {over}: in so many steps the learning rate falls")
    if start is not None and np.shape(start)[1:] != shape:
        raise ValueError(f"start must be codes [n, {', '.join(map(str, shape))}], not {np.shape(start)}")
    if batch_size is not None:
        chunks.check_count(batch_size, "batch_size")
    check_pictures(net, target, made[:2] if size is None else size, transform, steps, state, key)
    if state is None:
        _count(target, key, start)


def _count(target: Any, key: Any, start: Any) -> int:
    """Return how many pictures are asked for: one a label, a key or a start."""
    n = pictures.count(target, key)
    begun = 1 if start is None else start.shape[0]
    if n > 1 and begun not in (1, n):
        raise ValueError(f"{n} pictures take one code to start with or {n} codes, not {begun}")
    return max(n, begun)


@entry(static=("shape", "steps", "size", "batch_size"), check=_check, many=True)
def visualize_latent(
    net: Network,
    target: Target,
    generator: Any,
    *,
    shape: tuple[int, ...],
    key: Keys | None = None,
    steps: int = 200,
    size: Size | None = None,
    low: float | Array = 0.0,
    high: float | Array = jnp.inf,
    decay: float | Array = 0.99,
    learning_rate: float | Array = 8.0,
    last_learning_rate: float | Array = 1e-10,
    over: float | Array = 200,
    std: float | Array = 1.0,
    transform: Any = none,
    start: Float[Array, "n ..."] | None = None,
    state: Any = None,
    batch_size: int | None = None,
) -> Synthesis:
    """Take steps z ← d · clip(z + η_t g / mean |g|), g = ∂S(G(z))/∂z; the pictures are G(z) (section 3.2).

    Args:
        generator: G, `code -> picture [h, w, 3]` in [0, 1], as a pytree: a function of weights and code is
            `jax.tree_util.Partial(function, weights)`. Other weights then compile nothing anew.
        shape: of a code.
        size: of the pictures, a side or (height, width): what the generator makes is resized to it. None is
            the generator's own.
        low: the least value of a unit of the code: one, or one a unit (of a shape that fits the code), at
            most 0. Codes of a layer behind a ReLU are not negative.
        high: the largest value, at least 0. The paper has each unit's mean on photos and three standard
            deviations more.
        decay: d, a factor in [0, 1] of the code after each step.
        learning_rate: η_0, how much a unit changes on average in the first step, in units of the code.
        last_learning_rate: what η falls to, linearly.
        over: in how many steps it does so; after these it stays there. A run in parts has it the same in all.
        std: standard deviation of the first code, drawn normally around 0.
        transform: `(key, image) -> image`, drawn anew for each step (`vizsynth.transforms`). The paper cuts
            the middle of the picture to the network's size.
        start: codes to begin with, `[n, *shape]`, or one for all, instead of random ones.
        state: of an earlier result, to go on from; its `params` are the codes.

    Returns:
        The pictures `[n, h, w, 3]` in [0, 1], the objective at each step and the state. Departures: the first
        code too is cut to the bounds; the authors' code moves the picture by η / mean |g| and the code by
        what comes of that, which is the same step, as it is normalized again; a gradient of zeros is no
        step, where the authors' code stops.

    Raises:
        TypeError, ValueError: a generator that is no pytree or makes no pictures; bounds that do not fit the
            codes or leave out 0; a decay outside [0, 1]; a target that the network does not have; codes to
            start with of another shape; no key.

    Example:
        >>> import jax, vizsynth
        >>> from vizsynth.models.sequential import Conv, GlobalMean
        >>> net = vizsynth.models.sequential([Conv(8), GlobalMean()], key=jax.random.key(0))
        >>> def decode(weights, code):
        ...     return jax.nn.sigmoid(code @ weights).reshape(16, 16, 3)
        >>> weights = 0.1 * jax.random.normal(jax.random.key(1), (8, 16 * 16 * 3))
        >>> generator = jax.tree_util.Partial(decode, weights)
        >>> made = vizsynth.visualize_latent(
        ...     net, [3, 7], generator, shape=(8,), key=jax.random.key(2), steps=2
        ... )
        >>> made.images.shape, made.state.params.shape
        ((2, 16, 16, 3), (2, 8))
    """
    lowest, highest = (jnp.broadcast_to(jnp.asarray(bound, float), shape) for bound in (low, high))
    if key is not None and state is None:
        key = chunks.keys_for(key, _count(target, key, start))
    return maximize(
        net,
        target,
        key=key,
        steps=steps,
        size=_made(generator, shape)[:2] if size is None else size,
        parametrization=_Codes(generator, shape, std, lowest, highest),
        transform=transform,
        optimizer=_optimizer(lowest, highest, decay, rate(learning_rate, last_learning_rate, over)),
        start=start,
        state=state,
        batch_size=batch_size,
    )
