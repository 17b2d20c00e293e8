"""Texture synthesis: noise becomes a texture when its features correlate as the texture's do.

Gatys, Ecker & Bethge, Texture Synthesis Using Convolutional Neural Networks, 2015, sections 2 and 3.

A texture is described by which features occur together, wherever they do: the Gram matrices of the
layers, G^l_ij = Σ_k F^l_ik F^l_jk, F^l_ik being feature i of layer l at position k. With N features and M
positions the layer's loss is E_l = Σ_ij (G_ij − Ĝ_ij)² / (4 N² M²), and the texture's is L = Σ_l w_l E_l.

Here the sum over positions is divided by M at once, so that the source may be of another size than the
picture (and no number is large): `gram` is the paper's G / M.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from vizsynth import ascent
from vizsynth.core.chunks import keys_for
from vizsynth.core.entry import as_image, entry, is_on_host
from vizsynth.core.pytrees import pytree
from vizsynth.ops import Ops
from vizsynth.parametrizations import Fourier
from vizsynth.replay import parts
from vizsynth.synthesis.features.pictures import Optimizer, Size, as_size
from vizsynth.taps import shapes
from vizsynth.types import Image, Key, Keys, Network, Synthesis

Number = float | Float[Array, ""]
Guidance = Float[Array, "h w"]

VGG_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
"""The first layer of each block: where style and texture are read (Gatys 2016)."""

VGG_CUTS = ("relu1_1", "relu1_2", "pool1", "relu2_1", "relu2_2", "pool2", "pool3", "pool4")
"""Where VGG is cut for large pictures: the gradient then needs little more memory than the forward pass."""


def summing_dtype(dtype: Any) -> Any:
    """Return the precision in which many numbers of a kind are summed: float32 at least."""
    return dtype if dtype.itemsize >= 4 else jnp.dtype(jnp.float32)


def gram(features: Float[Array, "h w c"], guidance: Guidance | None = None) -> Float[Array, "c c"]:
    """Return the Gram matrix G_ij = Σ_k T_k² F_ik F_jk / Σ_k T_k²: which features occur together.

    Args:
        features: F, a layer's activations of one image, `[h, w, c]`.
        guidance: T, how much each position counts, `[h, w]`; by default all count alike. (Gatys, Ecker,
            Bethge, Hertzmann & Shechtman, Controlling Perceptual Factors in Neural Style Transfer, 2016.)

    Returns:
        `[c, c]`, the paper's G over the number of positions; summed in float32 at least. Johnson's and
        neural-style's is ours over c.

    >>> gram(jnp.asarray([[[2.0, 4.0], [6.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])).tolist()
    [[10.0, 2.0], [2.0, 4.0]]
    """
    dtype = summing_dtype(features.dtype)
    F = features.reshape(-1, features.shape[-1])
    M = jnp.asarray(len(F), dtype)
    if guidance is not None:
        T = guidance.reshape(-1).astype(dtype)
        F = F * T[:, None].astype(F.dtype)
        M = (T * T).sum()
        M = jnp.where(M > 0, M, jnp.ones_like(M))
    return jnp.matmul(F.T, F, precision="highest", preferred_element_type=dtype) / M


@pytree
@dataclass(frozen=True)
class Gram:
    """E_l = Σ_ij (G_ij − Ĝ_ij)² / (4 N²), the Gram matrices being over their number of positions.

    With a source of the picture's size it is the paper's E_l. Gatys' code and pystiche take the mean of
    (G − Ĝ)², 4 E_l; neural-style and Johnson's code divide both matrices by N besides: 4 E_l / N².
    """

    def statistics(self, features: Float[Array, "h w c"], guidance: Guidance | None = None) -> Array:
        """Return G."""
        return gram(features, guidance)

    def distance(self, found: Array, wanted: Array) -> Float[Array, ""]:
        """Return E_l."""
        away = found - wanted
        return (away * away).sum() / jnp.asarray(4 * found.shape[0] ** 2, found.dtype)


def texture_statistics(
    net: Network,
    image: Image,
    layers: Sequence[str],
    *,
    loss: Any = Gram(),  # frozen
    guidance: Any = None,
    cuts: Sequence[str] = (),
    ops: Ops | None = None,
) -> dict[str, Any]:
    """Return what describes an image's texture at each layer: its Gram matrices.

    `guidance` is a map `[h, w]` of the image's size: how much each pixel counts.
    """

    def of(layer: str, A: Array) -> Any:
        del layer
        return loss.statistics(A[0], None if guidance is None else shrink(guidance, A.shape[1:3]))

    return parts.read(net, image[None], tuple(layers), of, cuts=cuts, ops=ops)


def shrink(guidance: Guidance, size: tuple[int, ...]) -> Float[Array, "h2 w2"]:
    """Return a guidance map at a layer's size: each position counts as its pixels do on the average."""
    return jax.image.resize(guidance, size, "linear", antialias=True)


def texture_loss(
    found: dict[str, Any],
    wanted: dict[str, Any],
    weights: Sequence[Any] | None = None,
    *,
    loss: Any = Gram(),  # frozen
    relative: bool = False,
) -> Float[Array, ""]:
    """Return L = Σ_l w_l E_l, by default w_l = 1 / the number of layers.

    Where it is `relative`, each E_l is divided by the one that a picture without any features would have: for
    Gram matrices Σ (G − Ĝ)² / Σ Ĝ². All layers then count alike, in any network.
    """
    total = jnp.zeros((), jnp.result_type(*jax.tree.leaves(wanted)))
    weights = [1 / len(wanted)] * len(wanted) if weights is None else weights
    for layer, w in zip(wanted, weights, strict=True):
        E = loss.distance(found[layer], wanted[layer])
        if relative:
            nothing = loss.distance(jax.tree.map(jnp.zeros_like, wanted[layer]), wanted[layer])
            E = E / jnp.where(nothing > 0, nothing, jnp.ones_like(nothing))
        total = total + jnp.asarray(w, E.dtype) * E
    return total


def check_layers(net: Any, image: Any, layers: Any, weights: Any, what: str = "layers") -> None:
    """Raise where layers cannot be read from an image, or are not as many as their weights."""
    if isinstance(layers, str) or not layers:
        raise ValueError(f"{what} must be a sequence of names of layers, not {layers!r}")
    h, w = image.shape[:2]
    for layer, seen in shapes(net, jax.ShapeDtypeStruct((1, h, w, 3), image.dtype), layers).items():
        if len(seen.shape) != 4 or 0 in seen.shape:
            raise ValueError(
                f"at layer {layer!r} nothing is left of an image of {h}x{w} pixels that has positions: "
                "give a larger image, or layers nearer to it"
            )
    if weights is not None and len(weights) != len(layers):
        raise ValueError(f"{len(layers)} {what} take as many weights, not {len(weights)}")
    check_weights(weights, f"weights of {what}")


def check_weights(weights: Any, name: str) -> None:
    """Raise unless weights are finite, at least 0, and one is above."""
    if weights is None or not all(is_on_host(w) for w in weights):
        return
    values = np.asarray(weights, float)
    if not (np.isfinite(values).all() and (values >= 0).all()):
        raise ValueError(f"{name} must be at least 0, not {values.tolist()}")
    if not values.any():
        raise ValueError(f"one of the {name} must be above 0: with zeros alone nothing is asked for")


def _check(
    net: Any,
    texture: Any,
    key: Any,
    size: Any,
    steps: Any,
    layers: Any,
    layer_weights: Any,
    cuts: Any,
    state: Any,
) -> None:
    texture = as_image(texture, name="texture")
    check_run(steps, key, state)
    check_layers(net, texture, layers, layer_weights)
    if size is not None:
        h, w = as_size(size)
        if min(h, w) < 1:
            raise ValueError(f"size must be positive, not {size}")
        check_layers(net, jax.ShapeDtypeStruct((h, w, 3), texture.dtype), layers, None)
    if cuts:
        shapes(net, jax.ShapeDtypeStruct((1, *texture.shape), texture.dtype), cuts)


def check_run(steps: Any, key: Any, state: Any) -> None:
    """Raise where a run cannot begin, or cannot go on."""
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise ValueError(f"steps must be an integer of at least 0, not {steps!r}")
    if state is None and key is None:
        raise TypeError("a run that begins needs a key: key=jax.random.key(seed)")


@entry(
    static=("size", "steps", "layers", "optimizer", "relative", "cuts", "ops"),
    check=_check,
    many=True,
)
def synthesize_texture(
    net: Network,
    texture: Image,
    *,
    key: Keys | None = None,
    size: Size | None = None,
    steps: int = 200,
    layers: Sequence[str] = VGG_LAYERS,
    layer_weights: Sequence[Number] | None = None,
    loss: Any = Gram(),  # frozen
    relative: bool = True,
    parametrization: Any = Fourier(std=0.2),  # noqa: B008  # frozen
    optimizer: Optimizer = optax.lbfgs,
    learning_rate: Number = 1.0,
    cuts: Sequence[str] = (),
    ops: Ops | None = None,
    state: Any = None,
) -> Synthesis:
    """Find argmin_x Σ_l w_l E_l(x) from noise, E_l = Σ_ij (G^l_ij − Ĝ^l_ij)² / (4 N_l²): a texture anew.

    Args:
        net: a network, VGG's trunk for instance.
        texture: the source, float RGB in [0, 1], `[h, w, 3]`, of any size.
        key: of the noise: one picture is made for it, or one for each of `[n]` keys. It may be left out where
            a state is given.
        size: of the pictures: a side, or (height, width); by default the source's.
        layers: l, whose Gram matrices are compared. Deeper layers keep larger structures: with the first
            alone the colours are right, and pebbles come with the fourth. To see the layers at work, give
            the first, the first two, and so on.
        layer_weights: w_l, one a layer; by default 1 / their number.
        loss: E_l: `Gram`, or `Wasserstein`.
        relative: whether each E_l is divided by Σ_ij Ĝ_ij² / (4 N²), so that all layers count alike. The
            paper's is False.
        parametrization: what is optimized (`vizsynth.parametrizations`). The paper's is
            `Pixels(std=0.2)`, with which the colours come late.
        optimizer: `optimizer(learning_rate)` is an optax transformation; line searches too.
        learning_rate: its step; for L-BFGS, where the search for the step begins.
        cuts: layers between which activations are computed again rather than kept, so that larger pictures
            fit into memory: `VGG_CUTS` for VGG.
        ops: another table of arithmetic. With `vizsynth.ops.average_pooling` means are taken in place of
            maxima, as in the paper (whose network's weights were scaled for it).

    Returns:
        The pictures `[n, h, w, 3]` in [0, 1], L at the beginning of each step, and the state.
        Departures: the paper's network is VGG-19 with average pooling and weights scaled to a mean activation
        of 1, which `relative` is in place of; it reads conv1_1 and the pools.

    Raises:
        TypeError, ValueError: a source that is no image; layers that the network does not have, or in which
            nothing is left of the images; weights below 0, or all 0; no key.

    Example:
        >>> import jax, optax, vizsynth
        >>> from vizsynth.models.sequential import Conv, GlobalMean, ReLU
        >>> stack = [Conv(4), ReLU(), Conv(8), ReLU(), GlobalMean()]
        >>> net = vizsynth.models.sequential(stack, key=jax.random.key(0))
        >>> texture = jax.random.uniform(jax.random.key(1), (24, 24, 3))
        >>> options = {"layers": ["relu1", "relu2"], "steps": 2, "size": 24}
        >>> options |= {"optimizer": optax.adam, "learning_rate": 0.05}
        >>> vizsynth.synthesize_texture(net, texture, key=jax.random.key(2), **options).images.shape
        (1, 24, 24, 3)
    """
    shape = (texture.shape[0], texture.shape[1]) if size is None else as_size(size)
    descent = optimizer(learning_rate)
    wanted = texture_statistics(net, texture, layers, loss=loss, ops=ops)

    def begin(key: Key) -> ascent.State:
        start_key, run_key = jax.random.split(key)
        return ascent.init(parametrization.init(start_key, shape), descent, key=run_key)

    def picture(params: Any) -> Image:
        return parametrization.decode(params, shape).astype(texture.dtype)

    def one(state: ascent.State) -> tuple[ascent.State, Array]:
        def objective(params: Any, key: Key) -> Array:
            del key
            found = texture_statistics(net, picture(params), layers, loss=loss, cuts=cuts, ops=ops)
            L = texture_loss(found, wanted, layer_weights, loss=loss, relative=relative)
            return -L.astype(jax.tree.leaves(params)[0].dtype)

        return ascent.run(objective, descent, state, steps, stochastic=False)

    if state is None:
        keys = cast(Any, key)
        state = jax.vmap(begin)(keys_for(keys, keys.shape[0] if keys.ndim else 1))
    state, trace = ascent.run_each(one, state)
    return Synthesis(jnp.clip(jax.vmap(picture)(state.params), 0, 1), -trace, state)
