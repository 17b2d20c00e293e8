"""Facets: that clusters are found, and that pictures begin and go on as they should."""

import builtins
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from visualized import doubled, network

import vizsynth
from vizsynth.scores import Channel
from vizsynth.synthesis.features.multifaceted import PHASES, Facets, Phase, Window, denoised, shortened

KEY = jax.random.key(6)
RNG = np.random.default_rng(6)
SIZE = (14, 12)
STARTS = RNG.uniform(0.2, 0.8, (3, *SIZE, 3)).astype(np.float32)
COLORS = np.asarray([[0.9, 0.1, 0.1], [0.1, 0.8, 0.2], [0.2, 0.2, 0.9]], np.float32)
SIZES = (12, 8, 10)
UNIT = Channel("conv1", 2)

make = partial(vizsynth.visualize_facets, network(), window=10)


def colored() -> tuple[np.ndarray, np.ndarray]:
    """Return images of three colours, shuffled, and which each is of."""
    kinds = np.random.default_rng(0).permutation(np.repeat(np.arange(3), SIZES))
    noise = np.random.default_rng(1).normal(0, 0.03, (len(kinds), 12, 12, 3))
    return (COLORS[kinds][:, None, None] + noise).astype(np.float32).clip(0, 1), kinds


# Facets ------------------------------------------------------------------------------


CLUSTERING: dict[str, Any] = {"count": 3, "nearest": 9, "perplexity": 6, "seed": 3}


@cache
def clustered() -> Facets:
    return vizsynth.facets(network(), colored()[0], "relu1", batch_size=16, **CLUSTERING)


def test_clusters_are_found_the_largest_first() -> None:
    (images, kinds), found = colored(), clustered()
    assert found.layout.shape == (30, 2)
    assert np.bincount(found.labels).tolist() == sorted(SIZES, reverse=True)
    for k, kind in enumerate((0, 2, 1)):
        assert (kinds[found.labels == k] == kind).all()
        np.testing.assert_allclose(found.images[k].mean(axis=(0, 1)), COLORS[kind], atol=0.03)
        chosen = found.nearest[k][found.nearest[k] >= 0]
        assert len(chosen) == min(9, SIZES[kind])
        assert len(set(chosen)) == len(chosen)
        np.testing.assert_allclose(found.images[k], images[chosen].mean(axis=0), atol=1e-6)
        members = np.flatnonzero(found.labels == k)
        middle = found.layout[members].mean(axis=0)
        away = np.linalg.norm(found.layout[members] - middle, axis=1)
        assert set(chosen) == set(members[np.argsort(away)[:9]])
    assert (found.nearest[2] == -1).sum() == 1


def test_the_same_seed_gives_the_same_facets_in_any_batches() -> None:
    images, _ = colored()
    again = vizsynth.facets(network(), images, "relu1", batch_size=16, **CLUSTERING)
    for a, b in zip(clustered(), again, strict=True):
        np.testing.assert_array_equal(a, b)
    maps = vizsynth.features(network(), images, ("relu1",))["relu1"]
    np.testing.assert_array_equal(vizsynth.facets_of(images, maps, **CLUSTERING).labels, again.labels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "count must be a positive integer"),
        ({"count": 31}, "30 images do not fall into 31 facets"),
        ({"nearest": 0}, "nearest must be"),
        ({"perplexity": 30}, "perplexity must be above 0 and below"),
        ({"perplexity": 0}, "perplexity must be above 0"),
    ],
)
def test_what_cannot_be_clustered_is_refused(options: Any, message: str) -> None:
    images, _ = colored()
    with pytest.raises(ValueError, match=message):
        vizsynth.facets(network(), images, "relu1", **({"count": 3, "perplexity": 6} | options))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.ones(30), "values must be"),
        (np.ones((30, 4)), "the features of all images are the same"),
        (np.ones((29, 4)), "30 of them, not 29"),
        (np.full((30, 4), np.nan), "NaN"),
    ],
)
def test_features_of_no_use_are_refused(values: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vizsynth.facets_of(colored()[0], values, count=3, perplexity=6)


def test_what_is_missing_is_told_how_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    there = builtins.__import__

    def gone(name: str, *rest: Any) -> Any:
        if name.startswith("sklearn"):
            raise ImportError(name)
        return there(name, *rest)

    monkeypatch.setattr(builtins, "__import__", gone)
    with pytest.raises(ModuleNotFoundError, match=r"vizsynth\[inspection\]"):
        vizsynth.facets_of(colored()[0], RNG.normal(size=(30, 4)), count=3, perplexity=6)


# By hand, in float64 ---------------------------------------------------------------


def denoised_by_hand(x: np.ndarray, mu: float, iterations: int = 10) -> np.ndarray:
    h, w, c = x.shape
    down, right = np.zeros_like(x), np.zeros_like(x)

    def divergence() -> np.ndarray:
        div = np.zeros_like(x)
        for i, j in np.ndindex(h, w):
            div[i, j] += down[i, j] if i < h - 1 else 0
            div[i, j] -= down[i - 1, j] if i > 0 else 0
            div[i, j] += right[i, j] if j < w - 1 else 0
            div[i, j] -= right[i, j - 1] if j > 0 else 0
        return div

    for _ in range(iterations):
        v = divergence() - mu * x
        for i, j, k in np.ndindex(h, w, c):
            d = v[i + 1, j, k] - v[i, j, k] if i < h - 1 else 0.0
            r = v[i, j + 1, k] - v[i, j, k] if j < w - 1 else 0.0
            length = (d * d + r * r) ** 0.5
            down[i, j, k] = (down[i, j, k] + 0.125 * d) / (1 + 0.125 * length)
            right[i, j, k] = (right[i, j, k] + 0.125 * r) / (1 + 0.125 * length)
    return x - divergence() / mu


@pytest.mark.usefixtures("x64")
def test_denoising_brings_two_pixels_together() -> None:
    """argmin |u₁ − u₀| + μ/2 ‖u − x‖² moves each by 1/μ, and no further than their middle."""
    x = jnp.asarray(np.broadcast_to(np.asarray([0.1, 0.9]).reshape(1, 2, 1), (1, 2, 3)))
    by = jax.jit(lambda mu: (denoised(x, mu, iterations=400), denoised(x, mu)))
    for mu, expected in ((5.0, (0.3, 0.7)), (1.0, (0.5, 0.5))):
        long, short = by(mu)
        np.testing.assert_allclose(long[0, :, 0], expected, atol=2e-3)
        np.testing.assert_allclose(short, denoised_by_hand(np.asarray(x), mu), atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_steps_are_those_that_are_told() -> None:
    """x ← denoise(clip(x + η g / mean |g|)) in two phases, the second with a margin."""
    net, hand = doubled()
    phases = (
        Phase(2, (0.05, 0.01), (20.0, 60.0)),
        Phase(2, (0.3, 0.3), (50.0, 90.0), margin=0.25),
    )
    x = STARTS[:1].astype(np.float64)
    h, w, (a, b) = *SIZE, (10, 9)
    top, left = int((h - a) / 2), int((w - b) / 2)
    mask = np.zeros((h, w, 1))
    for i, j in np.ndindex(h, w):
        mask[i, j] = min(i + 0.5, h - i - 0.5) / h >= 0.25 and min(j + 0.5, w - j - 0.5) / w >= 0.25
    values = []
    for eta, mu, m in ((0.05, 20, 1), (0.03, 40, 1), (0.3, 50, mask), (0.3, 70, mask), (0.3, 90, mask)):
        seen = x[:, top : top + a, left : left + b]
        values.append(hand.logits(seen)[0, 2])
        g = np.zeros_like(x)
        g[:, top : top + a, left : left + b] = hand.gradient(seen, np.array([2]))
        g = g * m
        mean = np.abs(g).sum() / (a * b * 3)
        x = denoised_by_hand((x + eta * g / mean)[0].clip(0, 1), mu)[None]
    found = vizsynth.visualize_facets(
        net, 2, jnp.asarray(STARTS[:1], float), key=KEY, phases=phases, steps=5, window=(a, b), spread=0.0
    )
    assert found.images.dtype == found.trace.dtype == np.float64
    np.testing.assert_allclose(found.trace[0], values, rtol=1e-10)
    np.testing.assert_allclose(found.state.params, x, rtol=0, atol=1e-10)


# Runs ------------------------------------------------------------------------------


def test_windows_lie_near_the_middle_and_inside() -> None:
    rows = jnp.asarray(np.broadcast_to(np.arange(40, dtype=np.float32)[:, None, None], (40, 30, 3)))
    keys = jax.random.split(KEY, 400)
    tops = np.asarray(jax.jit(jax.vmap(lambda key: Window((20, 20), 0.2)(key, rows)[0, 0, 0]))(keys))
    assert tops.min() >= 0
    assert tops.max() <= 20
    assert abs(tops.mean() - 9.5) < 0.7
    assert 3 < tops.std() < 5


def steady(fidelity: float, margin: float = 0.0) -> tuple[Phase, ...]:
    """Return as many phases as a run has by default, one step each, all alike."""
    return 4 * (Phase(1, (0.02, 0.02), (fidelity, fidelity), margin),)


def test_pictures_rise_from_where_they_begin() -> None:
    none = make(UNIT, STARTS, key=KEY, steps=0)
    np.testing.assert_array_equal(none.images, STARTS)
    found = make(UNIT, STARTS, key=KEY, steps=4, spread=0.0, phases=steady(400.0))
    assert found.images.shape == STARTS.shape
    trace = np.asarray(found.trace)
    assert (trace[:, -1] > trace[:, 0]).all()
    away = np.abs(np.asarray(found.images)[:, None] - STARTS[None]).mean(axis=(2, 3, 4))
    assert (away.argmin(axis=1) == np.arange(3)).all()


def test_only_the_middle_is_drawn_on_within_a_margin() -> None:
    found = make(UNIT, STARTS[:1], key=KEY, steps=2, phases=steady(1e9, margin=0.3))
    moved = np.abs(np.asarray(found.images) - STARTS[:1])[0].max(axis=-1) > 1e-4
    assert moved[4:-4, 4:-4].any()
    assert not moved[:4].any() and not moved[-4:].any() and not moved[:, :3].any() and not moved[:, -3:].any()


def test_a_picture_is_the_same_in_any_batch() -> None:
    keys, channels = jax.random.split(KEY, 3), (4, 0, 2)
    targets = Channel("conv1", np.asarray(channels))
    alone = [
        make(Channel("conv1", c), start[None], key=key, steps=2)
        for c, start, key in zip(channels, STARTS, keys, strict=True)
    ]
    for batch_size in (None, 2):
        together = make(targets, STARTS, key=keys, steps=2, batch_size=batch_size)
        for i, one in enumerate(alone):
            np.testing.assert_allclose(together.images[i], one.images[0], atol=2e-6)
            np.testing.assert_allclose(together.trace[i], one.trace[0], rtol=1e-5, atol=1e-6)


def test_a_run_goes_on_bit_for_bit_and_other_numbers_compile_nothing() -> None:
    phases = shortened(PHASES, 0.01)
    whole = make(UNIT, STARTS, key=KEY, steps=4, phases=phases)
    programs = vizsynth.visualize_facets.compiled._cache_size()
    make(
        Channel("conv1", 3), STARTS, key=jax.random.key(1), steps=4, phases=shortened(PHASES, 0.1), spread=0.1
    )
    assert vizsynth.visualize_facets.compiled._cache_size() == programs
    half = make(UNIT, STARTS, key=KEY, steps=2, phases=phases)
    rest = make(UNIT, STARTS, steps=2, phases=phases, state=half.state)
    np.testing.assert_array_equal(rest.images, whole.images)
    np.testing.assert_array_equal(np.concatenate([half.trace, rest.trace], axis=1), whole.trace)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"starts": STARTS * 255}, ValueError, r"starts must lie in \[0, 1\]"),
        ({"starts": STARTS[0]}, ValueError, r"starts must be \[n, h, w, 3\]"),
        ({"window": 20}, ValueError, "a window of 20x20 does not fit in starts of 14x12"),
        ({"phases": ()}, TypeError, "phases must be a tuple"),
        ({"target": jnp.asarray([0, 1])}, ValueError, "3 starts make 3 pictures"),
        ({"target": 9}, ValueError, "outside the network's"),
        ({"key": None}, TypeError, "a run that begins needs a key"),
        ({"batch_size": 0}, ValueError, "batch_size must be"),
    ],
)
def test_what_cannot_be_made_is_refused(options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        make(**({"target": 1, "starts": STARTS, "key": KEY, "steps": 1} | options))


def test_a_state_of_other_pictures_is_refused() -> None:
    state = make(UNIT, STARTS, key=KEY, steps=0).state
    with pytest.raises(ValueError, match="2 starts make 2 pictures"):
        make(UNIT, STARTS[:2], steps=1, state=state)
