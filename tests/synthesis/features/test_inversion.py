"""Inversion by hand in NumPy: the objective, its gradient, the paper's descent; and what is refused."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from convolved import activations, convolved, identity, pulled_back
from tiny import random_images, tiny

from vizsynth import ascent
from vizsynth.core.entry import as_network
from vizsynth.parametrizations import Fourier, Pixels
from vizsynth.synthesis.features.inversion import (
    energy,
    invert,
    invert_layers,
    normalized_error,
    paper_descent,
)

x64 = pytest.mark.usefixtures("x64")
KEY = jax.random.key(5)
WEIGHTS = {"alpha_weight": 3.0, "tv_weight": 0.7}
QUICK = {"optimizer": optax.adam, "learning_rate": 0.05}  # a line search takes long to compile


def pictures(n: int = 2, h: int = 9, w: int = 8, dtype: Any = np.float32) -> jax.Array:
    return random_images(n, h, w, seed=3, dtype=dtype)


# By hand ----------------------------------------------------------------------------


def objective_by_hand(
    x: np.ndarray, x0: np.ndarray, alpha_weight: float, tv_weight: float, beta: float
) -> float:
    """‖Φ(x) − Φ₀‖² / ‖Φ₀‖² + (λ_α Σ |x − ½|⁶ + λ_V Σ (right² + down²)^(β/2)) / (h w)."""
    h, w, channels = x.shape
    data = np.sum((activations(x) - activations(x0)) ** 2) / np.sum(activations(x0) ** 2)
    large = np.sum(np.abs(x - 0.5) ** 6)
    rough = 0.0
    for i in range(h):
        for j in range(w):
            for c in range(channels):
                right = x[i, j + 1, c] - x[i, j, c] if j + 1 < w else 0.0
                down = x[i + 1, j, c] - x[i, j, c] if i + 1 < h else 0.0
                rough += (right**2 + down**2) ** (beta / 2)
    return float(data + (alpha_weight * large + tv_weight * rough) / (h * w))


def gradient_by_hand(
    x: np.ndarray, x0: np.ndarray, alpha_weight: float, tv_weight: float, beta: float
) -> np.ndarray:
    h, w, channels = x.shape
    upstream = 2 * (activations(x) - activations(x0)) / np.sum(activations(x0) ** 2)
    g = pulled_back(x, upstream)
    g += alpha_weight / (h * w) * 6 * np.sign(x - 0.5) * np.abs(x - 0.5) ** 5
    for i in range(h):
        for j in range(w):
            for c in range(channels):
                right = x[i, j + 1, c] - x[i, j, c] if j + 1 < w else 0.0
                down = x[i + 1, j, c] - x[i, j, c] if i + 1 < h else 0.0
                if right == down == 0:
                    continue
                slope = tv_weight / (h * w) * beta * (right**2 + down**2) ** (beta / 2 - 1)
                g[i, j, c] -= slope * (right + down)
                if j + 1 < w:
                    g[i, j + 1, c] += slope * right
                if i + 1 < h:
                    g[i + 1, j, c] += slope * down
    return g


@x64
def test_the_objective_and_its_gradient() -> None:
    x, x0 = (np.asarray(v) for v in pictures(dtype=np.float64))
    wanted = jnp.asarray(activations(x0))
    net = as_network(convolved)

    def E(x: jax.Array, beta: jax.Array) -> jax.Array:
        return energy(net, x, wanted, "relu", alpha=6.0, beta=beta, **WEIGHTS)

    slope = jax.jit(jax.value_and_grad(E))
    for beta in (2.0, 1.5):
        value, gradient = slope(x, jnp.asarray(beta))
        np.testing.assert_allclose(value, objective_by_hand(x, x0, beta=beta, **WEIGHTS), rtol=1e-12)
        expected = gradient_by_hand(x, x0, beta=beta, **WEIGHTS)
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-10)


@x64
def test_steps_are_those_of_the_published_descent() -> None:
    """Momentum 0.9, its velocity begun anew where the learning rate changes."""
    images = pictures(dtype=np.float64)
    stages = ((2, 1.0), (2, 0.1), (2, 0.01))
    options = {"steps": 6, "learning_rate": 0.2, "parametrization": Pixels(std=0.2), **WEIGHTS}
    found = invert(
        convolved, images, "relu", key=KEY, optimizer=partial(paper_descent, stages=stages), **options
    )
    start = np.asarray(Pixels(std=0.2).init(jax.random.split(KEY)[0], (9, 8)))
    for i, x0 in enumerate(np.asarray(images)):
        x, trace = start.copy(), []
        for _, factor in stages:
            v = np.zeros_like(x)
            for _ in range(2):
                trace.append(objective_by_hand(x, x0, beta=2.0, **WEIGHTS))
                v = 0.9 * v - 0.2 * factor * gradient_by_hand(x, x0, beta=2.0, **WEIGHTS)
                x = x + v
        np.testing.assert_allclose(found.trace[i], trace, rtol=0, atol=1e-10)
        np.testing.assert_allclose(found.state.params[i], x, rtol=0, atol=1e-10)
        np.testing.assert_allclose(found.images[i], np.clip(x, 0, 1), rtol=0, atol=1e-10)


def test_the_last_rate_of_the_paper_stays() -> None:
    descent = paper_descent(1.0, momentum=0.0, stages=((1, 1.0), (1, 0.5)))
    state, taken = descent.init(jnp.zeros(())), []
    for _ in range(4):
        update, state = descent.update(jnp.ones(()), state)
        taken.append(float(update))
    assert taken == [-1.0, -0.5, -0.5, -0.5]


@x64
def test_the_image_itself_has_no_error_and_its_objective_is_zero_without_priors() -> None:
    images = pictures(dtype=np.float64)
    wanted = jnp.asarray(activations(np.asarray(images[0])))
    nothing = {"alpha": 6.0, "alpha_weight": 0.0, "beta": 2.0, "tv_weight": 0.0}
    E = jax.jit(jax.value_and_grad(lambda x: energy(as_network(convolved), x, wanted, "relu", **nothing)))
    value, gradient = E(images[0])
    assert value == pytest.approx(0, abs=1e-25)
    np.testing.assert_allclose(gradient, np.zeros((9, 8, 3)), atol=1e-13)
    assert normalized_error(convolved, images, of=images, layer="relu").tolist() == [0, 0]


@x64
def test_the_error_is_the_distance_of_features() -> None:
    x, x0 = pictures(dtype=np.float64), pictures(dtype=np.float64)[::-1] * 0.8
    found = normalized_error(convolved, x, of=x0, layer="relu")
    expected = []
    for a, b in zip(np.asarray(x), np.asarray(x0), strict=True):
        away = activations(a) - activations(b)
        expected.append(np.sum(away**2) / np.sum(activations(b) ** 2))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_features_of_nothing_have_an_error_still() -> None:
    dark = jnp.zeros((1, 4, 4, 3))
    assert normalized_error(identity, dark + 0.5, of=dark, layer="pixels").tolist() == [12.0]


# What it finds --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parametrization", "optimizer"),
    [(Fourier(), optax.adam), (Pixels(), lambda rate: optax.lbfgs(memory_size=5))],
    ids=["adam", "lbfgs"],
)
def test_features_of_an_invertible_layer_give_the_picture_back(parametrization: Any, optimizer: Any) -> None:
    images = pictures(1) * 0.8 + 0.1
    options = {"parametrization": parametrization, "optimizer": optimizer, "learning_rate": 0.1}
    found = invert(identity, images, "pixels", key=KEY, steps=80, alpha_weight=0.0, tv_weight=0.0, **options)
    assert float(normalized_error(identity, found.images, of=images, layer="pixels")[0]) < 0.02
    assert float(found.trace[0, -1]) < 0.1 * float(found.trace[0, 0])


def test_an_image_does_not_depend_on_its_batch_and_keys_count() -> None:
    images = pictures()
    together = invert(convolved, images, "relu", key=KEY, steps=4, **QUICK).images
    assert together.dtype == jnp.float32
    alone = invert(convolved, images[1:], "relu", key=KEY, steps=4, **QUICK).images
    np.testing.assert_allclose(together[1:], alone, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(
        together, invert(convolved, images, "relu", key=KEY, steps=4, **QUICK).images
    )
    keys = jnp.stack([jax.random.key(6), KEY])
    both = np.asarray(invert(convolved, images, "relu", key=keys, steps=4, **QUICK).images)
    np.testing.assert_allclose(both[1], together[1], rtol=0, atol=1e-6)
    assert np.abs(both[0] - np.asarray(together[0])).max() > 1e-3


def test_a_run_in_parts_is_one_at_once(tmp_path: Path) -> None:
    images = pictures()
    whole = invert(convolved, images, "relu", key=KEY, steps=4, **QUICK)

    def take(state: Any, steps: int) -> Any:
        return invert(convolved, images, "relu", key=KEY, steps=steps, state=state, **QUICK)

    run = partial(ascent.chunks, take, steps=4, every=2, folder=tmp_path)
    first = next(run())
    parts = [first, *run()]
    np.testing.assert_array_equal(parts[-1].images, whole.images)
    np.testing.assert_array_equal(np.concatenate([part.trace for part in parts], axis=1), whole.trace)


def test_other_numbers_do_not_compile_anew() -> None:
    images = pictures()
    invert(convolved, images, "relu", key=KEY, steps=2, **QUICK)
    programs = invert.compiled._cache_size()
    numbers = {
        "alpha_weight": 0.3,
        "tv_weight": 0.2,
        "beta": 1.5,
        "learning_rate": 0.3,
        "optimizer": optax.adam,
    }
    invert(convolved, images * 0.5, "relu", key=jax.random.key(8), steps=2, **numbers)
    assert invert.compiled._cache_size() == programs


def test_every_layer_in_one_call() -> None:
    images = pictures()
    found = invert_layers(
        convolved, images, ["conv", "relu"], key=KEY, steps=4, tv_weight=[0.5, 2.0], **QUICK
    )
    assert list(found.results) == list(found.errors) == ["conv", "relu"]
    for layer, weight in (("conv", 0.5), ("relu", 2.0)):
        single = invert(convolved, images, layer, key=KEY, steps=4, tv_weight=weight, **QUICK)
        np.testing.assert_array_equal(found.results[layer].images, single.images)
        error = normalized_error(convolved, single.images, of=images, layer=layer)
        np.testing.assert_array_equal(found.errors[layer], error)


def test_the_trace_of_a_step_too_long_is_nan() -> None:
    options = {"optimizer": optax.sgd, "learning_rate": 1e30}
    found = invert(convolved, pictures(1), "relu", key=KEY, steps=6, parametrization=Pixels(), **options)
    assert bool(jnp.isfinite(found.images).all()) and bool(jnp.isnan(found.trace[0, -1]))


def test_under_jit_and_vmap_over_images() -> None:
    whole = invert(convolved, pictures(), "relu", key=KEY, steps=2, **QUICK).images

    def one(image: jax.Array) -> jax.Array:
        return invert(convolved, image[None], "relu", key=KEY, steps=2, **QUICK).images[0]

    np.testing.assert_allclose(jax.jit(jax.vmap(one))(pictures()), whole, rtol=0, atol=1e-6)


def test_the_precision_is_that_of_the_images() -> None:
    found = invert(convolved, pictures(1).astype(jnp.bfloat16), "relu", key=KEY, steps=2, **QUICK)
    assert found.images.dtype == jnp.bfloat16
    assert bool(jnp.isfinite(found.trace).all())


@x64
def test_single_precision_stays_where_double_is_to_be_had() -> None:
    found = invert(convolved, pictures(1), "relu", key=KEY, steps=2)
    assert found.images.dtype == jnp.float32
    assert bool(jnp.isfinite(found.trace).all())


# Errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"layer": "relu7_1"}, ValueError, "no layer 'relu7_1'; its layers are: conv1_1"),
        ({"layer": ("relu1_1",)}, TypeError, "invert_layers takes several"),
        ({"steps": -1}, ValueError, "steps must be"),
        ({"alpha_weight": -1.0}, ValueError, "alpha_weight must be at least 0"),
        ({"tv_weight": -1.0}, ValueError, "tv_weight must be at least 0"),
        ({"beta": 0.5}, ValueError, "beta must be at least 1"),
        ({"alpha": 0.5}, ValueError, "alpha must be at least 1"),
        ({"learning_rate": 0.0}, ValueError, "learning_rate must be above 0"),
        ({"key": None}, TypeError, "needs a key"),
        ({"key": jax.random.split(KEY, 3)}, ValueError, "2 images take one key or 2 keys"),
    ],
)
def test_what_cannot_be_inverted_is_said_before_anything_is_compiled(
    options: dict[str, Any], error: type[Exception], says: str
) -> None:
    subject = tiny("vgg")
    programs = invert.compiled._cache_size()
    with pytest.raises(error, match=says):
        invert(subject.net, subject.images(), **{"layer": "relu2_1", "key": KEY, **options})
    assert invert.compiled._cache_size() == programs


def test_states_layers_and_comparisons_that_do_not_fit_are_refused() -> None:
    images = pictures()
    state = invert(convolved, images, "relu", key=KEY, steps=2, **QUICK).state
    with pytest.raises(ValueError, match="1 images take a state of 1 runs"):
        invert(convolved, images[:1], "relu", steps=1, state=state)
    with pytest.raises(ValueError, match="2 layers take one tv_weight or 2, not 3"):
        invert_layers(convolved, images, ["conv", "relu"], key=KEY, tv_weight=[1.0, 2.0, 3.0])
    with pytest.raises(TypeError, match="not one name"):
        invert_layers(convolved, images, "relu", key=KEY)
    with pytest.raises(ValueError, match="no layer 'conv9'"):
        invert_layers(convolved, images, ["conv", "conv9"], key=KEY)
    with pytest.raises(ValueError, match="must be alike"):
        normalized_error(convolved, images, of=images[:1], layer="relu")
