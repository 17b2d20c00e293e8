"""The arithmetic that networks are written in.

A network does all of it through a table `Ops`, so another table is another backward rule (guided
backpropagation, LRP) or another layer (average for max pooling) for every network at once.

`default` is written for gradients with respect to images; `plain` is JAX's own arithmetic, for those
who need forward mode (`jax.jvp`, `jax.linearize`), which a custom reverse rule does not pass.

Layouts: activations `[n, h, w, c]`, convolution kernels `[kh, kw, in, out]`, matrices `[in, out]`.
Padding is explicit: `((top, bottom), (left, right))`.
"""

from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from vizsynth.cpu import windows
from vizsynth.cpu.convolution import conv, plain_conv, with_bias
from vizsynth.cpu.windows import Maps, Padding, Pair


def other(
    function: Callable[..., Any],
    *values: Any,
    name: str = "",
    linear: bool = False,
    elementwise: bool = False,
) -> Any:
    """Compute a function that the table has no word for."""
    del name, linear, elementwise
    return function(*values)


class Ops(NamedTuple):
    """One table of arithmetic. Every entry is a pure function.

    `name` is the layer that asks, for tables whose rule depends on it.
    """

    standardize: Callable[..., Any]
    """`standardize(images, how)`; `how` is a `vizsynth.images.Standardize`."""
    conv: Callable[..., Any]
    """`conv(x, kernel, bias, *, strides, padding, name)`; bias may be None."""
    linear: Callable[..., Any]
    """`linear(x, kernel, bias, *, name)`."""
    batch_norm: Callable[..., Any]
    """`batch_norm(x, scale, bias, mean, variance, *, eps, name)`."""
    relu: Callable[..., Any]
    """`relu(x)`."""
    max_pool: Callable[..., Any]
    """`max_pool(x, *, window, strides, padding)`."""
    mean_pool: Callable[..., Any]
    """`mean_pool(x, *, window, strides, padding)`; padding counts as zeros."""
    adaptive_mean_pool: Callable[..., Any]
    """`adaptive_mean_pool(x, *, size)`: the mean over `size` bins that cover the map."""
    add: Callable[..., Any]
    """`add(x, y)`: the sum of a residual block's two branches."""
    concatenate: Callable[..., Any]
    """`concatenate(xs)`, along the channels."""
    other: Callable[..., Any] = other
    """`other(function, *values, name, linear, elementwise)`: anything else, and what is known of it."""


def standardize(images: Maps, how: Callable[[Any], Any]) -> Maps:
    """Bring pixels to the mean and the deviation that the weights want."""
    return how(images)


# Pooling ---------------------------------------------------------------------


def pool_padding(size: int, window: int, stride: int, pad: int, *, ceil: bool) -> Pair:
    """Return the explicit padding of a pooling layer as PyTorch counts it, `ceil_mode` included."""
    if not ceil:
        return pad, pad
    steps = -(-(size + 2 * pad - window) // stride)
    if steps * stride >= size + pad:  # a last window that would begin in the padding is left out
        steps -= 1
    return pad, max(pad, steps * stride + window - size - pad)


def _first_maximum(x: Array, window: Pair, strides: Pair, padding: Padding) -> tuple[Array, Array]:
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)), constant_values=-jnp.inf)
    first, *others = windows.slices(x, window, strides)
    counter = jnp.uint8 if len(others) < 255 else jnp.int32
    best, index = first, jnp.zeros(first.shape, counter)
    for i, other in enumerate(others, start=1):
        larger = other > best
        best = jnp.where(larger, other, best)
        index = jnp.where(larger, counter(i), index)
    return best, index


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _max_pool(x: Array, window: Pair, strides: Pair, padding: Padding) -> Array:
    def sliced(x: Array) -> Array:
        x = jnp.pad(x, ((0, 0), *padding, (0, 0)), constant_values=-jnp.inf)
        return reduce(jnp.maximum, windows.slices(x, window, strides))

    # XLA's CPU backend fuses a window's reduction into the product that follows, and then reduces anew
    # for every block of it: VGG's first dense layer, of four images, took thirty times as long.
    compilers = partial(plain_max_pool, window=window, strides=strides, padding=padding)
    return lax.platform_dependent(x, cpu=sliced, default=compilers)


def _max_pool_forward(x: Array, window: Pair, strides: Pair, padding: Padding):
    best, index = _first_maximum(x, window, strides, padding)
    return best, (index, x.shape[1:3])


def _max_pool_backward(window: Pair, strides: Pair, padding: Padding, residuals: Any, g: Array):
    index, (h, w) = residuals
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
    return (windows.interleaved(woven, strides, (*g.shape[:1], h, w, g.shape[3])),)


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def max_pool(
    x: Maps, *, window: Pair, strides: Pair, padding: Padding = ((0, 0), (0, 0))
) -> Float[Array, "n h2 w2 c"]:
    """Take the maximum of each window; a tie sends its gradient to the first, as in PyTorch."""
    windows.check("max pooling", "", x, window, padding)
    return _max_pool(x, window, strides, padding)


def plain_max_pool(
    x: Maps, *, window: Pair, strides: Pair, padding: Padding = ((0, 0), (0, 0))
) -> Float[Array, "n h2 w2 c"]:
    """Take the maximum of each window by `jax.lax` alone."""
    windows.check("max pooling", "", x, window, padding)
    return lax.reduce_window(
        x, -jnp.inf, lax.max, (1, *window, 1), (1, *strides, 1), ((0, 0), *padding, (0, 0))
    )


def mean_pool(
    x: Maps, *, window: Pair, strides: Pair, padding: Padding = ((0, 0), (0, 0))
) -> Float[Array, "n h2 w2 c"]:
    """Average each window; padding counts as zeros."""
    windows.check("mean pooling", "", x, window, padding)
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    total = sum(windows.slices(x, window, strides)[1:], windows.slices(x, window, strides)[0])
    return total / (window[0] * window[1])


def _bins(size: int, bins: int) -> np.ndarray:
    """Return the averaging matrix `[bins, size]`; bin i is ⌊i·size/bins⌋ .. ⌈(i+1)·size/bins⌉."""
    i, position = np.arange(bins)[:, None], np.arange(size)[None, :]
    inside = (position >= i * size // bins) & (position < -(-(i + 1) * size // bins))
    return inside / inside.sum(axis=1, keepdims=True)


def adaptive_mean_pool(x: Maps, *, size: Pair) -> Float[Array, "n h2 w2 c"]:
    """Average over `size` bins that cover the map, whatever its size."""
    if x.shape[1:3] == size:
        return x
    if size == (1, 1):
        return x.mean(axis=(1, 2), keepdims=True)
    rows = jnp.asarray(_bins(x.shape[1], size[0]), x.dtype)
    cols = jnp.asarray(_bins(x.shape[2], size[1]), x.dtype)
    return jnp.einsum("ih,jw,nhwc->nijc", rows, cols, x)


# The rest --------------------------------------------------------------------


def linear(
    x: Float[Array, "n c"], kernel: Float[Array, "c k"], bias: Float[Array, " k"] | None, *, name: str = ""
) -> Float[Array, "n k"]:
    """Multiply by a matrix and add the bias."""
    del name
    return with_bias(x @ kernel.astype(x.dtype), bias)


def batch_norm(
    x: Maps,
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    mean: Float[Array, " c"],
    variance: Float[Array, " c"],
    *,
    eps: float,
    name: str = "",
) -> Maps:
    """Normalize by the running statistics: γ (x − μ) / √(σ² + eps) + β."""
    del name
    factor = scale * lax.rsqrt(variance + eps)
    offset = bias - mean * factor
    return x * jnp.broadcast_to(factor.astype(x.dtype), x.shape) + jnp.broadcast_to(
        offset.astype(x.dtype), x.shape
    )


def relu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Keep what is positive; the gradient at 0 is 0."""
    return jax.nn.relu(x)


def add(x: Maps, y: Maps) -> Maps:
    """Add the two branches of a residual block."""
    return x + y


def concatenate(xs: Sequence[Float[Array, "n h w _"]]) -> Maps:
    """Put the channels of the branches one after another."""
    if len({x.shape for x in xs}) > 1:
        return jnp.concatenate(xs, axis=-1)
    # Along an axis of its own XLA joins them in the loop that computes them; else it copies, on one core.
    return jnp.stack(xs, axis=-2).reshape(*xs[0].shape[:-1], -1)


default = Ops(
    standardize=standardize,
    conv=conv,
    linear=linear,
    batch_norm=batch_norm,
    relu=relu,
    max_pool=max_pool,
    mean_pool=mean_pool,
    adaptive_mean_pool=adaptive_mean_pool,
    add=add,
    concatenate=concatenate,
)
"""Written for gradients with respect to images."""

plain = default._replace(conv=plain_conv, max_pool=plain_max_pool)
"""JAX's own arithmetic, also in forward mode."""

average_pooling = default._replace(max_pool=mean_pool)
"""Means in place of maxima: the gradient reaches every pixel (Gatys, Ecker & Bethge, 2015)."""
