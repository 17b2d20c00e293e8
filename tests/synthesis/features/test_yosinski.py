"""Each setting's step, written out in NumPy from the authors' description."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

import vizsynth
from vizsynth.models import sequential
from vizsynth.models.sequential import Dense, Flatten
from vizsynth.synthesis.features import yosinski

SHAPE = (9, 8, 3)
WEIGHTS = np.random.default_rng(0).normal(size=(216, 4))
CENTER = np.asarray([0.4, 0.5, 0.6])


def affine(dtype=jnp.float64):
    net = sequential((Flatten(), Dense(4)), SHAPE, key=jax.random.key(0))
    return jax.tree.map(lambda leaf: jnp.asarray(WEIGHTS if leaf.ndim == 2 else np.zeros(4), dtype), net)


def step_by_hand(x, g, t, s, rate):
    """One step: ascend, decay, blur in steps 0, k, 2k, ..., clip small norms, then small contributions."""
    eta = min(rate * s.progress / (g**2).sum(), rate * s.largest_rate)
    x = x + eta * g
    x = CENTER + (1 - s.decay) * (x - CENTER)
    if s.blur_every and t % s.blur_every == 0:
        for axis in (0, 1):
            x = gaussian_filter1d(x, s.blur_sigma, axis=axis, mode="nearest", radius=4)
    norm = np.sqrt(((x - CENTER) ** 2).sum(-1))
    x = np.where((norm < np.percentile(norm, s.norm_percentile))[..., None], CENTER, x)
    contribution = np.abs((g * (x - CENTER)).sum(-1))
    x = np.where(
        (contribution < np.percentile(contribution, s.contribution_percentile))[..., None], CENTER, x
    )
    return np.clip(x, 0, 1)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", yosinski.TABLE)
@pytest.mark.parametrize("rate", [1.0, 10.0])
def test_five_steps_of_each_setting(name, rate):
    settings, _ = yosinski.TABLE[name]
    x = np.random.default_rng(2).uniform(0.2, 0.8, SHAPE)
    made = vizsynth.visualize_regularized(
        affine(),
        2,
        key=jax.random.key(0),
        settings=settings,
        steps=5,
        size=SHAPE[:2],
        rate=rate,
        center=CENTER,
        start=jnp.asarray(x)[None],
    )
    g = WEIGHTS[:, 2].reshape(SHAPE)
    for t in range(5):
        np.testing.assert_allclose(made.trace[0, t], (x * g).sum(), atol=1e-10)
        x = step_by_hand(x, g, t, settings, rate)
    np.testing.assert_allclose(made.images[0], x, atol=1e-10)


@pytest.mark.usefixtures("x64")
def test_progress_raises_a_linear_objective_by_what_is_desired():
    settings = yosinski.Settings(progress=0.125, largest_rate=jnp.inf)
    made = vizsynth.visualize_regularized(
        affine(), 1, key=jax.random.key(0), settings=settings, steps=4, size=SHAPE[:2]
    )
    np.testing.assert_allclose(np.diff(made.trace[0]), 0.125, atol=1e-10)


def test_small_contributions_are_gone():
    settings = dataclasses.replace(yosinski.BLUR_AND_CONTRIBUTION, blur_every=0)
    made = vizsynth.visualize_regularized(
        affine(jnp.float32),
        [0, 1],
        key=jax.random.key(0),
        settings=settings,
        steps=3,
        size=SHAPE[:2],
        center=CENTER,
    )
    away = np.abs(np.asarray(made.images) - CENTER).max(axis=-1)
    assert ((away < 1e-6).mean(axis=(1, 2)) > 0.85).all()


def test_other_settings_do_not_compile_anew():
    net = affine(jnp.float32)
    before = vizsynth.visualize_regularized.compiled._cache_size()
    for settings, _ in yosinski.TABLE.values():
        vizsynth.visualize_regularized(
            net, 1, key=jax.random.key(0), settings=settings, steps=2, size=SHAPE[:2]
        )
    assert vizsynth.visualize_regularized.compiled._cache_size() - before == 1


def test_a_run_in_parts_is_the_run():
    net, options = affine(jnp.float32), {"settings": yosinski.DECAY_AND_BLUR, "size": SHAPE[:2]}
    whole = vizsynth.visualize_regularized(net, [1, 2], key=jax.random.key(3), steps=6, **options)
    first = vizsynth.visualize_regularized(net, [1, 2], key=jax.random.key(3), steps=3, **options)
    again = vizsynth.visualize_regularized(net, [1, 2], steps=3, state=first.state, **options)
    np.testing.assert_array_equal(again.images, whole.images)


def test_what_cannot_be():
    with pytest.raises(TypeError, match="needs a key"):
        vizsynth.visualize_regularized(affine(jnp.float32), 1, steps=2, size=SHAPE[:2])
    with pytest.raises(ValueError, match=r"label \[7\]"):
        vizsynth.visualize_regularized(affine(jnp.float32), 7, key=jax.random.key(0), size=SHAPE[:2])


def test_anneal_goes_from_one_to_the_other():
    half = yosinski.anneal(yosinski.BLUR_AND_NORM, yosinski.DECAY_AND_NORM, 0.5)
    assert half.decay == 0.15 and half.norm_percentile == 35.0
