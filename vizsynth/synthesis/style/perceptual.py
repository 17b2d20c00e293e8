"""The perceptual loss: how far a picture is from a photo and from a style, in the features of a network.

Johnson, Alahi & Fei-Fei, Perceptual Losses for Real-Time Style Transfer and Super-Resolution, 2016,
section 3.2. Of a picture x, a photo p and a style s it is, over layers of a fixed network,

    L = α mean_l C_l + β mean_l E_l + γ V

C_l = ‖F^l(x) − F^l(p)‖² / ‖F^l(p)‖², E_l = Σ_ij (G^l_ij(x) − G^l_ij(s))² / Σ_ij G^l_ij(s)², F^l being the
features and G^l their Gram matrices, and V the total variation over the number of values. So relative, α and
β mean the same in any network; with `relative=False` they are as in the papers.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vizsynth.core.entry import as_images, entry, is_on_host
from vizsynth.priors import total_variation
from vizsynth.synthesis.texture.gatys import check_layers, gram, texture_loss
from vizsynth.taps import run
from vizsynth.types import Images, Network

Number = float | Float[Array, ""]
Styles = Float[Array, "styles hs ws 3"]

CONTENT_LAYERS = ("relu2_2",)
STYLE_LAYERS = ("relu1_2", "relu2_2", "relu3_3")
"""Of VGG-16; Johnson's fourth style layer is relu4_3."""


class PerceptualLoss(NamedTuple):
    """The perceptual loss of each picture, and its terms before they are weighted."""

    total: Float[Array, " n"]
    """α · content + β · style + γ · total variation."""
    content: Float[Array, " n"]
    """mean_l C_l."""
    style: Float[Array, " n"]
    """mean_l E_l."""
    total_variation: Float[Array, " n"]
    """V."""


class Weighting(NamedTuple):
    """What the terms of a perceptual loss count."""

    content: Number
    style: Number
    total_variation: Number


def style_statistics(net: Network, styles: Styles, layers: Sequence[str]) -> dict[str, Array]:
    """Return the Gram matrices `[s, c, c]` of pictures at each layer."""
    seen = run(net, styles, tuple(layers))[1]
    return {layer: jax.vmap(gram)(seen[layer]) for layer in layers}


def _parts(x: Float[Array, "n h w c"], count: int) -> Float[Array, "n parts h2 w2 c"]:
    """Return the rectangles of maps, `count` along each axis; what is left over at the end is in none."""
    n, h, w, c = x.shape
    h, w = h // count, w // count
    x = x[:, : h * count, : w * count].reshape(n, count, h, count, w, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(n, count * count, h, w, c)


def perceptual_terms(
    net: Network,
    images: Images,
    content: Images,
    wanted: dict[str, Float[Array, "n c c"]],
    *,
    content_layers: Sequence[str],
    weighting: Weighting,
    relative: bool = True,
    parts: int = 1,
) -> PerceptualLoss:
    """Return the perceptual loss of pictures for Gram matrices that are known: one set a picture.

    The style of `parts` x `parts` rectangles of each picture is compared one by one, and their mean taken.
    """
    found = run(net, images, (*content_layers, *(layer for layer in wanted if layer not in content_layers)))[
        1
    ]
    theirs = run(net, content, tuple(content_layers))[1]

    def apart(F: Array, P: Array) -> Array:
        count = jnp.asarray(P.size, P.dtype)
        norm = (P * P).sum() if relative else count
        return ((F - P) * (F - P)).sum() / jnp.where(norm > 0, norm, jnp.ones_like(norm))

    away = [jax.vmap(apart)(found[layer], theirs[layer]) for layer in content_layers]
    contents = sum(away[1:], away[0]) / len(away)
    grams = {layer: jax.vmap(jax.vmap(gram))(_parts(found[layer], parts)) for layer in wanted}

    def style(found: dict[str, Array], wanted: dict[str, Array]) -> Array:
        return jax.vmap(lambda found: texture_loss(found, wanted, relative=relative))(found).mean()

    styles = jax.vmap(style)(grams, wanted)
    variation = total_variation(images) / (images.size // len(images))
    a, b, c = (jnp.asarray(w, contents.dtype) for w in weighting)
    total = a * contents + b * styles.astype(contents.dtype) + c * variation.astype(contents.dtype)
    return PerceptualLoss(total, contents, styles, variation)


def check_weighting(content_weight: Any, style_weight: Any, tv_weight: Any) -> None:
    """Raise where a weight is below 0 or not finite."""
    named = {"content_weight": content_weight, "style_weight": style_weight, "tv_weight": tv_weight}
    for name, value in named.items():
        if is_on_host(value) and not (np.isfinite(float(value)) and float(value) >= 0):
            raise ValueError(f"{name} must be at least 0, not {float(value)}")


def _check_loss(
    net: Any,
    images: Any,
    content: Any,
    styles: Any,
    content_layers: Any,
    style_layers: Any,
    content_weight: Any,
    style_weight: Any,
    tv_weight: Any,
    relative: Any,
) -> None:
    del relative
    content, styles = as_images(content, name="content"), as_images(styles, name="styles")
    if content.shape != images.shape:
        raise ValueError(
            f"content must be a photo for each picture, of its size: {tuple(images.shape)}, "
            f"not {tuple(content.shape)}"
        )
    if len(styles) not in (1, len(images)):
        raise ValueError(f"{len(images)} images take one style picture or {len(images)}, not {len(styles)}")
    check_weighting(content_weight, style_weight, tv_weight)
    check_layers(net, images[0], content_layers, None, "content_layers")
    for pictures in (images, styles):
        check_layers(net, pictures[0], style_layers, None, "style_layers")


@entry(static=("content_layers", "style_layers", "relative"), check=_check_loss)
def perceptual_loss(
    net: Network,
    images: Images,
    content: Images,
    styles: Styles,
    *,
    content_layers: Sequence[str] = CONTENT_LAYERS,
    style_layers: Sequence[str] = STYLE_LAYERS,
    content_weight: Number = 1.0,
    style_weight: Number = 1.0,
    tv_weight: Number = 0.0,
    relative: bool = True,
) -> PerceptualLoss:
    """Return L = α mean_l C_l + β mean_l E_l + γ V of each picture: how far from photo and style.

    Args:
        net: the network that sees, VGG's trunk for instance.
        images: the pictures that are judged, float RGB in [0, 1].
        content: the photo of each, of its size.
        styles: a picture of the style for all, or one for each; of another size, if you like.
        content_layers: where the photo's features are compared.
        style_layers: where the style's Gram matrices are compared.
        content_weight: α.
        style_weight: β.
        tv_weight: γ; V is the total variation (β = 2) over h · w · 3.
        relative: whether C_l and E_l are divided by what a picture without any features would have. With
            False, C_l = ‖F − P‖² over the number of features, Johnson's equation 2, and
            E_l = Σ_ij (G_ij − Ĝ_ij)² / (4 N²), G = F Fᵀ over the M positions, N being the channels. Johnson
            divides G by N M and sums the squares (equation 4): that is 4 E_l. His code and PyTorch's
            examples take the mean of the squares of the same: 4 E_l / N². Both add layers up, where we take
            their mean: multiply by their number. (Johnson's pixels are 0..255, besides.)

    Returns:
        For each picture L, and the three terms before they are weighted.

    Raises:
        ValueError: photos that are not one a picture, of its size; layers that the network does not have;
            weights below 0.

    Example:
        >>> import jax, vizsynth
        >>> from vizsynth.models.sequential import Conv, GlobalMean, ReLU
        >>> stack = [Conv(4), ReLU(), Conv(8), ReLU(), GlobalMean()]
        >>> net = vizsynth.models.sequential(stack, key=jax.random.key(0))
        >>> x, p, s = jax.random.uniform(jax.random.key(1), (3, 1, 24, 24, 3))
        >>> options = {"content_layers": ["relu2"], "style_layers": ["relu1", "relu2"]}
        >>> found = vizsynth.perceptual_loss(net, x, p, s, **options)
        >>> float(vizsynth.perceptual_loss(net, p, p, p, **options).total[0]), bool(found.total[0] > 0)
        (0.0, True)
    """
    wanted = style_statistics(net, styles, style_layers)
    wanted = {k: jnp.broadcast_to(g, (len(images), *g.shape[1:])) for k, g in wanted.items()}
    return perceptual_terms(
        net,
        images,
        content,
        wanted,
        content_layers=content_layers,
        weighting=Weighting(content_weight, style_weight, tv_weight),
        relative=relative,
    )
