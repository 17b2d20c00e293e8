"""Tiles of activations, against the recipe as it is written down."""

import jax.numpy as jnp
import numpy as np
import pytest
from tiny import Subject

import vizsynth

RNG = np.random.default_rng(0)


def recipe(channel: np.ndarray) -> np.ndarray:
    """Less the mean, over the deviation, times 64, plus 128, cut, whole numbers."""
    channel = channel.astype(np.float64)
    channel = channel - channel.mean()
    channel = channel / channel.std()
    return np.clip(channel * 64 + 128, 0, 255).astype("uint8")


@pytest.mark.parametrize("scale", [1.0, 1e-25, 1e25])
def test_they_are_the_recipes(scale: float) -> None:
    A = (scale * RNG.normal(size=(2, 7, 6, 5)).astype(np.float32) ** 3).astype(np.float32)
    found = vizsynth.activation_tiles(jnp.asarray(A))
    assert not found.dead.any() and not found.constant.any()
    for n in range(2):
        for c in range(5):
            expected = recipe(A[n, ..., c]).astype(int)
            assert np.abs(np.floor(np.asarray(found.values[n, c]) * 255 + 1e-3) - expected).max() <= 1
            assert (np.abs(np.asarray(found.values[n, c]) * 255 - expected - 0.5) < 0.51).all()


def test_double_precision(x64: None) -> None:
    A = RNG.normal(size=(1, 9, 8, 3)) ** 3
    found = vizsynth.activation_tiles(jnp.asarray(A))
    assert found.values.dtype == "float64"
    one = A[0, ..., 1]
    expected = np.clip((one - one.mean()) / one.std() * 64 + 128, 0, 255) / 255
    np.testing.assert_allclose(found.values[0, 1], expected, atol=1e-12)


def test_dead_and_constant_channels_are_grey_and_marked() -> None:
    A = RNG.normal(size=(2, 4, 3, 5)).astype(np.float32)
    A[0, ..., 1] = 0
    A[1, ..., 2] = 0.1  # its mean is not quite 0.1, and its deviation not quite 0
    A[1, ..., 3] = -7
    found = vizsynth.activation_tiles(jnp.asarray(A))
    dead, constant = np.zeros((2, 5), bool), np.zeros((2, 5), bool)
    dead[0, 1] = True
    constant[0, 1] = constant[1, 2] = constant[1, 3] = True
    np.testing.assert_array_equal(found.dead, dead)
    np.testing.assert_array_equal(found.constant, constant)
    np.testing.assert_allclose(found.values[constant], 128 / 255)
    assert np.isfinite(found.values).all()


def test_networks_have_dead_channels_in_a_black_image(subject: Subject) -> None:
    seen = vizsynth.features(subject.net, jnp.zeros((1, *subject.size, 3)), [subject.middle])
    found = vizsynth.activation_tiles(seen[subject.middle])
    A = np.asarray(seen[subject.middle])[0]
    np.testing.assert_array_equal(found.dead[0], (A == 0).all((0, 1)))
    assert np.isfinite(found.values).all() and found.values.min() >= 0 and found.values.max() <= 1


def test_what_is_no_map_is_said() -> None:
    with pytest.raises(ValueError, match=r"must be maps .* not \(2, 10\)"):
        vizsynth.activation_tiles(jnp.zeros((2, 10)))
