"""Pictures that are made together: diverse ones, and those between two scores."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy_network import conv_backward
from visualized import SIZE, TRANSFORM, doubled, network

import vizsynth
from vizsynth import transforms
from vizsynth.parametrizations import Pixels
from vizsynth.scores import Channel, Class, Neuron
from vizsynth.synthesis.features.diversity import likeness
from vizsynth.synthesis.features.interpolation import disagreement

KEY = jax.random.key(4)
RNG = np.random.default_rng(4)

HOW = vizsynth.Optimization(transform=TRANSFORM)
FAST = replace(HOW, learning_rate=0.1)
diverse = partial(vizsynth.visualize_diverse, network(), size=SIZE, optimization=HOW, layer="relu1")
between = partial(vizsynth.interpolate, network(), size=SIZE, optimization=HOW, layer="relu1")


def alike(A: np.ndarray) -> float:
    """Sum over the pairs, one by one."""
    grams = []
    for a in A:
        a = a.reshape(-1, a.shape[-1])
        gram = sum(np.outer(p, p) for p in a)
        grams.append(gram / np.sqrt(max((gram**2).sum(), 1e-10)))
    n = len(A)
    return sum((grams[i] * grams[j]).sum() for i in range(n) for j in range(n) if i != j) / n


def unlike(A: np.ndarray) -> float:
    n = len(A)
    return sum(((A[i] - A[i + d]) ** 2).mean() / 2**d for d in range(1, 5) for i in range(n - d))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("shape", [(4, 3, 2, 5), (2, 6), (7, 2, 2, 3)])
def test_terms_are_sums_over_pairs(shape: tuple[int, ...]) -> None:
    A = RNG.normal(size=shape)
    found = jax.jit(lambda A: (likeness(A), disagreement(A)))(A)
    np.testing.assert_allclose(found, (alike(A), unlike(A)), rtol=1e-10)


def test_likeness_does_not_see_where_things_are() -> None:
    A = RNG.random((3, 4, 4, 5)).astype(np.float32)
    moved = np.stack([np.roll(a, (i, 2 * i), (0, 1)) for i, a in enumerate(A)])
    found = jax.jit(likeness)
    np.testing.assert_allclose(found(A), found(moved), rtol=1e-5)
    np.testing.assert_allclose(found(np.stack([A[0]] * 3)), 2, rtol=1e-5)
    slope = jax.jit(jax.grad(likeness))(jnp.zeros((2, 3, 3, 4)))  # nothing active
    assert np.isfinite(slope).all()


def test_pictures_come_out_more_diverse() -> None:
    def seen(found: Any) -> float:
        values = vizsynth.features(network(), found.images, ("relu1",))["relu1"]
        return float(jax.jit(likeness)(values))

    alone = diverse(Channel("conv1", 2), key=KEY, count=3, steps=15, diversity=0.0)
    apart = diverse(Channel("conv1", 2), key=KEY, count=3, steps=15, diversity=10.0)
    assert alone.images.shape == (3, *SIZE, 3)
    assert alone.trace.shape == apart.trace.shape == (1, 15)
    assert apart.trace[0, -1] > apart.trace[0, 0]
    assert seen(apart) < 0.85 * seen(alone)


def test_aligned_pictures_are_nearer_each_other() -> None:
    ends = Channel("conv1", 0), Channel("conv1", 3)

    def seen(found: Any) -> float:
        values = vizsynth.features(network(), found.images, ("relu1",))["relu1"]
        return float(jax.jit(disagreement)(values))

    alone, aligned = (between(*ends, key=KEY, count=4, steps=15, alignment=a) for a in (0.0, 2.0))
    assert alone.images.shape == (4, *SIZE, 3)
    assert seen(aligned) < 0.8 * seen(alone)
    maps = vizsynth.features(network(), alone.images, ("conv1",))["conv1"].mean(axis=(1, 2))
    assert maps[0, 0] == maps[:, 0].max()
    assert maps[3, 3] == maps[:, 3].max()


@pytest.mark.parametrize(
    "make",
    [partial(diverse, Channel("conv1", 2), count=2), partial(between, Class(0), 3, count=3)],
    ids=["diverse", "between"],
)
def test_a_run_together_goes_on_bit_for_bit(make: Any) -> None:
    whole = make(key=KEY, steps=4)
    half = make(key=KEY, steps=2)
    rest = make(steps=2, state=half.state)
    np.testing.assert_array_equal(rest.images, whole.images)
    np.testing.assert_array_equal(np.concatenate([half.trace, rest.trace], axis=1), whole.trace)
    assert int(rest.state.step) == 4


def test_other_numbers_do_not_compile_anew() -> None:
    one: dict[str, Any] = {"key": KEY, "count": 2, "steps": 2}
    diverse(Channel("conv1", 2), **one)
    between(Class(0), 3, **one | {"count": 3})
    programs = [f.func.compiled._cache_size() for f in (diverse, between)]
    diverse(Channel("conv1", 1), diversity=3.0, optimization=FAST, **one)
    between(Class(4), 2, alignment=1.0, optimization=FAST, **one | {"count": 3})
    assert [f.func.compiled._cache_size() for f in (diverse, between)] == programs


# By hand, in float64 ------------------------------------------------------------------

STEP = vizsynth.Optimization(Pixels(std=0.3), transforms.none, optax.sgd, 0.01)
BARE: dict[str, Any] = {"optimization": STEP}


@pytest.mark.usefixtures("x64")
def test_a_step_between_two_scores() -> None:
    net, hand = doubled()
    ends = Channel("conv1", 1), Channel("conv1", 4)
    options = BARE | {"key": KEY, "count": 3, "size": SIZE, "layer": "conv1", "alignment": 0.7}
    x = np.asarray(vizsynth.interpolate(net, *ends, steps=0, **options).state.params)
    found = vizsynth.interpolate(net, *ends, steps=1, **options)
    A = hand.forward(x)["conv1"]
    t = [0.0, 0.5, 1.0]
    value = sum((1 - t[i]) * A[i, ..., 1].mean() + t[i] * A[i, ..., 4].mean() for i in range(3))
    value -= 0.7 * unlike(A)
    R = np.zeros_like(A)
    places = A.shape[1] * A.shape[2]
    for i in range(3):
        R[i, ..., 1] += (1 - t[i]) / places
        R[i, ..., 4] += t[i] / places
    for d in (1, 2):
        for i in range(3 - d):
            pull = 0.7 / 2**d * 2 * (A[i] - A[i + d]) / A[i].size
            R[i] -= pull
            R[i + d] += pull
    after = x + 0.01 * conv_backward(x, hand.weights["conv1"][0], 2, 0, R) / hand.std
    np.testing.assert_allclose(found.trace, [[value]], rtol=1e-10)
    np.testing.assert_allclose(found.state.params, after, rtol=0, atol=1e-10)


@pytest.mark.usefixtures("x64")
def test_a_step_apart() -> None:
    net, hand = doubled()
    target = Neuron("conv1", 1, 0, 0)
    options = BARE | {"key": KEY, "count": 3, "size": SIZE, "layer": "relu1", "diversity": 0.7}
    x = np.asarray(vizsynth.visualize_diverse(net, target, steps=0, **options).state.params)
    found = vizsynth.visualize_diverse(net, target, steps=1, **options)
    values = hand.forward(x)
    A = values["relu1"]
    np.testing.assert_allclose(
        found.trace, [[values["conv1"][:, 0, 0, 1].mean() - 0.7 * alike(A)]], rtol=1e-10
    )
    R = np.zeros_like(A)
    flat = A.reshape(3, -1, A.shape[-1])
    raw = [a.T @ a for a in flat]
    norms = [np.sqrt((g**2).sum()) for g in raw]
    grams = [g / n for g, n in zip(raw, norms, strict=True)]
    for i in range(3):
        others = sum(grams[j] for j in range(3) if j != i)
        # ∂/∂G_i of 2/3 ⟨G_i/‖G_i‖, others⟩, and of A_iᵀ A_i.
        slope = 2 / 3 * (others - (grams[i] * others).sum() * grams[i]) / norms[i]
        R[i] = (-0.7 * 2 * flat[i] @ slope).reshape(A[i].shape)
    R = R * (values["conv1"] > 0)
    R[:, 0, 0, 1] += 1 / 3
    after = x + 0.01 * conv_backward(x, hand.weights["conv1"][0], 2, 0, R) / hand.std
    np.testing.assert_allclose(found.state.params, after, rtol=0, atol=1e-10)


# What is refused ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"count": 1}, ValueError, "count must be at least 2"),
        ({"count": 0}, ValueError, "count must be a positive integer"),
        ({"key": jax.random.split(KEY, 2)}, ValueError, "key must be one key, not an array of keys"),
        ({"key": None}, TypeError, "a run that begins needs a key"),
        ({"layer": "relu9"}, ValueError, "no layer 'relu9'"),
        ({"steps": -1}, ValueError, "steps must be an integer"),
    ],
)
def test_what_cannot_be_made_is_refused(options: Any, error: Any, message: str) -> None:
    options = {"key": KEY, "steps": 1} | options
    with pytest.raises(error, match=message):
        diverse(Channel("conv1", 0), **options)
    with pytest.raises(error, match=message):
        between(Channel("conv1", 0), Class(1), **options)


def test_several_targets_are_refused() -> None:
    with pytest.raises(ValueError, match="diverse pictures are of one target, not of 2"):
        diverse(Channel("conv1", jnp.arange(2)), key=KEY, steps=1)
    with pytest.raises(ValueError, match="each is one, not 2"):
        between(Class(0), Class(jnp.arange(2)), key=KEY, steps=1)
    with pytest.raises(ValueError, match="outside the network's"):
        between(Class(0), 9, key=KEY, steps=1)


def test_a_state_of_another_run_is_refused() -> None:
    state = diverse(Channel("conv1", 0), key=KEY, steps=0, count=2).state
    with pytest.raises(ValueError, match="not one of 3 pictures made together"):
        diverse(Channel("conv1", 0), steps=1, count=3, state=state)
    alone = vizsynth.visualize_feature(network(), Class(0), key=KEY, steps=0, size=SIZE).state
    with pytest.raises(ValueError, match="not one of 2 pictures made together"):
        diverse(Channel("conv1", 0), steps=1, count=2, state=alone)
