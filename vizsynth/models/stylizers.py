"""Networks that give a photo a style in one pass, and their weights.

Johnson, Alahi & Fei-Fei, Perceptual Losses for Real-Time Style Transfer and Super-Resolution, 2016, and its
supplement: c9s1-32, d64, d128, five residual blocks of 128, u64, u32, c9s1-3. The normalization is that of
each image alone (Ulyanov, Vedaldi & Lempitsky, Instance Normalization: The Missing Ingredient for Fast
Stylization, 2016), with a scale and a shift for each style (Dumoulin, Shlens & Kudlur, A Learned
Representation for Artistic Style, 2017): all that a style is. With one style it is Johnson's network.

Departures. Maps are enlarged by repeating their elements, and then convolved (Odena, Dumoulin & Olah,
Deconvolution and Checkerboard Artifacts, 2016), where Johnson's transposed convolutions leave a fine grid.
Each convolution is padded by reflection, where Johnson reflects the photo alone and lets the residual blocks
shrink. What is enlarged is cut to what it was before: any size is taken, and given back. The last layer is
a sigmoid, where Johnson's is 150 tanh: pictures lie in [0, 1]. By default the widths are half of Johnson's.

With `skips=True` what is enlarged is joined by what the first layers saw at that size, as in a U-Net
(Ronneberger, Fischer & Brox, U-Net: Convolutional Networks for Biomedical Image Segmentation, 2015): a
photo's details need not pass through a quarter of its size. A network that has them from the start keeps the
photo for nothing, and puts all style in a few places; one that is given them once it paints everywhere, as
the one in the package was, has a lower loss and sharper pictures (`experiments/fast_style.py`).
"""

import dataclasses
import difflib
import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from vizsynth import ops as arithmetic
from vizsynth.core.claims import check_fields, parse_json, shown
from vizsynth.models.io.weights import (
    MOST_LAYERS,
    WeightsError,
    check_fit,
    fit,
    list_safetensors,
    paths,
    write_tensors,
)
from vizsynth.models.layers import he_normal, keys_from, undrawn
from vizsynth.models.network import with_attributes
from vizsynth.ops import Ops
from vizsynth.types import Images, Key

EPS = 1e-5  # under the root of the variance, as in Ulyanov's and everybody's code
SMALLEST = 5  # pixels: of 4, one is left at a quarter of the size, and cannot be reflected
FORMAT = "vizsynth-stylizer-1"  # the key of the record in the metadata
BUNDLED = Path(str(resources("vizsynth") / "data" / "stylizer.safetensors"))

Maps = Float[Array, "n h w c"]
Styles = Float[Array, "n styles"]


def instance_norm(x: Maps, *, eps: float = EPS) -> Maps:
    """Return (x − μ) / √(σ² + ε), the mean and the variance being those of each map of each image.

    σ² is the mean of the squared distances (over their number, not one less).

    >>> instance_norm(jnp.asarray([[[[1.0], [5.0]], [[1.0], [5.0]]]])).round(3).ravel().tolist()
    [-1.0, 1.0, -1.0, 1.0]
    """
    away = x - jnp.broadcast_to(x.mean(axis=(1, 2), keepdims=True), x.shape)
    variance = (away * away).mean(axis=(1, 2), keepdims=True)
    return away * jnp.broadcast_to(jax.lax.rsqrt(variance + jnp.asarray(eps, x.dtype)), x.shape)


def reflected(x: Maps, by: int) -> Float[Array, "n h2 w2 c"]:
    """Return maps with `by` more elements on each side, mirrored at those of the border."""
    return jnp.pad(x, ((0, 0), (by, by), (by, by), (0, 0)), mode="reflect")


def doubled(x: Maps, size: tuple[int, int]) -> Float[Array, "n h2 w2 c"]:
    """Return maps with each element repeated over 2x2, cut to a size."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)[:, : size[0], : size[1]]


class Convolution(nnx.Module):
    """A convolution over reflected borders, and the normalization of each style behind it."""

    def __init__(self, inputs: int, outputs: int, window: int, *, stride: int = 1, styles: int, key: Key):
        self.stride = stride
        self.kernel = nnx.Param(he_normal(key, (window, window, inputs, outputs)))
        self.scale = nnx.Param(jnp.ones((styles, outputs)))
        self.shift = nnx.Param(jnp.zeros((styles, outputs)))

    def __call__(self, x: Maps, style: Styles, ops: Ops) -> Float[Array, "n h2 w2 k"]:
        """Return γ (x − μ) / σ + β, γ and β mixed of those of the styles."""
        by = self.kernel.shape[0] // 2
        # No bias: the normalization takes it away again.
        y = ops.conv(reflected(x, by), self.kernel[...], None, strides=(self.stride, self.stride))
        scale, shift = (
            jnp.matmul(style.astype(y.dtype), p[...].astype(y.dtype), precision="highest")[:, None, None]
            for p in (self.scale, self.shift)
        )
        return instance_norm(y) * jnp.broadcast_to(scale, y.shape) + jnp.broadcast_to(shift, y.shape)


class Block(nnx.Module):
    """x + conv(relu(conv(x))), without a ReLU behind the sum (Gross & Wilber, 2016)."""

    def __init__(self, width: int, *, styles: int, key: Key):
        first, second = jax.random.split(key)
        self.conv1 = Convolution(width, width, 3, styles=styles, key=first)
        self.conv2 = Convolution(width, width, 3, styles=styles, key=second)

    def __call__(self, x: Maps, style: Styles, ops: Ops) -> Maps:
        """Return the sum."""
        return x + self.conv2(jax.nn.relu(self.conv1(x, style, ops)), style, ops)


@dataclass(frozen=True)
class StylizerConfig:
    """What distinguishes one stylizer from another."""

    styles: tuple[str, ...]
    """The names of the styles."""
    widths: tuple[int, ...] = (16, 32, 64)
    """Channels at the full, half and quarter size; Johnson's are 32, 64 and 128."""
    blocks: int = 5
    """How many residual blocks."""
    skips: bool = False
    """Whether what the first layers saw joins what is enlarged."""


@dataclass(frozen=True)
class Picture:
    """Where a style comes from."""

    style: str
    """The name of the style."""
    license: str
    """The licence of the picture."""
    origin: str
    """Who made it, and where it can be had."""


@dataclass(frozen=True)
class StylizerRecord:
    """What is known about a stylizer's weights; it travels with them."""

    config: StylizerConfig
    """What distinguishes the network."""
    pictures: tuple[Picture, ...] = ()
    """Where each style comes from."""
    license: str = "unknown"
    """The licence of the weights."""
    origin: str = "unknown"
    """How the weights were made, and of which photos."""


class Stylizer(nnx.Module):
    """Photos `[n, h, w, 3]` in [0, 1], of at least 5x5 pixels, to pictures of their size, in [0, 1]."""

    def __init__(self, config: StylizerConfig, *, key: Key):
        self.config = config
        self.record: StylizerRecord | None = None
        self.arithmetic = arithmetic.plain
        full, half, quarter = config.widths
        styles = len(config.styles)
        keys = keys_from(key, config.blocks + 6)
        self.in1 = Convolution(3, full, 9, styles=styles, key=next(keys))
        self.in2 = Convolution(full, half, 3, stride=2, styles=styles, key=next(keys))
        self.in3 = Convolution(half, quarter, 3, stride=2, styles=styles, key=next(keys))
        for i in range(config.blocks):
            setattr(self, f"block{i + 1}", Block(quarter, styles=styles, key=next(keys)))
        seen = (half, full) if config.skips else (0, 0)
        self.out1 = Convolution(quarter + seen[0], half, 3, styles=styles, key=next(keys))
        self.out2 = Convolution(half + seen[1], full, 3, styles=styles, key=next(keys))
        self.kernel = nnx.Param(he_normal(next(keys), (9, 9, full, 3)))
        self.bias = nnx.Param(jnp.zeros(3))

    @property
    def styles(self) -> tuple[str, ...]:
        """The names of the styles, in the order of their indices."""
        return self.config.styles

    def __call__(self, images: Images, style: Styles) -> Images:
        """Return the pictures; `style` weighs the styles, for each photo: one is 1 and the others are 0."""
        if min(images.shape[1:3]) < SMALLEST:
            raise ValueError(
                f"images of {images.shape[1]}x{images.shape[2]} pixels are too small for a stylizer: "
                f"give at least {SMALLEST}x{SMALLEST}"
            )
        relu, ops = jax.nn.relu, self.arithmetic
        full = relu(self.in1(images, style, ops))
        half = relu(self.in2(full, style, ops))
        x = relu(self.in3(half, style, ops))
        for i in range(self.config.blocks):
            x = getattr(self, f"block{i + 1}")(x, style, ops)
        x = relu(self.out1(self._joined(doubled(x, _size(half)), half), style, ops))
        x = relu(self.out2(self._joined(doubled(x, _size(full)), full), style, ops))
        return jax.nn.sigmoid(ops.conv(reflected(x, 4), self.kernel[...], self.bias[...]))

    def _joined(self, x: Maps, seen: Float[Array, "n h w c2"]) -> Float[Array, "n h w c3"]:
        return self.arithmetic.concatenate([x, seen]) if self.config.skips else x


def _size(x: Array) -> tuple[int, int]:
    return x.shape[1], x.shape[2]


def stylizer(
    styles: Sequence[str] = ("style",),
    *,
    widths: Sequence[int] = (16, 32, 64),
    blocks: int = 5,
    skips: bool = False,
    key: Key,
) -> Stylizer:
    """Make a fresh stylizer: `vizsynth.train_style` trains it, `vizsynth.stylize` uses it.

    Args:
        styles: the names of the styles.
        widths: channels at the full, half and quarter size; Johnson's are `(32, 64, 128)`.
        blocks: how many residual blocks; Johnson's are 5.
        skips: whether what the first layers saw joins what is enlarged; without it is Johnson's network.
        key: of the weights, He's.

    Raises:
        ValueError: no style, or two of one name; widths or blocks below 1.

    >>> net = stylizer(["glass", "strokes"], widths=(4, 6, 8), blocks=1, key=jax.random.key(0))
    >>> net(jnp.zeros((1, 10, 13, 3)), jnp.asarray([[0.5, 0.5]])).shape
    (1, 10, 13, 3)
    """
    return Stylizer(_checked(StylizerConfig(tuple(styles), tuple(widths), blocks, skips)), key=key)


def _checked(config: StylizerConfig) -> StylizerConfig:
    names = config.styles
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"styles must be names, at least one, not {names!r}")
    if len(set(names)) < len(names):
        raise ValueError(f"styles must have different names, not {', '.join(names)}")
    if len(config.widths) != 3 or min(*config.widths, config.blocks) < 1:
        raise ValueError(
            f"widths must be three, blocks one, all at least 1, not {config.widths} and {config.blocks}"
        )
    return config


def find_style(net: Stylizer, name: str) -> int:
    """Return the index of a style by its name.

    Raises:
        ValueError: there is none; the message names those that there are.

    >>> net = stylizer(["glass", "strokes"], widths=(4, 6, 8), blocks=1, key=jax.random.key(0))
    >>> find_style(net, "strokes")
    1
    """
    if name not in net.styles:
        near = difflib.get_close_matches(name, net.styles, n=1)
        hint = f"; {near[0]!r} is near" if near else ""
        raise ValueError(f"there is no style {name!r}{hint}; the styles are: {', '.join(net.styles)}")
    return net.styles.index(name)


# Files ------------------------------------------------------------------------------


def save_stylizer(
    path: str | os.PathLike[str],
    net: Stylizer,
    *,
    pictures: Sequence[Picture] = (),
    license: str = "unknown",
    origin: str = "unknown",
    dtype: Any = None,
) -> StylizerRecord:
    """Write a stylizer and what is known about it as safetensors. The file appears whole or not at all.

    Args:
        path: of the file, `.safetensors`.
        net: the stylizer.
        pictures: where its styles come from.
        license: of the weights.
        origin: how they were made.
        dtype: of the numbers in the file, such as `float16`; by default the network's own.

    Returns:
        The record that was written.

    Raises:
        ValueError: a picture of a style that the network does not have.
        WeightsError: numbers too large for `dtype`; a file that cannot be written.

    >>> import tempfile
    >>> net = stylizer(["mine"], widths=(4, 6, 8), blocks=1, key=jax.random.key(0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     record = save_stylizer(f"{folder}/mine.safetensors", net, license="CC0")
    ...     load_stylizer(f"{folder}/mine.safetensors").styles
    ('mine',)
    """
    for picture in pictures:
        find_style(net, picture.style)
    record = StylizerRecord(net.config, tuple(pictures), license, origin)
    arrays = {name: np.asarray(leaf) for name, leaf in paths(net).items()}
    write_tensors(path, arrays, {FORMAT: json.dumps(dataclasses.asdict(record))}, dtype=dtype)
    return record


def load_stylizer(path: str | os.PathLike[str] | None = None) -> Stylizer:
    """Return a trained stylizer, in float32; `net.styles` names its styles, `net.record` tells the rest.

    Args:
        path: of a file that `save_stylizer` wrote; by default the one in the package. Nothing in it is
            ever executed.

    Raises:
        WeightsError: no such file; a file that is damaged, of something else, or whose weights do not fit
            what it says of itself.

    >>> import vizsynth
    >>> vizsynth.models.load_stylizer().styles
    ('glass', 'strokes', 'woodcut')
    """
    path = BUNDLED if path is None else path
    with ExitStack() as stack:
        stored, metadata = list_safetensors(path, stack)
        if FORMAT not in metadata:
            raise WeightsError(f"{path} is no stylizer: vizsynth.models.save_stylizer writes them")
        try:
            record = _record(parse_json(metadata[FORMAT]))
            with undrawn():
                skeleton = jax.eval_shape(lambda: Stylizer(record.config, key=jax.random.key(0)))
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise WeightsError(
                f"{path}: its record is damaged, or of a newer vizsynth ({type(error).__name__}: "
                f"{shown(' '.join(str(error).split()))})"
            ) from None
        check_fit(paths(skeleton), {name: array.outline() for name, array in stored.items()})
        arrays = {name: array.read() for name, array in stored.items()}
    return with_attributes(fit(skeleton, arrays), record=record)


def _record(fields: dict[str, Any]) -> StylizerRecord:
    """Return the record that JSON describes."""
    described = fields["config"]
    config = StylizerConfig(
        tuple(described["styles"]),
        tuple(described["widths"]),
        described["blocks"],
        described.get("skips", False),  # files of before have none
    )
    pictures = tuple(Picture(**picture) for picture in fields["pictures"])
    record = StylizerRecord(_checked(config), pictures, fields["license"], fields["origin"])
    check_fields(record)
    if config.blocks > MOST_LAYERS:
        raise ValueError(f"the network should have {config.blocks:,} blocks, more than {MOST_LAYERS:,}")
    return record
