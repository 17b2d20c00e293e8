"""Style transfer: one picture's forms, painted as another is.

Gatys, Ecker & Bethge, Image Style Transfer Using Convolutional Neural Networks, 2016. The content of a
picture p is a deep layer's features P, and its style the Gram matrices of several layers
(`vizsynth.synthesis.texture.gatys`):

    L = α L_content + β L_style,   L_content = ½ Σ_ij (F_ij − P_ij)²,   L_style = Σ_l w_l E_l.
"""

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from vizsynth import ascent, priors
from vizsynth.core.chunks import keys_for
from vizsynth.core.entry import as_image, entry, is_on_host
from vizsynth.images import resize
from vizsynth.ops import Ops
from vizsynth.parametrizations import Fourier
from vizsynth.replay import parts
from vizsynth.replay.fields import field_size
from vizsynth.synthesis.features.pictures import Optimizer, Size, as_size
from vizsynth.synthesis.texture.gatys import (
    VGG_LAYERS,
    Gram,
    check_layers,
    check_run,
    check_weights,
    shrink,
    summing_dtype,
    texture_loss,
    texture_statistics,
)
from vizsynth.taps import run, shapes
from vizsynth.types import Image, Key, Keys, Network, Synthesis
from vizsynth.updates import Averaged, average_iterates, averaged

Number = float | Float[Array, ""]
Style = Float[Array, "_ _ 3"]
Mask = Float[Array, "_ _"]


def content_loss(found: Float[Array, "..."], wanted: Float[Array, "..."]) -> Float[Array, ""]:
    """Return L_content = ½ Σ (F − P)², summed in float32 at least.

    The mean of (F − P)², which neural-style, pystiche and style-transfer-pytorch take, is ours times
    2 / (N M), N being the number of features and M that of positions.

    >>> float(content_loss(jnp.asarray([1.0, 4.0]), jnp.asarray([1.0, 2.0])))
    2.0
    """
    dtype = summing_dtype(found.dtype)
    away = found.astype(dtype) - wanted.astype(dtype)
    return (away * away).sum() / 2


class Targets(NamedTuple):
    """P, and what each style loss compares with: constants of a run."""

    content: dict[str, Any]
    styles: tuple[dict[str, Any], ...]


def _shares(mixture: Sequence[Number] | None, k: int, dtype: Any) -> Float[Array, " k"]:
    shares = jnp.stack([jnp.asarray(v, dtype) for v in ([1.0] * k if mixture is None else mixture)])
    return shares / shares.sum()


def _targets(
    net: Network,
    content: Image,
    styles: Sequence[Style],
    content_layers: Sequence[str],
    style_layers: Sequence[str],
    mixture: Sequence[Number] | None,
    masks: Sequence[Mask] | None,
    style_masks: Sequence[Mask | None] | None,
    loss: Any,
    ops: Ops | None,
) -> Targets:
    each: list[dict[str, Any]] = []
    for style, mask in zip(styles, style_masks or [None] * len(styles), strict=True):
        style = parts.after(style, each[-1:])  # one by one, for the memory
        each.append(texture_statistics(net, style, style_layers, loss=loss, guidance=mask, ops=ops))
    if masks is None:
        shares = _shares(mixture, len(styles), content.dtype)

        def mixed(*values: Array) -> Array:
            total = jnp.zeros_like(values[0])
            for share, value in zip(shares, values, strict=True):
                total = total + share.astype(value.dtype) * value
            return total

        each = [jax.tree.map(mixed, *each)]
    return Targets(run(net, parts.after(content, each)[None], content_layers, ops=ops)[1], tuple(each))


def _check_pictures(
    net: Any,
    content: Any,
    styles: Any,
    content_layers: Any,
    style_layers: Any,
    mixture: Any,
    masks: Any,
    style_masks: Any,
) -> None:
    content = as_image(content, name="content")
    if hasattr(styles, "ndim") and styles.ndim == 3:
        raise ValueError("styles must be a sequence of images [h, w, 3]: give [style] for one")
    if not len(styles):
        raise ValueError("styles must hold at least one image")
    check_weights(mixture, "weights of the mixture")
    check_layers(net, content, content_layers, None, "content_layers")
    check_layers(net, content, style_layers, None, "style_layers")
    for name, given in (("mixture", mixture), ("style_masks", style_masks)):
        if given is not None and len(given) != len(styles):
            raise ValueError(f"{len(styles)} styles take {name} of as many, not {len(given)}")
    for i, style in enumerate(styles):
        style = as_image(style, name=f"style {i}")
        check_layers(net, style, style_layers, None, "style_layers")
        _warn_if_small(net, style, style_layers, i)
        if style_masks is not None and style_masks[i] is not None:
            _check_mask(style_masks[i], style.shape[:2], f"the mask of style {i}")
    if masks is not None:
        if len(masks) != len(styles):
            raise ValueError(f"{len(styles)} styles take as many masks, not {len(masks)}")
        for i, mask in enumerate(masks):
            _check_mask(mask, content.shape[:2], f"mask {i}")


def _check(
    net: Any,
    content: Any,
    styles: Any,
    key: Any,
    steps: Any,
    content_layers: Any,
    style_layers: Any,
    content_weight: Any,
    style_weight: Any,
    tv_weight: Any,
    layer_weights: Any,
    mixture: Any,
    masks: Any,
    style_masks: Any,
    start: Any,
    noise: Any,
    average: Any,
    cuts: Any,
    state: Any,
) -> None:
    check_run(steps, key, state)
    weights = [content_weight, style_weight]
    check_weights([*weights, tv_weight], "weights content_weight, style_weight, tv_weight")
    check_weights(weights, "weights content_weight and style_weight")
    _check_pictures(net, content, styles, content_layers, style_layers, mixture, masks, style_masks)
    check_layers(net, content, style_layers, layer_weights, "style_layers")
    if start is not None and as_image(start, name="start").shape != content.shape:
        raise ValueError(f"start must be of the content's shape {content.shape}, not {start.shape}")
    for name, value in (("noise", noise), ("average", 0 if average is None else average)):
        if is_on_host(value) and not 0 <= float(np.asarray(value)) <= 1:
            raise ValueError(f"{name} must lie in [0, 1], not {value}")
    if cuts:
        shapes(net, jax.ShapeDtypeStruct((1, *content.shape), content.dtype), cuts)


def _check_mask(mask: Any, size: tuple[int, ...], name: str) -> None:
    if np.shape(mask) != size:
        raise ValueError(
            f"{name} must be of the size of its picture, {size[0]}x{size[1]}, not {np.shape(mask)}; "
            "vizsynth.images.resize brings it there"
        )
    if not is_on_host(mask):
        return
    values = np.asarray(mask)
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
        raise ValueError(f"{name} must lie in [0, 1]: 0 outside of its region, 1 inside")
    if not values.any():
        raise ValueError(f"{name} is 0 everywhere: its style would be nowhere; leave that style out")


def _warn_if_small(net: Any, style: Any, layers: Any, i: int) -> None:
    """Say it where all that a layer sees of a style has the borders' padding in it."""
    for layer in layers:
        rows, columns = field_size(net, layer)
        if style.shape[0] < rows or style.shape[1] < columns:
            warnings.warn(
                f"style {i} is {style.shape[0]}x{style.shape[1]} pixels, less than the "
                f"{rows:.0f}x{columns:.0f} that a neuron of {layer} sees: give it larger, or leave that "
                "layer out",
                stacklevel=6,
            )
            return


@entry(static=("content_layers", "style_layers", "ops"), check=_check_pictures, many=True)
def style_targets(
    net: Network,
    content: Image,
    styles: Sequence[Style],
    *,
    content_layers: Sequence[str] = ("relu4_2",),
    style_layers: Sequence[str] = VGG_LAYERS,
    mixture: Sequence[Number] | None = None,
    masks: Sequence[Mask] | None = None,
    style_masks: Sequence[Mask | None] | None = None,
    loss: Any = Gram(),  # noqa: B008  # frozen
    ops: Ops | None = None,
) -> Targets:
    """Return the constants of `transfer_style`, for a run in several calls; the arguments are its own."""
    return _targets(
        net, content, styles, content_layers, style_layers, mixture, masks, style_masks, loss, ops
    )


@entry(
    static=("steps", "content_layers", "style_layers", "optimizer", "relative", "cuts", "ops"),
    check=_check,
    many=True,
)
def transfer_style(
    net: Network,
    content: Image,
    styles: Sequence[Style],
    *,
    key: Keys | None = None,
    steps: int = 200,
    content_layers: Sequence[str] = ("relu4_2",),
    style_layers: Sequence[str] = VGG_LAYERS,
    content_weight: Number = 1.0,
    style_weight: Number = 10.0,
    tv_weight: Number = 0.0,
    layer_weights: Sequence[Number] | None = None,
    mixture: Sequence[Number] | None = None,
    masks: Sequence[Mask] | None = None,
    style_masks: Sequence[Mask | None] | None = None,
    loss: Any = Gram(),  # noqa: B008  # frozen
    relative: bool = True,
    start: Image | None = None,
    noise: Number = 0.0,
    average: Number | None = None,
    parametrization: Any = Fourier(),  # noqa: B008  # frozen
    optimizer: Optimizer = optax.lbfgs,
    learning_rate: Number = 1.0,
    cuts: Sequence[str] = (),
    ops: Ops | None = None,
    targets: Targets | None = None,
    state: Any = None,
) -> Synthesis:
    """Find argmin_x α ‖F − P‖² / ‖P‖² + β Σ_l w_l E_l / E_l(0) + γ V(x) / (h w) (eq. 7, made relative).

    Args:
        net: a network, VGG's trunk for instance.
        content: p, float RGB in [0, 1], `[h, w, 3]`: its size is the result's.
        styles: the pictures whose style is taken, a sequence of `[h', w', 3]`, of any sizes. The size decides
            how large the strokes are: resize a style (`vizsynth.images.resize`) to make them smaller. To keep
            the content's colours, see `vizsynth.colors`.
        key: of the noise at the beginning: one result is made for it, or one for each of `[n]` keys. It may
            be left out where a state is given.
        content_layers: whose features F are to be P.
        style_layers: l, whose statistics are to be the styles'.
        content_weight: α.
        style_weight: β.
        tv_weight: γ, of the total variation V = Σ ((x_{i,j+1} − x_ij)² + (x_{i+1,j} − x_ij)²).
        layer_weights: w_l, one a style layer; by default 1 / their number.
        mixture: how much of each style; by default as much of all. They are divided by their sum.
        masks: for each style the region of the result that it is for, `[h, w]` in [0, 1]. Each style then has
            a loss of its own; without, the styles' statistics are mixed.
        style_masks: for each style the part of its picture that counts, `[h', w']`; None is all.
        loss: E_l: `Gram`, or `Wasserstein`.
        relative: whether the content's and each layer's loss are divided by what they are for a picture
            without any features, so that weights hold for any network and size. False is the paper's
            α ½ Σ (F − P)² + β Σ_l w_l E_l.
        start: the picture to begin with; by default the content.
        noise: how much of the beginning is white noise: 0 is none of it, 1 nothing else.
        average: d, to return the mean of the iterates with weights d^(T − t) in place of the last one; for
            Adam, whose iterates tremble.
        parametrization: what is optimized. The paper's is `Pixels()`.
        optimizer: `optimizer(learning_rate)` is an optax transformation; line searches too.
        learning_rate: its step; for L-BFGS, where the search for the step begins.
        cuts: layers between which activations are computed again rather than kept, so that larger pictures
            fit into memory: `vizsynth.synthesis.texture.gatys.VGG_CUTS` for VGG.
        ops: another table of arithmetic; `vizsynth.ops.average_pooling` is the paper's.
        targets: of `vizsynth.synthesis.style.gatys.style_targets`, for calls that go on with a run.
        state: of an earlier result, to go on from. It holds its own keys. `enlarge` brings it to another
            size.

    Returns:
        The pictures `[n, h, w, 3]` in [0, 1], L at the beginning of each step, and the state.

    Raises:
        TypeError, ValueError: pictures that are none; masks of another size than theirs, or empty; weights
            below 0, or all 0; layers that the network does not have, or in which nothing is left; no key.

    Example:
        >>> import jax, optax, vizsynth
        >>> from vizsynth.models.sequential import Conv, GlobalMean, ReLU
        >>> stack = [Conv(4), ReLU(), Conv(8), ReLU(), GlobalMean()]
        >>> net = vizsynth.models.sequential(stack, key=jax.random.key(0))
        >>> content, style = jax.random.uniform(jax.random.key(1), (2, 24, 24, 3))
        >>> options = {"content_layers": ["relu2"], "style_layers": ["relu1", "relu2"], "steps": 2}
        >>> options |= {"optimizer": optax.adam, "learning_rate": 0.02}
        >>> vizsynth.transfer_style(net, content, [style], key=jax.random.key(2), **options).images.shape
        (1, 24, 24, 3)
    """
    shape = (content.shape[0], content.shape[1])
    descent = optimizer(learning_rate)
    if average is not None:
        descent = average_iterates(descent, average)
    shares = _shares(mixture, len(styles), content.dtype)
    # Constants of the run: they are computed once, not in its steps.
    wanted, of_styles = targets or _targets(
        net, content, styles, content_layers, style_layers, mixture, masks, style_masks, loss, ops
    )
    regions = [None] if masks is None else list(masks)
    weights = [None] if masks is None else list(shares)
    both = tuple(dict.fromkeys((*content_layers, *style_layers)))

    def energy(image: Image) -> Float[Array, ""]:
        """Return L."""

        def of(layer: str, A: Array) -> tuple[Any, Any]:
            distance, statistics = None, None
            if layer in content_layers:
                distance = content_loss(A, wanted[layer])
                if relative:
                    nothing = content_loss(jnp.zeros_like(A), wanted[layer])
                    distance = distance / jnp.where(nothing > 0, nothing, jnp.ones_like(nothing))
            if layer in style_layers:
                size = A.shape[1:3]
                guides = [None if m is None else shrink(m.astype(image.dtype), size) for m in regions]
                statistics = [loss.statistics(A[0], guide) for guide in guides]
            return distance, statistics

        seen = parts.read(net, image[None], both, of, cuts=cuts, ops=ops)
        total = sum((seen[layer][0] for layer in content_layers), start=jnp.zeros((), image.dtype))
        L = jnp.asarray(content_weight, total.dtype) * total
        for r, (target, share) in enumerate(zip(of_styles, weights, strict=True)):
            found = {layer: seen[layer][1][r] for layer in style_layers}
            E = texture_loss(found, target, layer_weights, loss=loss, relative=relative)
            L = L + jnp.asarray(style_weight, L.dtype) * (E if share is None else share.astype(E.dtype) * E)
        rough = priors.total_variation(image) / (shape[0] * shape[1])
        return L + jnp.asarray(tv_weight, L.dtype) * rough.astype(L.dtype)

    def begin(key: Key) -> ascent.State:
        noise_key, run_key = jax.random.split(key)
        first = content if start is None else jnp.asarray(start, content.dtype)
        white = jax.random.uniform(noise_key, first.shape, first.dtype)
        share = jnp.asarray(noise, first.dtype)
        params = parametrization.encode((1 - share) * first + share * white)
        return ascent.init(params, descent, key=run_key)

    def picture(params: Any) -> Image:
        return parametrization.decode(params, shape).astype(content.dtype)

    def one(state: ascent.State) -> tuple[ascent.State, Array]:
        def objective(params: Any, key: Key) -> Array:
            del key
            return -energy(picture(params)).astype(jax.tree.leaves(params)[0].dtype)

        return ascent.run(objective, descent, state, steps, stochastic=False)

    if state is None:
        keys = cast(Any, key)
        state = jax.vmap(begin)(keys_for(keys, keys.shape[0] if keys.ndim else 1))
    state, trace = ascent.run_each(one, state)

    def result(state: ascent.State) -> Image:
        if average is None:
            return picture(state.params)
        mean = averaged(state.memory)
        begun = state.memory.weight > 0
        return picture(jax.tree.map(lambda m, x: jnp.where(begun, m, x), mean, state.params))

    return Synthesis(jnp.clip(jax.vmap(result)(state), 0, 1), -trace, state)


def enlarge(
    state: ascent.State,
    size: Size,
    *,
    parametrization: Any = Fourier(),  # noqa: B008  # frozen
    optimizer: Optimizer = optax.lbfgs,
    learning_rate: Number = 1.0,
    average: Number | None = None,
) -> ascent.State:
    """Return a run's state for pictures of another size: what was found, and what the optimizer remembers.

    From coarse to fine, large forms are settled where a step is cheap. Picture, first moments and the mean of
    iterates are resized bicubically, second moments linearly, as they must not fall below 0 (Crowson,
    style-transfer-pytorch, 2021). A Fourier spectrum is filled up with zeros. The pairs of steps of L-BFGS
    belong to one size: it begins anew.

    Args:
        state: of the run so far.
        size: the new side, or (height, width).
        parametrization: as the run has it, as are optimizer, learning_rate, average.

    >>> import optax
    >>> from vizsynth.parametrizations import Pixels
    >>> memory = jax.vmap(optax.adam(0.1).init)(x := jnp.ones((1, 4, 4, 3)))
    >>> state = ascent.State(x, memory, jax.random.key(0)[None], jnp.zeros(1, jnp.int32))
    >>> larger = enlarge(state, 8, parametrization=Pixels(), optimizer=optax.adam, learning_rate=0.1)
    >>> larger.params.shape, larger.memory[0].nu.shape
    ((1, 8, 8, 3), (1, 8, 8, 3))
    """
    shape = as_size(size)
    resized = _resized_spectrum if isinstance(parametrization, Fourier) else _resized_picture
    descent = optimizer(learning_rate)
    if average is not None:
        descent = average_iterates(descent, average)
    params = resized(state.params, shape, "cubic")

    def carried(fresh: Any, old: Any) -> Any:
        match old:
            case optax.ScaleByAdamState():
                mu = resized(cast(Array, old.mu), shape, "cubic")
                nu = resized(cast(Array, old.nu), shape, "linear")
                return old._replace(mu=mu, nu=jnp.maximum(nu, 0))
            case Averaged():
                inner = jax.tree.map(carried, fresh.inner, old.inner, is_leaf=_is_known)
                return old._replace(inner=inner, total=resized(old.total, shape, "cubic"))
            case _:
                return fresh

    memory = jax.tree.map(carried, jax.vmap(descent.init)(params), state.memory, is_leaf=_is_known)
    return state._replace(params=params, memory=memory)


def _is_known(node: Any) -> bool:
    return isinstance(node, (optax.ScaleByAdamState, optax.ScaleByLBFGSState, Averaged))


def _resized_picture(values: Array, size: tuple[int, int], method: Any) -> Array:
    return resize(values, size, method=method)


def _resized_spectrum(values: Float[Array, "n h f 3 2"], size: tuple[int, int], method: Any) -> Array:
    """Return a spectrum of another size: as much of every frequency as there was."""
    del method
    n, h, f, *rest = values.shape
    rows, columns = min(h, size[0]), min(f, size[1] // 2 + 1)
    low, high = (rows + 1) // 2, rows // 2
    empty = jnp.zeros((n, size[0], size[1] // 2 + 1, *rest), values.dtype)
    empty = empty.at[:, :low, :columns].set(values[:, :low, :columns])
    return empty.at[:, size[0] - high :, :columns].set(values[:, h - high :, :columns]) if high else empty
