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
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from vizsynth import winograd

Pair = tuple[int, int]
Padding = tuple[Pair, Pair]
Activation = Float[Array, "n h w c"]


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


def standardize(images: Activation, how: Callable[[Any], Any]) -> Activation:
    """Bring pixels to the mean and the deviation that the weights want."""
    return how(images)


# Convolution -----------------------------------------------------------------

MOST_TAPS = 49  # of a window whose kernel's gradient is computed tap by tap: each is compiled


def _lax_conv(x: Array, kernel: Array, strides: Pair, padding: Padding) -> Array:
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def patches_conv(x: Array, kernel: Array, strides: Pair, padding: Padding) -> Array:
    """Convolve as one product of matrices: every window's values times the kernel."""
    kh, kw, channels, outputs = kernel.shape
    margins = [(low, high, 0) for low, high in ((0, 0), *padding, (0, 0))]  # below 0 where it crops
    padded = lax.pad(x, jnp.zeros((), x.dtype), margins)
    patches = jnp.concatenate(_window_slices(padded, (kh, kw), strides), axis=-1)
    return patches @ kernel.reshape(kh * kw * channels, outputs)


def _fast_conv(x: Array, kernel: Array, strides: Pair, padding: Padding) -> Array:
    """Convolve, with ways around what XLA's CPU backend is slow at.

    A map smaller than the window goes by patches: XLA exchanges the two, and is up to 60 times slower at what
    comes of it (VGG's fifth block on images of 32 pixels). So do maps of few positions and many channels,
    where a product of matrices takes two thirds of the time (the last blocks of a ResNet). A map without any
    padding is given one column of it, and the output that comes of that is cut off: otherwise all windows are
    written out first, which takes up to ten times as long once they do not fit into the caches.
    """

    def by_patches(x: Array, kernel: Array) -> Array:
        return patches_conv(x, kernel, strides, padding)

    def with_a_column(x: Array, kernel: Array) -> Array:
        return _lax_conv(x, kernel, strides, ((0, 0), (0, strides[1])))[:, :, :-1]

    smaller = kernel.shape[0] > x.shape[1] or kernel.shape[1] > x.shape[2]
    if smaller or _positions_are_few(x.shape, kernel.shape, strides, padding):
        faster = by_patches
    elif padding == ((0, 0), (0, 0)) and _windows_are_many(x.shape, kernel.shape, strides):
        faster = with_a_column
    else:
        return _lax_conv(x, kernel, strides, padding)
    return lax.platform_dependent(
        x, kernel, cpu=faster, default=lambda x, kernel: _lax_conv(x, kernel, strides, padding)
    )


def _positions_are_few(shape: Sequence[int], kernel: Sequence[int], strides: Pair, padding: Padding) -> bool:
    """Tell whether each image's map is small, and deep enough for a product of matrices."""
    rows, cols = ((shape[1 + d] + sum(padding[d]) - kernel[d]) // strides[d] + 1 for d in (0, 1))
    return shape[3] >= 128 and kernel[3] >= 128 and rows * cols <= 64


def _windows_are_many(shape: Sequence[int], kernel: Sequence[int], strides: Pair) -> bool:
    """Tell whether the windows of an unpadded map would not fit into the caches, and are worth it."""
    n, h, w, c = shape
    kh, kw, _, outputs = kernel
    positions = n * ((h - kh) // strides[0] + 1) * ((w - kw) // strides[1] + 1)
    return outputs >= 16 and kh * kw * c >= 100 and positions * kh * kw * c > 2**21


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv(x: Array, kernel: Array, strides: Pair, padding: Padding) -> Array:
    return _fast_conv(x, kernel, strides, padding)


def _conv_forward(x: Array, kernel: Array, strides: Pair, padding: Padding):
    return _fast_conv(x, kernel, strides, padding), (x, kernel)


def _conv_backward(strides: Pair, padding: Padding, residuals: tuple[Array, Array], g: Array):
    x, kernel = residuals

    def canonical(x: Array, kernel: Array, g: Array) -> Array:
        return _input_gradient(g, kernel, x.shape, strides, padding)

    def compilers(x: Array, kernel: Array, g: Array) -> Array:
        return jax.vjp(lambda x: _lax_conv(x, kernel, strides, padding), x)[1](g)[0]

    # XLA's CPU backend compiles autodiff's backward convolution to a slow path inside loops; an
    # ordinary forward convolution is fast everywhere. Other backends do better by themselves.
    dx = lax.platform_dependent(x, kernel, g, cpu=canonical, default=compilers)

    def canonical_kernel(x: Array, kernel: Array, g: Array) -> Array:
        return _kernel_gradient(x, g, (kernel.shape[0], kernel.shape[1]), strides, padding)

    def compilers_kernel(x: Array, kernel: Array, g: Array) -> Array:
        return jax.vjp(lambda kernel: _lax_conv(x, kernel, strides, padding), kernel)[1](g)[0]

    # Dead code, hence free, where only the image's gradient is wanted.
    dkernel = lax.platform_dependent(x, kernel, g, cpu=canonical_kernel, default=compilers_kernel)
    return dx, dkernel


_conv.defvjp(_conv_forward, _conv_backward)


def _input_gradient(g: Array, kernel: Array, shape: Sequence[int], strides: Pair, padding: Padding) -> Array:
    """Return the gradient of a convolution with respect to its input, as a stride-1 convolution.

    With stride s, the inputs at positions i ≡ r (mod s) see only the taps t ≡ r + pad (mod s). The s²
    sub-pixel phases are s² groups of output channels of one convolution over g, woven together at the
    end. With s = 1 it is the convolution with the kernel flipped and its channels exchanged.
    """
    rows_pad, cols_pad = _gradient_padding(g.shape, kernel.shape, shape, strides, padding)
    phases = _conv(g, gradient_kernel(kernel, strides, padding), (1, 1), (rows_pad, cols_pad))
    return cast(Array, phases) if strides == (1, 1) else _interleave(cast(Array, phases), strides, shape)


def gradient_kernel(
    kernel: Float[Array, "kh kw c k"], strides: Pair, padding: Padding
) -> Float[Array, "kh2 kw2 k c2"]:
    """Return the kernel that the gradient of a convolution is convolved with, at stride 1.

    With s = 1 it is flipped, its channels exchanged; otherwise it has s² groups of output channels, one
    for each sub-pixel phase.
    """
    if strides == (1, 1):
        return winograd.flipped(kernel)
    kh, kw, channels, outputs = kernel.shape
    rows, _ = _phase_taps(kh, strides[0], padding[0][0], 1, 1)
    cols, _ = _phase_taps(kw, strides[1], padding[1][0], 1, 1)
    kernel = jnp.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0)))  # index k: a tap that is not there
    kernel = kernel[rows][:, :, cols]  # [rows, s, cols, s, in, out]
    kernel = kernel.transpose(0, 2, 5, 1, 3, 4)
    return kernel.reshape(len(rows), len(cols), outputs, strides[0] * strides[1] * channels)


@partial(jax.jit, static_argnames=("strides", "padding"))
def transforms(
    kernel: Float[Array, "kh kw c k"], strides: Pair, padding: Padding
) -> tuple[Array | None, ...]:
    """Return what a `winograd.Kernel` has besides the kernel itself."""
    gradient = gradient_kernel(kernel, strides, padding)
    if strides != (1, 1) or not winograd.transformable(kernel):
        return gradient, None, None
    return gradient, winograd.transform(kernel), winograd.transform(gradient)


def _gradient_padding(
    g: Sequence[int], kernel: Sequence[int], shape: Sequence[int], strides: Pair, padding: Padding
) -> Padding:
    """Return by how much the gradient is padded before it is convolved, of the arrays' shapes."""
    _, rows = _phase_taps(kernel[0], strides[0], padding[0][0], shape[1], g[1])
    _, cols = _phase_taps(kernel[1], strides[1], padding[1][0], shape[2], g[2])
    return rows, cols


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _prepared_conv(x: Array, kernel: winograd.Kernel, strides: Pair, padding: Padding) -> Array:
    def tiled(x: Array, plain: Array, transformed: Array) -> Array:
        del plain
        return winograd.conv(jnp.pad(x, ((0, 0), *padding, (0, 0))), transformed)

    def compilers(x: Array, plain: Array, transformed: Array) -> Array:
        del transformed
        return _lax_conv(x, plain, (1, 1), padding)

    cropped = any(pad < 0 for pair in padding for pad in pair)
    if kernel.forward is None or cropped or not winograd.pays(x, kernel.plain):
        return _fast_conv(x, kernel.plain, strides, padding)
    return lax.platform_dependent(x, kernel.plain, kernel.forward, cpu=tiled, default=compilers)


def _prepared_forward(x: Any, kernel: Any, strides: Pair, padding: Padding):
    if any(part.perturbed for part in kernel if part is not None):
        raise ValueError(
            "the gradient of weights was asked of a network whose kernels were transformed, which would not "
            "follow them: take the network as it was before vizsynth.prepare"
        )
    values: Any = [None if part is None else part.value for part in kernel]
    kernel = winograd.Kernel(*values)
    return _prepared_conv(x.value, kernel, strides, padding), (kernel, x.value.shape)


def _prepared_backward(strides: Pair, padding: Padding, residuals: Any, g: Array):
    kernel, shape = residuals
    pads = _gradient_padding(g.shape, kernel.shape, shape, strides, padding)
    # The gradient's own gradient, at stride 1, is convolved with the kernel again.
    back = (
        winograd.Kernel(kernel.gradient, kernel.plain, kernel.backward, kernel.forward)
        if strides == (1, 1)
        else winograd.Kernel(kernel.gradient, winograd.flipped(kernel.gradient))
    )
    dx = cast(Array, _prepared_conv(g, back, (1, 1), pads))
    if strides != (1, 1):
        dx = _interleave(dx, strides, shape)
    return dx, jax.tree.map(jnp.zeros_like, kernel)


_prepared_conv.defvjp(_prepared_forward, _prepared_backward, symbolic_zeros=True)


def _kernel_gradient(x: Array, g: Array, window: Pair, strides: Pair, padding: Padding) -> Array:
    """Return the gradient of a convolution with respect to its kernel.

    ∂L/∂w[i, j] = Σ_np x[n, s p + (i, j)] g[n, p]: a product of matrices for each tap (i, j), or, the channels
    of x being its images and its images channels, one forward convolution. XLA is slow at the second on CPU
    where it is dilated (s > 1), and where several images give many channels: up to eight times.
    """
    several = len(x) > 1 and g.shape[3] >= 32
    if (strides != (1, 1) or several) and window[0] * window[1] <= MOST_TAPS:
        margins = [(low, high, 0) for low, high in ((0, 0), *padding, (0, 0))]  # below 0 where it crops
        padded = lax.pad(x, jnp.zeros((), x.dtype), margins)
        taps = [_over_positions(seen, g) for seen in _window_slices(padded, window, strides)]
        return jnp.stack(taps).reshape(*window, x.shape[3], g.shape[3])
    dw = lax.conv_general_dilated(
        x.transpose(3, 1, 2, 0),
        g.transpose(1, 2, 0, 3),
        (1, 1),
        padding,
        rhs_dilation=strides,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return dw[:, : window[0], : window[1]].transpose(1, 2, 0, 3)


def _over_positions(x: Array, g: Array) -> Array:
    """Return Σ_np x[n, p, c] g[n, p, k]: the wider of the two is on the right, which is faster on CPU."""
    if x.shape[3] < g.shape[3]:
        return jnp.einsum("nhwc,nhwk->ck", x, g)
    return jnp.einsum("nhwk,nhwc->kc", g, x).T


def _phase_taps(k: int, s: int, pad: int, size: int, g_size: int) -> tuple[np.ndarray, Pair]:
    """Return which tap each position of the sub-pixel kernel holds, `[window, phase]`, and its padding.

    Phase r of the input gradient is Σ_m w[t₀ + s m] g[q + c − m], t₀ = (r + pad) mod s,
    c = ⌊(r + pad) / s⌋. A tap that does not exist is given the index k.
    """
    taps = -(-k // s)
    offset = (np.arange(s) + pad) // s
    low, high = int(offset.min()), int(offset.max())
    window = high - low + taps
    m = offset[None, :] - np.arange(window)[:, None] - low + taps - 1
    tap = (np.arange(s) + pad) % s + s * m
    tap = np.where((m >= 0) & (tap < k), tap, k)
    phases = -(-size // s)
    seen = np.flatnonzero((tap < k).any(axis=1))  # no phase sees what lies outside
    first, last = int(seen[0]), int(seen[-1])
    return tap[first : last + 1], (taps - 1 - low - first, phases + high - g_size - (window - 1 - last))


def _interleave(phases: Array, strides: Pair, shape: Sequence[int]) -> Array:
    """Weave `[n, h, w, s·s·c]` into `[n, s·h, s·w, c]`, as much of it as `shape` has."""
    n, h, w, _ = phases.shape
    sh, sw = strides
    woven = phases.reshape(n, h, w, sh, sw, shape[3]).transpose(0, 1, 3, 2, 4, 5)
    return woven.reshape(n, h * sh, w * sw, shape[3])[:, : shape[1], : shape[2]]


def _pointwise(x: Array, kernel: Array, strides: Pair) -> Array:
    x = x[:, :: strides[0], :: strides[1]]
    return x @ kernel[0, 0]


def _with_bias(y: Array, bias: Array | None) -> Array:
    return y if bias is None else y + jnp.broadcast_to(bias.astype(y.dtype), y.shape)


def conv(
    x: Activation,
    kernel: Float[Array, "kh kw c k"] | winograd.Kernel,
    bias: Float[Array, " k"] | None,
    *,
    strides: Pair = (1, 1),
    padding: Padding = ((0, 0), (0, 0)),
    name: str = "",
) -> Float[Array, "n h2 w2 k"]:
    """Convolve, with a backward pass that is itself a forward convolution on CPU.

    A kernel that was transformed is used as such where that is faster.
    """
    _check_window("convolution", name, x, kernel.shape[:2], padding)
    if isinstance(kernel, winograd.Kernel):
        if x.dtype == kernel.plain.dtype:
            return _with_bias(_prepared_conv(x, kernel, strides, padding), bias)
        kernel = kernel.plain
    kernel = kernel.astype(x.dtype)
    if kernel.shape[:2] == (1, 1) and padding == ((0, 0), (0, 0)):
        return _with_bias(_pointwise(x, kernel, strides), bias)
    return _with_bias(_conv(x, kernel, strides, padding), bias)


def takes_transforms(function: Callable[..., Any]) -> bool:
    """Tell whether a convolution takes a kernel that was transformed, `vizsynth.winograd.Kernel`."""
    return function is conv or getattr(function, "takes_transforms", False)


def plain_conv(
    x: Activation,
    kernel: Float[Array, "kh kw c k"],
    bias: Float[Array, " k"] | None,
    *,
    strides: Pair = (1, 1),
    padding: Padding = ((0, 0), (0, 0)),
    name: str = "",
) -> Float[Array, "n h2 w2 k"]:
    """Convolve by `jax.lax` alone."""
    _check_window("convolution", name, x, kernel.shape[:2], padding)
    return _with_bias(_lax_conv(x, kernel.astype(x.dtype), strides, padding), bias)


# Pooling ---------------------------------------------------------------------


def pool_padding(size: int, window: int, stride: int, pad: int, *, ceil: bool) -> Pair:
    """Return the explicit padding of a pooling layer as PyTorch counts it, `ceil_mode` included."""
    if not ceil:
        return pad, pad
    steps = -(-(size + 2 * pad - window) // stride)
    if steps * stride >= size + pad:  # a last window that would begin in the padding is left out
        steps -= 1
    return pad, max(pad, steps * stride + window - size - pad)


def _window_slices(x: Array, window: Pair, strides: Pair) -> list[Array]:
    """Return, for each offset in the window, that element of every window."""
    oh = (x.shape[1] - window[0]) // strides[0] + 1
    ow = (x.shape[2] - window[1]) // strides[1] + 1
    return [
        x[:, i : i + strides[0] * (oh - 1) + 1 : strides[0], j : j + strides[1] * (ow - 1) + 1 : strides[1]]
        for i in range(window[0])
        for j in range(window[1])
    ]


def _first_maximum(x: Array, window: Pair, strides: Pair, padding: Padding) -> tuple[Array, Array]:
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)), constant_values=-jnp.inf)
    first, *others = _window_slices(x, window, strides)
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
        return reduce(jnp.maximum, _window_slices(x, window, strides))

    # XLA's CPU backend fuses a window's reduction into the product that follows, and then reduces anew
    # for every block of it: VGG's first dense layer, of four images, took thirty times as long.
    compilers = partial(plain_max_pool, window=window, strides=strides, padding=padding)
    return lax.platform_dependent(x, cpu=sliced, default=compilers)


def _max_pool_forward(x: Array, window: Pair, strides: Pair, padding: Padding):
    best, index = _first_maximum(x, window, strides, padding)
    return best, (index, x.shape[1:3])


def _max_pool_backward(window: Pair, strides: Pair, padding: Padding, residuals: Any, g: Array):
    index, (h, w) = residuals
    rows, rows_pad = _phase_taps(window[0], strides[0], padding[0][0], h, g.shape[1])
    cols, cols_pad = _phase_taps(window[1], strides[1], padding[1][0], w, g.shape[2])
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
    return (_interleave(woven, strides, (*g.shape[:1], h, w, g.shape[3])),)


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def max_pool(
    x: Activation, *, window: Pair, strides: Pair, padding: Padding = ((0, 0), (0, 0))
) -> Float[Array, "n h2 w2 c"]:
    """Take the maximum of each window; a tie sends its gradient to the first, as in PyTorch."""
    _check_window("max pooling", "", x, window, padding)
    return _max_pool(x, window, strides, padding)


def plain_max_pool(
    x: Activation, *, window: Pair, strides: Pair, padding: Padding = ((0, 0), (0, 0))
) -> Float[Array, "n h2 w2 c"]:
    """Take the maximum of each window by `jax.lax` alone."""
    _check_window("max pooling", "", x, window, padding)
    return lax.reduce_window(
        x, -jnp.inf, lax.max, (1, *window, 1), (1, *strides, 1), ((0, 0), *padding, (0, 0))
    )


def mean_pool(
    x: Activation, *, window: Pair, strides: Pair, padding: Padding = ((0, 0), (0, 0))
) -> Float[Array, "n h2 w2 c"]:
    """Average each window; padding counts as zeros."""
    _check_window("mean pooling", "", x, window, padding)
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    total = sum(_window_slices(x, window, strides)[1:], _window_slices(x, window, strides)[0])
    return total / (window[0] * window[1])


def _bins(size: int, bins: int) -> np.ndarray:
    """Return the averaging matrix `[bins, size]`; bin i is ⌊i·size/bins⌋ .. ⌈(i+1)·size/bins⌉."""
    i, position = np.arange(bins)[:, None], np.arange(size)[None, :]
    inside = (position >= i * size // bins) & (position < -(-(i + 1) * size // bins))
    return inside / inside.sum(axis=1, keepdims=True)


def adaptive_mean_pool(x: Activation, *, size: Pair) -> Float[Array, "n h2 w2 c"]:
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
    return _with_bias(x @ kernel.astype(x.dtype), bias)


def batch_norm(
    x: Activation,
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    mean: Float[Array, " c"],
    variance: Float[Array, " c"],
    *,
    eps: float,
    name: str = "",
) -> Activation:
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


def add(x: Activation, y: Activation) -> Activation:
    """Add the two branches of a residual block."""
    return x + y


def concatenate(xs: Sequence[Float[Array, "n h w _"]]) -> Activation:
    """Put the channels of the branches one after another."""
    return jnp.concatenate(xs, axis=-1)


def _check_window(what: str, name: str, x: Array, window: Sequence[int], padding: Padding) -> None:
    size = [x.shape[1 + d] + sum(padding[d]) for d in (0, 1)]
    if size[0] < window[0] or size[1] < window[1]:
        where = f" {name!r}" if name else ""
        raise ValueError(
            f"the images are too small for this network: the {window[0]}x{window[1]} window of its "
            f"{what}{where} finds a map of {size[0]}x{size[1]}; give larger images"
        )


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
