"""3x3 convolution by Winograd's minimal filtering F(4x4, 3x3).

Lavin & Gray, Fast Algorithms for Convolutional Neural Networks, 2015, section 4: for each 6x6 tile d of the
input, Y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A, with a quarter of the multiplications. In float32 the rounding error
is about twice that of the direct sum; in bfloat16 it is 5 %, so there it is never used.

The kernels' transforms take as long as some of the convolutions: `prepare` computes them once for a network.
The 36 products of a tile's elements are six batches, one a row of the tile: XLA's CPU backend computes the
products of a batch one after another, but batches side by side.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from vizsynth.cpu import thresholds

TILE = 4  # outputs a tile and axis
Transform = tuple[Float[Array, "_ _ _"], ...]
"""A kernel `[c, k]` for each of the 36 elements of a tile: a batch of six for each row."""


class Kernel(NamedTuple):
    """A convolution's kernel, with what it and its gradient can be computed by."""

    plain: Float[Array, "kh kw c k"]
    gradient: Float[Array, "..."] | tuple[Float[Array, "..."], ...]
    """The kernel of the gradient's convolution, or those (`vizsynth.cpu.convolution.gradient_kernel`)."""
    forward: Transform | None = None
    """The transform of `plain`, where it is 3x3."""
    backward: Transform | None = None
    """The transform of `gradient`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the kernel itself."""
        return self.plain.shape


G = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)


def transform(kernel: Float[Array, "3 3 c k"]) -> Transform:
    """Return G g Gᵀ for each pair of channels. Do it once, outside of a loop."""
    # Both axes at once: three times as fast as one after the other.
    both_axes = jnp.asarray(np.kron(G, G).reshape(6, 6, 9), kernel.dtype)
    taps, channels = kernel.reshape(9, -1), kernel.shape[2:]
    return tuple(jnp.matmul(row, taps, precision="highest").reshape(6, *channels) for row in both_axes)


def flipped(kernel: Float[Array, "kh kw c k"]) -> Float[Array, "kh kw k c"]:
    """Return the kernel that the gradient of a convolution of stride 1 is convolved with."""
    return kernel[::-1, ::-1].transpose(0, 1, 3, 2)


def transformable(kernel: Array) -> bool:
    """Tell whether a kernel of stride 1 may gain by it, whatever the size of its maps."""
    wide = min(kernel.shape[2:]) >= thresholds.MEASURED.tiled_channels
    return kernel.shape[:2] == (3, 3) and kernel.dtype == jnp.float32 and wide


def pays(x: Array, kernel: Array) -> bool:
    """Tell whether it is faster for maps of this size.

    The transforms move (c + k) numbers for c k multiplications saved: few channels gain only while the maps
    are small, up to 128 or 256 pixels here, and few tiles do not fill a product of matrices. The number of
    images has no say: an image's result does not depend on the batch that it comes in.
    """
    c, k = kernel.shape[2:]
    tiles = -(-x.shape[1] // TILE) * -(-x.shape[2] // TILE)
    at = thresholds.MEASURED
    if x.dtype != jnp.float32 or tiles < at.tiled_least:
        return False
    if tiles < at.tiled_few:
        return c * k >= at.tiled_few_pairs
    return tiles <= at.tiled_many or c * k >= at.tiled_many_pairs


def _input_transform(d: Sequence[Array]) -> list[Array]:
    """Return Bᵀ d."""
    even, odd = d[4] - 4 * d[2], d[3] - 4 * d[1]
    near, step = d[4] - d[2], 2 * (d[3] - d[1])
    return [
        4 * d[0] - 5 * d[2] + d[4],
        even + odd,
        even - odd,
        near + step,
        near - step,
        4 * d[1] - 5 * d[3] + d[5],
    ]


def _output_transform(m: Sequence[Array]) -> list[Array]:
    """Return Aᵀ m."""
    plus, minus = m[1] + m[2], m[1] - m[2]
    plus2, minus2 = m[3] + m[4], m[3] - m[4]
    return [m[0] + plus + plus2, minus + 2 * minus2, plus + 4 * plus2, minus + 8 * minus2 + m[5]]


def _tiles(x: Array, axis: int, count: int) -> list[Array]:
    """Return the six elements of every tile along an axis; tiles overlap by two."""
    return [
        lax.slice_in_dim(x, i, i + TILE * (count - 1) + 1, stride=TILE, axis=axis) for i in range(TILE + 2)
    ]


@jax.custom_batching.custom_vmap
def conv(x: Float[Array, "n h w c"], U: Transform) -> Float[Array, "n h2 w2 k"]:
    """Return the convolution of x, without padding, with the kernel whose transform is U."""
    return _conv(x, U)


@conv.def_vmap
def _conv_of_many(size: int, batched: Sequence[Any], x: Array, U: tuple[Array, ...]) -> tuple[Array, bool]:
    """Take what is mapped over as more images: a product over another axis would be transposed first."""
    if not batched[0] or any(batched[1]):
        axes = jax.tree.map(lambda mapped: 0 if mapped else None, tuple(batched))
        return jax.vmap(_conv, in_axes=axes)(x, U), True
    y = conv(x.reshape(-1, *x.shape[2:]), U)
    return y.reshape(size, -1, *y.shape[1:]), True


def _conv(x: Array, U: Transform) -> Array:
    n, h, w, c = x.shape
    rows, cols = -(-(h - 2) // TILE), -(-(w - 2) // TILE)
    x = jnp.pad(x, ((0, 0), (0, rows * TILE + 2 - h), (0, cols * TILE + 2 - w), (0, 0)))
    by_row = _input_transform(_tiles(x, 1, rows))
    M = []
    # The barriers keep a row combination from being computed again for every column, and the transforms
    # from being fused into the products' operands.
    for row, kernels in zip(by_row, U, strict=True):
        row = lax.optimization_barrier(row)
        V = jnp.stack(_input_transform(_tiles(row, 2, cols))).reshape(6, n * rows * cols, c)
        m = lax.dot_general(lax.optimization_barrier(V), kernels, (((2,), (1,)), ((0,), (0,))))
        M.append(lax.optimization_barrier(m).reshape(6, n, rows, cols, -1))
    m = lax.optimization_barrier(jnp.stack(_output_transform(M)))
    y = jnp.stack(_output_transform(list(m.swapaxes(0, 1))))  # [col, row, n, rows, cols, k]
    y = y.transpose(2, 3, 1, 4, 0, 5).reshape(n, rows * TILE, cols * TILE, -1)
    return y[:, : h - 2, : w - 2]
