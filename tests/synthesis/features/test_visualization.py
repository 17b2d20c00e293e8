"""Pictures of classes and of features: they rise, do not depend on one another, and go on as they were."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from visualized import CLASSES, SIZE, TRANSFORM, doubled, network, to_pixels

import vizsynth
from vizsynth import parametrizations, transforms
from vizsynth.parametrizations import Cppn, Fourier, LaplacianPyramid, MaCo, Pixels, SigmoidPixels
from vizsynth.scores import Caricature, Channel, Class, Direction, LayerNorm, Neuron

KEY = jax.random.key(3)
RNG = np.random.default_rng(3)
VECTOR = jnp.asarray(RNG.uniform(0.1, 1, 6).astype(np.float32))
LIKE = jnp.asarray(RNG.uniform(0, 1, (4, 6)).astype(np.float32))

how = partial(vizsynth.Optimization, transform=TRANSFORM)
feature = partial(vizsynth.visualize_feature, network(), size=SIZE, optimization=how())
clazz = partial(vizsynth.visualize_class, network(), size=SIZE, optimization=how())

TARGETS = {  # a class, channels and a direction rise below
    "layer": LayerNorm("relu1"),
    "caricature": Caricature("relu1", LIKE),
    "sum": Channel("conv1", 1) + 0.5 * Class(3) - Neuron("conv2", 0, 0, 1) + Neuron("conv2", 1),
}


@pytest.mark.parametrize("name", TARGETS)
def test_every_score_rises(name: str) -> None:
    found = feature(TARGETS[name], key=KEY, steps=12)
    assert found.images.shape == (1, *SIZE, 3)
    assert found.trace.shape == (1, 12)
    assert float(found.images.min()) >= 0
    assert float(found.images.max()) <= 1
    assert found.trace[0, -1] > found.trace[0, 0]
    assert found.state.step.tolist() == [12]


def test_a_class_rises_and_its_norm_falls_with_the_penalty() -> None:
    free = clazz(2, key=KEY, steps=12)
    held = clazz(2, key=KEY, steps=12, l2=1.0)
    assert free.trace[0, -1] > free.trace[0, 0]
    assert float(((held.images - 0.5) ** 2).sum()) < 0.7 * float(((free.images - 0.5) ** 2).sum())


@pytest.mark.parametrize(
    "parametrization",
    [
        Pixels(),
        SigmoidPixels(),
        LaplacianPyramid(3),
        Cppn(3, 6),
        MaCo(jnp.ones((SIZE[0], SIZE[1] // 2 + 1, 3))),
    ],
    ids=lambda p: type(p).__name__,
)
def test_every_parametrization_rises_for_several_pictures(parametrization: Any) -> None:
    found = feature(Channel("conv1", jnp.arange(2)), key=KEY, steps=10, optimization=how(parametrization))
    assert found.images.shape == (2, *SIZE, 3)
    trace = np.asarray(found.trace)
    assert (trace[:, -1] > trace[:, 0]).all()


def test_a_picture_is_the_same_in_any_batch() -> None:
    keys, channels = jax.random.split(KEY, 3), (4, 0, 2)
    alone = [feature(Channel("conv1", c), key=key, steps=4) for c, key in zip(channels, keys, strict=True)]
    for batch_size in (None, 2):
        target = Channel("conv1", np.asarray(channels))
        together = feature(target, key=keys, steps=4, batch_size=batch_size)
        for i, one in enumerate(alone):
            np.testing.assert_allclose(together.images[i], one.images[0], atol=2e-6)
            np.testing.assert_allclose(together.trace[i], one.trace[0], rtol=1e-5, atol=1e-6)


def test_labels_too_are_made_each_by_itself() -> None:
    together = clazz([3, 1], key=KEY, steps=12)
    for i, label in enumerate((3, 1)):
        np.testing.assert_allclose(together.images[i], clazz(label, key=KEY, steps=12).images[0], atol=2e-6)


def test_keys_make_pictures_of_one_target() -> None:
    keys = jax.random.split(KEY, 2)
    found = feature(Channel("conv1", 0), key=keys, steps=2)
    images = np.asarray(found.images)
    assert images.shape[0] == 2
    assert np.abs(images[0] - images[1]).max() > 1e-3
    again = feature(Channel("conv1", 0), key=keys, steps=2)
    np.testing.assert_array_equal(images, again.images)


def test_other_numbers_do_not_compile_anew() -> None:
    clazz(1, key=KEY, steps=12)
    feature(Channel("conv1", 1), key=KEY, steps=4)
    programs = [f.func.compiled._cache_size() for f in (clazz, feature)]
    clazz(4, key=jax.random.key(9), steps=12, l2=1e-3, optimization=how(learning_rate=0.3))
    slow = how(Fourier(std=0.1, decay=1.5), learning_rate=0.01)
    feature(Channel("conv1", 5), key=KEY, steps=4, optimization=slow)
    assert [f.func.compiled._cache_size() for f in (clazz, feature)] == programs


@pytest.mark.parametrize(
    ("make", "key", "steps"),
    [(partial(clazz, 2), KEY, 6), (partial(feature, Channel("conv1", 0)), jax.random.split(KEY, 2), 2)],
    ids=["class", "feature"],
)
def test_a_run_goes_on_bit_for_bit(make: Any, key: Any, steps: int) -> None:
    whole = make(key=key, steps=2 * steps)
    half = make(key=key, steps=steps)
    rest = make(steps=steps, state=half.state)
    np.testing.assert_array_equal(rest.images, whole.images)
    np.testing.assert_array_equal(np.concatenate([half.trace, rest.trace], axis=1), whole.trace)


def test_no_more_steps_change_nothing() -> None:
    half = feature(Channel("conv1", 0), key=jax.random.split(KEY, 2), steps=2)
    none = feature(Channel("conv1", 0), steps=0, state=half.state)
    assert none.trace.shape == (2, 0)
    np.testing.assert_array_equal(none.images, half.images)


# By hand, in float64 ---------------------------------------------------------------


@pytest.mark.usefixtures("x64")
def test_a_step_for_a_class_is_that_of_the_paper() -> None:
    """x ← x + η (∂S_c/∂x − 2 λ (x − ½))."""
    net, hand = doubled()
    descent = vizsynth.Optimization(Pixels(std=0.02), transforms.none, optax.sgd, 0.01)
    first = vizsynth.visualize_class(net, 3, key=KEY, steps=0, size=SIZE, optimization=descent)
    x = np.asarray(first.state.params)
    found = vizsynth.visualize_class(net, 3, key=KEY, steps=1, size=SIZE, l2=0.3, optimization=descent)
    assert found.images.dtype == found.trace.dtype == np.float64
    value = hand.logits(x)[0, 3] - 0.3 * ((x - 0.5) ** 2).sum()
    after = x + 0.01 * (hand.gradient(x, np.array([3])) - 0.6 * (x - 0.5))
    np.testing.assert_allclose(found.trace, [[value]], rtol=1e-10)
    np.testing.assert_allclose(found.state.params, after, rtol=0, atol=1e-10)
    np.testing.assert_allclose(found.images, after.clip(0, 1), rtol=0, atol=1e-10)


@pytest.mark.usefixtures("x64")
def test_a_step_for_a_direction_is_that_of_the_paper() -> None:
    """The gradient of mean ⟨v, A⟩ max(0.1, cos)^2, derived at each position."""
    net, hand = doubled()
    descent = vizsynth.Optimization(Pixels(std=0.3), transforms.none, optax.sgd, 0.01)
    v = np.asarray(VECTOR, np.float64)
    target = Direction("relu1", jnp.asarray(v), 2.0)
    first = vizsynth.visualize_feature(net, target, key=KEY, steps=0, size=SIZE, optimization=descent)
    x = np.asarray(first.state.params)
    found = vizsynth.visualize_feature(net, target, key=KEY, steps=1, size=SIZE, optimization=descent)
    A = hand.forward(x)["relu1"][0]
    weights = np.zeros_like(A)
    total = 0.0
    for i, j in np.ndindex(A.shape[:2]):
        a = A[i, j]
        length = np.sqrt(a @ a + 1e-8)
        lengths = np.linalg.norm(v) * length + 1e-4
        dot = v @ a
        cos = dot / lengths
        total += dot * max(cos, 0.1) ** 2
        d_cos = v / lengths - dot / lengths**2 * np.linalg.norm(v) * a / length
        weights[i, j] = v * max(cos, 0.1) ** 2 + (dot * 2 * cos * d_cos if cos > 0.1 else 0)
    positions = A.shape[0] * A.shape[1]
    np.testing.assert_allclose(found.trace, [[total / positions]], rtol=1e-10)
    after = x + 0.01 * to_pixels(hand, x, weights[None] / positions)
    np.testing.assert_allclose(found.state.params, after, rtol=0, atol=1e-10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("parametrization", [Fourier(), Cppn(2, 4)], ids=lambda p: type(p).__name__)
def test_double_precision_is_double(parametrization: Any) -> None:
    net, _ = doubled()
    found = vizsynth.visualize_feature(
        net,
        Channel("conv1", 0),
        key=KEY,
        steps=2,
        size=SIZE,
        optimization=how(parametrization),
    )
    assert found.images.dtype == found.trace.dtype == np.float64
    assert {leaf.dtype for leaf in jax.tree.leaves(found.state.params)} == {np.dtype(np.float64)}


# What is refused --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "options", "error", "message"),
    [
        (Channel("conv9", 0), {}, ValueError, "no layer 'conv9'; its layers are: conv1"),
        (Channel("conv1", 6), {}, ValueError, r"conv1 has 6 channels, 0..5; there is no channel \[6\]"),
        (2 * Neuron("conv1", np.asarray([1, -1])), {}, ValueError, r"there is no channel \[-1\]"),
        (Neuron("conv1", 0, 99, 0), {}, ValueError, "there is no row"),
        (Direction("conv1", jnp.ones(5)), {}, ValueError, "a direction in conv1 has 6 numbers"),
        (Class(5), {}, ValueError, f"outside the network's {CLASSES} classes"),
        (Class(-1), {}, ValueError, "outside the network's"),
        (Class(0), {"key": None}, TypeError, "a run that begins needs a key"),
        (Class(0), {"key": jax.random.split(KEY, 2), "steps": -1}, ValueError, "steps must be an integer"),
        (Class(0), {"size": 0}, ValueError, "size must be positive"),
        (
            Class(0),
            {"size": 2, "optimization": vizsynth.Optimization(transform=transforms.none)},
            ValueError,
            "small|larger|window",
        ),
        (Class(jnp.arange(3)), {"key": jax.random.split(KEY, 2)}, ValueError, "3 targets take one key"),
        (Class(0), {"optimization": how(MaCo(jnp.ones((3, 3, 3))))}, ValueError, "make them with"),
        (Class(0), {"batch_size": 0}, ValueError, "batch_size must be a positive integer"),
    ],
)
def test_what_cannot_be_made_is_refused(target: Any, options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        feature(target, **({"key": KEY, "steps": 1} | options))


def test_a_state_of_other_pictures_is_refused() -> None:
    state = feature(Class(jnp.arange(2)), key=KEY, steps=0).state
    with pytest.raises(ValueError, match="the state is of 2 pictures, the target asks for 3"):
        feature(Class(jnp.arange(3)), steps=0, state=state)


def test_the_trace_of_a_run_that_diverges_is_nan_and_its_picture_the_one_before() -> None:
    found = feature(
        LayerNorm("relu1"),
        key=KEY,
        steps=8,
        optimization=vizsynth.Optimization(Pixels(), transforms.none, optax.sgd, 1e25),
    )
    assert np.isfinite(found.images).all()
    assert np.isnan(found.trace[0, -1])


def test_magnitudes_of_photos_make_a_picture() -> None:
    photos = jnp.asarray(RNG.random((2, 20, 20, 3)).astype(np.float32))
    made = MaCo(parametrizations.magnitude(photos, SIZE))
    found = feature(Channel("conv1", jnp.arange(2)), key=KEY, steps=10, optimization=how(made))
    assert np.asarray(found.images).std(axis=(1, 2, 3)).min() > 0.05
