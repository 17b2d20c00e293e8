"""Style in one pass: a network is trained to minimize a perceptual loss, and then only run.

Johnson, Alahi & Fei-Fei, Perceptual Losses for Real-Time Style Transfer and Super-Resolution, 2016,
section 3; several styles in one network: Dumoulin, Shlens & Kudlur, A Learned Representation for Artistic
Style, 2017. The loss is in `perceptual.py`.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from vizsynth import ascent
from vizsynth.core.entry import as_images, entry, is_on_host
from vizsynth.synthesis.features.pictures import Optimizer
from vizsynth.synthesis.style.perceptual import (
    CONTENT_LAYERS,
    STYLE_LAYERS,
    Number,
    Styles,
    Weighting,
    check_weighting,
    perceptual_terms,
    style_statistics,
)
from vizsynth.synthesis.texture.gatys import check_layers, check_run
from vizsynth.taps import shapes
from vizsynth.types import Images, Key, Network, Synthesis

# One pass ---------------------------------------------------------------------------


def style_weights(style: Any, n: int, styles: int, dtype: Any = jnp.float32) -> Float[Array, "n styles"]:
    """Return the weights of the styles for each image: of an index one 1, and zeros; NaN of one too large.

    >>> style_weights(1, 1, 3).tolist()
    [[0.0, 1.0, 0.0]]
    """
    style = jnp.asarray(style)
    if jnp.issubdtype(style.dtype, jnp.integer):
        which = jnp.broadcast_to(style, (n,))[:, None]
        weights = jax.nn.one_hot(which[:, 0], styles, dtype=dtype)
        return jnp.where((which >= 0) & (which < styles), weights, jnp.nan)
    return jnp.broadcast_to(style.astype(dtype), (n, styles))


def _styles(stylizer: Any) -> tuple[str, ...]:
    names = getattr(stylizer, "styles", None)
    if not callable(stylizer) or not isinstance(names, tuple):
        raise TypeError(
            f"stylizer must be a stylizer (vizsynth.models.load_stylizer), not {type(stylizer).__name__}"
        )
    return names


def _check_stylize(stylizer: Any, images: Any, style: Any) -> None:
    names = _styles(stylizer)
    listed = ", ".join(f"{i}: {name}" for i, name in enumerate(names))
    if isinstance(style, str):
        raise TypeError(
            f"style is an index or weights, not {style!r}: vizsynth.models.find_style(stylizer, name) gives "
            f"the index of a name ({listed})"
        )
    values = style if hasattr(style, "dtype") else np.asarray(style)
    n, kinds = len(images), len(names)
    if jnp.issubdtype(values.dtype, jnp.integer):
        if values.shape not in ((), (n,)):
            raise ValueError(f"{n} images take one style or {n}, not an array of indices {values.shape}")
        if is_on_host(values) and not ((np.asarray(values) >= 0) & (np.asarray(values) < kinds)).all():
            raise ValueError(f"there is no style {style}; the styles are {listed}")
    elif jnp.issubdtype(values.dtype, jnp.floating):
        if values.shape not in ((kinds,), (n, kinds)):
            raise ValueError(
                f"the weights of {kinds} styles ({listed}) must be [{kinds}] or [{n}, {kinds}], "
                f"not {tuple(values.shape)}"
            )
        if is_on_host(values) and not np.isfinite(np.asarray(values)).all():
            raise ValueError(f"the weights of styles must be finite, not {np.asarray(values).tolist()}")
    else:
        raise TypeError(f"style is an index or weights, not {values.dtype}")
    if min(images.shape[1:3]) < 5:
        raise ValueError(f"a stylizer takes images of at least 5x5 pixels, not {tuple(images.shape[1:3])}")


@entry(check=_check_stylize, check_images=as_images)
def stylize(
    stylizer: Any,
    images: Images,
    style: int | Int[Array, "..."] | Sequence[Number] | Float[Array, "..."] = 0,
) -> Images:
    """Return T(x; Σ_s w_s γ_s, Σ_s w_s β_s): photos in a style, or between styles, in one pass.

    Args:
        stylizer: a trained network, `vizsynth.models.load_stylizer()`.
        images: float RGB in [0, 1], `[n, h, w, 3]`, of any size of at least 5x5 pixels.
        style: the index of a style, or one an image; or the weights w of the styles, `[styles]` or
            `[n, styles]`, floats: their scales and shifts γ, β are mixed (Dumoulin, section 3.3). Weights
            that sum to 1 lie between the styles. Another style does not compile anew.

    Returns:
        Pictures of the images' size, in [0, 1].

    Raises:
        TypeError: something else than a stylizer; a style that is neither an index nor weights.
        ValueError: a style that does not exist; weights that are not one a style; images too small.

    Example:
        >>> import jax, vizsynth
        >>> net = vizsynth.models.stylizer(["a", "b"], widths=(4, 6, 8), blocks=1, key=jax.random.key(0))
        >>> photos = jax.random.uniform(jax.random.key(1), (2, 18, 21, 3))
        >>> vizsynth.stylize(net, photos, [0.5, 0.5]).shape
        (2, 18, 21, 3)
    """
    weights = style_weights(jnp.asarray(style), len(images), len(stylizer.styles), images.dtype)
    known = jnp.isfinite(weights).all(axis=1)[:, None, None, None]  # the ReLUs would hide that a style is not
    return jnp.where(known, stylizer(images, weights), jnp.nan)


# Training ---------------------------------------------------------------------------


def crops(key: Key, images: Images, n: int, size: int) -> Float[Array, "crops size size 3"]:
    """Return squares from anywhere in photos drawn at random, half of them mirrored.

    >>> crops(jax.random.key(0), jnp.zeros((5, 20, 30, 3)), 4, 16).shape
    (4, 16, 16, 3)
    """
    count, h, w, _ = images.shape

    def one(key: Key) -> Array:
        which, top, left, flip = jax.random.split(key, 4)
        photo = images[jax.random.randint(which, (), 0, count)]
        at = (jax.random.randint(top, (), 0, h - size + 1), jax.random.randint(left, (), 0, w - size + 1))
        part = jax.lax.dynamic_slice(photo, (*at, 0), (size, size, 3))
        return jnp.where(jax.random.bernoulli(flip), part[:, ::-1], part)

    return jax.vmap(one)(jax.random.split(key, n))


def drawn_styles(key: Key, n: int, styles: int) -> Int[Array, " n"]:
    """Return a style for each of n photos: each is as likely as another, and as often, as far as may be."""
    return (jax.random.randint(key, (), 0, styles) + jnp.arange(n)) % styles


def falling(learning_rate: Number, horizon: Number, count: Int[Array, ""]) -> Float[Array, ""]:
    """Return the learning rate after some steps: it falls to 0 along half a cosine.

    >>> [round(float(falling(2.0, 10.0, jnp.asarray(i))), 3) for i in (0, 5, 10, 11)]
    [2.0, 1.0, 0.0, 0.0]
    """
    done = jnp.clip(count.astype(jnp.float32) / horizon, 0, 1)
    return learning_rate * (1 + jnp.cos(jnp.pi * done)) / 2


def _check_training(
    net: Any,
    stylizer: Any,
    images: Any,
    styles: Any,
    key: Any,
    steps: Any,
    size: Any,
    batch_size: Any,
    parts: Any,
    content_layers: Any,
    style_layers: Any,
    content_weight: Any,
    style_weight: Any,
    tv_weight: Any,
    horizon: Any,
    state: Any,
) -> None:
    names = _styles(stylizer)
    styles = as_images(styles, name="styles")
    check_run(steps, key, state)
    if len(styles) != len(names):
        raise ValueError(
            f"the stylizer has {len(names)} styles ({', '.join(names)}), and takes as many pictures of "
            f"them, not {len(styles)}"
        )
    for name, value in (("size", size), ("batch_size", batch_size), ("parts", parts)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a positive integer, not {value!r}")
    if size < 5 or size > min(images.shape[1:3]):
        raise ValueError(
            f"size must lie between 5 and {min(images.shape[1:3])}, the photos' shorter side, not {size}"
        )
    if horizon is not None and is_on_host(horizon) and not float(horizon) > 0:
        raise ValueError(f"horizon must be above 0, not {float(horizon)}")
    check_weighting(content_weight, style_weight, tv_weight)
    crop = jax.ShapeDtypeStruct((size, size, 3), images.dtype)
    check_layers(net, crop, content_layers, None, "content_layers")
    check_layers(net, crop, style_layers, None, "style_layers")
    check_layers(net, styles[0], style_layers, None, "style_layers")
    batch = jax.ShapeDtypeStruct((1, *crop.shape), crop.dtype)
    seen = min(min(maps.shape[1:3]) for maps in shapes(net, batch, style_layers).values())
    if parts > seen:
        raise ValueError(
            f"parts must be at most {seen}, the positions that crops of {size} px have along an axis in "
            f"{', '.join(style_layers)}, not {parts}"
        )


@entry(
    static=(
        "steps",
        "size",
        "batch_size",
        "parts",
        "content_layers",
        "style_layers",
        "optimizer",
        "relative",
    ),
    check=_check_training,
    many=True,
)
def train_style(
    net: Network,
    stylizer: Any,
    images: Images,
    styles: Styles,
    *,
    key: Key | None = None,
    steps: int = 100,
    size: int = 128,
    batch_size: int = 4,
    parts: int = 1,
    content_layers: Sequence[str] = CONTENT_LAYERS,
    style_layers: Sequence[str] = STYLE_LAYERS,
    content_weight: Number = 1.0,
    style_weight: Number = 1.0,
    tv_weight: Number = 0.0,
    relative: bool = True,
    optimizer: Optimizer = optax.adam,
    learning_rate: Number = 1e-3,
    horizon: Number | None = None,
    state: Any = None,
) -> Synthesis:
    """Find argmin_T E_{p,s} L(T(p; s), p, s): a network that stylizes in one pass.

    At each step crops of the photos are drawn, half of them mirrored, and a style for each; all by the
    step's own key, so that a run that goes on from its state ends bit for bit as one that was never
    interrupted (`vizsynth.ascent.chunks` saves it). Where a step gives NaN or infinity, it stands still.

    Args:
        net: the network that judges, VGG's trunk for instance.
        stylizer: what is trained, `vizsynth.models.stylizer(...)`. Its weights are where a run begins; of
            one that goes on, only its shape matters.
        images: the photos, `[n, h, w, 3]`, all of one size.
        styles: a picture of each style, in the order of the stylizer's names, all of one size.
        size: of the crops, in pixels.
        batch_size: how many crops a step.
        parts: compare the style of so many parts of a crop along each axis one by one, rather than that of
            the whole: a network may otherwise put all style in one place, and leave the rest as it was.
        content_layers, style_layers, content_weight, style_weight, tv_weight, relative: the loss, as for
            `perceptual_loss`.
        optimizer: `optimizer(learning_rate)` is an optax transformation.
        learning_rate: its step.
        horizon: the number of steps in which the learning rate falls to 0, along half a cosine; None keeps
            it. Another one does not compile anew.
        state: of an earlier result, to go on from. Its `params` are the stylizer as it is by then.

    Returns:
        The middle of the first photo in each style, as it is by then; L at each step `[1, steps]`, the
        mean over the batch; and the state, whose `params` are the trained stylizer.
        Johnson trains 40,000 steps of 4 photos at 256 px with a constant 1e-3.

    Raises:
        TypeError, ValueError: pictures that are not one a style; a size above the photos'; more parts than
            positions; layers that the network does not have; weights below 0; no key.

    Example:
        >>> import jax, vizsynth
        >>> from vizsynth.models.sequential import Conv, GlobalMean, ReLU
        >>> net = vizsynth.models.sequential([Conv(4), ReLU(), GlobalMean()], key=jax.random.key(0))
        >>> made = vizsynth.models.stylizer(["a"], widths=(4, 4, 4), blocks=1, key=jax.random.key(1))
        >>> photos = jax.random.uniform(jax.random.key(2), (2, 12, 12, 3))
        >>> options = {"content_layers": ["relu1"], "style_layers": ["relu1"], "size": 9, "batch_size": 2}
        >>> options |= {"key": jax.random.key(3), "steps": 2}
        >>> run = vizsynth.train_style(net, made, photos, photos[:1], **options)
        >>> vizsynth.stylize(run.state.params, photos).shape
        (2, 12, 12, 3)
    """
    wanted = style_statistics(net, styles, style_layers)
    descent = optimizer(learning_rate if horizon is None else partial(falling, learning_rate, horizon))
    if state is None:
        state = ascent.init(stylizer, descent, key=cast(Key, key))
    count = len(stylizer.styles)

    def objective(params: Any, key: Key) -> Array:
        crop_key, style_key = jax.random.split(key)
        photos = crops(crop_key, images, batch_size, size)
        which = drawn_styles(style_key, batch_size, count)
        made = params(photos, style_weights(which, batch_size, count, photos.dtype))
        L = perceptual_terms(
            net,
            made,
            photos,
            {layer: g[which] for layer, g in wanted.items()},
            content_layers=content_layers,
            weighting=Weighting(content_weight, style_weight, tv_weight),
            relative=relative,
            parts=parts,
        )
        return -L.total.mean()

    state, trace = ascent.run(objective, descent, state, steps)
    top, left = ((side - size) // 2 for side in images.shape[1:3])
    middle = jnp.broadcast_to(images[:1, top : top + size, left : left + size], (count, size, size, 3))
    shown = state.params(middle, jnp.eye(count, dtype=images.dtype))
    return Synthesis(shown, -trace[None], state)
