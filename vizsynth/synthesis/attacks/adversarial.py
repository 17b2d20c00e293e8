"""What the adversarial attacks share: the loss, its expected gradient, the balls, and their checks.

The expectation over transformations is of Athalye, Engstrom, Ilyas & Kwok, Synthesizing Robust Adversarial
Examples, 2017, section 2.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int
from optax.projections import projection_linf_ball

from vizsynth.core.chunks import check_count, keys_for, total
from vizsynth.core.entry import is_on_host
from vizsynth.scores import LogProbability
from vizsynth.taps import evaluate, run, shapes
from vizsynth.types import Image, Images, Key, Labels, Logits, Network

Radius = float | Array  # one for all images, or one an image
Transform = Callable[[Key, Image], Image]

# Resizing carries pixels a rounding error outside [0, 1].
_SLACK = 1e-4


# Balls ------------------------------------------------------------------------


class Ball(NamedTuple):
    """The unit ball of a norm: what an attack has to know of its geometry, for one image."""

    norm: Callable[[Image], Float[Array, ""]]
    """‖δ‖"""
    project: Callable[[Image, Any], Image]
    """`project(δ, ε)`: the point of the ball of radius ε nearest to δ, no value of it larger than δ's."""
    steepest: Callable[[Image], Image]
    """The point of the unit ball where ⟨g, δ⟩ is largest; 0 where g is 0."""
    uniform: Callable[[Key, Any], Image]
    """`uniform(key, shape)`: a point drawn uniformly from the unit ball, in float32."""


def l2_norm(delta: Image) -> Float[Array, ""]:
    """Return ‖δ‖₂ without underflow: the gradient of a confident network is tiny."""
    largest = jnp.abs(delta).max()
    scale = jnp.where(largest > 0, largest, jnp.ones_like(largest))
    return scale * jnp.sqrt(jnp.square(delta / scale).sum())


def _l2_project(delta: Image, epsilon: Any) -> Image:
    # The sum of squares is rounded: the radius is smaller by more than that can make of it.
    inside = epsilon * (1 - 64 * float(jnp.finfo(delta.dtype).eps))
    norm = l2_norm(delta)
    return delta * jnp.minimum(inside / jnp.where(norm > 0, norm, jnp.ones_like(norm)), 1)


def _l2_steepest(g: Image) -> Image:
    largest = jnp.abs(g).max()
    g = g / jnp.where(largest > 0, largest, jnp.ones_like(largest))
    return g / jnp.maximum(l2_norm(g), 1.0)


def _l2_uniform(key: Key, shape: Any) -> Image:
    direction_key, radius_key = jax.random.split(key)
    direction = _l2_steepest(jax.random.normal(direction_key, shape, jnp.float32))
    return direction * jax.random.uniform(radius_key, (), jnp.float32) ** (1 / math.prod(shape))


def _linf_norm(delta: Image) -> Float[Array, ""]:
    return jnp.abs(delta).max()


def _linf_uniform(key: Key, shape: Any) -> Image:
    return jax.random.uniform(key, shape, jnp.float32, minval=-1.0)


linf_ball = Ball(_linf_norm, projection_linf_ball, jnp.sign, _linf_uniform)
"""The ball of the largest absolute value, ‖δ‖∞."""
l2_ball = Ball(l2_norm, _l2_project, _l2_steepest, _l2_uniform)
"""The ball of the Euclidean norm, ‖δ‖₂."""


def within(ball: Ball, x: Images, images: Images, epsilon: Radius) -> Images:
    """Return the points projected on the balls around the images, then on [0, 1], in the images' precision.

    The second projection does not lead out of a ball again, as the images lie in [0, 1].
    """
    radii = jnp.broadcast_to(radius(epsilon, images.dtype), images.shape[:1])
    moved = jax.vmap(partial(in_ball, ball))(x, images, radii)
    return where(radii > 0, jnp.clip(moved, 0, 1), images)


def in_ball(ball: Ball, x: Image, center: Image, epsilon: Float[Array, ""]) -> Image:
    """Return the point of the ball around an image nearest to x, in the image's precision, never outside."""
    dtype, center = center.dtype, widened(center)
    delta = ball.project(_rounded(x.astype(center.dtype), dtype) - center, epsilon)
    moved = center + delta
    # That sum was rounded too. Where this led away from the centre, the number before it is near enough.
    center, delta, near = lax.stop_gradient((center, delta, moved))
    near = jnp.where(_is_within(near, center, jnp.abs(delta)), near, jnp.nextafter(near, center))
    return _with_slope_of(moved, _rounded(near, dtype, toward=center)).astype(dtype)


def _is_within(x: Image, y: Image, distance: Image) -> Bool[Array, "h w 3"]:
    """Tell whether |x − y| ≤ distance, exactly, for numbers of one sign.

    Where one of the two differences is rounded, the other is not: a − b is exact for b ≥ a / 2 (Sterbenz).
    """
    low, high = jnp.minimum(x, y), jnp.maximum(x, y)
    return (high - low <= distance) & (high - distance <= low)


# Precision ----------------------------------------------------------------------


def wide(dtype: Any) -> Any:
    """Return what is reckoned in with images of a data type: float32, or float64 for its own."""
    return jnp.float32 if jnp.finfo(dtype).bits < 32 else dtype


def widened(x: Array) -> Array:
    """Return the same numbers, in what is reckoned in with them."""
    return _rounded(x.astype(wide(x.dtype)), x.dtype)


def radius(epsilon: Radius, dtype: Any) -> Array:
    """Return ε in what is reckoned in with images of a data type, rounded down."""
    given = jnp.asarray(epsilon)
    rounded = given.astype(wide(dtype))
    if given.dtype != jnp.float64 or rounded.dtype == jnp.float64:
        return rounded
    return jnp.where(rounded.astype(given.dtype) > given, jnp.nextafter(rounded, 0), rounded)


def _rounded(x: Array, dtype: Any, *, toward: Array | None = None) -> Array:
    """Return float32 numbers rounded to those of bfloat16 or float16: to the nearest, or towards others.

    Of other data types they are what they are. Rounded by arithmetic, because compilers may leave out a
    conversion to a lower precision and back.
    """
    if jnp.finfo(dtype).bits >= 32:
        return x
    info, bits = jnp.finfo(dtype), lax.bitcast_convert_type(lax.stop_gradient(x), jnp.uint32)
    power = lax.bitcast_convert_type(bits & jnp.uint32(0x7F800000), jnp.float32)  # of two: the exponent alone
    least = max(float(info.smallest_subnormal), float(jnp.finfo(jnp.float32).tiny))
    spacing = jnp.maximum(power * 2.0**-info.nmant, least)
    if toward is None:
        return _with_slope_of(x, jnp.round(x / spacing) * spacing)
    down = jnp.maximum(jnp.floor(x / spacing) * spacing, toward)
    up = jnp.minimum(jnp.ceil(x / spacing) * spacing, toward)
    return jnp.where(x > toward, down, up)


def _with_slope_of(x: Array, rounded: Array) -> Array:
    """Return rounded numbers whose derivative is that of what was rounded, not 0."""
    return lax.stop_gradient(rounded) + (x - lax.stop_gradient(x))


# Images -------------------------------------------------------------------------


def one_an_image(value: Radius, images: Images) -> Float[Array, " n"]:
    """Return a number for each image, in what is reckoned in with them."""
    return jnp.full_like(images, value, wide(images.dtype), shape=images.shape[:1])


def along(x: Images, length: Float[Array, " n"], d: Images) -> Images:
    """Return x + length d, in what is reckoned in."""
    return widened(x) + times(length, d.astype(length.dtype))


def times(factor: Float[Array, " n"], images: Images) -> Images:
    """Multiply each image by its number."""
    return factor[:, None, None, None] * images


def where(condition: Bool[Array, " n"], x: Images, y: Images) -> Images:
    """Choose x for the images for which the condition holds, else y."""
    return jnp.where(condition[:, None, None, None], x, y)


def random_start(ball: Ball, images: Images, epsilon: Radius, keys: Array) -> Images:
    """Return a point drawn uniformly from the ball around each image, clipped to [0, 1]."""
    drawn = jax.vmap(lambda key: ball.uniform(key, images.shape[1:]))(keys)
    return within(ball, along(images, one_an_image(epsilon, images), drawn), images, epsilon)


# What is climbed ----------------------------------------------------------------


def logits_of(net: Network, images: Images) -> Logits:
    """Return the logits; a trunk, which has none, is refused."""
    return run(net, images, ("logits",))[1]["logits"]


def reached(logits: Logits, labels: Labels, targeted: bool) -> Bool[Array, " n"]:
    """Tell which images are at their goal: the label is not predicted; where targeted, it is."""
    predicted = logits.argmax(axis=-1)
    return predicted == labels if targeted else predicted != labels


def best_other(logits: Logits, labels: Labels) -> Float[Array, " n"]:
    """Return max_{i ≠ y} Z_i."""
    mine = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
    return jnp.where(mine, -jnp.inf, logits).max(axis=-1)


def expected_gradient(
    net: Network,
    labels: Labels,
    *,
    targeted: bool,
    transform: Transform | None = None,
    keys: Array | None = None,
    samples: int = 1,
    batch_size: int = 1,
) -> Callable[[Images, Int[Array, ""]], Images]:
    """Return the function g(x, t) = ∇_x E_τ[L(f(τ(x)), y)] of step t, negated where targeted.

    L is the cross entropy, summed over the images: each has its own gradient, in any batch.
    """
    sign = 1.0 if targeted else -1.0

    def objective(x: Images) -> Float[Array, ""]:
        return sign * evaluate(net, x, LogProbability(labels)).sum()

    if transform is None or keys is None:
        return lambda x, t: jax.grad(objective)(x)

    def g(x: Images, t: Int[Array, ""]) -> Images:
        keys_now = jax.vmap(jax.random.fold_in, (0, None))(keys, t)

        def of_sample(i: Array) -> Images:
            def seen(key: Key, image: Image) -> Image:
                return transform(jax.random.fold_in(key, i), image)

            return jax.grad(lambda x: objective(jax.vmap(seen)(keys_now, x)))(x)

        return total(of_sample, jnp.arange(samples), batch_size) / samples

    return g


def climb(
    g: Callable[[Images, Int[Array, ""]], Images],
    images: Images,
    start: Images,
    *,
    ball: Ball,
    epsilon: Radius,
    step_size: Radius,
    steps: int,
) -> Images:
    """Repeat x ← Π(x + α argmax_{‖d‖ ≤ 1} ⟨d, g⟩), Π onto the ball and [0, 1]."""
    alpha = one_an_image(step_size, images)

    def step(t: Int[Array, ""], x: Images) -> Images:
        d = jax.vmap(ball.steepest)(g(x, t))
        return within(ball, along(x, alpha, d), images, epsilon)

    return lax.fori_loop(0, steps, step, start)


def stream(key: Array | None, n: int, number: int) -> Array | None:
    """Return the keys of one purpose: its number is folded into the key of each image."""
    return None if key is None else jax.vmap(jax.random.fold_in, (0, None))(keys_for(key, n), number)


STARTS, TRANSFORMS = 0, 1  # purposes of a key


# Checks -------------------------------------------------------------------------


def check_attack(
    net: Any,
    images: Array,
    numbers: Mapping[str, Any],
    *,
    ball: Ball | None = None,
    key: Array | None = None,
) -> None:
    """Raise if a step is not positive, a radius negative or too large, or the network has one class alone.

    `ball` is the one that `epsilon` is a radius of.
    """
    n = len(images)
    check_classes(net, images)
    if key is not None:
        keys_for(key, n)
    for name, value in numbers.items():
        check_positive(value, name, n)
    epsilon = numbers.get("epsilon")
    if ball is linf_ball and is_on_host(epsilon) and np.any(np.asarray(epsilon) > 1):
        raise ValueError(
            f"epsilon is a share of the range [0, 1] of a pixel, so at most 1, not {epsilon}; "
            f"of 255 grey values, give {epsilon} / 255"
        )


def check_range(images: np.ndarray) -> None:
    """Raise if images do not lie in [0, 1]."""
    low, high = float(images.min()), float(images.max())
    if low < -_SLACK or high > 1 + _SLACK:
        raise ValueError(
            "an attack keeps its images in [0, 1], so they must lie there; "
            f"these span [{low:.4g}, {high:.4g}]; "
            "give images.clip(0, 1), to a network that standardizes inside"
        )


def check_classes(net: Any, images: Array) -> None:
    """Raise if there is no other class that an image could be taken for."""
    if class_count(net, images) < 2:
        raise ValueError("an attack changes which class is predicted, and this network has only one")


def check_positive(value: Any, name: str, n: int) -> None:
    """Raise if a number, or a number an image, is not positive and finite; a radius may be 0."""
    shape = np.shape(value)
    if shape not in ((), (n,)):
        raise ValueError(f"{name} is one number, or one for each of the {n} images, not an array {shape}")
    if is_on_host(value):
        values = np.asarray(value, np.float64)
        if name == "epsilon" and not (np.isfinite(values).all() and (values >= 0).all()):
            raise ValueError(f"epsilon must be at least 0 and finite, not {value}; 0 gives the images back")
        if name != "epsilon" and not (np.isfinite(values).all() and (values > 0).all()):
            raise ValueError(f"{name} must be above 0 and finite, not {value}")


def check_transform(transform: Any, samples: int, batch_size: int, key: Any) -> None:
    """Raise if an expectation cannot be taken."""
    check_count(samples, "samples")
    check_count(batch_size, "batch_size")
    if transform is None and samples > 1:
        raise ValueError(
            f"samples={samples} are drawn of a transform; give transform=, or leave samples at 1"
        )
    if transform is not None and not callable(transform):
        raise TypeError(f"transform must be a function (key, image) -> image, not {type(transform).__name__}")
    if transform is not None and key is None:
        raise ValueError("a transform is drawn with a key; give key=jax.random.key(seed)")


def check_start(start: Any, images: Array) -> None:
    """Raise if images to start from have another shape than the images."""
    if start is not None and np.shape(start) != images.shape:
        raise ValueError(f"start must have the shape of the images, {images.shape}, not {np.shape(start)}")


def class_count(net: Any, images: Array) -> int:
    """Return how many classes the network has. Nothing is computed."""
    if (known := getattr(net, "num_classes", None)) is not None:
        return known
    return shapes(net, images, ("logits",))["logits"].shape[-1]
