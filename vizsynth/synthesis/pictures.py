"""What the visualizations share: a score is maximized over the parameters of pictures."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from vizsynth import ascent, scores
from vizsynth.chunks import keys_for
from vizsynth.entry import is_concrete
from vizsynth.taps import evaluate, run
from vizsynth.types import Image, Key, Keys, Network, Synthesis

Size = int | tuple[int, int]
Optimizer = Callable[[Any], optax.GradientTransformation]
"""`optimizer(learning_rate)`, one of optax's for instance."""


def as_size(size: Size) -> tuple[int, int]:
    """Return (height, width)."""
    return (size, size) if isinstance(size, int) else size


def check_pictures(
    net: Any, target: Any, size: Size, transform: Any, steps: int, state: Any, key: Any
) -> None:
    """Raise where pictures of a size cannot be made: before anything is compiled."""
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise ValueError(f"steps must be an integer of at least 0, not {steps!r}")
    if state is None and key is None:
        raise TypeError("a run that begins needs a key: key=jax.random.key(seed)")
    h, w = as_size(size)
    if min(h, w) < 1:
        raise ValueError(f"size must be positive, not {size}")

    def once(net: Any, key: Any) -> Any:
        image = jnp.zeros((h, w, 3), float)
        image = transform(key, image) if transform is not None else image
        return run(net, image[None], target.layers)[1]

    # Layers that do not exist, and pictures too small for the network, say so here.
    jax.eval_shape(once, net, jax.eval_shape(lambda: jax.random.key(0)))


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
) -> Synthesis:
    """Maximize score(transform(x)) − penalty(x), each picture by itself.

    `start` are pictures to begin with, `[n, h, w, 3]`, where the parametrization can encode them.
    """
    shape = as_size(size)
    n = state.step.shape[0] if state is not None else count(target, key)
    each = scores.spread(target, n)

    def begin(key: Key, first: Any) -> ascent.State:
        start_key, run_key = jax.random.split(key)
        params = parametrization.init(start_key, shape) if first is None else parametrization.encode(first)
        return ascent.init(params, optimizer, key=run_key)

    if state is None:
        if start is None:
            state = jax.vmap(lambda key: begin(key, None))(keys_for(key, n))
        else:
            state = jax.vmap(begin)(keys_for(key, n), jnp.broadcast_to(start, (n, *start.shape[1:])))

    def one(state: ascent.State, score: Any) -> tuple[ascent.State, Array]:
        def objective(params: Any, key: Key) -> Array:
            image = parametrization.decode(params, shape)
            seen = image if transform is None else transform(key, image)
            value = evaluate(net, seen[None], score)[0]
            return value if penalty is None else value - penalty(image)

        return ascent.run(objective, optimizer, state, steps, stochastic=stochastic)

    state, trace = jax.vmap(one)(state, each)
    images = jax.vmap(lambda params: parametrization.decode(params, shape))(state.params)
    return Synthesis(jnp.clip(images, 0, 1), trace, state)


def warn_if_diverged(result: Synthesis) -> None:
    """Say it where a run met NaN or infinity."""
    import warnings

    if result.trace.size and is_concrete(result.trace) and not bool(jnp.isfinite(result.trace).all()):
        step = int(jnp.min(result.state.step))
        warnings.warn(
            f"step {step} gave NaN or infinity, and the picture before it is returned: "
            "give a smaller learning rate or penalty",
            stacklevel=4,
        )
