"""Sheets: sizes, places, and marks."""

import numpy as np
import pytest

from vizsynth.cli.sheets import (
    activation_sheet,
    cut,
    filter_sheet,
    fitted,
    laid_out,
    neighbor_sheet,
    patch_sheet,
    raw_activation_sheet,
    relief,
)

RNG = np.random.default_rng(0)


def test_small_pictures_keep_their_pixels_square() -> None:
    picture = RNG.random((3, 2, 3)).astype(np.float32)
    large = fitted(picture, 10)
    assert large.shape == (9, 6, 3)
    np.testing.assert_array_equal(large[1::3, 1::3], picture)
    assert fitted(picture, 11).shape == (12, 8, 3)  # as near as whole numbers come
    assert fitted(RNG.random((40, 20)), 10).shape == (10, 5, 3)


@pytest.mark.parametrize(
    ("box", "before", "after"),
    [
        ((0, 3, 4, 9), (2, 0), (0, 0)),  # cut above
        ((5, 0, 11, 5), (0, 1), (0, 0)),  # cut on the left
        ((8, 7, 11, 12), (0, 0), (3, 1)),  # cut below and on the right
        ((4, 4, 8, 8), (1, 1), (1, 1)),  # of a smaller field
    ],
)
def test_what_the_border_cuts_off_is_missing_on_that_side(
    box: tuple[int, ...], before: tuple[int, int], after: tuple[int, int]
) -> None:
    image = 0.5 * RNG.random((11, 12, 3)).astype(np.float32)
    found = cut(image, box, (6, 6))
    assert found.shape == (6, 6, 3)
    inside = found[before[0] : 6 - after[0], before[1] : 6 - after[1]]
    np.testing.assert_array_equal(inside, image[box[0] : box[2], box[1] : box[3]])
    assert (found == 1).sum() == found.size - inside.size


def test_dead_and_constant_channels_do_not_look_like_others() -> None:
    values = np.full((3, 8, 8), 128 / 255, np.float32)
    dead, constant = np.array([False, True, False]), np.array([False, True, True])
    sheet = activation_sheet(values, dead, constant, side=8)
    plain, crossed, struck = (sheet[:, i * 9 : i * 9 + 8] for i in range(3))
    assert np.ptp(plain.reshape(-1, 3), axis=0).max() == 0
    assert sorted(np.unique(crossed)) == pytest.approx([0, 0.9])
    assert sorted(np.unique(struck)) == pytest.approx([0.35, 0.9])
    raw = np.stack([RNG.random((8, 8)), np.zeros((8, 8)), np.ones((8, 8))], axis=-1)
    sheet = raw_activation_sheet(raw, side=8)
    assert sorted(np.unique(sheet[:, 9:17])) == pytest.approx([0, 0.9])
    assert sorted(np.unique(sheet[:, 18:26])) == pytest.approx([0.35, 0.9])


def test_grey_filters_stand_in_columns() -> None:
    assert filter_sheet(np.zeros((6, 3, 3)), side=6, columns=2).shape == (22, 14, 3)


def test_relief_is_grey_at_zero() -> None:
    values = np.zeros((2, 2, 3))
    values[0, 0], values[1, 1] = 2, -1
    np.testing.assert_allclose(relief(values, percentile=100.0)[..., 0], [[1, 0.5], [0.5, 0.25]])
    many = np.zeros((20, 20, 3))
    many[5:15, 5:15] = 1
    many[7, 7, 0] = -1000
    np.testing.assert_allclose(relief(many), np.where(many == 0, 0.5, np.where(many > 0, 1, 0)))


def test_patches_stand_beside_their_maps() -> None:
    images = RNG.random((3, 12, 12, 3)).astype(np.float32)
    channels = {
        4: [(images[0], (0, 0, 5, 4)), (images[1], (2, 2, 8, 7))],
        9: [(images[2], (6, 6, 12, 11))],
        7: [],
    }
    notes = {channel: f"channel {channel}" for channel in channels}
    alone = patch_sheet(channels, notes=notes, side=60)
    asked = []

    def maps(channel: int, place: int) -> np.ndarray:
        asked.append((channel, place))
        return np.zeros((12, 12, 3))

    both = patch_sheet(channels, notes=notes, maps=maps, side=60)
    assert asked == [(4, 0), (4, 1), (9, 0)]
    assert both.shape[1] > alone.shape[1]
    assert alone.dtype == np.float32 and alone.min() >= 0 and alone.max() <= 1


def test_neighbors_stand_beside_their_query_in_frames_that_tell_their_class() -> None:
    blue = np.full((6, 6, 3), (0.1, 0.2, 0.9))  # no letter has it
    queries, rows = [np.zeros((6, 6))] * 2, [[blue] * 3] * 2
    same = {"layer": np.array([[True, False, True], [True, True, True]]), "pixels": np.zeros((2, 3), bool)}
    made = neighbor_sheet(queries, {"layer": rows, "pixels": rows}, same)
    green, red = (
        (np.abs(made - color).max(axis=-1) < 0.01).sum() for color in ((0.2, 0.65, 0.3), (0.85, 0.15, 0.15))
    )
    assert (green, red) == (5 * (12 * 12 - 6 * 6), 7 * (12 * 12 - 6 * 6))
    plain = neighbor_sheet(queries, {"layer": rows, "pixels": rows})
    assert (np.abs(plain - (0.1, 0.2, 0.9)).max(axis=-1) < 0.01).sum() == 12 * 6 * 6


def test_pictures_are_laid_into_their_cells() -> None:
    pictures = [np.full((3, 3, 3), value) for value in (0.1, 0.2)]
    made = laid_out(pictures, np.array([[1, 0], [0, 2]]), pad=0)
    assert made.shape == (6, 9, 3)
    np.testing.assert_allclose(made[3:, :3], 0.1)
    np.testing.assert_allclose(made[:3, 6:], 0.2)
    assert (made == 1).all(axis=-1).sum() == 6 * 9 - 2 * 9
