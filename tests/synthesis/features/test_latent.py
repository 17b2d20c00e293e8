"""Pictures by way of a generator: the steps, the bounds, the schedule, and what a run is held to."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from jaxtyping import Array
from visualized import doubled, network

import vizsynth
from vizsynth.scores import Channel
from vizsynth.synthesis.features.latent import rate
from vizsynth.transforms import Jitter

KEY = jax.random.key(5)
RNG = np.random.default_rng(5)
SHAPE = (3, 2)
SIZE = (9, 8)
WEIGHTS = RNG.normal(0, 0.2, (6, 9 * 8 * 3))
HIGH = RNG.uniform(0.3, 2.0, SHAPE)


def painted(weights: Array, code: Array) -> Array:
    return (0.5 + code.reshape(-1) @ weights).reshape(*SIZE, 3)


def generator(dtype: Any = np.float32) -> Partial:
    return Partial(painted, jnp.asarray(WEIGHTS.astype(dtype)))


def make(target: Any, **options: Any) -> Any:
    defaults = {"shape": SHAPE, "key": KEY, "steps": 3, "high": jnp.asarray(HIGH, float)}
    return vizsynth.visualize_latent(network(), target, generator(), **(defaults | options))


def test_the_learning_rate_falls_along_a_line_and_stays() -> None:
    schedule = rate(8.0, 1e-10, 200)
    for t, expected in ((0, 8.0), (50, 6.0), (100, 4.0), (199, 0.04), (200, 1e-10), (500, 1e-10)):
        assert float(schedule(jnp.asarray(t))) == pytest.approx(expected, rel=1e-5, abs=1e-9)


@pytest.mark.usefixtures("x64")
def test_steps_are_those_of_the_paper() -> None:
    """z ← d clip(z + η_t g / mean |g|), g = Wᵀ ∂S/∂x, by hand; the bounds are reached on the way."""
    net, hand = doubled()
    steps, over, first, last, decay = 4, 5, 0.5, 0.1, 0.97
    start = RNG.uniform(0, 0.3, (1, *SHAPE))
    z = start[0].copy()
    values, cut = [], 0
    for t in range(steps):
        x = (0.5 + z.reshape(-1) @ WEIGHTS).reshape(1, *SIZE, 3)
        values.append(hand.logits(x)[0, 1])
        g = (WEIGHTS @ hand.gradient(x, np.array([1])).reshape(-1)).reshape(SHAPE)
        eta = first + (last - first) * t / over
        z = z + eta * g / (np.abs(g).sum() / g.size)
        cut += int(((z < 0) | (z > HIGH)).sum())
        z = np.minimum(np.maximum(z, 0), HIGH) * decay
    assert cut
    found = vizsynth.visualize_latent(
        net,
        1,
        generator(np.float64),
        shape=SHAPE,
        key=KEY,
        steps=steps,
        high=jnp.asarray(HIGH),
        decay=decay,
        learning_rate=first,
        last_learning_rate=last,
        over=over,
        start=jnp.asarray(start),
    )
    assert found.images.dtype == found.trace.dtype == np.float64
    np.testing.assert_allclose(found.trace[0], values, rtol=1e-10)
    np.testing.assert_allclose(found.state.params[0], z, rtol=0, atol=1e-10)
    picture = (0.5 + z.reshape(-1) @ WEIGHTS).reshape(*SIZE, 3)
    np.testing.assert_allclose(found.images[0], picture.clip(0, 1), rtol=0, atol=1e-10)


def test_the_score_rises_and_the_code_stays_in_bounds() -> None:
    found = make(2, steps=12, learning_rate=0.2, decay=1.0, over=12)
    assert found.images.shape == (1, *SIZE, 3)
    assert found.trace[0, -1] > found.trace[0, 0]
    code = np.asarray(found.state.params[0])
    assert code.min() >= 0
    assert (code <= HIGH + 1e-6).all()
    assert (code >= HIGH - 1e-6).any()


def test_a_code_that_nothing_moves_decays() -> None:
    still = Partial(lambda weights, code: jnp.broadcast_to(weights, (*SIZE, 3)), jnp.asarray(0.5))
    start = jnp.asarray(0.9 * HIGH[None], jnp.float32)
    found = vizsynth.visualize_latent(
        network(), 0, still, shape=SHAPE, key=KEY, steps=3, high=HIGH, decay=0.9, start=start
    )
    np.testing.assert_allclose(found.state.params, start * 0.9**3, rtol=1e-5)


def test_one_bound_a_unit_fits_a_map_of_codes() -> None:
    found = make(0, steps=2, high=np.asarray([0.5, 0.25], np.float32), learning_rate=50.0, decay=1.0)
    code = np.asarray(found.state.params[0])
    np.testing.assert_allclose(code.max(axis=0), [0.5, 0.25], atol=1e-6)


def test_a_picture_is_the_same_in_any_batch() -> None:
    keys, channels = jax.random.split(KEY, 3), (4, 0, 2)
    options = {"learning_rate": 0.1, "transform": Jitter(1)}
    alone = [make(Channel("conv1", c), key=key, **options) for c, key in zip(channels, keys, strict=True)]
    for batch_size in (None, 2):
        target = Channel("conv1", np.asarray(channels))
        together = make(target, key=keys, batch_size=batch_size, **options)
        for i, one in enumerate(alone):
            np.testing.assert_allclose(together.images[i], one.images[0], atol=2e-6)
            np.testing.assert_allclose(together.trace[i], one.trace[0], rtol=1e-5, atol=1e-6)


def test_a_run_goes_on_bit_for_bit() -> None:
    parts = partial(make, [3, 1], learning_rate=0.3, over=4, transform=Jitter(1))
    whole, half = parts(steps=4), parts(steps=2)
    rest = parts(steps=2, state=half.state, key=None)
    np.testing.assert_array_equal(rest.images, whole.images)
    np.testing.assert_array_equal(rest.state.params, whole.state.params)
    np.testing.assert_array_equal(jnp.concatenate([half.trace, rest.trace], axis=1), whole.trace)


def test_starts_are_where_it_begins() -> None:
    start = jnp.asarray(RNG.uniform(0, 0.3, (2, *SHAPE)), jnp.float32)
    found = make(0, steps=0, start=start)
    np.testing.assert_array_equal(found.state.params, start)
    above = make(0, steps=0, start=start + 9)
    np.testing.assert_allclose(above.state.params, np.stack([HIGH, HIGH]), rtol=1e-6)


def test_other_weights_and_numbers_do_not_compile_anew() -> None:
    make(1, steps=12)
    programs = vizsynth.visualize_latent.compiled._cache_size()
    other = Partial(painted, jnp.asarray(2 * WEIGHTS, jnp.float32))
    vizsynth.visualize_latent(
        network(),
        4,
        other,
        shape=SHAPE,
        key=KEY,
        steps=12,
        high=jnp.asarray(2 * HIGH, float),
        decay=0.5,
        learning_rate=0.1,
        over=7,
    )
    assert vizsynth.visualize_latent.compiled._cache_size() == programs


def test_the_picture_is_resized_where_another_size_is_asked_for() -> None:
    assert make(0, steps=1, size=(12, 10)).images.shape == (1, 12, 10, 3)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"low": 0.1}, ValueError, "low must be at most 0"),
        ({"high": -1.0}, ValueError, "high at least 0"),
        ({"high": np.ones(7, np.float32)}, ValueError, r"high \(7,\) does not fit codes"),
        ({"decay": 1.5}, ValueError, "decay is a factor"),
        ({"over": 0}, ValueError, "over must be above 0"),
        ({"start": np.zeros((1, 5), np.float32)}, ValueError, r"start must be codes \[n, 3, 2\]"),
        ({"key": None}, TypeError, "a run that begins needs a key"),
        ({"steps": -1}, ValueError, "steps must be an integer"),
        ({"batch_size": 0}, ValueError, "batch_size must be a positive integer"),
        ({"key": jax.random.split(KEY, 3), "start": np.zeros((2, *SHAPE), np.float32)}, ValueError, "3 pict"),
    ],
)
def test_what_cannot_be_made_is_refused(options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        make(0, **options)


def test_a_generator_must_be_a_pytree_that_makes_pictures() -> None:
    with pytest.raises(TypeError, match=r"Partial\(function, weights\)"):
        vizsynth.visualize_latent(network(), 0, lambda code: code, shape=SHAPE, key=KEY)
    with pytest.raises(ValueError, match=r"must make pictures \[h, w, 3\]"):
        vizsynth.visualize_latent(network(), 0, Partial(lambda w, z: z, 1.0), shape=SHAPE, key=KEY)
