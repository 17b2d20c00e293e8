"""Pictures as parameters, each against its formula in NumPy, float64."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, logit

from vizsynth.parametrizations import (
    Cppn,
    Fourier,
    LaplacianPyramid,
    Latent,
    MaCo,
    Pixels,
    SigmoidPixels,
    magnitude,
)

KEY = jax.random.key(5)
RNG = np.random.default_rng(5)
SIZES = [(6, 8), (7, 6), (6, 7), (5, 9)]

# Lucid's square root of the colours' covariance, and its largest column.
S = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])
LONGEST = max(np.sqrt(sum(S[i, j] ** 2 for i in range(3))) for j in range(3))
COLORS = S / LONGEST


def squashed(values: np.ndarray) -> np.ndarray:
    out = np.zeros_like(values)
    for i, j in np.ndindex(values.shape[:2]):
        for c in range(3):
            out[i, j, c] = sum(COLORS[c, k] * values[i, j, k] for k in range(3))
    return expit(out)


def scale(size: tuple[int, int], decay: float) -> np.ndarray:
    h, w = size
    found = np.zeros((h, w // 2 + 1, 1))
    for a in range(h):
        for b in range(w // 2 + 1):
            fy = (a if a <= (h - 1) // 2 else a - h) / h
            f = np.hypot(fy, b / w)
            found[a, b] = np.sqrt(h * w) / max(f, 1 / max(h, w)) ** decay
    return found


def inverse(spectrum: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Sum the waves one by one: those past the middle are the conjugates of those before it."""
    h, w = size
    y, x = np.mgrid[:h, :w]
    total = np.zeros((h, w, spectrum.shape[2]))
    for a in range(h):
        for b in range(w // 2 + 1):
            wave = np.exp(2j * np.pi * (a * y / h + b * x / w))[..., None]
            twice = 1 if b == 0 or 2 * b == w else 2
            total += twice * (spectrum[a, b] * wave).real
    return total / (h * w)


def test_lucids_numbers() -> None:
    assert pytest.approx(0.46195238, abs=1e-7) == LONGEST


KINDS = {
    "pixels": Pixels(std=0.1),
    "sigmoid": SigmoidPixels(),
    "fourier": Fourier(),
    "pyramid": LaplacianPyramid(3),
    "cppn": Cppn(3, 5),
    "maco": MaCo(jnp.ones((6, 5, 3))),
}


@pytest.mark.parametrize("name", KINDS)
def test_parameters_are_those_of_the_key(name: str) -> None:
    kind = KINDS[name]
    first, again, other = (kind.init(key, (6, 8)) for key in (KEY, KEY, jax.random.key(6)))
    same = [np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (first, again)), strict=True)]
    assert all(same)
    different = [not np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (first, other)), strict=True)]
    assert any(different)
    image = kind.decode(first, (6, 8))
    assert image.shape == (6, 8, 3)
    assert image.dtype == np.float32


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", KINDS)
def test_double_precision_and_a_gradient(name: str) -> None:
    kind = KINDS[name]
    params = kind.init(KEY, (6, 8))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float64)}
    weights = RNG.normal(size=(6, 8, 3))
    value, gradient = jax.value_and_grad(lambda p: (kind.decode(p, (6, 8)) * jnp.asarray(weights)).sum())(
        params
    )
    assert value.dtype == np.float64
    leaves, structure = jax.tree.flatten(params)
    towards = [RNG.normal(size=leaf.shape) for leaf in leaves]

    def along(t: float) -> float:
        moved = [leaf + t * d for leaf, d in zip(leaves, towards, strict=True)]
        image = kind.decode(jax.tree.unflatten(structure, moved), (6, 8))
        return float((np.asarray(image) * weights).sum())

    h = 1e-4
    slope = (8 * (along(h) - along(-h)) - (along(2 * h) - along(-2 * h))) / (12 * h)
    expected = sum(
        float((np.asarray(g) * d).sum()) for g, d in zip(jax.tree.leaves(gradient), towards, strict=True)
    )
    assert slope == pytest.approx(expected, rel=1e-6, abs=1e-8)


@pytest.mark.usefixtures("x64")
def test_pixels_are_the_picture() -> None:
    params = Pixels(std=0.5, mean=0.3).init(KEY, (40, 50))
    assert float(params.mean()) == pytest.approx(0.3, abs=0.03)
    assert float(params.std()) == pytest.approx(0.5, abs=0.03)
    np.testing.assert_array_equal(Pixels().decode(params, (40, 50)), params)
    np.testing.assert_array_equal(Pixels(clip=True).decode(params, (40, 50)), np.clip(params, 0, 1))
    np.testing.assert_array_equal(Pixels().encode(params), params)


@pytest.mark.usefixtures("x64")
def test_sigmoid_pixels() -> None:
    values = RNG.normal(size=(4, 5, 3))
    np.testing.assert_allclose(
        SigmoidPixels(decorrelated=False).decode(jnp.asarray(values), (4, 5)), expit(values), rtol=1e-12
    )
    np.testing.assert_allclose(
        SigmoidPixels().decode(jnp.asarray(values), (4, 5)), squashed(values), rtol=1e-12
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("decay", [1.0, 1.5])
def test_fourier_is_a_sum_of_waves(size: tuple[int, int], decay: float) -> None:
    params = RNG.normal(0, 0.3, (size[0], size[1] // 2 + 1, 3, 2))
    spectrum = (params[..., 0] + 1j * params[..., 1]) * scale(size, decay)
    ours = Fourier(decay=decay).decode(jnp.asarray(params), size)
    lucid = np.fft.irfft2(spectrum, s=size, axes=(0, 1)) / 4
    np.testing.assert_allclose(ours, squashed(lucid), rtol=0, atol=1e-10)
    plain = Fourier(decay=decay, decorrelated=False).decode(jnp.asarray(params), size)
    np.testing.assert_allclose(plain, expit(inverse(spectrum, size) / 4), rtol=0, atol=1e-10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("size", [(8, 7), (7, 5)])
def test_lucids_odd_width_is_a_wider_picture_cut(size: tuple[int, int]) -> None:
    """Lucid's w // 2 + 2 columns are the spectrum of w + 1 pixels; its frequencies are those of w."""
    h, w = size
    params = RNG.normal(0, 0.3, (h, w // 2 + 2, 3, 2))
    f = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.fftfreq(w)[None, : w // 2 + 2])
    lucid_scale = np.sqrt(h * w) / np.maximum(f, 1 / max(h, w))
    spectrum = (params[..., 0] + 1j * params[..., 1]) * lucid_scale[..., None]
    lucid = squashed(np.fft.irfft2(spectrum, axes=(0, 1))[:h, :w] / 4)
    ratio = lucid_scale[..., None, None] / scale((h, w + 1), 1.0)[..., None]
    ours = Fourier().decode(jnp.asarray(params * ratio), (h, w + 1))[:, :w]
    np.testing.assert_allclose(ours, lucid, rtol=0, atol=1e-10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", [Fourier(), Fourier(decay=1.5, decorrelated=False), SigmoidPixels()])
def test_a_picture_can_be_begun_with(size: tuple[int, int], kind: Any) -> None:
    image = jnp.asarray(RNG.uniform(0.01, 0.99, (*size, 3)))
    np.testing.assert_allclose(kind.decode(kind.encode(image), size), image, rtol=0, atol=1e-10)
    extreme = jnp.asarray(RNG.integers(0, 2, (*size, 3)).astype(float))
    np.testing.assert_allclose(kind.decode(kind.encode(extreme), size), extreme, atol=1.0001e-3)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("size", [(8, 12), (9, 6)])
def test_a_pyramid_is_a_sum_of_enlarged_pictures(size: tuple[int, int]) -> None:
    kind = LaplacianPyramid(3, std=0.7)
    params = kind.init(KEY, size)
    shapes = [(-(-size[0] // 2**k), -(-size[1] // 2**k), 3) for k in range(3)]
    assert [p.shape for p in params] == shapes

    def enlarged(values: np.ndarray, n: int, axis: int) -> np.ndarray:
        few = values.shape[axis]
        at = (np.arange(n) + 0.5) * few / n - 0.5
        return np.apply_along_axis(lambda line: np.interp(at, np.arange(few), line), axis, values)

    total = sum(enlarged(enlarged(np.asarray(p), size[0], 0), size[1], 1) for p in params)
    np.testing.assert_allclose(kind.decode(params, size), squashed(total), rtol=0, atol=1e-10)


def test_a_pyramid_must_fit() -> None:
    with pytest.raises(ValueError, match="needs a picture larger than"):
        LaplacianPyramid(5).init(KEY, (8, 32))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("size", [(3, 5), (4, 1)])
def test_a_cppn_is_its_layers(size: tuple[int, int]) -> None:
    kind = Cppn(3, 4)
    params = kind.init(KEY, size)
    np.testing.assert_array_equal(kind.decode(params, size), 0.5)  # the last layer is zero at first
    params = jax.tree.map(lambda leaf: leaf + jnp.asarray(RNG.normal(0, 0.3, leaf.shape)), params)
    expected = np.zeros((*size, 3))
    for i, j in np.ndindex(size):
        place = [
            -np.sqrt(3) * n / max(size) + 2 * np.sqrt(3) * n / max(size) * k / (n - 1) if n > 1 else 0.0
            for k, n in zip((i, j), size, strict=True)
        ]
        x = np.array(place)
        for layer in params.hidden:
            a = np.arctan(x @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...]))
            x = np.concatenate([a / 0.67, a**2 / 0.6])
        expected[i, j] = expit(x @ np.asarray(params.last.kernel[...]) + np.asarray(params.last.bias[...]))
    np.testing.assert_allclose(kind.decode(params, size), expected, rtol=0, atol=1e-10)


def test_a_cppn_paints_at_any_size() -> None:
    params = Cppn(2, 4).init(KEY, (8, 8))
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)
    small, large = (np.asarray(Cppn(2, 4).decode(params, (n, n))) for n in (5, 9))
    np.testing.assert_allclose(large[::2, ::2], small, atol=1e-6)


def test_a_cppns_layers_begin_with_weights_of_the_fan_in() -> None:
    params = Cppn(3, 64).init(KEY, (8, 8))
    assert [layer.kernel[...].shape for layer in params.hidden] == [(2, 64), (128, 64), (128, 64)]
    for layer in params.hidden:
        kernel = np.asarray(layer.kernel[...])
        assert kernel.std() * np.sqrt(len(kernel)) == pytest.approx(1, abs=0.15)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("size", SIZES)
def test_maco_moves_phases_only(size: tuple[int, int]) -> None:
    m = RNG.uniform(0.1, 2, (size[0], size[1] // 2 + 1, 3))
    kind = MaCo(jnp.asarray(m), 0.8)
    theta = np.asarray(kind.init(KEY, size))
    assert 0 <= theta.min() <= theta.max() <= 2 * np.pi
    values = inverse(m * np.exp(1j * theta), size)
    values = (values - values.mean()) / (np.sqrt(((values - values.mean()) ** 2).mean()) + 1e-4)
    np.testing.assert_allclose(kind.decode(jnp.asarray(theta), size), squashed(0.8 * values), atol=1e-10)


@pytest.mark.usefixtures("x64")
def test_the_magnitude_is_the_photos_own() -> None:
    photos = RNG.uniform(0.1, 0.9, (3, 6, 7, 3))
    expected = np.zeros((6, 4, 3))
    for photo in photos:
        values = logit(photo) @ np.linalg.inv(COLORS).T
        values = values - values.mean(axis=(0, 1))
        expected += np.abs(np.fft.fft2(values, axes=(0, 1))[:, :4]) / 3
    found = magnitude(jnp.asarray(photos), (6, 7))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)
    # Its own phases give a photo back, but for its mean and its contrast.
    one = magnitude(jnp.asarray(photos[:1]), (6, 7))
    values = logit(photos[0]) @ np.linalg.inv(COLORS).T
    values = values - values.mean(axis=(0, 1))
    phases = np.angle(np.fft.rfft2(values, axes=(0, 1)))
    again = MaCo(one).decode(jnp.asarray(phases), (6, 7))
    np.testing.assert_allclose(again, squashed(values / (values.std() + 1e-4)), rtol=0, atol=1e-10)


def test_maco_wants_the_magnitudes_of_its_size() -> None:
    with pytest.raises(ValueError, match="make them with"):
        MaCo(jnp.ones((6, 4, 3))).init(KEY, (6, 8))


@pytest.mark.usefixtures("x64")
def test_a_latent_is_bounded_decoded_and_resized() -> None:
    weights = jnp.asarray(RNG.normal(size=(4, 12)))
    generator = jax.tree_util.Partial(lambda w, code: (code @ w).reshape(2, 2, 3), weights)
    kind = Latent(generator, (4,), std=3.0, low=-1.0, high=jnp.asarray([1.0, 1.0, 2.0, 0.0]))
    code = kind.init(KEY, (2, 2))
    assert bool((code >= -1).all()) and bool((code <= jnp.asarray([1.0, 1.0, 2.0, 0.0])).all())
    far = np.array([5.0, -5.0, 1.5, 1.0])
    bounded = np.array([1.0, -1.0, 1.5, 0.0])
    expected = (bounded @ np.asarray(weights)).reshape(2, 2, 3)
    np.testing.assert_allclose(kind.decode(jnp.asarray(far), (2, 2)), expected, atol=1e-12)
    assert kind.decode(code, (4, 6)).shape == (4, 6, 3)
    assert Latent(generator, (4,)).decode(jnp.asarray(far), (2, 2)).shape == (2, 2, 3)


def test_numbers_are_leaves_and_structure_is_not() -> None:
    assert jax.tree.leaves(Fourier(0.02, 1.2)) == [0.02, 1.2]
    traces = []

    @jax.jit
    def decode(kind: Any, params: Any) -> Any:
        traces.append(kind)
        return kind.decode(params, (4, 4))

    params = Fourier().init(KEY, (4, 4))
    images = [decode(Fourier(decay=d), params) for d in (1.0, 1.5)]
    assert len(traces) == 1
    assert float(jnp.abs(images[0] - images[1]).max()) > 0
