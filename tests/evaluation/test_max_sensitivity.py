"""Max-sensitivity against a loop over its draws."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from evaluated import LABELS, N, images, linear, network

import vizsynth

KEY = jax.random.key(8)


@pytest.mark.parametrize("of", [vizsynth.gradient, partial(vizsynth.grad_cam, layer="relu2")])
def test_follows_the_paper(x64, of):
    net, x = network(np.float64), images(np.float64)
    keys = jax.random.split(KEY, N)
    found = vizsynth.max_sensitivity(net, x, LABELS, of=of, key=keys, radius=0.1, samples=5, batch_size=2)
    for i in range(N):
        label = int(LABELS[i])
        still = np.asarray(of(net, x[i : i + 1], label))
        moved = []
        for sample in range(5):
            unit = jax.random.uniform(
                jax.random.fold_in(keys[i], sample), x.shape[1:], np.float64, minval=-1, maxval=1
            )
            moved.append(np.linalg.norm(of(net, x[i : i + 1] + 0.1 * unit[None], label) - still))
        np.testing.assert_allclose(found.values[i], max(moved), rtol=1e-9)
        np.testing.assert_allclose(found.relative[i], max(moved) / np.linalg.norm(still), rtol=1e-9)


def test_a_map_that_moves_with_the_image_moves_by_its_distance(x64):
    # Φ(x) = x: the norm of the draw itself, at most r √d, and near r √(d/3)
    x = images(np.float64)

    def itself(net, images, target):
        return images

    found = vizsynth.max_sensitivity(network(np.float64), x, 0, of=itself, key=KEY, radius=0.2, samples=50)
    d = x[0].size
    assert (found.values <= 0.2 * d**0.5).all()
    np.testing.assert_allclose(found.values, 0.2 * (d / 3) ** 0.5, rtol=0.15)
    more = vizsynth.max_sensitivity(network(np.float64), x, 0, of=itself, key=KEY, radius=0.2, samples=100)
    assert (more.values >= found.values).all()


def test_the_gradient_of_a_linear_network_does_not_move():
    found = vizsynth.max_sensitivity(linear(), images(), 0, of=vizsynth.gradient, key=KEY)
    assert float(found.relative.max()) < 1e-5

    def nothing(net, images, target):
        return jnp.zeros_like(images)

    found = vizsynth.max_sensitivity(linear(), images(), 0, of=nothing, key=KEY)
    assert found.relative.tolist() == [0.0] * N


def test_a_sweep_of_radii_compiles_once():
    net, x = network(), images()
    before = vizsynth.max_sensitivity.compiled._cache_size()
    found = [
        vizsynth.max_sensitivity(net, x, 0, of=vizsynth.gradient, key=KEY, radius=r, samples=3).values
        for r in (0.01, 0.1, 0.5)
    ]
    assert vizsynth.max_sensitivity.compiled._cache_size() - before == 1
    assert (found[0] < found[2]).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"radius": 8.0}, "radius"), ({"radius": 0.0}, "radius"), ({"samples": 0}, "samples must be")],
)
def test_says_what_is_wrong(changes, message):
    with pytest.raises(ValueError, match=message):
        vizsynth.max_sensitivity(network(), images(), 0, of=vizsynth.gradient, key=KEY, **changes)
