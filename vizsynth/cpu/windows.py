"""Windows over maps, which convolution and pooling have in common."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

Pair = tuple[int, int]
Padding = tuple[Pair, Pair]
Maps = Float[Array, "n h w c"]


def padded(x: Maps, padding: Padding) -> Float[Array, "n h2 w2 c"]:
    """Return maps with zeros around them; they are cut where the padding is below 0."""
    return lax.pad(x, jnp.zeros((), x.dtype), [(low, high, 0) for low, high in ((0, 0), *padding, (0, 0))])


def slices(x: Maps, window: Pair, strides: Pair) -> list[Float[Array, "n h2 w2 c"]]:
    """Return, for each offset in the window, that element of every window."""
    oh = (x.shape[1] - window[0]) // strides[0] + 1
    ow = (x.shape[2] - window[1]) // strides[1] + 1
    return [
        x[:, i : i + strides[0] * (oh - 1) + 1 : strides[0], j : j + strides[1] * (ow - 1) + 1 : strides[1]]
        for i in range(window[0])
        for j in range(window[1])
    ]


def phase_taps(k: int, s: int, pad: int, size: int, g_size: int) -> tuple[np.ndarray, Pair]:
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


def interleaved(phases: Array, strides: Pair, shape: Sequence[int]) -> Array:
    """Weave `[n, h, w, s·s·c]` into `[n, s·h, s·w, c]`, as much of it as `shape` has."""
    n, h, w, _ = phases.shape
    sh, sw = strides
    woven = phases.reshape(n, h, w, sh, sw, shape[3]).transpose(0, 1, 3, 2, 4, 5)
    return woven.reshape(n, h * sh, w * sw, shape[3])[:, : shape[1], : shape[2]]


def check(what: str, name: str, x: Array, window: Sequence[int], padding: Padding) -> None:
    """Raise if a window finds a map that is smaller than itself."""
    size = [x.shape[1 + d] + sum(padding[d]) for d in (0, 1)]
    if size[0] < window[0] or size[1] < window[1]:
        where = f" {name!r}" if name else ""
        raise ValueError(
            f"the images are too small for this network: the {window[0]}x{window[1]} window of its "
            f"{what}{where} finds a map of {size[0]}x{size[1]}; give larger images"
        )
