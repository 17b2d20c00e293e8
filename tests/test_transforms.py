"""Robustness transforms, each against NumPy or SciPy in float64."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from vizsynth import transforms
from vizsynth.transforms import (
    Blur,
    Crop,
    Jitter,
    Mirror,
    Noise,
    Pad,
    Resize,
    Roll,
    Rotate,
    Scale,
    Sequence,
    none,
    standard,
    transformed,
)

KEY = jax.random.key(2)
RNG = np.random.default_rng(2)
H, W = 9, 12
IMAGE = RNG.random((H, W, 3))

EVERY = {
    "pad": Pad(3, 0.2),
    "jitter": Jitter(4),
    "mirror": Mirror(),
    "roll": Roll(3),
    "scale": Scale(0.7, 1.4),
    "rotate": Rotate(30.0),
    "crop": Crop(8, 0.4, 0.8),
    "noise": Noise(0.1),
    "blur": Blur(1.5),
    "resize": Resize((5, 7)),
    "sequence": Sequence((Pad(2), Jitter(2), Scale(), Rotate())),
    "none": none,
}


def keys(n: int) -> Any:
    return jax.random.split(KEY, n)


@pytest.mark.usefixtures("x64")
def test_pad_is_numpys() -> None:
    expected = np.pad(IMAGE, ((3, 3), (3, 3), (0, 0)), constant_values=0.2)
    np.testing.assert_array_equal(Pad(3, 0.2)(KEY, jnp.asarray(IMAGE)), expected)


@pytest.mark.usefixtures("x64")
def test_jitter_cuts_at_every_place() -> None:
    crops = {IMAGE[i : i + H - 2, j : j + W - 2].tobytes(): (i, j) for i in range(3) for j in range(3)}
    several = jax.vmap(lambda key: Jitter(2)(key, jnp.asarray(IMAGE)))(keys(100))
    assert {crops[np.asarray(image).tobytes()] for image in several} == set(crops.values())


@pytest.mark.usefixtures("x64")
def test_roll_rolls_by_every_shift() -> None:
    rolled = {np.roll(IMAGE, (i, j), (0, 1)).tobytes(): (i, j) for i in range(-1, 2) for j in range(-1, 2)}
    several = jax.vmap(lambda key: Roll(1)(key, jnp.asarray(IMAGE)))(keys(100))
    assert {rolled[np.asarray(image).tobytes()] for image in several} == set(rolled.values())


def test_mirror_exchanges_left_and_right_half_of_the_time() -> None:
    several = np.asarray(jax.vmap(lambda key: Mirror()(key, jnp.asarray(IMAGE, jnp.float32)))(keys(200)))
    same = (several == IMAGE.astype(np.float32)).all((1, 2, 3))
    turned = (several == IMAGE.astype(np.float32)[:, ::-1]).all((1, 2, 3))
    assert (same ^ turned).all() and 70 < same.sum() < 130


def test_a_jitter_must_leave_something() -> None:
    with pytest.raises(ValueError, match="leaves nothing"):
        Jitter(9)(KEY, jnp.zeros((9, 12, 3)))


def affine(matrix: np.ndarray, fill: float) -> np.ndarray:
    center = np.array([(H - 1) / 2, (W - 1) / 2])
    return np.stack(
        [
            ndimage.affine_transform(
                IMAGE[..., c], matrix, center - matrix @ center, order=1, mode="grid-constant", cval=fill
            )
            for c in range(3)
        ],
        axis=-1,
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("factor", [0.6, 0.93, 1.0, 1.7])
def test_scale_is_scipys(factor: float) -> None:
    ours = Scale(factor, factor, 0.3)(KEY, jnp.asarray(IMAGE))
    np.testing.assert_allclose(ours, affine(np.eye(2) / factor, 0.3), rtol=0, atol=1e-10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_rotate_is_scipys(seed: int) -> None:
    key = jax.random.key(seed)
    angle = np.deg2rad(40.0) * (2 * float(jax.random.uniform(key, (), float)) - 1)
    matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    ours = Rotate(40.0, 0.3)(key, jnp.asarray(IMAGE))
    np.testing.assert_allclose(ours, affine(matrix, 0.3), rtol=0, atol=1e-10)


@pytest.mark.usefixtures("x64")
def test_angles_and_factors_are_even_over_their_range() -> None:
    """Read off what is drawn: a picture of its own coordinates says where each pixel is from."""
    rows, cols = np.meshgrid(np.arange(41.0) - 20, np.arange(41.0) - 20, indexing="ij")
    place = jnp.asarray(np.stack([rows, cols, 0 * rows], axis=-1))
    turned = np.asarray(jax.vmap(lambda key: Rotate(25.0)(key, place))(keys(400)))
    angles = np.rad2deg(np.arctan2(turned[:, 20, 30, 0], turned[:, 20, 30, 1]))
    factors = np.asarray(jax.vmap(lambda key: Scale(0.8, 1.3)(key, place))(keys(400)))[:, 20, 30, 1]
    for drawn, low, high in ((angles, -25, 25), (10 / factors, 0.8, 1.3)):
        assert low <= drawn.min() < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < drawn.max() <= high
        assert drawn.mean() == pytest.approx((low + high) / 2, abs=0.05 * (high - low))


def sampled(image: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """Interpolate linearly at places inside, those past the last middle of a pixel from it alone."""
    grid = np.stack(
        np.meshgrid(rows.clip(0, len(image) - 1), cols.clip(0, image.shape[1] - 1), indexing="ij")
    )
    return np.stack(
        [ndimage.map_coordinates(image[..., c], grid, order=1, mode="nearest") for c in range(3)], axis=-1
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_crop_is_a_square_enlarged(seed: int) -> None:
    key = jax.random.key(seed)
    first, second = jax.random.split(key)
    side = (float(jax.random.uniform(first, (), float)) * 0.3 + 0.4) * H
    middle = (np.asarray(jax.random.normal(second, (2,), float)) * 0.5 + 0.5) * (H, W)
    middle = middle.clip(side / 2, np.array([H, W]) - side / 2)
    places = [(np.arange(10) + 0.5) * side / 10 + m - side / 2 - 0.5 for m in middle]
    ours = Crop(10, 0.4, 0.7, 0.5)(key, jnp.asarray(IMAGE))
    np.testing.assert_allclose(ours, sampled(IMAGE, *places), rtol=0, atol=1e-10)


def test_crops_lie_in_the_picture() -> None:
    inside = jnp.ones((H, W, 3))
    several = jax.vmap(lambda key: Crop(6, 0.3, 1.0, 2.0)(key, inside))(keys(50))
    np.testing.assert_allclose(several, 1, atol=1e-6)


@pytest.mark.usefixtures("x64")
def test_noise_is_gaussian_of_its_deviation() -> None:
    flat = jnp.full((100, 100, 3), 0.5)
    noise = np.asarray(Noise(0.2)(KEY, flat)) - 0.5
    assert noise.std() == pytest.approx(0.2, rel=0.02)
    assert noise.mean() == pytest.approx(0, abs=0.005)
    twice = np.asarray(Noise(0.4)(KEY, flat)) - 0.5
    np.testing.assert_allclose(twice, 2 * noise, atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("seed", [0, 1])
def test_blur_is_scipys(seed: int) -> None:
    key = jax.random.key(seed)
    sigma = float(jax.random.uniform(key, (), float)) * 1.5 + 1e-3
    expected = ndimage.gaussian_filter(IMAGE, sigma, axes=(0, 1), mode="nearest", radius=6)
    ours = Blur(1.5, radius=6)(key, jnp.asarray(IMAGE))
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-10)


@pytest.mark.usefixtures("x64")
def test_resize_is_linear() -> None:
    places = [(np.arange(n) + 0.5) * few / n - 0.5 for n, few in ((20, H), (17, W))]
    ours = Resize((20, 17))(KEY, jnp.asarray(IMAGE))
    np.testing.assert_allclose(ours, sampled(IMAGE, *places), rtol=0, atol=1e-10)


def test_each_of_a_sequence_has_a_key_of_its_own() -> None:
    image = jnp.asarray(IMAGE.astype(np.float32))
    both = Sequence((Noise(0.1), Noise(0.2)))(KEY, image)
    first = Noise(0.1)(jax.random.fold_in(KEY, 0), image)
    np.testing.assert_array_equal(both, Noise(0.2)(jax.random.fold_in(KEY, 1), first))
    a, b = (Noise(1.0)(jax.random.fold_in(KEY, i), image) - image for i in (0, 1))
    assert abs(np.corrcoef(np.ravel(a), np.ravel(b))[0, 1]) < 0.2
    np.testing.assert_array_equal(none(KEY, image), image)


def test_the_standard_recipe_is_twelve_pixels_larger() -> None:
    assert standard(KEY, jnp.zeros((32, 40, 3))).shape == (44, 52, 3)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", EVERY)
def test_what_is_affine_in_the_picture_has_its_gradient(name: str) -> None:
    """⟨∇⟨w, T(x)⟩, d⟩ = ⟨w, T(x + d) − T(x)⟩ for the same draw."""
    transform = EVERY[name]
    x, d = jnp.asarray(IMAGE), jnp.asarray(RNG.normal(size=IMAGE.shape))

    @jax.jit
    def both(x: Any) -> Any:
        y, back = jax.vjp(lambda x: transform(KEY, x), x)
        w = jax.random.normal(KEY, y.shape, y.dtype)
        return y, back(w)[0], ((transform(KEY, x + d) - y) * w).sum()

    y, gradient, change = both(x)
    assert y.dtype == gradient.dtype == np.float64
    assert float((gradient * d).sum()) == pytest.approx(float(change), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", EVERY)
def test_a_picture_is_transformed_alike_in_any_batch(name: str) -> None:
    images = jnp.asarray(RNG.random((3, H, W, 3)).astype(np.float32))
    together = jax.jit(transformed)(EVERY[name], keys(3), images)
    for i in range(3):
        np.testing.assert_allclose(together[i], EVERY[name](keys(3)[i], images[i]), atol=1e-5)


def test_other_numbers_do_not_trace_again() -> None:
    traces = []

    @jax.jit
    def apply(transform: Any, image: Any) -> Any:
        traces.append(transform)
        return transform(KEY, image)

    image = jnp.asarray(IMAGE.astype(np.float32))
    found = [apply(Sequence((Scale(0.8, high), Noise(std))), image) for high, std in ((1.1, 0.1), (1.2, 0.3))]
    assert len(traces) == 1
    assert float(jnp.abs(found[0] - found[1]).max()) > 0


def test_every_transform_is_held_here() -> None:
    kinds = {type(transform).__name__ for transform in EVERY.values()}
    named = {
        n for n, v in vars(transforms).items() if isinstance(v, type) and v.__module__ == transforms.__name__
    }
    assert kinds == named
