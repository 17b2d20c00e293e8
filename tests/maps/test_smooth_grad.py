"""SmoothGrad, its square and VarGrad: NumPy's statistics of the same draws."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from subjects import BY_HAND, LABELS, assert_equal, by_hand
from test_integrated_gradients import small_vgg, temporary_bytes
from tiny import tiny

import vizsynth
from vizsynth.scores import Class

x64 = pytest.mark.usefixtures("x64")
METHODS = [vizsynth.smooth_grad, vizsynth.smooth_grad_squared, vizsynth.var_grad]
KEY = jax.random.key(5)


def statistics(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean, mean square and variance over the first axis, in the order of `METHODS`."""
    return maps.mean(axis=0), (maps**2).mean(axis=0), maps.var(axis=0)


def draws(key: Any, samples: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return the noise of each sample, for one image."""
    return np.stack(
        [jax.random.normal(jax.random.fold_in(key, i), shape, jnp.float32) for i in range(samples)]
    )


@x64
@pytest.mark.parametrize("name", BY_HAND)
@pytest.mark.parametrize("which", range(3), ids=["mean", "square", "variance"])
def test_it_is_numpys_statistic_of_the_same_draws(name: str, which: int) -> None:
    net, hand, _, pixels, _ = by_hand(name)
    pixels = pixels * np.array([1.0, 0.5, 0.25])[:, None, None, None]  # different ranges
    noise = draws(KEY, 7, pixels.shape[1:])
    sigma = 0.2 * (pixels.max(axis=(1, 2, 3)) - pixels.min(axis=(1, 2, 3)))
    maps = np.stack([hand.gradient(pixels + sigma[:, None, None, None] * e[None], LABELS) for e in noise])
    call = partial(METHODS[which], net, jnp.asarray(pixels), LABELS, key=KEY, samples=7, noise=0.2)
    for batch_size in (3, 7):
        assert_equal(call(batch_size=batch_size), statistics(maps)[which])


@x64
@pytest.mark.parametrize("method", METHODS)
def test_each_image_may_have_a_key_of_its_own(method: Any) -> None:
    net, _, images, _, _ = by_hand("sequential_mean")
    keys = jax.random.split(KEY, 3)
    together = method(net, images, LABELS, key=keys, samples=3)
    for i in range(3):
        alone = method(net, images[i : i + 1], int(LABELS[i]), key=keys[i], samples=3)
        assert_equal(together[i], np.asarray(alone[0]), 1e-12)
    shared = method(net, images, LABELS, key=KEY, samples=3)
    assert float(jnp.abs(shared - together).max()) > 1e-3 * float(jnp.abs(shared).max())


@x64
@pytest.mark.parametrize(
    "of",
    [
        vizsynth.gradient,
        vizsynth.saliency,
        vizsynth.guided_backprop,
        partial(vizsynth.grad_cam, layer="relu2"),
        partial(vizsynth.integrated_gradients, steps=2),
    ],
    ids=["gradient", "saliency", "guided", "grad_cam", "integrated"],
)
def test_without_noise_it_is_the_map_itself(of: Any) -> None:
    net, _, images, _, _ = by_hand("sequential_mean")
    expected = np.asarray(of(net, images, LABELS))
    options = {"key": KEY, "samples": 3, "noise": 0.0, "of": of}
    assert_equal(vizsynth.smooth_grad(net, images, LABELS, **options), expected, 1e-12)
    assert_equal(vizsynth.smooth_grad_squared(net, images, LABELS, **options), expected**2, 1e-12)
    assert float(jnp.abs(vizsynth.var_grad(net, images, LABELS, **options)).max()) < 1e-25


def test_the_variance_is_never_negative_and_does_not_cancel() -> None:
    """In float32, around a mean of 10⁵: E[a²] − E[a]² has no correct digit there."""

    def far(net: Any, images: Any, target: Any) -> Any:
        return images.mean(axis=-1) + jnp.float32(1e5)

    subject = tiny("sequential_mean")
    images = subject.images(2)
    call = partial(vizsynth.var_grad, subject.net, images, 1, key=KEY, samples=40, noise=1.0, of=far)
    found = {batch_size: np.asarray(call(batch_size=batch_size)) for batch_size in (1, 4, 40)}
    noise = np.stack([jax.random.normal(jax.random.fold_in(KEY, i), images.shape[1:]) for i in range(40)])
    spread = np.asarray(images.max(axis=(1, 2, 3)) - images.min(axis=(1, 2, 3)))
    noisy = (np.asarray(images)[None] + spread[None, :, None, None, None] * noise[:, None]).mean(axis=-1)
    exact = (noisy.astype(np.float32) + np.float32(1e5)).astype(np.float64)
    cancelled = ((noisy + 1e5) ** 2).astype(np.float32).mean(axis=0) - exact.mean(axis=0).astype(
        np.float32
    ) ** 2
    assert np.abs(cancelled / exact.var(axis=0) - 1).max() > 1
    for values in found.values():
        assert values.min() >= 0
        np.testing.assert_allclose(values, exact.var(axis=0), rtol=2e-2)


@x64
def test_square_is_variance_and_mean() -> None:
    net, _, images, _, _ = by_hand("sequential")
    mean, square, variance = (m(net, images, LABELS, key=KEY, samples=9) for m in METHODS)
    assert_equal(square, np.asarray(variance + mean**2), 1e-12)
    assert float(square.min()) >= 0
    assert float(variance.min()) >= 0


@x64
def test_one_sample_has_no_variance() -> None:
    net, _, images, _, _ = by_hand("sequential")
    assert not vizsynth.var_grad(net, images, LABELS, key=KEY, samples=1).any()


@x64
def test_the_mean_settles_with_more_samples() -> None:
    """The error of a mean of N falls as 1/√N: of 128 samples less than half of that of 8."""
    net, _, images, _, _ = by_hand("sequential_mean")
    call = partial(vizsynth.smooth_grad, net, images, LABELS, noise=0.5, batch_size=8)
    best = call(key=jax.random.key(9), samples=640)
    few, many = (call(key=KEY, samples=samples) for samples in (8, 128))
    assert jnp.linalg.norm(many - best) < 0.5 * jnp.linalg.norm(few - best)


@pytest.mark.parametrize("method", METHODS)
def test_an_image_gives_the_same_in_any_batch(method: Any) -> None:
    subject = tiny("sequential")
    images = subject.images(4)
    call = partial(method, subject.net, key=KEY, samples=5)
    together = np.asarray(call(images, np.array([1, 2, 3, 4])))
    backwards = np.asarray(call(images[::-1], np.array([4, 3, 2, 1])))[::-1]
    alone = np.concatenate([call(images[i : i + 1], i + 1) for i in range(4)])
    for other in (backwards, alone):
        np.testing.assert_allclose(other, together, rtol=1e-4, atol=1e-5 * np.abs(together).max())


@pytest.mark.parametrize("method", METHODS)
def test_memory_does_not_grow_with_the_samples(method: Any) -> None:
    net, images = small_vgg()
    few, many = (
        temporary_bytes(method, net, images, Class(1), key=KEY, samples=samples) for samples in (20, 200)
    )
    assert many <= 1.2 * few
    at_once = temporary_bytes(method, net, images, Class(1), key=KEY, samples=20, batch_size=20)
    assert at_once > 2 * few


def test_one_program_serves_every_noise_and_key() -> None:
    subject = tiny("sequential_mean")
    images = subject.images()
    before = vizsynth.smooth_grad.compiled._cache_size()
    for seed, noise in enumerate([0.0, 0.1, 0.2]):
        vizsynth.smooth_grad(
            subject.net,
            images,
            seed,
            key=jax.random.key(seed),
            noise=noise,
            samples=6,
            of=partial(vizsynth.layer_cam, layer="relu1"),
        )
    assert vizsynth.smooth_grad.compiled._cache_size() - before == 1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "samples must be a positive integer, not 0"),
        ({"samples": -2}, "samples must be a positive integer, not -2"),
        ({"batch_size": 0}, "batch_size must be a positive integer, not 0"),
        ({"noise": -0.1}, "noise must not be negative, not -0.1"),
        ({"key": jax.random.split(KEY, 3)}, "2 images take one key or 2 keys, not 3"),
    ],
)
def test_impossible_noise_is_refused(method: Any, options: dict[str, Any], message: str) -> None:
    subject = tiny("sequential_mean")
    with pytest.raises(ValueError, match=message):
        method(subject.net, subject.images(2), 1, **{"key": KEY, **options})


def test_an_old_key_is_refused() -> None:
    subject = tiny("sequential_mean")
    with pytest.raises(TypeError, match=r"jax\.random\.key"):
        vizsynth.smooth_grad(subject.net, subject.images(), 1, key=jax.random.PRNGKey(0))
