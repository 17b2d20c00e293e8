"""Max pooling, with a backward pass of its own: what is fast on CPU.

Elsewhere than on CPU it is the compiler's own pooling, forward and backward.
"""

from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from vizsynth.cpu import windows
from vizsynth.cpu.windows import Maps, Padding, Pair


def reduced(x: Maps, window: Pair, strides: Pair, padding: Padding) -> Float[Array, "n h2 w2 c"]:
    """Take the maximum of each window by `jax.lax` alone."""
    return lax.reduce_window(
        x, -jnp.inf, lax.max, (1, *window, 1), (1, *strides, 1), ((0, 0), *padding, (0, 0))
    )


def _counter(window: Pair) -> Any:
    """Return the least type that numbers the places of a window, and one more."""
    return jnp.uint8 if window[0] * window[1] < 256 else jnp.int32


def _first_maximum(x: Array, window: Pair, strides: Pair, padding: Padding) -> tuple[Array, Array]:
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)), constant_values=-jnp.inf)
    first, *others = windows.slices(x, window, strides)
    count = _counter(window)
    best, index = first, jnp.zeros(first.shape, count)
    for i, other in enumerate(others, start=1):
        larger = other > best
        best = jnp.where(larger, other, best)
        index = jnp.where(larger, count(i), index)
    return best, index


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def max_pool(x: Maps, window: Pair, strides: Pair, padding: Padding) -> Float[Array, "n h2 w2 c"]:
    """Take the maximum of each window; a tie sends its gradient to the first, as in PyTorch."""

    def sliced(x: Array) -> Array:
        x = jnp.pad(x, ((0, 0), *padding, (0, 0)), constant_values=-jnp.inf)
        return reduce(jnp.maximum, windows.slices(x, window, strides))

    # XLA's CPU backend fuses a window's reduction into the product that follows, and then reduces anew
    # for every block of it: VGG's first dense layer, of four images, took thirty times as long.
    compilers = partial(reduced, window=window, strides=strides, padding=padding)
    return lax.platform_dependent(x, cpu=sliced, default=compilers)


def _forward(x: Array, window: Pair, strides: Pair, padding: Padding):
    def found(x: Array) -> tuple[Array, Array]:
        return _first_maximum(x, window, strides, padding)

    def compilers(x: Array) -> tuple[Array, Array]:
        best = reduced(x, window, strides, padding)
        return best, jnp.zeros_like(best, _counter(window))

    best, index = lax.platform_dependent(x, cpu=found, default=compilers)
    return best, (x, index)


def _backward(window: Pair, strides: Pair, padding: Padding, residuals: Any, g: Array):
    x, index = residuals

    def own(x: Array, index: Array, g: Array) -> Array:
        return _woven(index, g, (x.shape[1], x.shape[2]), window, strides, padding)

    def compilers(x: Array, index: Array, g: Array) -> Array:
        del index
        return jax.vjp(lambda x: reduced(x, window, strides, padding), x)[1](g)[0]

    return (lax.platform_dependent(x, index, g, cpu=own, default=compilers),)


def _woven(
    index: Array, g: Array, size: Pair, window: Pair, strides: Pair, padding: Padding
) -> Float[Array, "n h w c"]:
    """Give each window's gradient to the place that its maximum was found at."""
    h, w = size
    rows, rows_pad = windows.phase_taps(window[0], strides[0], padding[0][0], h, g.shape[1])
    cols, cols_pad = windows.phase_taps(window[1], strides[1], padding[1][0], w, g.shape[2])
    phase_shape = -(-h // strides[0]), -(-w // strides[1])
    no_tap = window[0] * window[1]

    def padded(a: Array, fill: Any) -> Array:
        return lax.pad(a, jnp.asarray(fill, a.dtype), ((0, 0, 0), (*rows_pad, 0), (*cols_pad, 0), (0, 0, 0)))

    g, index = padded(g, 0), padded(index, no_tap)
    phases = []
    for r in range(strides[0]):
        for c in range(strides[1]):
            total = jnp.zeros((g.shape[0], *phase_shape, g.shape[3]), g.dtype)
            for i, row_tap in enumerate(rows[:, r]):
                for j, col_tap in enumerate(cols[:, c]):
                    if row_tap < window[0] and col_tap < window[1]:
                        here = (slice(None), slice(i, i + phase_shape[0]), slice(j, j + phase_shape[1]))
                        chosen = index[here] == int(row_tap * window[1] + col_tap)
                        total = total + jnp.where(chosen, g[here], jnp.zeros((), g.dtype))
            phases.append(total)
    woven = jnp.stack(phases, axis=3).reshape(*phases[0].shape[:3], -1)
    return windows.interleaved(woven, strides, (*g.shape[:1], h, w, g.shape[3]))


max_pool.defvjp(_forward, _backward)
