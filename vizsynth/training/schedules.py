"""Optimizers and learning rate schedules, from optax."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

Schedule = Callable[[float, int], optax.Schedule]
"""`schedule(peak, steps)`: the learning rate of each step."""
Optimizer = Callable[[Any, Any], optax.GradientTransformation]
"""`optimizer(learning_rate, weight_decay)`, both of them traced."""


def constant(peak: float, steps: int) -> optax.Schedule:
    """Keep the learning rate."""
    del steps
    return optax.constant_schedule(peak)


def cosine(peak: float, steps: int) -> optax.Schedule:
    """Rise over the first twentieth of the steps, then fall along half a cosine (Loshchilov & Hutter, 2016).

    >>> rates = cosine(0.1, 100)
    >>> [round(float(rates(i)), 3) for i in (0, 5, 100)]
    [0.0, 0.1, 0.0]
    """
    return optax.warmup_cosine_decay_schedule(0.0, peak, max(1, steps // 20), max(2, steps))


def one_cycle(peak: float, steps: int) -> optax.Schedule:
    """Rise to the peak over the first 30 % of the steps, then fall far below the start (Smith, 2018)."""
    return optax.cosine_onecycle_schedule(max(4, steps), peak)


def stairs(peak: float, steps: int) -> optax.Schedule:
    """Divide by ten after half and after three quarters of the steps (He et al., 2015, section 4.2)."""
    return optax.piecewise_constant_schedule(peak, {max(1, steps // 2): 0.1, max(2, steps * 3 // 4): 0.1})


SCHEDULES: dict[str, Schedule] = {
    "constant": constant,
    "cosine": cosine,
    "one-cycle": one_cycle,
    "stairs": stairs,
}


def _matrices(params: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def adamw(learning_rate: Any, weight_decay: Any) -> optax.GradientTransformation:
    """Adam with decoupled decay (Loshchilov & Hutter, 2017) of kernels: biases and norms do not decay."""
    return optax.adamw(learning_rate, weight_decay=weight_decay, mask=_matrices)


def sgd(learning_rate: Any, weight_decay: Any) -> optax.GradientTransformation:
    """Nesterov-free momentum of 0.9, the decay (of kernels only) added to the gradient, as PyTorch's SGD."""
    return optax.chain(
        optax.add_decayed_weights(weight_decay, mask=_matrices), optax.sgd(learning_rate, momentum=0.9)
    )


def rates(schedule: Schedule, peak: float, steps: int) -> Float[Array, " steps"]:
    """Return the learning rate of every step."""
    # optax mixes integers and floats.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        found = jax.vmap(schedule(peak, steps))(jnp.arange(steps))
    return jnp.broadcast_to(found, (steps,)).astype(float)
