"""Nearest neighbours against all distances, written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny

import vizsynth
from vizsynth.inspection.neighbours import nearest_neighbors, same_class_share


def by_hand(values: np.ndarray, queries: np.ndarray | None, k: int) -> tuple[np.ndarray, np.ndarray]:
    indices, distances = [], []
    for i, query in enumerate(values if queries is None else queries):
        away = [(float(np.linalg.norm(query - v)), j) for j, v in enumerate(values)]
        if queries is None:
            away.pop(i)
        away.sort()
        indices.append([j for _, j in away[:k]])
        distances.append([d for d, _ in away[:k]])
    return np.array(indices), np.array(distances)


@pytest.mark.parametrize(("n", "k", "batch_size"), [(12, 1, 5), (12, 11, 4), (40, 3, 1000), (33, 5, 32)])
@pytest.mark.parametrize("other", [False, True])
def test_they_are_those_of_all_distances(x64: None, n: int, k: int, batch_size: int, other: bool) -> None:
    rng = np.random.default_rng(n)
    values = rng.normal(size=(n, 6)) + 1000  # far from the origin
    queries = rng.normal(size=(7, 6)) + 1000 if other else None
    found = nearest_neighbors(values, queries, k=k, batch_size=batch_size)
    indices, distances = by_hand(values, queries, k)
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_allclose(found.distances, distances, rtol=1e-10)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=6, max_size=6), st.integers(0, 2**31))
def test_of_two_as_near_the_earlier_comes_first(places: list[int], seed: int) -> None:
    values = np.array(places, np.float32)[:, None] * np.ones((1, 3), np.float32)
    found = nearest_neighbors(values, k=4, batch_size=1 + seed % 7)
    np.testing.assert_array_equal(found.indices, by_hand(values, None, 4)[0])


def test_batches_do_not_change_them() -> None:
    values = jax.random.normal(jax.random.key(0), (50, 9))
    whole = nearest_neighbors(values, k=6)
    parts = nearest_neighbors(values, k=6, batch_size=7)
    np.testing.assert_array_equal(whole.indices, parts.indices)
    np.testing.assert_array_equal(whole.distances, parts.distances)


def test_float32_keeps_the_order_of_what_lies_close_together() -> None:
    """The fast formula alone would see noise: squares of 1e6 hide differences of 1e-3."""
    values = np.concatenate([np.linspace(0, 1, 30)[:, None] ** 2, np.full((30, 1), 50.0)], axis=1)
    values[0] = (-2000, -2000)
    values = values.astype(np.float32)
    found = nearest_neighbors(values[1:], k=3)
    np.testing.assert_array_equal(found.indices, by_hand(values[1:].astype(float), None, 3)[0])


def test_shares_count_the_neighbors_of_ones_class() -> None:
    indices = np.array([[1, 2], [0, 2], [0, 1]])
    assert same_class_share(indices, np.array([0, 0, 1])).tolist() == [0.5, 0.5, 0.0]
    assert same_class_share(indices, np.array([0, 0, 1]), np.array([1, 1, 0])).tolist() == [0.5, 0.5, 1.0]
    with pytest.raises(ValueError, match="3 queries but labels of 2"):
        same_class_share(indices, np.array([0, 0, 1]), np.array([0, 1]))


def test_what_does_not_fit_is_told() -> None:
    values = jnp.zeros((4, 3))
    with pytest.raises(ValueError, match="3 other vectors; ask for fewer"):
        nearest_neighbors(values, k=4)
    with pytest.raises(ValueError, match="but there are 4 vectors"):
        nearest_neighbors(values, values[:2], k=5)
    with pytest.raises(ValueError, match=r"queries must be \[q, 3\]"):
        nearest_neighbors(values, jnp.zeros((2, 4)), k=1)
    with pytest.raises(ValueError, match="values must be floats"):
        nearest_neighbors(jnp.zeros((4, 3), jnp.int32), k=1)
    with pytest.raises(ValueError, match="k must be a positive integer"):
        nearest_neighbors(values, k=0)


def test_another_query_compiles_nothing_anew() -> None:
    values = jax.random.normal(jax.random.key(0), (20, 3))
    nearest_neighbors(values, values[:2], k=2)
    before = nearest_neighbors.compiled._cache_size()
    nearest_neighbors(values + 1, values[2:4], k=2)
    assert nearest_neighbors.compiled._cache_size() == before


def test_descriptors_are_means_over_positions() -> None:
    net, images = tiny("vgg").net, jax.random.uniform(jax.random.key(1), (5, 32, 32, 3))
    layer, last = net.layers[3], net.layers[-1]
    read = vizsynth.features(net, images, (layer, last))
    found = vizsynth.descriptors(net, images, layer=layer, batch_size=2)
    np.testing.assert_allclose(found, np.asarray(read[layer]).mean(axis=(1, 2)), rtol=1e-5, atol=1e-7)
    vectors = vizsynth.descriptors(net, images, layer=last)
    np.testing.assert_allclose(vectors, read[last], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="no layer 'nowhere'"):
        vizsynth.descriptors(net, images, layer="nowhere")
