"""Feature inversion: which picture has these features?

Mahendran & Vedaldi, Understanding Deep Image Representations by Inverting Them, 2014, sections 2 and 3, and
the code published with it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from vizsynth import ascent, priors
from vizsynth.core.chunks import keys_for
from vizsynth.core.entry import as_images, as_network, entry, is_on_host
from vizsynth.parametrizations import Fourier
from vizsynth.synthesis.features.pictures import Optimizer
from vizsynth.taps import features, run, shapes
from vizsynth.types import Image, Images, Key, Keys, Network, Synthesis

Number = float | Float[Array, ""]
_GREY = 0.5


class _Descent(NamedTuple):
    velocity: Any
    step: Int[Array, ""]


def paper_descent(
    learning_rate: Number,
    *,
    momentum: float = 0.9,
    stages: Sequence[tuple[int, float]] = ((100, 1.0), (200, 0.1), (100, 0.01)),
) -> optax.GradientTransformation:
    """Descend as the paper's code: v ← 0.9 v − η_t g, x ← x + v; v begins anew where η_t changes.

    η_t is the learning rate times 1, 0.1 and 0.01, for 100, 200 and 100 steps; the last factor stays. The
    code's learning rate is 0.004 for pictures scaled to the norm 1. For ours that is 0.004 ‖x₀ − ½‖² with x₀
    a typical picture: some 0.00075 h w.

    >>> state = (descent := paper_descent(1.0)).init(jnp.zeros(()))
    >>> update, state = descent.update(jnp.ones(()), state)
    >>> update, state = descent.update(jnp.ones(()), state)
    >>> round(float(update), 6)
    -1.9
    """
    ends = np.cumsum([length for length, _ in stages])
    factors = [factor for _, factor in stages]

    def init(params: Any) -> _Descent:
        return _Descent(jax.tree.map(jnp.zeros_like, params), jnp.zeros((), jnp.int32))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, _Descent]:
        del params
        stage = jnp.minimum((jnp.asarray(ends) <= state.step).sum(), len(factors) - 1)
        changes = (state.step == jnp.asarray(ends[:-1], jnp.int32)).any()

        def one(v: Array, g: Array) -> Array:
            eta = jnp.asarray(learning_rate, g.dtype) * jnp.asarray(factors, g.dtype)[stage]
            kept = jnp.where(changes, jnp.zeros_like(v), jnp.asarray(momentum, v.dtype) * v)
            return kept - eta * g

        velocity = jax.tree.map(one, state.velocity, updates)
        return velocity, _Descent(velocity, state.step + 1)

    return optax.GradientTransformation(init, update)


def _squared_distance(found: Array, wanted: Array) -> Float[Array, " n"]:
    """Return ‖Φ − Φ₀‖² / ‖Φ₀‖² of each image; where Φ₀ is nothing, ‖Φ‖²."""
    axes = tuple(range(1, wanted.ndim))
    dtype = wanted.dtype if wanted.dtype.itemsize >= 4 else jnp.float32  # sums of many squares
    found, wanted = found.astype(dtype), wanted.astype(dtype)
    away = found - wanted
    norm = (wanted * wanted).sum(axis=axes)
    return (away * away).sum(axis=axes) / jnp.where(norm > 0, norm, jnp.ones_like(norm))


def _check_layer(net: Any, images: Any, layer: Any) -> None:
    if not isinstance(layer, str):
        raise TypeError(f"layer must be the name of one layer, not {layer!r}; invert_layers takes several")
    shapes(net, images, (layer,))


def _check_error(net: Any, images: Any, of: Any, layer: Any) -> None:
    of = as_images(of, name="of")
    if of.shape != images.shape:
        raise ValueError(f"images {images.shape} and what they are compared with {of.shape} must be alike")
    _check_layer(net, images, layer)


@entry(static=("layer",), check=_check_error)
def normalized_error(net: Network, images: Images, *, of: Images, layer: str) -> Float[Array, " n"]:
    """Return ‖Φ(x) − Φ(x₀)‖² / ‖Φ(x₀)‖² (Mahendran & Vedaldi 2014, section 2).

    Args:
        images: x, the pictures that were found, float RGB in [0, 1], `[n, h, w, 3]`.
        of: x₀, the images whose features were sought, of the same shape.
        layer: whose activations Φ are.

    Returns:
        The error of each image, `[n]`: 0 for x₀ itself, 1 for a picture without features. The paper's tables
        have its root, but divided by the mean distance between features of its test images, not by ‖Φ(x₀)‖.

    Raises:
        TypeError, ValueError: images of other shapes; a layer that the network does not have.

    Example:
        >>> import jax, vizsynth
        >>> from vizsynth.models.sequential import Conv, GlobalMean
        >>> net = vizsynth.models.sequential([Conv(8), GlobalMean()], key=jax.random.key(0))
        >>> images = jax.random.uniform(jax.random.key(1), (2, 24, 24, 3))
        >>> vizsynth.normalized_error(net, images, of=images, layer="conv1").tolist()
        [0.0, 0.0]
    """
    both = features(net, jnp.concatenate([images, jnp.asarray(of, images.dtype)]), (layer,))[layer]
    return _squared_distance(both[: len(images)], both[len(images) :])


def energy(
    net: Network,
    image: Image,
    wanted: Float[Array, "..."],
    layer: str,
    *,
    alpha: float,
    alpha_weight: Number,
    beta: Number,
    tv_weight: Number,
) -> Float[Array, ""]:
    """Return E(x) = ‖Φ(x) − Φ₀‖² / ‖Φ₀‖² + (λ_α ‖x − ½‖_α^α + λ_V V_β(x)) / (h w), Φ₀ being `wanted`."""
    distance = _squared_distance(run(net, image[None], (layer,))[1][layer], wanted[None])[0]
    pixels = image.shape[0] * image.shape[1]
    large = priors.alpha_norm(image - jnp.asarray(_GREY, image.dtype), alpha)
    rough = priors.total_variation(image, beta)
    penalty = jnp.asarray(alpha_weight, image.dtype) * large + jnp.asarray(tv_weight, image.dtype) * rough
    return distance + (penalty / pixels).astype(distance.dtype)


def _check(
    net: Any,
    images: Any,
    layer: Any,
    key: Any,
    steps: Any,
    alpha: Any,
    alpha_weight: Any,
    beta: Any,
    tv_weight: Any,
    learning_rate: Any,
    state: Any,
) -> None:
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise ValueError(f"steps must be an integer of at least 0, not {steps!r}")
    for name, value in (("alpha_weight", alpha_weight), ("tv_weight", tv_weight)):
        if is_on_host(value) and not 0 <= np.asarray(value) < np.inf:
            raise ValueError(f"{name} must be at least 0, not {value}")
    for name, value in (("alpha", alpha), ("beta", beta)):
        if is_on_host(value) and not 1 <= np.asarray(value) < np.inf:
            raise ValueError(f"{name} must be at least 1, not {value}: below, the gradient has no bound")
    if is_on_host(learning_rate) and not 0 < np.asarray(learning_rate) < np.inf:
        raise ValueError(f"learning_rate must be above 0, not {learning_rate}")
    if state is None and key is None:
        raise TypeError("a run that begins needs a key: key=jax.random.key(seed)")
    if state is None:
        keys_for(key, len(images))
    elif state.step.shape != images.shape[:1]:
        raise ValueError(f"{len(images)} images take a state of {len(images)} runs, not {state.step.shape}")
    _check_layer(net, images, layer)


@entry(static=("layer", "steps", "alpha", "optimizer"), check=_check, many=True)
def invert(
    net: Network,
    images: Images,
    layer: str,
    *,
    key: Keys | None = None,
    steps: int = 100,
    parametrization: Any = Fourier(),  # noqa: B008  # frozen
    alpha: float = 6.0,
    alpha_weight: Number = 1.0,
    beta: Number = 2.0,
    tv_weight: Number = 0.3,
    optimizer: Optimizer = optax.lbfgs,
    learning_rate: Number = 1.0,
    state: Any = None,
) -> Synthesis:
    """Find argmin_x ‖Φ(x) − Φ₀‖² / ‖Φ₀‖² + (λ_α ‖x − ½‖_α^α + λ_V V_β(x)) / (h w), Φ₀ = Φ(x₀) (eqs. 1 to 4).

    Args:
        images: x₀, whose features are inverted: float RGB in [0, 1], `[n, h, w, 3]`.
        layer: whose activations Φ are.
        parametrization: what is optimized (`vizsynth.parametrizations`).
        alpha: of the α-norm, at least 1.
        alpha_weight: λ_α.
        beta: of the total variation V_β = Σ ((x_{i,j+1} − x_ij)² + (x_{i+1,j} − x_ij)²)^{β/2}, at least 1.
        tv_weight: λ_V.
        optimizer: `optimizer(learning_rate)` is an optax transformation; line searches too.
        learning_rate: its step; for L-BFGS, where the search for the step begins.

    Returns:
        The pictures `[n, h, w, 3]` in [0, 1], the objective at each step, and the state;
        `normalized_error(net, result.images, of=images, layer=layer)` says how near their features are.
        Departures: the defaults are L-BFGS over a Fourier spectrum, which comes near in few steps (at relu1_2
        of VGG-16 an error of 0.002 after 50, where Adam is at 0.07 after 100). Deep layers are for Adam with
        a rate of 0.05 (relu5_3: 0.03 after 100 steps, L-BFGS 0.07 after 50). The paper's own are
        `parametrization=Pixels(std=0.25)`, `optimizer=paper_descent`, `learning_rate=0.00075 * h * w` and 400
        steps. The priors are means over pixels, so that their weights hold for any size; the code's, halved
        sums over ‖x₀‖², are about `alpha_weight=9` and, from shallow to deep layers, `tv_weight=2.6`, 26 and
        260. Its pictures are less their mean, ours less the grey ½.

    Raises:
        TypeError, ValueError: images that cannot be taken; a layer that the network does not have; weights
            below 0; α or β below 1; no key; a state of another number of images.

    Example:
        >>> import jax, optax, vizsynth
        >>> from vizsynth.models.sequential import Conv, GlobalMean
        >>> net = vizsynth.models.sequential([Conv(8), GlobalMean()], key=jax.random.key(0))
        >>> images = jax.random.uniform(jax.random.key(1), (1, 24, 24, 3))
        >>> adam = {"optimizer": optax.adam, "learning_rate": 0.05}
        >>> found = vizsynth.invert(net, images, "conv1", key=jax.random.key(2), steps=2, **adam)
        >>> found.images.shape, found.trace.shape
        ((1, 24, 24, 3), (1, 2))
    """
    size = (images.shape[1], images.shape[2])
    descent = optimizer(learning_rate)
    wanted = features(net, images, (layer,))[layer]

    def begin(key: Key) -> ascent.State:
        start_key, run_key = jax.random.split(key)
        return ascent.init(parametrization.init(start_key, size), descent, key=run_key)

    def picture(params: Any) -> Image:
        return parametrization.decode(params, size).astype(images.dtype)

    def one(run: tuple[ascent.State, Array]) -> tuple[ascent.State, Array]:
        state, wanted = run

        def objective(params: Any, key: Key) -> Array:
            del key
            weights = {"alpha": alpha, "alpha_weight": alpha_weight, "beta": beta, "tv_weight": tv_weight}
            E = energy(net, picture(params), wanted, layer, **weights)
            return -E.astype(jax.tree.leaves(params)[0].dtype)

        return ascent.run(objective, descent, state, steps, stochastic=False)

    if state is None:
        state = jax.vmap(begin)(keys_for(cast(Keys, key), len(images)))
    state, trace = ascent.run_each(one, (state, wanted))
    return Synthesis(jnp.clip(jax.vmap(picture)(state.params), 0, 1), -trace, state)


class Inversions(NamedTuple):
    """What `invert_layers` returns, by the names of the layers."""

    results: dict[str, Synthesis]
    errors: dict[str, Float[Array, " n"]]
    """The normalized error of each image."""


def invert_layers(
    net: Network,
    images: Images,
    layers: Sequence[str],
    *,
    key: Keys,
    steps: int = 100,
    parametrization: Any = Fourier(),  # noqa: B008  # frozen
    alpha: float = 6.0,
    alpha_weight: Number = 1.0,
    beta: Number = 2.0,
    tv_weight: Number | Sequence[float] = 0.3,
    optimizer: Optimizer = optax.lbfgs,
    learning_rate: Number = 1.0,
) -> Inversions:
    """Invert each layer by itself: what every stage of the network still knows of the images (figure 6).

    Each layer is a program of its own, which computes no more of the network than that layer needs.

    Args:
        key: as for `invert`, as are steps, parametrization, alpha, alpha_weight, beta, optimizer,
            learning_rate. All layers begin with the same picture.
        tv_weight: λ_V: one for all layers, or one a layer.

    Returns:
        By layer, the results of `invert` and the normalized errors.

    Raises:
        TypeError, ValueError: as from `invert`, for any of the layers before the first is inverted; a number
            of weights other than that of the layers.

    Example:
        >>> import jax, optax, vizsynth
        >>> from vizsynth.models.sequential import Conv, GlobalMean
        >>> net = vizsynth.models.sequential([Conv(8), GlobalMean()], key=jax.random.key(0))
        >>> images = jax.random.uniform(jax.random.key(1), (1, 24, 24, 3))
        >>> adam = {"optimizer": optax.adam, "learning_rate": 0.05}
        >>> found = vizsynth.invert_layers(net, images, ["conv1"], key=jax.random.key(2), steps=2, **adam)
        >>> found.results["conv1"].images.shape, found.errors["conv1"].shape
        ((1, 24, 24, 3), (1,))
    """
    net = as_network(net)
    images = as_images(images, unit_range=getattr(net, "standardize", None) is not None)
    if isinstance(layers, str):
        raise TypeError(f"layers must be a sequence of names, not one name: give [{layers!r}]")
    weights: list[Any] = list(cast(Any, tv_weight)) if np.ndim(tv_weight) else [tv_weight] * len(layers)
    if len(weights) != len(layers):
        raise ValueError(f"{len(layers)} layers take one tv_weight or {len(layers)}, not {len(weights)}")
    for layer in layers:
        _check_layer(net, images, layer)
    results, errors = {}, {}
    for layer, weight in zip(layers, weights, strict=True):
        results[layer] = invert(
            net,
            images,
            layer,
            key=key,
            steps=steps,
            parametrization=parametrization,
            alpha=alpha,
            alpha_weight=alpha_weight,
            beta=beta,
            tv_weight=weight,
            optimizer=optimizer,
            learning_rate=learning_rate,
        )
        errors[layer] = normalized_error(net, results[layer].images, of=images, layer=layer)
    return Inversions(results, errors)
