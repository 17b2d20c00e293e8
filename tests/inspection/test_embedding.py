"""Planes and grids of vectors."""

from itertools import permutations

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vizsynth
from vizsynth.inspection.embedding import embed_pca, embed_tsne, grid_layout


def test_pca_is_the_eigenvectors_of_the_covariance() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(40, 6)) @ rng.normal(size=(6, 6))
    centred = values - values.mean(axis=0)
    variances, axes = np.linalg.eigh(centred.T @ centred)
    expected = centred @ axes[:, ::-1][:, :3]
    found = embed_pca(values, dimensions=3)
    signs = np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose(found, expected * signs, atol=1e-10)
    np.testing.assert_allclose((found**2).sum(axis=0), variances[::-1][:3], rtol=1e-10)


def clusters(n: int = 20) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(4), n)
    return 8 * np.eye(4, 60)[labels] + rng.normal(size=(4 * n, 60)), labels


def test_tsne_keeps_clusters_and_follows_its_key() -> None:
    values, labels = clusters()
    points = embed_tsne(values, key=jax.random.key(0), perplexity=10)
    near = vizsynth.nearest_neighbors(points.astype(np.float32), k=5)
    assert vizsynth.same_class_share(near.indices, labels).mean() > 0.95
    np.testing.assert_array_equal(points, embed_tsne(values, key=jax.random.key(0), perplexity=10))


def test_a_grid_is_the_assignment_of_least_cost() -> None:
    points = np.random.default_rng(3).uniform(size=(6, 2))
    cells = grid_layout(points, shape=(2, 3))
    unit = (points - points.min(axis=0)) / np.ptp(points, axis=0)
    places = np.array([(c / 2, 1.0 - r) for r in range(2) for c in range(3)])
    costs = {order: ((unit - places[list(order)]) ** 2).sum() for order in permutations(range(6))}
    best = min(costs, key=lambda order: costs[order])
    np.testing.assert_array_equal(cells, [divmod(cell, 3) for cell in best])


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(0, 1000))
def test_each_point_has_a_cell_of_its_own(n: int, seed: int) -> None:
    points = np.random.default_rng(seed).integers(0, 3, (n, 2)).astype(float)  # many lie on each other
    cells = grid_layout(points)
    assert len({tuple(cell) for cell in cells.tolist()}) == n
    assert cells.min() >= 0


def test_what_does_not_fit_is_told() -> None:
    values = np.zeros((5, 3))
    with pytest.raises(ValueError, match="dimensions must be from 1 to 3"):
        embed_pca(values, dimensions=4)
    with pytest.raises(ValueError, match="under the number of vectors, 5"):
        embed_tsne(values, key=jax.random.key(0), perplexity=5.0)
    with pytest.raises(ValueError, match="dimensions must be 2 or 3"):
        embed_tsne(values, key=jax.random.key(0), perplexity=2.0, dimensions=1)
    with pytest.raises(ValueError, match="no room for 5 points"):
        grid_layout(values[:, :2], shape=(2, 2))
    with pytest.raises(ValueError, match=r"points must be \[n, 2\]"):
        grid_layout(values)
    with pytest.raises(ValueError, match="NaN"):
        embed_pca(values + np.nan)
    with pytest.raises(ValueError, match="at least one"):
        embed_pca(np.zeros((0, 3)))
