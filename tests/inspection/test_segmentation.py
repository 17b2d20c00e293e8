"""Masks from saliency maps."""

import numpy as np
import pytest

from vizsynth.inspection.segmentation import _largest, intersection_over_union, segment


def scene(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a red disc on green with noise, the disc, and a coarse map that points at it."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:60, :80]
    disc = (y - 34) ** 2 + (x - 30) ** 2 < 15**2
    image = np.where(disc[..., None], (0.8, 0.2, 0.2), (0.2, 0.6, 0.3)) + rng.normal(size=(60, 80, 3)) * 0.05
    heatmap = np.exp(-((y - 30) ** 2 + (x - 33) ** 2) / 300) + 0.02 * rng.normal(size=(60, 80))
    return np.clip(image, 0, 1), disc, heatmap


def test_a_coarse_map_becomes_an_exact_mask() -> None:
    image, disc, heatmap = scene()
    mask = segment(image, heatmap)
    assert intersection_over_union(mask, disc) > 0.97
    assert intersection_over_union(heatmap > np.quantile(heatmap, 0.95), disc) < 0.5


def test_only_the_largest_piece_is_kept() -> None:
    pieces = np.array([[1, 0, 1, 1], [1, 0, 0, 1], [0, 1, 0, 0]], bool)
    kept = np.array([[0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0]], bool)
    np.testing.assert_array_equal(_largest(pieces), kept)
    assert not _largest(pieces & ~pieces).any()


def test_runs_are_alike() -> None:
    image, _, heatmap = scene()
    mask = segment(image, heatmap)
    np.testing.assert_array_equal(mask, segment(image, heatmap))


def test_maps_that_are_zero_in_most_places_have_seeds() -> None:
    image, disc, heatmap = scene()
    assert intersection_over_union(segment(image, np.maximum(heatmap - 0.1, 0)), disc) > 0.9
    single = np.zeros(disc.shape)
    single[34, 30] = 1
    assert segment(image, single).shape == disc.shape
    assert not segment(image, np.ones(disc.shape)).any()


def test_overlap() -> None:
    a = np.array([[1, 1, 0, 0]], bool)
    assert intersection_over_union(a, a) == 1
    assert intersection_over_union(a, ~a) == 0
    assert intersection_over_union(a & ~a, a & ~a) == 1
    with pytest.raises(ValueError, match="one shape"):
        intersection_over_union(a, a.T)


def test_what_does_not_fit_is_told() -> None:
    image, _, heatmap = scene()
    with pytest.raises(ValueError, match="resize it"):
        segment(image, heatmap[:-1])
    with pytest.raises(ValueError, match=r"image must be \[h, w, 3\]"):
        segment(image[..., 0], heatmap)
    with pytest.raises(ValueError, match="quantiles"):
        segment(image, heatmap, foreground=0.2, background=0.3)
    with pytest.raises(ValueError, match="NaN"):
        segment(image, heatmap * np.nan)
    with pytest.raises(ValueError, match="iterations"):
        segment(image, heatmap, iterations=0)
