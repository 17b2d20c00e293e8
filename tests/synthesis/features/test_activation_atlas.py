"""Activation grids and atlases: the directions of their cells by hand, their pictures against one by one."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import random_images
from visualized import SIZE, TRANSFORM, doubled, network

import vizsynth
from vizsynth.scores import Direction

KEY = jax.random.key(6)
RNG = np.random.default_rng(6)
PHOTO = random_images(1, 16, 20)[0]

HOW = vizsynth.Optimization(transform=TRANSFORM)
grid = partial(vizsynth.activation_grid, network(), PHOTO, size=SIZE, optimization=HOW)
atlas = partial(vizsynth.activation_atlas, network(), size=SIZE, optimization=HOW)


def test_a_cells_picture_is_that_of_its_mean_direction() -> None:
    found = grid("relu1", key=KEY, cells=(2, 3), steps=4, batch_size=4)
    assert found.images.shape == (6, *SIZE, 3)
    assert found.trace.shape == (6, 4)
    A = np.asarray(vizsynth.features(network(), PHOTO[None], ("relu1",))["relu1"])[0]
    assert A.shape == (7, 9, 6)
    for n, (i, j) in enumerate(np.ndindex(2, 3)):
        rows = A[i * 7 // 2 : -(-(i + 1) * 7 // 2)]  # bins that share a row where they do not divide it
        v = rows[:, j * 3 : (j + 1) * 3].mean(axis=(0, 1))
        alone = vizsynth.visualize_feature(
            network(), Direction("relu1", v, 2.0), key=KEY, steps=4, size=SIZE, optimization=HOW
        )
        np.testing.assert_allclose(found.images[n], alone.images[0], atol=1e-5)
        np.testing.assert_allclose(found.trace[n], alone.trace[0], rtol=1e-4, atol=1e-6)


def test_without_cells_each_place_is_one() -> None:
    found = grid("relu2", key=KEY, steps=0)
    assert found.images.shape == (5 * 7, *SIZE, 3)


def test_a_grid_goes_on_bit_for_bit() -> None:
    options = {"cells": (2, 2), "batch_size": 3}
    whole = grid("relu1", key=KEY, steps=4, **options)
    half = grid("relu1", key=KEY, steps=2, **options)
    rest = grid("relu1", steps=2, state=half.state, **options)
    np.testing.assert_array_equal(rest.images, whole.images)


@pytest.mark.parametrize(
    ("layer", "options", "error", "message"),
    [
        ("relu9", {}, ValueError, "no layer 'relu9'"),
        ("logits", {}, ValueError, "logits has no places"),
        ("relu1", {"cells": (8, 3)}, ValueError, r"cells must be \(rows, columns\) of at most \(7, 9\)"),
        ("relu1", {"cells": (0, 3)}, ValueError, "cells must be"),
        ("relu1", {"key": None}, TypeError, "a run that begins needs a key"),
        ("relu1", {"cells": (2, 2), "key": jax.random.split(KEY, 3)}, ValueError, "one key or 4 keys"),
        ("relu1", {"batch_size": 0}, ValueError, "batch_size must be"),
        ("relu1", {"steps": -1}, ValueError, "steps must be"),
    ],
)
def test_what_no_grid_is_of(layer: str, options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        grid(layer, **({"key": KEY, "steps": 1} | options))


def test_a_state_of_another_grid_is_refused() -> None:
    state = grid("relu1", key=KEY, cells=(2, 2), steps=0).state
    with pytest.raises(ValueError, match="the state is of 4 pictures, the grid has 6"):
        grid("relu1", cells=(2, 3), steps=1, state=state)


# Atlases ------------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("shape", [4, (3, 5)])
def test_cells_are_means_of_what_lies_in_them(shape: Any) -> None:
    rows, cols = (shape, shape) if isinstance(shape, int) else shape
    A, layout = RNG.normal(size=(60, 7)), RNG.normal(size=(60, 2)) * [3.0, 0.2] + [5.0, -1.0]
    cells = vizsynth.atlas_cells(jnp.asarray(A), jnp.asarray(layout), grid=shape, least=3)
    low, high = layout.min(axis=0), layout.max(axis=0)
    counts = np.zeros((rows, cols), int)
    sums = np.zeros((rows, cols, 7))
    for a, place in zip(A, layout, strict=True):
        x, y = (place - low) / (high - low)
        r, c = min(int(y * rows), rows - 1), min(int(x * cols), cols - 1)
        counts[r, c] += 1
        sums[r, c] += a
    np.testing.assert_array_equal(cells.counts, counts)
    assert counts.sum() == 60
    np.testing.assert_array_equal(cells.occupied, counts >= 3)
    expected = sums / np.maximum(counts, 1)[..., None]
    np.testing.assert_allclose(cells.directions, expected, rtol=0, atol=1e-10)


def test_a_layout_of_one_place_is_one_cell() -> None:
    cells = vizsynth.atlas_cells(jnp.ones((4, 2)), jnp.full((4, 2), 3.0), grid=2, least=1)
    assert cells.counts.tolist() == [[4, 0], [0, 0]]
    assert cells.occupied.tolist() == [[True, False], [False, False]]


def test_cells_do_not_compile_anew_for_another_least() -> None:
    A, layout = jnp.ones((4, 2)), jnp.asarray(RNG.random((4, 2)).astype(np.float32))
    vizsynth.atlas_cells(A, layout, grid=2, least=1)
    programs = vizsynth.atlas_cells.compiled._cache_size()
    vizsynth.atlas_cells(A, layout, grid=2, least=4)
    assert vizsynth.atlas_cells.compiled._cache_size() == programs


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_whitening_is_the_inverse_of_the_second_moments(ridge: float) -> None:
    A = RNG.normal(size=(30, 4)) * [1.0, 5.0, 0.3, 2.0]
    moments = np.zeros((4, 4))
    for a in A:
        moments += np.outer(a, a) / 30
    expected = np.linalg.inv(moments + ridge * np.trace(moments) / 4 * np.eye(4))
    found = vizsynth.whitening(jnp.asarray(A), ridge=ridge)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


def test_a_ridge_whitens_fewer_activations_than_channels() -> None:
    found = vizsynth.whitening(jnp.asarray(RNG.normal(size=(3, 8)).astype(np.float32)))
    assert np.isfinite(found).all()


def test_an_atlas_is_the_pictures_of_its_directions() -> None:
    v = jnp.asarray(RNG.random((3, 6)).astype(np.float32))
    found = atlas(v, "relu1", key=KEY, steps=3, batch_size=2, cosine_power=4.0)
    assert found.images.shape == (3, *SIZE, 3)
    alone = vizsynth.visualize_feature(
        network(), Direction("relu1", v, 4.0), key=KEY, steps=3, size=SIZE, optimization=HOW
    )
    np.testing.assert_allclose(found.images, alone.images, atol=1e-5)
    programs = vizsynth.activation_atlas.compiled._cache_size()
    atlas(
        2 * v,
        "relu1",
        key=KEY,
        steps=3,
        batch_size=2,
        cosine_power=1.0,
        optimization=replace(HOW, learning_rate=0.1),
    )
    assert vizsynth.activation_atlas.compiled._cache_size() == programs


@pytest.mark.usefixtures("x64")
def test_double_precision_is_double() -> None:
    net, _ = doubled()
    photo = jnp.asarray(np.asarray(PHOTO, np.float64))
    options = {"key": KEY, "steps": 1, "size": SIZE, "optimization": HOW}
    found = vizsynth.activation_grid(net, photo, "relu1", cells=(1, 2), **options)
    assert found.images.dtype == found.trace.dtype == np.float64
    found = vizsynth.activation_atlas(net, jnp.ones((2, 6)), "relu1", **options)
    assert found.images.dtype == found.trace.dtype == np.float64


def test_what_no_atlas_is_of() -> None:
    ones = jnp.ones((4, 3))
    with pytest.raises(ValueError, match=r"layout must hold \(x, y\)"):
        vizsynth.atlas_cells(ones, jnp.ones((3, 2)))
    with pytest.raises(ValueError, match=r"activations must be \[N, c\]"):
        vizsynth.whitening(jnp.ones((0, 4)))
    with pytest.raises(ValueError, match=r"layout hold NaN"):
        vizsynth.atlas_cells(ones, np.full((4, 2), np.nan))
    with pytest.raises(ValueError, match="grid must be positive"):
        vizsynth.atlas_cells(ones, jnp.ones((4, 2)), grid=0)
    with pytest.raises(ValueError, match="least must be at least 1"):
        vizsynth.atlas_cells(ones, jnp.ones((4, 2)), least=0)
    with pytest.raises(ValueError, match="ridge must be at least 0"):
        vizsynth.whitening(ones, ridge=-1.0)
    with pytest.raises(ValueError, match="a direction in relu1 has 6 numbers"):
        atlas(ones, "relu1", key=KEY, steps=1)
    with pytest.raises(TypeError, match="a run that begins needs a key"):
        atlas(jnp.ones((4, 6)), "relu1", steps=1)
