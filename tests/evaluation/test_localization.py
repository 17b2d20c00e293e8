"""The pointing game and the energy in the box, against loops over pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from evaluated import SIZE, N, heatmaps, upsampled
from hypothesis import given
from hypothesis import strategies as st

import vizsynth


@given(st.integers(0, 10**6))
def test_follow_the_papers(seed):
    rng = np.random.default_rng(seed)
    maps = np.round(rng.normal(size=(N, *SIZE)).astype(np.float32), 1 if seed % 2 else 6)
    top, left = rng.integers(0, SIZE[0] - 1, N), rng.integers(0, SIZE[1] - 1, N)
    bottom = top + 1 + rng.integers(0, SIZE[0] - top)
    right = left + 1 + rng.integers(0, SIZE[1] - left)
    boxes = np.stack([top, left, bottom, right], axis=1)
    tolerance = float(rng.choice([0, 1, 1.5, 3]))
    hits = vizsynth.pointing_game(jnp.asarray(maps), jnp.asarray(boxes), tolerance=tolerance).hits
    energy = vizsynth.energy_in_box(jnp.asarray(maps), jnp.asarray(boxes))
    for heatmap, (t, l, b, r), hit, share in zip(maps, boxes, hits, energy, strict=True):
        box = [(i, j) for i in range(t, b) for j in range(l, r)]
        near = [min(np.hypot(i - y, j - x) for y, x in box) for i, j in np.argwhere(heatmap == heatmap.max())]
        np.testing.assert_allclose(hit, np.mean([d <= tolerance for d in near]), atol=1e-6)
        positive = np.maximum(heatmap.astype(np.float64), 0)
        np.testing.assert_allclose(share, sum(positive[p] for p in box) / positive.sum(), atol=1e-5)


def test_boxes_are_half_open():
    boxes = jnp.asarray([[2, 3, 5, 7]] * 4)
    corners = [(2, 3), (4, 6), (5, 6), (4, 7)]
    maps = jnp.stack([jnp.zeros((10, 10)).at[p].set(1.0) for p in corners])
    found = vizsynth.pointing_game(maps, boxes)
    assert found.hits.tolist() == [1, 1, 0, 0]
    assert found.points.tolist() == [list(p) for p in corners]
    assert vizsynth.pointing_game(maps, boxes, tolerance=1).hits.tolist() == [1, 1, 1, 1]
    assert vizsynth.energy_in_box(maps, boxes).tolist() == [1, 1, 0, 0]


def test_a_constant_map_scores_by_chance():
    boxes = jnp.asarray([[0, 0, 5, 4]])
    np.testing.assert_allclose(vizsynth.pointing_game(jnp.zeros((1, 10, 10)), boxes).hits, 0.2)
    assert vizsynth.energy_in_box(jnp.zeros((1, 10, 10)), boxes).tolist() == [0.0]
    assert vizsynth.energy_in_box(-jnp.ones((1, 10, 10)), boxes).tolist() == [0.0]


def test_small_maps_are_brought_to_the_boxes():
    maps, boxes = heatmaps(size=(3, 4)), jnp.asarray([[0, 0, 9, 6]] * N)
    large = jnp.asarray(np.stack([upsampled(np.asarray(m), (18, 24)) for m in maps]).astype(np.float32))
    small = vizsynth.energy_in_box(maps, boxes, size=(18, 24))
    np.testing.assert_allclose(small, vizsynth.energy_in_box(large, boxes), atol=1e-5)
    hits = vizsynth.pointing_game(maps, boxes, size=(18, 24), tolerance=2.0).hits
    np.testing.assert_allclose(hits, vizsynth.pointing_game(large, boxes, tolerance=2.0).hits, atol=1e-5)


def test_boxes_may_be_traced():
    maps, boxes = heatmaps(), jnp.asarray([[0, 0, 4, 6]] * N)
    np.testing.assert_allclose(
        jax.jit(vizsynth.energy_in_box)(maps, boxes), vizsynth.energy_in_box(maps, boxes), rtol=1e-6
    )


@pytest.mark.parametrize("function", [vizsynth.pointing_game, vizsynth.energy_in_box])
@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([[0, 0, 9, 12]] * N, "within 9x11; box 0"),
        ([[0, 0, 3, 3], [0, 0, 3, 3], [-1, 0, 3, 3]], "box 2"),
        ([[3, 3, 3, 5]] * N, "half open"),
        ([[5, 3, 2, 5]] * N, "half open"),
        ([[0, 0, 3, 3]], r"boxes must be \[3, 4\]"),
        ([0, 0, 3, 3], r"boxes must be \[3, 4\]"),
    ],
)
def test_says_what_is_wrong_with_a_box(function, boxes, message):
    with pytest.raises(ValueError, match=message):
        function(heatmaps(), np.asarray(boxes))


def test_says_what_else_is_wrong():
    boxes = jnp.asarray([[0, 0, 3, 3]] * N)
    with pytest.raises(ValueError, match="NaN"):
        vizsynth.pointing_game(np.full((N, *SIZE), np.nan), boxes)
    with pytest.raises(ValueError, match="tolerance"):
        vizsynth.pointing_game(heatmaps(), boxes, tolerance=-1)
    with pytest.raises(ValueError, match="larger"):
        vizsynth.pointing_game(heatmaps(), boxes, size=(4, 4))
    with pytest.raises(ValueError, match="give size="):
        vizsynth.energy_in_box(heatmaps(), np.asarray([[0, 0, 30, 30]] * N))
