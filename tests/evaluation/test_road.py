"""ROAD against a dense solve of its system, built pixel by pixel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from evaluated import LABELS, SIZE, N, heatmaps, images, network, order, probability
from scipy.sparse import csc_matrix, lil_matrix
from scipy.sparse.linalg import spsolve

import vizsynth

KEY = jax.random.key(3)


def _solved(image, removed):
    """Return the image with its removed pixels solved for, by a sparse direct solver."""
    h, w = removed.shape
    unknown = {p: k for k, p in enumerate(zip(*np.nonzero(removed), strict=True))}
    A, b = lil_matrix((len(unknown), len(unknown))), np.zeros((len(unknown), 3))
    for (i, j), k in unknown.items():
        for di in (-1, 0, 1):
            for dj in (-1, 0, 1):
                q = (i + di, j + dj)
                if (di, dj) == (0, 0) or not (0 <= q[0] < h and 0 <= q[1] < w):
                    continue
                weight = 1 / 6 if di == 0 or dj == 0 else 1 / 12
                A[k, k] += weight
                if q in unknown:
                    A[k, unknown[q]] -= weight
                else:
                    b[k] += weight * image[q]
    filled = image.copy()
    filled[removed] = spsolve(csc_matrix(A), b).reshape(-1, 3)
    return filled


def _blob(h, w, share):
    y, x = np.mgrid[:h, :w]
    distance = np.hypot((y - h / 3) / h, (x - w / 2) / w)
    return distance <= np.quantile(distance, share)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("shape", ["scattered", "blob"])
def test_imputation_solves_the_system(x64, share, shape):
    h, w = 23, 31
    x = np.random.default_rng(0).random((2, h, w, 3))
    if shape == "blob":
        removed = np.stack([_blob(h, w, share)] * 2)
    else:
        removed = np.random.default_rng(1).random((2, h, w)) < share
    found = vizsynth.noisy_linear_imputation(jnp.asarray(x), jnp.asarray(removed), key=KEY, noise=0.0)
    expected = np.stack([_solved(*pair) for pair in zip(x, removed, strict=True)])
    np.testing.assert_allclose(found, expected, atol=2e-5)
    np.testing.assert_array_equal(np.asarray(found)[~removed], x[~removed])


def test_imputation_is_exact_enough_in_float32_on_a_large_blob():
    h = w = 64
    x = np.random.default_rng(0).random((1, h, w, 3)).astype(np.float32)
    removed = _blob(h, w, 0.9)[None]
    found = vizsynth.noisy_linear_imputation(jnp.asarray(x), jnp.asarray(removed), key=KEY, noise=0.0)
    np.testing.assert_allclose(found[0], _solved(x[0].astype(np.float64), removed[0]), atol=1e-3)
    half = vizsynth.noisy_linear_imputation(
        jnp.asarray(x, jnp.bfloat16), jnp.asarray(removed), key=KEY, noise=0.0
    )
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), found, atol=0.02)


def test_one_pixel_is_the_weighted_mean_of_its_neighbors():
    x = images(n=1)
    removed = jnp.zeros((1, *SIZE), bool).at[0, 4, 5].set(True).at[0, 0, 0].set(True)
    found = np.asarray(vizsynth.noisy_linear_imputation(x, removed, key=KEY, noise=0.0))[0]
    x = np.asarray(x)[0]
    straight = x[3, 5] + x[5, 5] + x[4, 4] + x[4, 6]
    diagonal = x[3, 4] + x[3, 6] + x[5, 4] + x[5, 6]
    np.testing.assert_allclose(found[4, 5], straight / 6 + diagonal / 12, atol=1e-6)
    np.testing.assert_allclose(found[0, 0], (2 * x[0, 1] + 2 * x[1, 0] + x[1, 1]) / 5, atol=1e-6)


def test_noise_falls_on_removed_pixels_and_belongs_to_the_image():
    x = jnp.full((2, 40, 40, 3), 0.5)
    removed = jnp.zeros((2, 40, 40), bool).at[:, :20].set(True)
    keys = jax.random.split(KEY, 2)
    both = vizsynth.noisy_linear_imputation(x, removed, key=keys, noise=0.1)
    alone = vizsynth.noisy_linear_imputation(x[1:], removed[1:], key=keys[1:], noise=0.1)
    np.testing.assert_allclose(both[1:], alone, atol=1e-6)
    assert np.abs(both[0] - both[1]).max() > 0.1
    np.testing.assert_allclose(np.std(both[0, :20] - 0.5), 0.1, rtol=0.05)
    np.testing.assert_array_equal(both[:, 20:], x[:, 20:])


def test_curves_follow_the_paper(x64):
    net, x, maps = network(np.float64), images(np.float64), heatmaps(np.float64)
    fractions = [0.1, 0.5, 0.85]
    found = vizsynth.road(net, x, LABELS, maps, key=KEY, fractions=fractions, noise=0.0, batch_size=2)
    f, pixels = probability(net), SIZE[0] * SIZE[1]
    for i, (image, heatmap, label) in enumerate(zip(np.asarray(x), np.asarray(maps), LABELS, strict=True)):
        ranking = order(heatmap)
        for k, fraction in enumerate(fractions):
            count = round(fraction * pixels)
            np.testing.assert_allclose(found.fractions[k], count / pixels)
            for curve, gone in ((found.morf, ranking[:count]), (found.lerf, ranking[-count:])):
                removed = np.zeros(SIZE, bool)
                removed[tuple(zip(*gone, strict=True))] = True
                np.testing.assert_allclose(curve[i, k], f(_solved(image, removed), label), atol=2e-5)
    np.testing.assert_allclose(found.combined, np.mean(found.lerf - found.morf, axis=1) / 2, atol=1e-12)


def test_does_not_depend_on_chunks_or_on_the_batch():
    net, x, maps = network(), images(), heatmaps()
    keys = jax.random.split(KEY, N)
    options = {"fractions": [0.1, 0.4, 0.6, 0.9], "noise": 0.2}
    whole = vizsynth.road(net, x, LABELS, maps, key=keys, batch_size=4, **options)
    chunked = vizsynth.road(net, x, LABELS, maps, key=keys, batch_size=3, **options)
    np.testing.assert_allclose(whole.morf, chunked.morf, atol=1e-5)
    alone = vizsynth.road(net, x[1:2], LABELS[1:2], maps[1:2], key=keys[1:2], batch_size=4, **options)
    np.testing.assert_allclose(whole.lerf[1:2], alone.lerf, atol=1e-5)
    other = vizsynth.road(
        net, x, LABELS, maps, key=jax.random.split(jax.random.key(9), N), batch_size=4, **options
    )
    assert np.abs(whole.morf - other.morf).max() > 1e-4


def test_accuracy_is_a_score():
    net, x = network(), images()
    first = np.asarray(net(x).argmax(-1))
    found = vizsynth.road(net, x, vizsynth.Correct(first), heatmaps(), key=KEY, fractions=[0.0, 0.5])
    assert found.morf[:, 0].tolist() == [1.0] * N
    assert set(np.unique(found.morf)) <= {0.0, 1.0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fractions": [0.5, 1.0]}, r"fractions must lie in \[0, 1\)"),
        ({"fractions": [-0.1]}, "fractions must lie in"),
        ({"fractions": []}, "fractions must be a list"),
        ({"noise": -1.0}, "noise must not be negative"),
        ({"heatmaps": np.full((N, *SIZE), np.inf)}, "infinite"),
        ({"key": jax.random.split(KEY, 2)}, "one key or 3 keys"),
    ],
)
def test_says_what_is_wrong(changes, message):
    arguments = {"target": 0, "heatmaps": heatmaps(), "key": KEY} | changes
    with pytest.raises((TypeError, ValueError), match=message):
        vizsynth.road(network(), images(), **arguments)


def test_an_image_without_pixels_is_refused():
    with pytest.raises(ValueError, match="leave at least one"):
        vizsynth.noisy_linear_imputation(images(), np.ones((N, *SIZE), bool), key=KEY)
    with pytest.raises(ValueError, match="boolean mask"):
        vizsynth.noisy_linear_imputation(images(), jnp.ones((N, *SIZE)), key=KEY)
