"""Scores: their values, their algebra, and that their numbers are traced."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny

from vizsynth import gradient, scores
from vizsynth.scores import (
    Channel,
    Class,
    Direction,
    LayerNorm,
    LogProbability,
    Multiple,
    Neuron,
    Sum,
    labels_in,
)
from vizsynth.taps import evaluate
from vizsynth.types import Score

RNG = np.random.default_rng(0)
MAPS = RNG.normal(size=(3, 4, 5, 6)).astype(np.float32)
LOGITS = RNG.normal(size=(3, 7)).astype(np.float32)
ACTIVATIONS = {"maps": jnp.asarray(MAPS), "logits": jnp.asarray(LOGITS)}
LOG_SOFTMAX = LOGITS - np.log(np.exp(LOGITS).sum(1, keepdims=True))
VECTOR = RNG.normal(size=6).astype(np.float32)

VALUES = {
    "class": (Class(2), LOGITS[:, 2]),
    "class an image": (Class(jnp.asarray([2, 0, 6])), LOGITS[[0, 1, 2], [2, 0, 6]]),
    "log probability": (LogProbability(1), LOG_SOFTMAX[:, 1]),
    "neuron in the centre": (Neuron("maps", 3), MAPS[:, 2, 2, 3]),
    "neuron at a place": (Neuron("maps", 3, 1, 4), MAPS[:, 1, 4, 3]),
    "neuron of a vector": (Neuron("logits", 5), LOGITS[:, 5]),
    "channel": (Channel("maps", 4), MAPS[..., 4].mean((1, 2))),
    "channel of a vector": (Channel("logits", 4), LOGITS[:, 4]),
    "direction": (Direction("maps", VECTOR), (MAPS @ VECTOR).mean((1, 2))),
    "layer norm": (LayerNorm("maps"), (MAPS**2).sum((1, 2, 3)) / 2),
    "sum": (Class(2) + Channel("maps", 0), LOGITS[:, 2] + MAPS[..., 0].mean((1, 2))),
    "difference": (Class(2) - Class(3), LOGITS[:, 2] - LOGITS[:, 3]),
    "multiple": (0.5 * Class(2), LOGITS[:, 2] / 2),
    "multiple from the right": (Class(2) * 3, LOGITS[:, 2] * 3),
    "negative": (-LayerNorm("maps"), -(MAPS**2).sum((1, 2, 3)) / 2),
}


@pytest.mark.parametrize("name", VALUES)
def test_values(name: str) -> None:
    score, expected = VALUES[name]
    np.testing.assert_allclose(score(ACTIVATIONS), expected, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("name", VALUES)
def test_scores_are_pytrees_that_keep_their_layers(name: str) -> None:
    score, _ = VALUES[name]
    assert isinstance(score, Score)
    again = jax.tree.map(jnp.asarray, score)
    assert type(again) is type(score)
    assert again.layers == score.layers
    assert set(score.layers) <= set(ACTIVATIONS)
    assert not any(isinstance(leaf, str) for leaf in jax.tree.leaves(score))


@pytest.mark.parametrize("name", VALUES)
def test_scores_keep_bfloat16(name: str) -> None:
    half = jax.tree.map(lambda values: values.astype(jnp.bfloat16), ACTIVATIONS)
    value = VALUES[name][0](half)
    assert value.dtype == jnp.bfloat16
    assert value.shape == (3,)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", VALUES)
def test_scores_keep_float64(name: str) -> None:
    double = {key: jnp.asarray(np.asarray(a, np.float64)) for key, a in ACTIVATIONS.items()}
    assert VALUES[name][0](double).dtype == jnp.float64


atoms = st.one_of(
    st.integers(0, 6).map(Class),
    st.integers(0, 6).map(LogProbability),
    st.integers(0, 5).map(lambda channel: Channel("maps", channel)),
    st.integers(0, 5).map(lambda channel: Neuron("maps", channel)),
)
factors = st.floats(-4, 4, width=32)


def close(a: Any, b: Any) -> None:
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@given(a=atoms, b=atoms, c=atoms, s=factors, t=factors)
def test_scores_are_a_vector_space(a: Any, b: Any, c: Any, s: float, t: float) -> None:
    at = lambda score: np.asarray(score(ACTIVATIONS))  # noqa: E731
    close(at(a + b), at(a) + at(b))
    close(at(a + b), at(b + a))
    close(at((a + b) + c), at(a + (b + c)))
    close(at(a - b), at(a + (-b)))
    close(at(a - a), np.zeros(3))
    close(at(s * a), s * at(a))
    close(at(s * (t * a)), (s * t) * at(a))
    close(at(s * (a + b)), at(s * a + s * b))
    close(at((s + t) * a), at(s * a + t * a))
    for score in (a + b, a - b, s * (a + b)):
        assert score.layers == tuple(dict.fromkeys((*a.layers, *b.layers)))
        assert labels_in(score) == labels_in(a) + labels_in(b)


def test_layers_are_named_once_in_order() -> None:
    score = Class(1) + 0.5 * Channel("b", 0) - LayerNorm("a") - Class(3)
    assert score.layers == ("logits", "b", "a")
    assert labels_in(score) == [1, 3]
    assert isinstance(score, Sum)
    assert isinstance(2 * score, Multiple)


@pytest.mark.parametrize("score", [Class(7), Class(99), Neuron("maps", 6), Neuron("maps", 0, 4, 0)])
def test_what_is_not_there_is_nan_and_not_something_else(score: Any) -> None:
    assert np.isnan(score(ACTIVATIONS)).all()


def test_other_numbers_do_not_trace_again() -> None:
    traces = []

    @jax.jit
    def value(score: Any) -> Any:
        traces.append(score)
        return score(ACTIVATIONS)

    for label, channel, factor in ((1, 2, 0.5), (6, 0, -3.0), (0, 5, 1e-3)):
        score = Class(label) + factor * Channel("maps", channel)
        close(value(score), LOGITS[:, label] + factor * MAPS[..., channel].mean((1, 2)))
    assert len(traces) == 1


def test_vmap_over_scores() -> None:
    labels = jnp.arange(7)
    values = jax.vmap(lambda score: score(ACTIVATIONS))(Class(labels))
    np.testing.assert_array_equal(values, LOGITS.T)
    several = jax.vmap(lambda score: score(ACTIVATIONS))(
        Neuron("maps", labels[:6], labels[:6] % 4, labels[:6] % 5)
    )
    np.testing.assert_array_equal(several, [MAPS[:, i % 4, i % 5, i] for i in range(6)])


@pytest.mark.usefixtures("x64")
def test_gradients_add_and_scale_as_scores_do() -> None:
    subject = tiny("vgg")
    images = subject.images()
    a, b = Class(1), Channel(subject.middle, 2)
    both = gradient(subject.net, images, a - 0.5 * b)
    apart = gradient(subject.net, images, a) - 0.5 * gradient(subject.net, images, b)
    np.testing.assert_allclose(both, apart, atol=1e-6 * float(jnp.abs(apart).max()))


def test_the_gradient_of_a_layers_norm_is_the_layer() -> None:
    subject = tiny("sequential")
    images = subject.images()

    def norm(shifted: Any) -> Any:
        tap = lambda name, value: shifted if name == subject.middle else value  # noqa: E731
        return evaluate(subject.net, images, LayerNorm(subject.middle), tap=tap).sum()

    values = jnp.asarray(RNG.normal(size=(2, 16, 14, 6)).astype(np.float32))
    np.testing.assert_allclose(jax.grad(norm)(values), values, rtol=1e-6)


def test_every_score_says_what_it_is() -> None:
    for name in ("Class", "LogProbability", "Neuron", "Channel", "Direction", "LayerNorm"):
        assert getattr(scores, name).__doc__
