"""The sizes from which each algorithm of convolution is used on CPUs: one record of measurements.

`c` and `k` are a kernel's channels and outputs, `kh kw` its window. A position is an element of a map, a tile
4x4 of them.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Thresholds:
    """The sizes, and where they were measured."""

    processor: str = "AMD EPYC with AVX-512, two cores"
    jax: str = "0.10.2"
    script: str = "python -m benchmarks.thresholds"

    # The convolution itself.
    product_channels: int = 128
    """c and k, each at least: maps of few positions are one product of matrices."""
    product_positions: int = 64
    """Positions of an image's output, at most, for that product."""
    tap_outputs: int = 4
    """k, at most: each tap is one column of a product, and the columns are shifted and summed."""
    tap_growth: int = 2
    """kh kw k / c, at most: the size of those columns relative to the input."""
    filled_outputs: int = 16
    """k, below: channels are filled up with zeros."""
    filled_from: int = 10
    """c, at least, to be filled up."""
    filled_to: int = 20
    """c, below, to be filled up; and what it is filled up to."""
    column_channels: int = 16
    """c or k, at least: a map without padding is given a column of it."""
    many_taps: int = 100
    """kh kw c, at least: zeros of either kind are worth it."""
    many_numbers: int = 2**21
    """kh kw c times the positions of all images, above: so are they."""

    # The gradient with respect to the images.
    apart_pairs: int = 2**15
    """c k, at least: the sub-pixel phases of a stride have a kernel each."""
    apart_taps: float = 0.75
    """kh kw over the taps of one kernel for all phases, below: the share of them that are no zeros."""

    # The gradient with respect to the kernel.
    single_images: int = 8
    """Images, at most: each is computed, and compiled, by itself."""
    single_positions: int = 256
    """Positions of an image's output, at least, to be computed by itself."""
    window_taps: int = 25
    """kh kw, at most: with a stride, it is computed tap by tap."""

    # Winograd's minimal filtering, of 3x3 kernels that were transformed.
    tiled_channels: int = 64
    """c and k, each at least."""
    tiled_least: int = 16
    """Tiles of an image, at least."""
    tiled_few: int = 40
    """Tiles of an image, below: only kernels of `tiled_few_pairs` gain."""
    tiled_few_pairs: int = 256 * 512
    """c k, at least, where tiles are few."""
    tiled_many: int = 4096
    """Tiles of an image, above: only kernels of `tiled_many_pairs` gain."""
    tiled_many_pairs: int = 64 * 128
    """c k, at least, where tiles are many."""


MEASURED = Thresholds()
