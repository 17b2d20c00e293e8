"""Sums over many samples in bounded memory.

A method that sums over samples, steps, masks or channels runs `batch_size` of them at a time inside one
compiled loop, so peak memory does not grow with their number.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

Carry = TypeVar("Carry")


def check_count(value: int, name: str) -> None:
    """Raise if a number of samples, steps or a batch size is not a positive integer."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a positive integer, not {value!r}")


def fold(
    step: Callable[[Carry, Any, Bool[Array, " b"]], Carry], carry: Carry, xs: Any, batch_size: int
) -> Carry:
    """Fold `step(carry, chunk, valid)` over the leading axis of `xs`, in equal chunks.

    The last chunk is filled up by repeating the first elements; `valid` is False there.
    """
    count = jax.tree.leaves(xs)[0].shape[0]
    chunks = -(-count // min(batch_size, count))
    size = -(-count // chunks)
    index = jnp.arange(chunks * size) % count
    valid = (jnp.arange(chunks * size) < count).reshape(chunks, size)
    if chunks == 1:
        return step(carry, xs, valid[0])
    chunked = jax.tree.map(lambda x: x[index].reshape(chunks, size, *x.shape[1:]), xs)
    return jax.lax.scan(lambda c, x: (step(c, *x), None), carry, (chunked, valid))[0]


def total(function: Callable[[Any], Any], xs: Any, batch_size: int) -> Any:
    """Return Σ_i function(xs[i]).

    >>> import jax.numpy as jnp
    >>> int(total(lambda x: x * x, jnp.arange(5), batch_size=2))
    30
    """
    one = jax.eval_shape(lambda xs: function(jax.tree.map(lambda x: x[0], xs)), xs)
    zero = jax.tree.map(jnp.zeros_like, one)

    def step(carry: Any, chunk: Any, valid: Bool[Array, " b"]) -> Any:
        values = jax.vmap(function)(chunk)
        return jax.tree.map(lambda c, v: c + masked_sum(v, valid), carry, values)

    return fold(step, zero, xs, batch_size)


def masked_sum(values: Array, valid: Bool[Array, " b"]) -> Array:
    """Sum over the leading axis where `valid`."""
    mask = valid.reshape(-1, *(1,) * (values.ndim - 1))
    return jnp.where(mask, values, jnp.zeros_like(values)).sum(axis=0)


def each(function: Callable[[Any], Any], xs: Any, batch_size: int) -> Any:
    """Return function(xs[i]) for all i, stacked, `batch_size` at a time.

    One at a time is without `vmap`, under which both branches of every condition are evaluated.

    >>> import jax.numpy as jnp
    >>> each(lambda x: x * x, jnp.arange(5), batch_size=2)
    Array([ 0,  1,  4,  9, 16], dtype=int32)
    """
    if jax.tree.leaves(xs)[0].shape[0] == 1:
        return jax.tree.map(lambda y: y[None], function(jax.tree.map(lambda x: x[0], xs)))
    if batch_size == 1:
        return jax.lax.map(function, xs)
    return in_groups(jax.vmap(function), xs, batch_size)


def in_groups(function: Callable[[Any], Any], xs: Any, size: int) -> Any:
    """Return function(group) of equal groups of at most `size` of xs, put together again.

    >>> import jax.numpy as jnp
    >>> in_groups(lambda x: x - x.max(), jnp.arange(4), size=2)
    Array([-1,  0, -1,  0], dtype=int32)
    """
    count = jax.tree.leaves(xs)[0].shape[0]
    groups = -(-count // size)
    if groups == 1:
        return function(xs)
    size = -(-count // groups)
    index = jnp.arange(groups * size) % count
    grouped = jax.tree.map(lambda x: x[index].reshape(groups, size, *x.shape[1:]), xs)
    values = jax.lax.map(function, grouped)
    return jax.tree.map(lambda v: v.reshape(groups * size, *v.shape[2:])[:count], values)


def keys_for(key: Array, n: int) -> Array:
    """Return a key for each image: the given n keys, or the one key for every image.

    One key for all makes an image's result the same in any batch and at any place in it.
    """
    if key.ndim == 1 and key.shape[0] != n:
        raise ValueError(f"{n} images take one key or {n} keys, not {key.shape[0]}")
    return jnp.broadcast_to(key, (n,))
