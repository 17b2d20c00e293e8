"""Sensitivity-n against NumPy's correlation over the same subsets, and on a linear network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from evaluated import LABELS, SIZE, N, heatmaps, images, linear, logit, network

import vizsynth

KEY = jax.random.key(8)
SIZES = [1, 10, 60]


@pytest.mark.parametrize("baseline", [0.0, 0.4])
def test_follows_the_paper(x64, baseline):
    net, x, maps = network(np.float64), images(np.float64), heatmaps(np.float64)
    keys, samples = jax.random.split(KEY, N), 12
    found = vizsynth.sensitivity_n(
        net, x, LABELS, maps, key=keys, sizes=SIZES, samples=samples, baseline=baseline, batch_size=5
    )
    assert found.sizes.tolist() == SIZES
    f = logit(net)
    for i, (image, heatmap, label) in enumerate(zip(np.asarray(x), np.asarray(maps), LABELS, strict=True)):
        for k, size in enumerate(SIZES):
            told, happened = [], []
            for sample in range(samples):
                key = jax.random.fold_in(keys[i], k * samples + sample)
                draw = np.asarray(jax.random.uniform(key, SIZE, np.float32)).reshape(-1)
                S = np.unravel_index(np.argsort(-draw, kind="stable")[:size], SIZE)
                without = image.copy()
                without[S] = baseline
                told.append(heatmap[S].sum())
                happened.append(f(image, label) - f(without, label))
            expected = np.corrcoef(told, happened)[0, 1]
            np.testing.assert_allclose(found.correlation[i, k], expected, rtol=0, atol=1e-9)


def test_input_x_gradient_is_exact_on_a_linear_network(x64):
    net, x = linear(np.float64), images(np.float64)
    maps = vizsynth.input_x_gradient(net, x, LABELS).sum(-1)
    found = vizsynth.sensitivity_n(net, x, LABELS, maps, key=KEY, sizes=[1, 5, 50, 98], samples=30)
    np.testing.assert_allclose(found.correlation, 1, atol=1e-10)
    opposite = vizsynth.sensitivity_n(net, x, LABELS, -3 * maps, key=KEY, sizes=[5], samples=30)
    np.testing.assert_allclose(opposite.correlation, -1, atol=1e-10)


def test_a_constant_map_correlates_with_nothing():
    flat = vizsynth.sensitivity_n(
        network(), images(), 0, jnp.zeros((N, *SIZE)), key=KEY, sizes=[5], samples=8
    )
    assert flat.correlation.tolist() == [[0.0]] * N


def test_small_numbers_do_not_underflow():
    net, x = linear(), images()
    maps = vizsynth.input_x_gradient(net, x, LABELS).sum(-1) * 1e-25
    found = vizsynth.sensitivity_n(net, x, LABELS, maps, key=KEY, sizes=[9], samples=20)
    np.testing.assert_allclose(found.correlation, 1, atol=1e-3)


def test_does_not_depend_on_chunks_or_on_the_batch():
    net, x, maps = network(), images(), heatmaps()
    keys = jax.random.split(KEY, N)
    options = {"sizes": SIZES, "samples": 10}
    whole = vizsynth.sensitivity_n(net, x, LABELS, maps, key=keys, batch_size=30, **options).correlation
    chunked = vizsynth.sensitivity_n(net, x, LABELS, maps, key=keys, batch_size=4, **options).correlation
    np.testing.assert_allclose(whole, chunked, atol=1e-3)
    alone = vizsynth.sensitivity_n(net, x[1:2], LABELS[1:2], maps[1:2], key=keys[1:2], **options)
    np.testing.assert_allclose(whole[1:2], alone.correlation, atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sizes": [0]}, "sizes are whole numbers"),
        ({"sizes": [99]}, "between 1 and 98"),
        ({"sizes": []}, "sizes must be a list"),
        ({"sizes": 5}, "sizes must be a list"),
        ({"samples": 1}, "at least 2 samples"),
        ({"heatmaps": jnp.zeros((1, *SIZE))}, "3 images need 3 heatmaps"),
    ],
)
def test_says_what_is_wrong(changes, message):
    arguments = {"target": 0, "heatmaps": heatmaps(), "key": KEY, "sizes": [5]} | changes
    with pytest.raises((TypeError, ValueError), match=message):
        vizsynth.sensitivity_n(network(), images(), **arguments)
