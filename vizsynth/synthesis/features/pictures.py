"""What the visualizations share: a score is maximized over the parameters of pictures.

`maximize` makes each picture by itself; `maximize_together` makes several whose objective is one.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from vizsynth import ascent, scores
from vizsynth.core import chunks
from vizsynth.core.chunks import keys_for
from vizsynth.core.entry import as_pytree, hashable, is_on_host
from vizsynth.core.pytrees import pytree
from vizsynth.parametrizations import Fourier
from vizsynth.taps import evaluate, run, shapes
from vizsynth.transforms import standard
from vizsynth.types import Activations, Image, Key, Keys, Network, Synthesis

Size = int | tuple[int, int]
Optimizer = Callable[[Any], optax.GradientTransformation]
"""`optimizer(learning_rate)`, one of optax's for instance."""


@pytree
@dataclass(frozen=True)
class Optimization:
    """How a picture is optimized: x(θ) by steps on s(τ(x(θ))), another transform τ in each.

    The numbers are traced: a sweep of learning rates compiles once.

    >>> from vizsynth.parametrizations import LaplacianPyramid
    >>> from vizsynth.transforms import Jitter
    >>> Optimization(LaplacianPyramid(), Jitter(8), learning_rate=0.1).learning_rate
    0.1
    """

    parametrization: Any = Fourier()  # noqa: RUF009  # frozen
    """What is optimized, θ (`vizsynth.parametrizations`)."""
    transform: Any = standard
    """τ, `(key, image) -> image`, drawn anew for each step (`vizsynth.transforms`)."""
    optimizer: Optimizer = field(default=optax.adam, metadata={"static": True})
    """`optimizer(learning_rate)`, an optax transformation."""
    learning_rate: float | Array = 0.05
    """The size of its steps."""

    def __post_init__(self) -> None:
        """Bring functions to forms that JAX can compare."""
        if callable(self.transform):
            object.__setattr__(self, "transform", as_pytree(self.transform))
        object.__setattr__(self, "optimizer", hashable(self.optimizer))

    def transformation(self) -> optax.GradientTransformation:
        """Return the optimizer at its learning rate."""
        return self.optimizer(self.learning_rate)


USUAL = Optimization()


def as_size(size: Size) -> tuple[int, int]:
    """Return (height, width)."""
    return (size, size) if isinstance(size, int) else size


def _needed(key: Any) -> Any:
    if key is None:
        raise TypeError("a run that begins needs a key: key=jax.random.key(seed)")
    return key


def check_pictures(
    net: Any, target: Any, size: Size, transform: Any, steps: int, state: Any, key: Any
) -> None:
    """Raise where pictures of a size cannot be made: before anything is compiled."""
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise ValueError(f"steps must be an integer of at least 0, not {steps!r}")
    if state is None:
        _needed(key)
    h, w = as_size(size)
    if min(h, w) < 1:
        raise ValueError(f"size must be positive, not {size}")

    image = jax.ShapeDtypeStruct((h, w, 3), jax.dtypes.canonicalize_dtype(float))
    if transform is not None:
        image = jax.eval_shape(transform, jax.eval_shape(lambda: jax.random.key(0)), image)
    # Layers that do not exist, and pictures too small for the network, say so here.
    seen = shapes(net, jax.ShapeDtypeStruct((1, *image.shape), image.dtype), target.layers)
    for part in _parts(target):
        _check_units(part, seen)
    asked = scores.count(target)
    if state is not None and asked is not None and asked != (made := int(np.prod(state.step.shape))):
        raise ValueError(f"the state is of {made} pictures, the target asks for {asked}")


def _parts(score: Any) -> list[Any]:
    """Return the scores that a score is summed of."""
    match score:
        case scores.Sum(first=first, second=second):
            return _parts(first) + _parts(second)
        case scores.Multiple(score=score):
            return _parts(score)
        case _:
            return [score]


def _check_units(score: Any, seen: Any) -> None:
    """Raise if a score names a unit that its layer does not have."""
    if isinstance(score, (scores.Neuron, scores.Channel)):
        shape = seen[score.layer].shape
        _check_index(score.channel, shape[-1], "channel", score.layer)
        if isinstance(score, scores.Neuron) and len(shape) == 4:
            _check_index(score.y, shape[1], "row", score.layer)
            _check_index(score.x, shape[2], "column", score.layer)
    elif isinstance(score, scores.Direction):
        channels = seen[score.layer].shape[-1]
        if (shape := np.shape(score.vector))[-1:] != (channels,) or len(shape) > 2:
            raise ValueError(
                f"a direction in {score.layer} has {channels} numbers, [{channels}] or [n, {channels}], "
                f"not {shape}"
            )


def _check_index(index: Any, count: int, what: str, layer: str) -> None:
    if index is None or not is_on_host(index):
        return
    values = np.asarray(index)
    if values.min() < 0 or values.max() >= count:
        wrong = sorted({int(v) for v in values.reshape(-1) if not 0 <= v < count})
        raise ValueError(f"{layer} has {count} {what}s, 0..{count - 1}; there is no {what} {wrong}")


def check_together(count: int, state: Any) -> None:
    """Raise where `count` pictures cannot be made as one run."""
    chunks.check_count(count, "count")
    if count < 2:
        raise ValueError("count must be at least 2: pictures are made together to be compared")
    if state is not None:
        made = {leaf.shape[0] for leaf in jax.tree.leaves(state.params)}
        if state.step.ndim or made != {count}:
            raise ValueError(f"the state is not one of {count} pictures made together; give the result's own")


def count(target: Any, keys: Any) -> int:
    """Return how many pictures are asked for: one a label (channel, ...), or one a key."""
    labelled = scores.count(target)
    keyed = keys.shape[0] if keys is not None and keys.ndim == 1 else None
    if labelled is not None and keyed is not None and labelled != keyed:
        raise ValueError(f"{labelled} targets take one key or {labelled} keys, not {keyed}")
    return labelled or keyed or 1


def maximize(
    net: Network,
    target: Any,
    *,
    key: Keys | None,
    steps: int,
    size: Size,
    parametrization: Any,
    transform: Any,
    optimizer: optax.GradientTransformation,
    penalty: Callable[[Image], Float[Array, ""]] | None = None,
    state: Any = None,
    start: Any = None,
    stochastic: bool = True,
    batch_size: int | None = None,
) -> Synthesis:
    """Maximize score(transform(x)) − penalty(x), each picture by itself.

    `start` are pictures to begin with, `[n, h, w, 3]`, where the parametrization can encode them. At most
    `batch_size` pictures are made at once; None makes all.
    """
    shape = as_size(size)
    n = state.step.shape[0] if state is not None else count(target, key)
    each = scores.spread(target, n)

    def begin(key: Key, first: Any) -> ascent.State:
        start_key, run_key = jax.random.split(key)
        params = parametrization.init(start_key, shape) if first is None else parametrization.encode(first)
        return ascent.init(params, optimizer, key=run_key)

    if state is None:
        keys = keys_for(_needed(key), n)
        if start is None:
            state = jax.vmap(lambda key: begin(key, None))(keys)
        else:
            state = jax.vmap(begin)(keys, jnp.broadcast_to(start, (n, *start.shape[1:])))

    def one(of: tuple[ascent.State, Any]) -> tuple[ascent.State, Array]:
        state, score = of

        def objective(params: Any, key: Key) -> Array:
            image = parametrization.decode(params, shape)
            seen = image if transform is None else transform(key, image)
            value = evaluate(net, seen[None], score)[0]
            return value if penalty is None else value - penalty(image)

        return ascent.run(objective, optimizer, state, steps, stochastic=stochastic)

    state, trace = ascent.run_each(one, (state, each), batch_size)
    images = jax.vmap(lambda params: parametrization.decode(params, shape))(state.params)
    return Synthesis(jnp.clip(images, 0, 1), trace, state)


def maximize_together(
    net: Network,
    objective: Callable[[Activations], Float[Array, ""]],
    layers: tuple[str, ...],
    *,
    count: int,
    key: Key | None,
    steps: int,
    size: Size,
    parametrization: Any,
    transform: Any,
    optimizer: optax.GradientTransformation,
    state: Any = None,
) -> Synthesis:
    """Maximize one objective of the activations of `count` pictures.

    All pictures are transformed alike in a step, so that they are compared as they are. The trace is that of
    the one objective, `[1, steps]`, and the state is one.
    """
    shape = as_size(size)
    if state is None:
        start_key, run_key = jax.random.split(_needed(key))
        keys = jax.vmap(jax.random.fold_in, (None, 0))(start_key, jnp.arange(count))
        params = jax.vmap(lambda key: parametrization.init(key, shape))(keys)
        state = ascent.init(params, optimizer, key=run_key)

    def decoded(params: Any) -> Array:
        return jax.vmap(lambda params: parametrization.decode(params, shape))(params)

    def joint(params: Any, key: Key) -> Array:
        images = decoded(params)
        seen = images if transform is None else jax.vmap(transform, (None, 0))(key, images)
        return objective(run(net, seen, layers)[1])

    state, trace = ascent.run(joint, optimizer, state, steps)
    return Synthesis(jnp.clip(decoded(state.params), 0, 1), trace[None], state)
