"""Any style in one pass: the features of a photo are given the means and deviations of another's.

Huang & Belongie, Arbitrary Style Transfer in Real-time with Adaptive Instance Normalization, 2017: the
encoder is a fixed network, its features are shifted and scaled by (8), and a decoder makes a picture of them;
it is trained by (12) for every style at once.

The deviations are those of the published code: σ = √(Σ (x − μ)² / (M − 1) + 10⁻⁵), M being the positions,
where the paper has M.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vizsynth.core.entry import as_images, entry, is_on_host
from vizsynth.synthesis.texture.gatys import check_layers
from vizsynth.taps import run, shapes
from vizsynth.types import Images, Network

Number = float | Float[Array, ""]
Content = Float[Array, "n h w c"]
Style = Float[Array, "s h2 w2 c"]

LAYER = "relu4_1"
STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")
EPS = 1e-5


class Moments(NamedTuple):
    """Mean and deviation of each map of each image."""

    mean: Float[Array, "n 1 1 c"]
    std: Float[Array, "n 1 1 c"]


def moments(features: Float[Array, "n h w c"]) -> Moments:
    """Return μ and σ of each map, over its positions.

    >>> round(moments(jnp.asarray([[[[1.0]], [[3.0]]]])).std.item(), 3)
    1.414
    """
    mean = features.mean(axis=(1, 2), keepdims=True)
    away = features - jnp.broadcast_to(mean, features.shape)
    count = features.shape[1] * features.shape[2]
    variance = (away * away).sum(axis=(1, 2), keepdims=True) / max(count - 1, 1)
    return Moments(mean, jnp.sqrt(variance + jnp.asarray(EPS, features.dtype)))


def shifted(content: Content, style: Moments, alpha: Number) -> Content:
    """Return the content's features with the style's moments, or as far towards them as alpha says."""
    n = len(content)
    own = moments(content)
    normalized = (content - jnp.broadcast_to(own.mean, content.shape)) / jnp.broadcast_to(
        own.std, content.shape
    )
    std, mean = (jnp.broadcast_to(m, (n, *content.shape[1:])) for m in (style.std, style.mean))
    a = jnp.asarray(alpha, content.dtype)
    return a * (std * normalized + mean) + (1 - a) * content


def _check_alpha(alpha: Any) -> None:
    if is_on_host(alpha) and not 0 <= float(alpha) <= 1:
        raise ValueError(f"alpha must lie in [0, 1], not {float(alpha)}")


def _check_count(n: int, styles: int) -> None:
    if styles not in (1, n):
        raise ValueError(f"{n} photos take one style or {n}, not {styles}")


def _check_adain(content_features: Any, style_features: Any, alpha: Any) -> None:
    for name, features in (("content_features", content_features), ("style_features", style_features)):
        if np.ndim(features) != 4:
            raise ValueError(f"{name} must be [n, h, w, c], not {tuple(np.shape(features))}")
        if features.shape[1] * features.shape[2] < 2:
            raise ValueError(
                f"{name} of {features.shape[1]}x{features.shape[2]} positions have no deviation: at least 2 "
                "are needed"
            )
    if content_features.shape[3] != style_features.shape[3]:
        raise ValueError(
            f"features of one layer have equally many channels, not {content_features.shape[3]} and "
            f"{style_features.shape[3]}"
        )
    _check_count(len(content_features), len(style_features))
    _check_alpha(alpha)


@entry(check=_check_adain)
def adain(content_features: Content, style_features: Style, *, alpha: Number = 1.0) -> Content:
    """Return α (σ(y) (x − μ(x)) / σ(x) + μ(y)) + (1 − α) x, channel by channel (equations 8 and 14).

    Args:
        content_features: x, `[n, h, w, c]`, of at least two positions.
        style_features: y, of the same layer, `[1, h', w', c]` for all, or `[n, h', w', c]`.
        alpha: how far, in [0, 1]: 1 has the style's means and deviations, 0 leaves x as it is.

    Returns:
        Features of the shape of x. μ and σ are over the positions of a map, σ = √(unbiased variance + 10⁻⁵),
        as in the published code; the paper's variance is over M rather than M − 1.

    Raises:
        ValueError: features of other shapes; alpha outside of [0, 1].

    >>> x, y = jnp.asarray([[[[0.0]], [[2.0]]]]), jnp.asarray([[[[10.0]], [[16.0]]]])
    >>> adain(x, y).round(2).ravel().tolist()
    [10.0, 16.0]
    """
    return shifted(content_features, moments(style_features), alpha)


# The loss ---------------------------------------------------------------------------


class AdainLoss(NamedTuple):
    """The loss of each picture, and its terms before they are weighted."""

    total: Float[Array, " n"]
    """L_c + λ L_s."""
    content: Float[Array, " n"]
    """L_c."""
    style: Float[Array, " n"]
    """L_s."""


def _check_loss(
    net: Any,
    images: Any,
    content: Any,
    styles: Any,
    layer: Any,
    style_layers: Any,
    style_weight: Any,
    alpha: Any,
) -> None:
    content, styles = as_images(content, name="content"), as_images(styles, name="styles")
    if content.shape != images.shape:
        raise ValueError(
            f"content must be a photo for each picture, of its size: {tuple(images.shape)}, "
            f"not {tuple(content.shape)}"
        )
    _check_count(len(content), len(styles))
    _check_alpha(alpha)
    if is_on_host(style_weight) and not float(style_weight) >= 0:
        raise ValueError(f"style_weight must be at least 0, not {float(style_weight)}")
    for pictures in (images, styles):
        _check_layer(net, pictures[0], layer)
        check_layers(net, pictures[0], style_layers, None, "style_layers")


def _check_layer(net: Any, image: Any, layer: Any) -> None:
    if not isinstance(layer, str):
        raise TypeError(f"layer must be the name of a layer, not {layer!r}")
    check_layers(net, image, (layer,), None, "layer")


@entry(static=("layer", "style_layers"), check=_check_loss)
def adain_loss(
    net: Network,
    images: Images,
    content: Images,
    styles: Float[Array, "s h2 w2 3"],
    *,
    layer: str = LAYER,
    style_layers: Sequence[str] = STYLE_LAYERS,
    style_weight: Number = 10.0,
    alpha: Number = 1.0,
) -> AdainLoss:
    """Return L_c + λ L_s of decoded pictures: what a decoder is trained to make small (equations 11 to 13).

    L_c = mean (f(x) − t)², t = AdaIN(f(p), f(s)); L_s = Σ_l mean (μ(Φ_l(x)) − μ(Φ_l(s)))² +
    mean (σ(Φ_l(x)) − σ(Φ_l(s)))².

    Args:
        net: the encoder, which judges too: VGG's trunk.
        images: x, what a decoder made, float RGB in [0, 1].
        content: p, the photo of each, of its size.
        styles: s, one picture for all or one for each, of any size.
        layer: f, where the photo's features are shifted.
        style_layers: Φ_l, where means and deviations are compared.
        style_weight: λ, 10 in the published code.
        alpha: how far t goes towards the style; 1 in training.

    Returns:
        The loss of each picture, and the two terms. Means are over the elements of a layer, or over its
        channels, as in the published code; the paper writes norms.

    Raises:
        ValueError: photos that are not one a picture, of its size; layers that the network does not have.

    Example:
        >>> import jax, vizsynth
        >>> from vizsynth.models.sequential import Conv, GlobalMean, ReLU
        >>> stack = [Conv(4), ReLU(), Conv(8), ReLU(), GlobalMean()]
        >>> net = vizsynth.models.sequential(stack, key=jax.random.key(0))
        >>> x, p, s = jax.random.uniform(jax.random.key(1), (3, 1, 24, 24, 3))
        >>> options = {"layer": "relu2", "style_layers": ["relu1", "relu2"]}
        >>> vizsynth.adain_loss(net, x, p, s, **options).total.shape
        (1,)
    """
    wanted_layers = tuple(dict.fromkeys((layer, *style_layers)))
    found = run(net, images, wanted_layers)[1]
    theirs = run(net, styles, wanted_layers)[1]
    t = shifted(run(net, content, (layer,))[1][layer], moments(theirs[layer]), alpha)

    def squares(a: Array, b: Array) -> Array:
        away = a - jnp.broadcast_to(b, a.shape)
        return (away * away).mean(axis=(1, 2, 3))

    contents = squares(found[layer], t)
    style = jnp.zeros_like(contents)
    for name in style_layers:
        ours, others = moments(found[name]), moments(theirs[name])
        style = style + squares(ours.mean, others.mean) + squares(ours.std, others.std)
    return AdainLoss(contents + jnp.asarray(style_weight, contents.dtype) * style, contents, style)


# One pass ---------------------------------------------------------------------------


def _check_transfer(net: Any, decoder: Any, content: Any, styles: Any, layer: Any, alpha: Any) -> None:
    content, styles = as_images(content, name="content"), as_images(styles, name="styles")
    scale = getattr(decoder, "scale", None)
    if not callable(decoder) or not isinstance(scale, int):
        raise TypeError(
            "decoder must make pictures of features (vizsynth.models.adain_decoder), not "
            f"{type(decoder).__name__}"
        )
    _check_count(len(content), len(styles))
    _check_alpha(alpha)
    for pictures in (content, styles):
        _check_layer(net, pictures[0], layer)
    padded = jax.ShapeDtypeStruct((1, *_filled(content, scale), 3), content.dtype)
    seen = shapes(net, padded, (layer,))[layer].shape
    made = jax.eval_shape(decoder, jax.ShapeDtypeStruct(seen, content.dtype)).shape
    if made != padded.shape:
        raise ValueError(
            f"the decoder makes {made[1]}x{made[2]} pixels of layer {layer!r} of an image of "
            f"{padded.shape[1]}x{padded.shape[2]}: it belongs to another layer"
        )


def _filled(images: Any, scale: int) -> tuple[int, int]:
    return -(-images.shape[1] // scale) * scale, -(-images.shape[2] // scale) * scale


@entry(static=("layer",), check=_check_transfer)
def transfer_adain(
    net: Network,
    decoder: Any,
    content: Images,
    styles: Float[Array, "s h2 w2 3"],
    *,
    layer: str = LAYER,
    alpha: Number = 1.0,
) -> Images:
    """Return g(α AdaIN(f(p), f(s)) + (1 − α) f(p)): photos in the style of any picture, in one pass.

    Args:
        net: f, the encoder that the decoder was trained with: VGG's trunk.
        decoder: g, `vizsynth.models.adain_decoder(...)`, trained by `adain_loss`.
        content: p, float RGB in [0, 1]. Sizes that the decoder cannot give are filled up by reflection, and
            cut again.
        styles: s, one picture for all or one for each, of any size.
        layer: where the features are shifted.
        alpha: how far, in [0, 1]. Another one does not compile anew.

    Returns:
        Pictures of the photos' size, in [0, 1].

    Raises:
        TypeError, ValueError: no decoder, or one of another layer; not one style for all or for each; alpha
            outside of [0, 1].

    Example:
        >>> import jax, vizsynth
        >>> from vizsynth.models.sequential import Conv, GlobalMean, MaxPool, ReLU
        >>> stack = [Conv(4), ReLU(), MaxPool(2), Conv(8), ReLU(), GlobalMean()]
        >>> net = vizsynth.models.sequential(stack, key=jax.random.key(0))
        >>> decoder = vizsynth.models.adain_decoder("relu2_1", widths=(4, 8), key=jax.random.key(1))
        >>> photos = jax.random.uniform(jax.random.key(2), (1, 33, 38, 3))
        >>> vizsynth.transfer_adain(net, decoder, photos, photos, layer="relu2").shape
        (1, 33, 38, 3)
    """
    h, w = content.shape[1:3]
    height, width = _filled(content, decoder.scale)
    filled = jnp.pad(content, ((0, 0), (0, height - h), (0, width - w), (0, 0)), mode="symmetric")
    features = run(net, filled, (layer,))[1][layer]
    theirs = run(net, styles, (layer,))[1][layer]
    return decoder(shifted(features, moments(theirs), alpha))[:, :h, :w]
