"""Colours of one picture in another: statistics by hand."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vizsynth.colors import keep_luminance, match_colors, match_histogram

x64 = pytest.mark.usefixtures("x64")


def pictures() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    mixing = np.array([[1.0, 0.5, 0.1], [0.0, 0.6, 0.2], [0.1, 0.0, 0.3]])
    return rng.random((6, 7, 3)), 0.2 + 0.5 * rng.random((5, 9, 3)) @ mixing


@x64
def test_mean_and_covariance_become_the_others() -> None:
    image, to = pictures()
    found = np.asarray(match_colors(jnp.asarray(image), to=jnp.asarray(to), eps=0.0)).reshape(-1, 3)
    wanted = to.reshape(-1, 3)
    np.testing.assert_allclose(found.mean(0), wanted.mean(0), rtol=1e-10)
    np.testing.assert_allclose(np.cov(found.T, bias=True), np.cov(wanted.T, bias=True), rtol=1e-9)


@x64
def test_colours_move_as_little_as_can_be() -> None:
    """Of all affine maps onto the covariance, a symmetric positive one: mean squared change is W₂²."""
    image, to = pictures()
    x = image.reshape(-1, 3)
    y = np.asarray(match_colors(jnp.asarray(image), to=jnp.asarray(to), eps=0.0)).reshape(-1, 3)
    A = np.linalg.lstsq(x - x.mean(0), y - y.mean(0), rcond=None)[0]
    np.testing.assert_allclose(A, A.T, atol=1e-10)
    assert np.linalg.eigvalsh(A).min() > 0


@x64
def test_luminance_is_the_pictures_and_the_rest_the_others() -> None:
    yiq = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
    image, colors = pictures()[0], pictures()[0][::-1]
    found = np.asarray(keep_luminance(jnp.asarray(image), colors=jnp.asarray(colors))) @ yiq.T
    np.testing.assert_allclose(found[..., 0], (image @ yiq.T)[..., 0], rtol=1e-10)
    np.testing.assert_allclose(found[..., 1:], (colors @ yiq.T)[..., 1:], atol=1e-10)
    with pytest.raises(ValueError, match="of one size"):
        keep_luminance(jnp.asarray(image), colors=jnp.asarray(image[:2]))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31), st.integers(1, 5), st.integers(1, 5))
def test_values_become_the_others_in_their_own_order(seed: int, h: int, w: int) -> None:
    rng = np.random.default_rng(seed)
    image = rng.permutation(h * w * 3).reshape(h, w, 3).astype(np.float32)
    to = rng.random((h, w, 3)).astype(np.float32)
    found = np.asarray(match_histogram(jnp.asarray(image), to=jnp.asarray(to)))
    for c in range(3):
        np.testing.assert_allclose(np.sort(found[..., c], None), np.sort(to[..., c], None), rtol=1e-6)
        np.testing.assert_array_equal(np.argsort(found[..., c], None), np.argsort(image[..., c], None))


def test_histograms_of_pictures_of_other_sizes() -> None:
    image, to = (jnp.asarray(v, jnp.float32) for v in pictures())
    found = match_histogram(image, to=to)
    assert found.shape == image.shape
    for q in (0, 25, 50, 75, 100):
        wanted = np.percentile(np.asarray(to).reshape(-1, 3), q, axis=0)
        np.testing.assert_allclose(
            np.percentile(np.asarray(found).reshape(-1, 3), q, axis=0), wanted, atol=0.02
        )
