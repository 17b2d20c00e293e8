"""Convolution, with a backward pass of its own: what is fast on CPU, for gradients with respect to images.

Chosen from shapes when a program is traced. Elsewhere than on CPU it is the compiler's own convolution.
"""

import functools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from vizsynth.cpu import thresholds, windows, winograd
from vizsynth.cpu.windows import Maps, Padding, Pair


def with_bias(y: Float[Array, "*n k"], bias: Float[Array, " k"] | None) -> Float[Array, "*n k"]:
    """Return y + b, in the data type of y."""
    return y if bias is None else y + jnp.broadcast_to(bias.astype(y.dtype), y.shape)


def _lax_conv(x: Array, kernel: Array, strides: Pair, padding: Padding) -> Array:
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def by_patches(x: Array, kernel: Array, strides: Pair, padding: Padding) -> Array:
    """Convolve as one product of matrices: every window's values times the kernel."""
    kh, kw, channels, outputs = kernel.shape
    patches = jnp.concatenate(windows.slices(windows.padded(x, padding), (kh, kw), strides), axis=-1)
    return patches @ kernel.reshape(kh * kw * channels, outputs)


def by_taps(x: Array, kernel: Array, padding: Padding) -> Array:
    """Convolve as one product of matrices: every position times each tap, shifted and summed after that."""
    kh, kw, channels, outputs = kernel.shape
    shares = x @ kernel.transpose(2, 0, 1, 3).reshape(channels, kh * kw * outputs)
    # The barrier keeps the padding from being computed again for every tap.
    shares = windows.padded(lax.optimization_barrier(shares), padding)
    rows, cols = shares.shape[1] - kh + 1, shares.shape[2] - kw + 1
    shares = shares.reshape(*shares.shape[:3], kh, kw, outputs)
    return functools.reduce(
        operator.add,
        (shares[:, i : i + rows, j : j + cols, i, j] for i in range(kh) for j in range(kw)),
    )


def _fast_conv(x: Array, kernel: Array, strides: Pair, padding: Padding) -> Array:
    """Convolve, with ways around what XLA's CPU backend is slow at.

    A map smaller than the window goes by patches: XLA exchanges the two, and is up to 60 times slower at what
    comes of it (VGG's fifth block on images of 32 pixels). So do maps of few positions and many channels,
    where a product of matrices takes two thirds of the time (the last blocks of a ResNet). A map without any
    padding is given one column of it, and the output that comes of that is cut off: otherwise all windows are
    written out first, which takes up to 25 times as long once they do not fit into the caches. Some channels
    are made twenty by zeros where outputs are few (the last layers of a stylizer): XLA has a faster
    convolution for more than sixteen of either, at its best for multiples of four. Three outputs (the
    gradient of a first layer) are one product and a sum of shifted maps, in half of the time.
    """
    at = thresholds.MEASURED
    channels, outputs = kernel.shape[2:]
    unpadded = padding == ((0, 0), (0, 0))
    narrow = outputs < at.filled_outputs and at.filled_from <= channels < at.filled_to and strides == (1, 1)
    zeros_help = narrow or (unpadded and max(channels, outputs) >= at.column_channels)

    def as_product(x: Array, kernel: Array) -> Array:
        return by_patches(x, kernel, strides, padding)

    def with_zeros(x: Array, kernel: Array) -> Array:
        if narrow:
            more = (0, at.filled_to - channels)
            x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), more))
            kernel = jnp.pad(kernel, ((0, 0), (0, 0), more, (0, 0)))
        if not unpadded:
            return _lax_conv(x, kernel, strides, padding)
        return _lax_conv(x, kernel, strides, ((0, 0), (0, strides[1])))[:, :, :-1]

    smaller = kernel.shape[0] > x.shape[1] or kernel.shape[1] > x.shape[2]
    if smaller or _positions_are_few(x.shape, kernel.shape, strides, padding):
        faster = as_product
    elif _outputs_are_few(x, kernel, strides):
        faster = partial(by_taps, padding=padding)
    elif zeros_help and _windows_are_many(x.shape, kernel.shape, strides):
        faster = with_zeros
    else:
        return _lax_conv(x, kernel, strides, padding)
    return lax.platform_dependent(
        x, kernel, cpu=faster, default=lambda x, kernel: _lax_conv(x, kernel, strides, padding)
    )


def _positions_are_few(shape: Sequence[int], kernel: Sequence[int], strides: Pair, padding: Padding) -> bool:
    """Tell whether each image's map is small, and deep enough for a product of matrices."""
    rows, cols = ((shape[1 + d] + sum(padding[d]) - kernel[d]) // strides[d] + 1 for d in (0, 1))
    at = thresholds.MEASURED
    return min(shape[3], kernel[3]) >= at.product_channels and rows * cols <= at.product_positions


def _outputs_are_few(x: Array, kernel: Array, strides: Pair) -> bool:
    """Tell whether the taps' shares of the outputs are hardly more numbers than the inputs."""
    kh, kw, channels, outputs = kernel.shape
    at = thresholds.MEASURED
    if x.dtype.itemsize < 4 or strides != (1, 1) or kh * kw == 1:  # shares are rounded before they are summed
        return False
    return outputs <= at.tap_outputs and kh * kw * outputs <= at.tap_growth * channels


def _windows_are_many(shape: Sequence[int], kernel: Sequence[int], strides: Pair) -> bool:
    """Tell whether the windows of a map would not fit into the caches, and are worth it."""
    n, h, w, c = shape
    kh, kw = kernel[:2]
    positions = n * ((h - kh) // strides[0] + 1) * ((w - kw) // strides[1] + 1)
    at = thresholds.MEASURED
    return kh * kw * c >= at.many_taps and positions * kh * kw * c > at.many_numbers


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv(x: Array, kernel: Array, strides: Pair, padding: Padding) -> Array:
    return _fast_conv(x, kernel, strides, padding)


def _conv_forward(x: Array, kernel: Array, strides: Pair, padding: Padding):
    return _conv(x, kernel, strides, padding), (x, kernel)


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

    # Dead code, hence free, where only the image's gradient is wanted. Where `jax.shard_map` spreads images
    # alone, each device has a share of the weights' gradient, and the shares are summed.
    share, summed = jax.vjp(lambda kernel: jnp.where(True, kernel, jnp.zeros_like(x, shape=())), kernel)
    dkernel = lax.platform_dependent(x, share, g, cpu=canonical_kernel, default=compilers_kernel)
    return dx, summed(dkernel)[0]


_conv.defvjp(_conv_forward, _conv_backward)


def _input_gradient(g: Array, kernel: Array, shape: Sequence[int], strides: Pair, padding: Padding) -> Array:
    """Return the gradient of a convolution with respect to its input, as a stride-1 convolution.

    With stride s, the inputs at positions i ≡ r (mod s) see only the taps t ≡ r + pad (mod s). The s²
    sub-pixel phases are s² groups of output channels of one convolution over g, or s² convolutions, woven
    together at the end. With s = 1 it is the convolution with the kernel flipped and its channels exchanged.
    """
    gradient = gradient_kernel(kernel, strides, padding)
    if isinstance(gradient, tuple):
        return _phase_by_phase(g, gradient, kernel.shape, shape, strides, padding)
    pads = _gradient_padding(g.shape, kernel.shape, shape, strides, padding)
    phases = cast(Array, _conv(g, gradient, (1, 1), pads))
    return phases if strides == (1, 1) else windows.interleaved(phases, strides, shape)


Phases = tuple[Float[Array, "_ _ k c"], ...]
"""The kernel of each sub-pixel phase, row by row."""


def gradient_kernel(
    kernel: Float[Array, "kh kw c k"], strides: Pair, padding: Padding
) -> Float[Array, "kh2 kw2 k c2"] | Phases:
    """Return the kernel that the gradient of a convolution is convolved with, at stride 1.

    With s = 1 it is flipped, its channels exchanged. Otherwise it has s² groups of output channels, one for
    each sub-pixel phase, and zeros where a phase has fewer taps than another: 7 of 16 for a 3x3 window at
    stride 2. So the phases of a deep kernel, which is long to read, are s² kernels without them.
    """
    if strides == (1, 1):
        return winograd.flipped(kernel)
    kh, kw, channels, outputs = kernel.shape
    rows, _ = windows.phase_taps(kh, strides[0], padding[0][0], 1, 1)
    cols, _ = windows.phase_taps(kw, strides[1], padding[1][0], 1, 1)
    every_phase_has_some = kh >= strides[0] and kw >= strides[1]
    at = thresholds.MEASURED
    worthwhile = channels * outputs >= at.apart_pairs and kh * kw < at.apart_taps * rows.size * cols.size
    if worthwhile and every_phase_has_some:
        return tuple(
            kernel[rows[top:bottom, r]][:, cols[left:right, c]].transpose(0, 1, 3, 2)
            for r, (top, bottom) in enumerate(_taps_of(rows, kh))
            for c, (left, right) in enumerate(_taps_of(cols, kw))
        )
    kernel = jnp.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0)))  # index k: a tap that is not there
    kernel = kernel[rows][:, :, cols]  # [rows, s, cols, s, in, out]
    kernel = kernel.transpose(0, 2, 5, 1, 3, 4)
    return kernel.reshape(len(rows), len(cols), outputs, strides[0] * strides[1] * channels)


def _taps_of(taps: np.ndarray, window: int) -> list[Pair]:
    """Return from where to where each phase has taps, of `windows.phase_taps`; they have no gaps."""
    there = [np.flatnonzero(phase < window) for phase in taps.T]
    return [(int(places[0]), int(places[-1]) + 1) for places in there]


def _phase_by_phase(
    g: Array, phases: Phases, kernel: Sequence[int], shape: Sequence[int], strides: Pair, padding: Padding
) -> Array:
    """Return the gradient of a convolution with respect to its input, by a kernel for each phase."""
    (rows, row_pads), (cols, col_pads) = (
        windows.phase_taps(kernel[d], strides[d], padding[d][0], shape[1 + d], g.shape[1 + d]) for d in (0, 1)
    )

    def cut(pads: Pair, taps: Pair, window: int) -> Pair:
        return pads[0] - taps[0], pads[1] - (window - taps[1])

    found, at = [], iter(phases)
    for row_taps in _taps_of(rows, kernel[0]):
        for col_taps in _taps_of(cols, kernel[1]):
            phase = next(at)
            pads = (cut(row_pads, row_taps, len(rows)), cut(col_pads, col_taps, len(cols)))
            if phase.shape[:2] == (1, 1):
                found.append(windows.padded(g, pads) @ phase[0, 0])
            else:
                found.append(cast(Array, _conv(g, phase, (1, 1), pads)))
    return windows.interleaved(jnp.concatenate(found, axis=-1), strides, shape)


@partial(jax.jit, static_argnames=("strides", "padding"))
def transforms(
    kernel: Float[Array, "kh kw c k"], strides: Pair, padding: Padding
) -> tuple[Array | Phases, winograd.Transform | None, winograd.Transform | None]:
    """Return what a `winograd.Kernel` has besides the kernel itself."""
    gradient = gradient_kernel(kernel, strides, padding)
    if isinstance(gradient, tuple) or strides != (1, 1) or not winograd.transformable(kernel):
        return gradient, None, None
    return gradient, winograd.transform(kernel), winograd.transform(gradient)


def _gradient_padding(
    g: Sequence[int], kernel: Sequence[int], shape: Sequence[int], strides: Pair, padding: Padding
) -> Padding:
    """Return by how much the gradient is padded before it is convolved, of the arrays' shapes."""
    _, rows = windows.phase_taps(kernel[0], strides[0], padding[0][0], shape[1], g[1])
    _, cols = windows.phase_taps(kernel[1], strides[1], padding[1][0], shape[2], g[2])
    return rows, cols


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _prepared_conv(x: Array, kernel: winograd.Kernel, strides: Pair, padding: Padding) -> Array:
    def tiled(x: Array, plain: Array, transformed: winograd.Transform) -> Array:
        del plain
        return winograd.conv(jnp.pad(x, ((0, 0), *padding, (0, 0))), transformed)

    def compilers(x: Array, plain: Array, transformed: winograd.Transform) -> Array:
        del transformed
        return _lax_conv(x, plain, (1, 1), padding)

    cropped = any(pad < 0 for pair in padding for pad in pair)
    if kernel.forward is None or cropped or not winograd.pays(x, kernel.plain):
        return _fast_conv(x, kernel.plain, strides, padding)
    return lax.platform_dependent(x, kernel.plain, kernel.forward, cpu=tiled, default=compilers)


def _prepared_forward(x: Any, kernel: Any, strides: Pair, padding: Padding):
    if any(part.perturbed for part in jax.tree.leaves(kernel)):
        raise ValueError(
            "the gradient of weights was asked of a network whose kernels were transformed, which would not "
            "follow them: take the network as it was before vizsynth.prepare"
        )
    kernel = jax.tree.map(lambda part: part.value, kernel)
    return _prepared_conv(x.value, kernel, strides, padding), (kernel, x.value.shape)


def _prepared_backward(strides: Pair, padding: Padding, residuals: Any, g: Array):
    kernel, shape = residuals

    def canonical(kernel: winograd.Kernel, g: Array) -> Array:
        return _prepared_gradient(g, kernel, shape, strides, padding)

    def compilers(kernel: winograd.Kernel, g: Array) -> Array:
        x = jnp.zeros_like(g, shape=shape)
        return jax.vjp(lambda x: _lax_conv(x, kernel.plain, strides, padding), x)[1](g)[0]

    dx = lax.platform_dependent(kernel, g, cpu=canonical, default=compilers)
    return dx, jax.tree.map(jnp.zeros_like, kernel)


def _prepared_gradient(
    g: Array, kernel: winograd.Kernel, shape: Sequence[int], strides: Pair, padding: Padding
) -> Array:
    if isinstance(kernel.gradient, tuple):
        return _phase_by_phase(g, kernel.gradient, kernel.shape, shape, strides, padding)
    pads = _gradient_padding(g.shape, kernel.shape, shape, strides, padding)
    # The gradient's own gradient, at stride 1, is convolved with the kernel again.
    back = (
        winograd.Kernel(kernel.gradient, kernel.plain, kernel.backward, kernel.forward)
        if strides == (1, 1)
        else winograd.Kernel(kernel.gradient, winograd.flipped(kernel.gradient))
    )
    dx = cast(Array, _prepared_conv(g, back, (1, 1), pads))
    return dx if strides == (1, 1) else windows.interleaved(dx, strides, shape)


_prepared_conv.defvjp(_prepared_forward, _prepared_backward, symbolic_zeros=True)


def _kernel_gradient(x: Array, g: Array, window: Pair, strides: Pair, padding: Padding) -> Array:
    """Return the gradient of a convolution with respect to its kernel.

    ∂L/∂w[i, j] = Σ_np x[n, s p + (i, j)] g[n, p]: a product of matrices for each tap (i, j), or, the channels
    of x being its images and its images channels, one forward convolution. XLA can be slow at the second on
    CPU where it is dilated (s > 1): a small window is then computed tap by tap. Some images of large maps are
    computed one by one.
    """
    at = thresholds.MEASURED
    large = g.shape[1] * g.shape[2] >= at.single_positions
    if strides == (1, 1) and 1 < len(x) <= at.single_images and large:
        parts = zip(jnp.split(x, len(x)), jnp.split(g, len(g)), strict=True)
        return jnp.sum(jnp.stack([_kernel_gradient(*part, window, strides, padding) for part in parts]), 0)
    if strides != (1, 1) and window[0] * window[1] <= at.window_taps:
        seen = windows.slices(windows.padded(x, padding), window, strides)
        taps = [_over_positions(part, g) for part in seen]
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


def _pointwise(x: Array, kernel: Array, strides: Pair) -> Array:
    if strides != (1, 1):
        x = x[:, :: strides[0], :: strides[1]]
    return x @ kernel[0, 0]


def _fast(x: Maps, kernel: Any, strides: Pair, padding: Padding) -> Array:
    if isinstance(kernel, winograd.Kernel):
        if x.dtype == kernel.plain.dtype:
            return _prepared_conv(x, kernel, strides, padding)
        kernel = kernel.plain
    kernel = kernel.astype(x.dtype)
    if kernel.shape[:2] == (1, 1) and padding == ((0, 0), (0, 0)):
        return _pointwise(x, kernel, strides)
    return _conv(x, kernel, strides, padding)


def _plain(x: Maps, kernel: Array, strides: Pair, padding: Padding) -> Array:
    return _lax_conv(x, kernel.astype(x.dtype), strides, padding)


@dataclass(frozen=True)
class Convolution:
    """A convolution and nothing else: it has no rule of its own in reverse, as LRP's has."""

    function: Callable[[Array, Any, Pair, Padding], Array]
    """Of the maps, the kernel, the strides and the padding."""
    transforms: bool
    """Whether it takes kernels that were transformed, `vizsynth.cpu.winograd.Kernel`."""

    def __call__(
        self,
        x: Maps,
        kernel: Float[Array, "kh kw c k"] | winograd.Kernel,
        bias: Float[Array, " k"] | None,
        *,
        strides: Pair = (1, 1),
        padding: Padding = ((0, 0), (0, 0)),
        name: str = "",
    ) -> Float[Array, "n h2 w2 k"]:
        """Return x ∗ w + b."""
        windows.check("convolution", name, x, kernel.shape[:2], padding)
        return with_bias(self.function(x, kernel, strides, padding), bias)


fast_conv = Convolution(_fast, transforms=True)
"""On CPU the backward pass is a forward convolution, too; transformed kernels are used if they are faster."""

plain_conv = Convolution(_plain, transforms=False)
"""By `jax.lax` alone."""
