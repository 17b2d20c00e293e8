"""Functions of images against NumPy and SciPy."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from tiny import random_images

from vizsynth.images import (
    Standardize,
    center_crop,
    gaussian_blur,
    luminance,
    normalize,
    resize,
    upsample,
)

PICTURE = np.random.default_rng(0).random((9, 12, 3)).astype(np.float32)
SIGNED = PICTURE[..., 0] * 2 - 1

FUNCTIONS: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "standardize": (Standardize((0.4, 0.5, 0.6), (0.1, 0.2, 0.3)), PICTURE),
    "resize up": (lambda x: resize(x, (11, 30)), PICTURE),
    "resize down": (lambda x: resize(x, (4, 5), method="cubic"), PICTURE),
    "upsample": (lambda x: upsample(x, (20, 21)), SIGNED),
    "center_crop": (lambda x: center_crop(x, (5, 4)), PICTURE),
    "luminance": (luminance, PICTURE),
    "gaussian_blur": (lambda x: gaussian_blur(x, 1.5), PICTURE),
    "normalize": (normalize, SIGNED),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_any_leading_axes_and_every_precision(name: str) -> None:
    function, picture = FUNCTIONS[name]
    one = jax.jit(lambda picture: function(picture))(jnp.asarray(picture))
    many = function(jnp.stack([jnp.asarray(picture), jnp.asarray(picture[::-1])])[None])
    assert many.shape == (1, 2, *one.shape)
    np.testing.assert_allclose(many[0, 0], one, rtol=1e-5, atol=1e-6)
    half = function(jnp.asarray(picture, jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(np.float32), one, rtol=5e-2, atol=8e-2)
    with jax.enable_x64(True):
        double = function(jnp.asarray(picture.astype(np.float64)))
        assert double.dtype == jnp.float64
    np.testing.assert_allclose(double, one, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_float64_is_really_float64(name: str) -> None:
    function, picture = FUNCTIONS[name]
    # A linear or scaling function of tiny differences shows them only in float64.
    picture = jnp.asarray(picture.astype(np.float64))
    moved = function(picture * (1 + 1e-11)) - function(picture)
    assert 0 < float(jnp.abs(moved).max(initial=0)) < 1e-9 or name == "normalize"


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name != "normalize"])
def test_gradients_pass(name: str) -> None:
    function, picture = FUNCTIONS[name]
    gradient = jax.grad(lambda x: (function(x) ** 2).sum())(jnp.asarray(picture))
    assert jnp.isfinite(gradient).all()
    assert float(jnp.abs(gradient).max()) > 0


def test_standardize_subtracts_and_divides() -> None:
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 0.125)
    expected = (PICTURE - np.float32(mean)) / np.float32(std)
    np.testing.assert_allclose(Standardize(mean, std)(jnp.asarray(PICTURE)), expected, rtol=1e-5)


@given(
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    method=st.sampled_from(["nearest", "linear", "cubic"]),
    value=st.floats(-2, 2, width=32),
)
def test_a_constant_stays_constant_at_any_size(size: Any, method: Any, value: float) -> None:
    resized = resize(jnp.full((7, 5, 3), value), size, method=method)
    assert resized.shape == (*size, 3)
    np.testing.assert_allclose(resized, value, rtol=1e-5, atol=1e-6)


def test_resizing_treats_pixels_as_areas() -> None:
    row = jnp.asarray([0.0, 1.0, 2.0, 3.0])[None, :, None]
    halved = resize(row, (1, 2), antialias=False)
    np.testing.assert_allclose(halved[0, :, 0], [0.5, 2.5], rtol=1e-6)
    doubled = resize(row[:, :2], (1, 4))
    np.testing.assert_allclose(doubled[0, :, 0], [0, 0.25, 0.75, 1], atol=1e-6)
    nearest = resize(row[:, :2], (1, 4), method="nearest")
    np.testing.assert_allclose(nearest[0, :, 0], [0, 0, 1, 1])
    np.testing.assert_array_equal(resize(jnp.asarray(PICTURE), (9, 12)), PICTURE)


def test_antialiasing_keeps_the_mean_of_a_fine_checkerboard() -> None:
    board = jnp.asarray((np.indices((16, 16)).sum(0) % 2).astype(np.float32))[..., None]
    smooth = resize(board, (5, 5))
    assert float(jnp.abs(smooth - 0.5).max()) < 0.06
    assert float(jnp.abs(resize(board, (5, 5), antialias=False) - 0.5).max()) > 0.3


def test_center_crop_takes_the_middle() -> None:
    np.testing.assert_array_equal(center_crop(jnp.asarray(PICTURE), (3, 4)), PICTURE[3:6, 4:8])
    np.testing.assert_array_equal(center_crop(jnp.asarray(PICTURE), (9, 12)), PICTURE)
    for size in ((10, 4), (4, 13)):
        with pytest.raises(ValueError, match=r"does not fit in images of 9x12; resize first"):
            center_crop(jnp.asarray(PICTURE), size)


def test_luminance_is_the_weighted_sum() -> None:
    expected = PICTURE @ np.float32([0.299, 0.587, 0.114])
    np.testing.assert_allclose(luminance(jnp.asarray(PICTURE)), expected, rtol=1e-5)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.7, 6.0, 40.0])  # the last two: by a matrix
def test_blur_is_scipys(sigma: float) -> None:
    picture = PICTURE.astype(np.float64)
    expected = ndimage.gaussian_filter(picture, (sigma, sigma, 0), mode="nearest", truncate=4)
    # SciPy cuts at the nearest whole pixel, and takes none where that is 0.
    radius = max(1, int(4 * sigma + 0.5))
    np.testing.assert_allclose(gaussian_blur(jnp.asarray(picture), sigma), expected, atol=1e-12)
    again = jax.jit(lambda sigma: gaussian_blur(jnp.asarray(picture), sigma, radius=radius))(sigma)
    np.testing.assert_allclose(again, expected, atol=1e-12)


def test_normalize_keeps_zero_and_signs() -> None:
    scaled = normalize(jnp.asarray(SIGNED))
    assert float(jnp.abs(scaled).max()) == 1
    np.testing.assert_array_equal(jnp.sign(scaled), np.sign(SIGNED))
    np.testing.assert_allclose(scaled, SIGNED / np.abs(SIGNED).max(), rtol=1e-6)
    np.testing.assert_array_equal(normalize(-jnp.asarray(SIGNED)), -scaled)
    two = normalize(jnp.stack([jnp.asarray(SIGNED), 100 * jnp.asarray(SIGNED)]))
    np.testing.assert_allclose(two[0], two[1], rtol=1e-5)
    np.testing.assert_array_equal(normalize(jnp.zeros((2, 3, 3))), 0)


def test_functions_take_batches_of_random_images() -> None:
    images = random_images(2, 8, 8)
    assert gaussian_blur(images, 1.0).shape == images.shape
    np.testing.assert_allclose(gaussian_blur(images, 1.0)[0], gaussian_blur(images[0], 1.0), rtol=1e-5)
