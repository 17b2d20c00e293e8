"""Scores: their values, their algebra, and that their numbers are traced."""

from dataclasses import dataclass, field
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
    LABEL,
    Caricature,
    Channel,
    Class,
    Direction,
    LayerNorm,
    LogProbability,
    Multiple,
    Neuron,
    Sum,
    count,
    labels_in,
    pytree,
    spread,
)
from vizsynth.taps import evaluate
from vizsynth.types import Score

RNG = np.random.default_rng(0)
MAPS = RNG.normal(size=(3, 4, 7, 6)).astype(np.float32)
LOGITS = RNG.normal(size=(3, 7)).astype(np.float32)
ACTIVATIONS = {"maps": jnp.asarray(MAPS), "logits": jnp.asarray(LOGITS)}
LOG_SOFTMAX = LOGITS - np.log(np.exp(LOGITS).sum(1, keepdims=True))
VECTOR = RNG.normal(size=6).astype(np.float32)
LIKE = RNG.normal(size=(4, 7, 6)).astype(np.float32)


def favoured(a: np.ndarray, b: np.ndarray, power: float) -> float:
    """Return ⟨a, b⟩ max(0.1, cos)^p, with the floors that keep a vector of zeros from having an angle."""
    a, b = (np.asarray(v, np.float64).reshape(-1) for v in (a, b))
    length = np.sqrt(a @ a + 1e-8)
    cosine = a @ b / (length * np.sqrt(b @ b) + 1e-4)
    return a @ b * max(0.1, cosine) ** power


def direction(power: float) -> np.ndarray:
    """Average over the places, one by one."""
    places = list(np.ndindex(4, 7))
    return np.array([np.mean([favoured(m[i, j], VECTOR, power) for i, j in places]) for m in MAPS])


VALUES = {
    "class": (Class(2), LOGITS[:, 2]),
    "class an image": (Class(jnp.asarray([2, 0, 6])), LOGITS[[0, 1, 2], [2, 0, 6]]),
    "log probability": (LogProbability(1), LOG_SOFTMAX[:, 1]),
    "neuron in the centre": (Neuron("maps", 3), MAPS[:, 2, 3, 3]),
    "neuron at a place": (Neuron("maps", 3, 1, 4), MAPS[:, 1, 4, 3]),
    "neuron at a place an image": (
        Neuron("maps", jnp.asarray([3, 0, 5]), jnp.asarray([1, 3, 0]), jnp.asarray([4, 0, 2])),
        MAPS[[0, 1, 2], [1, 3, 0], [4, 0, 2], [3, 0, 5]],
    ),
    "neuron of a vector": (Neuron("logits", 5), LOGITS[:, 5]),
    "channel": (Channel("maps", 4), MAPS[..., 4].mean((1, 2))),
    "channel of a vector": (Channel("logits", 4), LOGITS[:, 4]),
    "direction": (Direction("maps", VECTOR), (MAPS @ VECTOR).mean((1, 2))),
    "direction of a cosine": (Direction("maps", VECTOR, 2.0), direction(2.0)),
    "direction of another cosine": (Direction("maps", VECTOR, 0.5), direction(0.5)),
    "caricature": (Caricature("maps", LIKE), np.array([favoured(m, LIKE, 1.0) for m in MAPS])),
    "caricature of another power": (
        Caricature("maps", LIKE, 3.0),
        np.array([favoured(m, LIKE, 3.0) for m in MAPS]),
    ),
    "caricature of another size": (
        Caricature("maps", VECTOR, 2.0),
        np.array([favoured(m.mean((0, 1)), VECTOR, 2.0) for m in MAPS]),
    ),
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


@pytest.mark.parametrize(
    "score",
    [
        *(Class(7), Class(99), Class(-1), Neuron("maps", 6), Neuron("maps", -1)),
        *(Neuron("maps", 0, 4, 0), Neuron("maps", 0, -1, 0)),
    ],
)
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


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("power", [1.0, 2.0, 4.0])
def test_cosine_powers_in_double_precision(power: float) -> None:
    double = {"maps": jnp.asarray(MAPS.astype(np.float64))}
    found = Direction("maps", jnp.asarray(VECTOR.astype(np.float64)), power)(double)
    np.testing.assert_allclose(found, direction(power), rtol=1e-10)
    found = Caricature("maps", jnp.asarray(LIKE.astype(np.float64)), power)(double)
    np.testing.assert_allclose(found, [favoured(m, LIKE, power) for m in MAPS], rtol=1e-10)


def test_no_power_is_the_product_alone() -> None:
    close(Direction("maps", VECTOR, 0.0)(ACTIVATIONS), Direction("maps", VECTOR)(ACTIVATIONS))


def test_a_cosine_has_a_gradient_where_nothing_is_active() -> None:
    for score in (Direction("maps", VECTOR, 2.0), Caricature("maps", LIKE)):
        slope = jax.grad(lambda maps, score=score: score({"maps": maps}).sum())(jnp.zeros_like(MAPS))
        assert np.isfinite(slope).all()


COUNTS = {
    "one label": (Class(3), None),
    "labels": (Class(jnp.arange(4)), 4),
    "one of one": (Class(jnp.asarray([3])), None),
    "labels and a channel": (Class(jnp.arange(4)) + Channel("maps", 2), 4),
    "factors": (jnp.arange(3.0) * Class(1), 3),
    "neurons": (Neuron("maps", jnp.arange(2), 1, jnp.arange(2)), 2),
    "a direction": (Direction("maps", VECTOR), None),
    "directions": (Direction("maps", np.stack([VECTOR] * 5), 2.0), 5),
    "powers": (Direction("maps", VECTOR, jnp.arange(1.0, 4.0)), 3),
    "a caricature": (Caricature("maps", LIKE) - Class(jnp.arange(2)), 2),
    "a layer": (LayerNorm("maps"), None),
}


@pytest.mark.parametrize("name", COUNTS)
def test_how_many_pictures_a_score_is_of(name: str) -> None:
    score, expected = COUNTS[name]
    assert count(score) == expected
    n = expected or 3
    each = spread(score, n)
    assert {leaf.shape[0] for leaf in jax.tree.leaves(each)} <= {n}
    values = jax.vmap(lambda score: score(ACTIVATIONS))(each) if jax.tree.leaves(each) else None
    for i in range(n if values is not None else 0):
        one = jax.tree.map(lambda leaf, i=i: leaf[i], each)
        np.testing.assert_allclose(values[i], one(ACTIVATIONS), rtol=2e-5)


def test_parts_for_different_numbers_of_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match=r"different numbers of images: \[2, 3\]"):
        count(Class(jnp.arange(2)) + Channel("maps", jnp.arange(3)))


def test_every_score_says_what_it_is() -> None:
    for name in ("Class", "LogProbability", "Neuron", "Channel", "Direction", "Caricature", "LayerNorm"):
        assert getattr(scores, name).__doc__


@pytree
@dataclass(frozen=True)
class Mine:
    """A score of a user's own: a logit, less a product; `shift` says nothing of itself."""

    label: Any = field(metadata=LABEL)
    weights: Any = field(metadata=scores.VECTOR)
    shift: Any = 0.0
    layers = ("logits",)

    def __call__(self, activations: Any) -> Any:
        logits = activations["logits"]
        return logits[jnp.arange(len(logits)), self.label] - logits @ self.weights + jnp.sum(self.shift)


def test_a_score_of_ones_own_tells_its_labels_and_its_numbers_an_image() -> None:
    mine = Mine(jnp.asarray([1, 2, 3]), np.ones(7, np.float32), np.ones(2, np.float32))
    score = Class(4) + Multiple(0.5, mine)
    assert [np.asarray(label).tolist() for label in labels_in(score)] == [4, [1, 2, 3]]
    assert count(score) == 3
    assert count(Mine(1, np.ones((5, 7)))) == 5
    each = spread(score, 3)
    shapes = [leaf.shape for leaf in jax.tree.leaves(each)]
    assert shapes == [(3,), (3,), (3,), (3, 7), (3, 2)]
    one_by_one = jax.vmap(lambda s, logits: s({"logits": logits[None]})[0])(each, jnp.asarray(LOGITS))
    np.testing.assert_allclose(one_by_one, score(ACTIVATIONS), rtol=1e-5, atol=1e-5)


def test_the_label_of_a_score_of_ones_own_is_checked_at_the_door() -> None:
    subject = tiny("vgg")
    with pytest.raises(ValueError, match=r"label \[9999\] is outside"):
        gradient(subject.net, subject.images(1), Class(0) + Mine(9999, np.zeros(5, np.float32)))
