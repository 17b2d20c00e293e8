"""The bootstrap against its own draws in NumPy, and its coverage."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vizsynth

KEY = jax.random.key(4)


def test_follows_the_book(x64):
    values = np.random.default_rng(0).normal(size=(13, 2))
    found = vizsynth.bootstrap_mean(jnp.asarray(values), key=KEY, samples=50, level=0.8, batch_size=7)
    means = []
    for sample in range(50):
        drawn = jax.random.randint(jax.random.fold_in(KEY, sample), (13,), 0, 13, np.int32)
        means.append(values[np.asarray(drawn)].mean(axis=0))
    np.testing.assert_allclose(found.mean, values.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.low, np.quantile(means, 0.1, axis=0), rtol=1e-10)
    np.testing.assert_allclose(found.high, np.quantile(means, 0.9, axis=0), rtol=1e-10)


def test_it_covers_the_truth_about_as_often_as_it_says():
    values = jnp.asarray(np.random.default_rng(1).normal(0.5, 1, (60, 400)).astype(np.float32))
    _, low, high = vizsynth.bootstrap_mean(values, key=KEY, samples=400)
    covered = np.mean((low < 0.5) & (high > 0.5))
    assert 0.9 < covered < 0.98


def test_all_alike_is_certain_and_chunks_do_not_matter():
    one = vizsynth.bootstrap_mean(jnp.full(7, 0.25), key=KEY)
    assert one.low == one.mean == one.high == 0.25
    values = jnp.arange(9.0)
    np.testing.assert_allclose(
        vizsynth.bootstrap_mean(values, key=KEY, batch_size=3),
        vizsynth.bootstrap_mean(values, key=KEY, batch_size=1000),
    )


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (jnp.zeros(0), {}, "at least one"),
        (np.asarray([1.0, np.nan]), {}, "NaN"),
        (jnp.arange(4), {}, "float"),
        (jnp.zeros(4), {"level": 95}, "level must lie in"),
        (jnp.zeros(4), {"samples": 0}, "samples must be"),
    ],
)
def test_says_what_is_wrong(values, options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        vizsynth.bootstrap_mean(values, key=KEY, **options)
