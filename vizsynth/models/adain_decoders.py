"""The decoder that mirrors the first blocks of VGG: features back to a picture.

Huang & Belongie, Arbitrary Style Transfer in Real-time with Adaptive Instance Normalization, 2017, section
5.1: VGG's convolutions up to relu4_1 in reverse order, each padded by reflection, elements repeated where
VGG pools; no normalization within. Here it may begin at relu3_1 or relu2_1 too, in any widths. Departure: the
last layer is a sigmoid, where the published code has none: pictures lie in [0, 1].
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from vizsynth import ops as arithmetic
from vizsynth.models.layers import he_normal, keys_from
from vizsynth.models.stylizers import doubled, reflected
from vizsynth.ops import Ops
from vizsynth.types import Key

MIRRORED = {"relu2_1": (2,), "relu3_1": (2, 2), "relu4_1": (2, 2, 4)}
"""How many convolutions each of VGG-19's blocks has before the layer, as Huang & Belongie mirror them."""


@dataclass(frozen=True)
class AdainDecoderConfig:
    """What distinguishes one decoder from another."""

    layer: str
    """The layer of VGG whose features it takes."""
    widths: tuple[int, ...]
    """Channels of VGG's blocks, from the first to that of the layer."""


class Plain(nnx.Module):
    """A 3x3 convolution over reflected borders."""

    def __init__(self, inputs: int, outputs: int, *, key: Key):
        self.kernel = nnx.Param(he_normal(key, (3, 3, inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs))

    def __call__(self, x: Float[Array, "n h w c"], ops: Ops) -> Float[Array, "n h w k"]:
        """Return the convolved maps."""
        return ops.conv(reflected(x, 1), self.kernel[...], self.bias[...])


class AdainDecoder(nnx.Module):
    """Features `[n, h, w, c]` of a layer of VGG to pictures of `scale` times their size, in [0, 1]."""

    def __init__(self, config: AdainDecoderConfig, *, key: Key):
        self.config = config
        self.arithmetic = arithmetic.plain
        counts, widths = MIRRORED[config.layer], config.widths
        keys = keys_from(key, sum(counts) + 1)
        # From the layer up: into the block before, then that block's own convolutions.
        for block in reversed(range(len(counts))):
            inputs = widths[block + 1]
            for i in range(counts[block]):
                setattr(self, f"conv{block + 1}_{i + 1}", Plain(inputs, widths[block], key=next(keys)))
                inputs = widths[block]
        self.last = Plain(widths[0], 3, key=next(keys))

    @property
    def scale(self) -> int:
        """How many pixels, on a side, an element becomes."""
        return 2 ** len(MIRRORED[self.config.layer])

    def __call__(self, features: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 3"]:
        """Return the pictures."""
        counts, x, ops = MIRRORED[self.config.layer], features, self.arithmetic
        for block in reversed(range(len(counts))):
            x = jax.nn.relu(getattr(self, f"conv{block + 1}_1")(x, ops))
            x = doubled(x, (2 * x.shape[1], 2 * x.shape[2]))
            for i in range(1, counts[block]):
                x = jax.nn.relu(getattr(self, f"conv{block + 1}_{i + 1}")(x, ops))
        return jax.nn.sigmoid(self.last(x, ops))


def adain_decoder(
    layer: str = "relu4_1", *, widths: tuple[int, ...] = (64, 128, 256, 512), key: Key
) -> AdainDecoder:
    """Make a fresh decoder of a layer's features, for `vizsynth.transfer_adain`; it has to be trained.

    Args:
        layer: of VGG: `relu4_1`, which is the paper's, `relu3_1` or `relu2_1`.
        widths: channels of VGG's blocks, from the first on; those past the layer's own are left out.
        key: of the weights, He's.

    Raises:
        ValueError: another layer; too few widths.

    >>> net = adain_decoder("relu3_1", widths=(4, 6, 8), key=jax.random.key(0))
    >>> net(jnp.zeros((1, 5, 6, 8))).shape
    (1, 20, 24, 3)
    """
    if layer not in MIRRORED:
        raise ValueError(f"a decoder mirrors VGG up to {', '.join(MIRRORED)}, not {layer!r}")
    needed = len(MIRRORED[layer]) + 1
    if len(widths) < needed:
        raise ValueError(f"{layer} lies in block {needed}: it takes {needed} widths, not {len(widths)}")
    return AdainDecoder(AdainDecoderConfig(layer, tuple(widths[:needed])), key=key)
