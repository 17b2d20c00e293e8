import sys

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vizsynth import figures

maps = arrays(
    np.float32,
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    elements=st.floats(-(2.0**30), 2.0**30, width=32),
)


def is_picture(picture, height, width):
    return (
        isinstance(picture, np.ndarray)
        and picture.dtype == np.float32
        and picture.shape == (height, width, 3)
        and picture.min() >= 0
        and picture.max() <= 1
    )


@given(maps)
@settings(max_examples=40, deadline=None)
def test_any_finite_map_becomes_a_picture(heatmap):
    assert is_picture(figures.heat(heatmap), *heatmap.shape)
    assert is_picture(figures.signed(heatmap), *heatmap.shape)


@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.sampled_from([(1, 1), (3, 5), (40, 30)]))
@settings(max_examples=20, deadline=None)
def test_an_overlay_lies_in_the_unit_range(seed, alpha, size):
    rng = np.random.default_rng(seed)
    picture = figures.overlay(rng.random((16, 20, 3)), rng.normal(size=size), alpha=alpha)
    assert is_picture(picture, 16, 20)


def test_jax_arrays_of_every_float_type_are_taken():
    for dtype in (jnp.float32, jnp.float16, jnp.bfloat16):
        assert is_picture(figures.heat(jnp.eye(4, dtype=dtype)), 4, 4)
        assert is_picture(figures.overlay(jnp.ones((8, 8, 3), dtype), jnp.eye(4, dtype=dtype)), 8, 8)


def test_heat_runs_from_zero_to_the_largest_value():
    gray = figures.heat(np.asarray([[0.0, 1.0], [2.0, 4.0]]), colormap="gray")[..., 0]
    np.testing.assert_allclose(gray, [[0, 0.25], [0.5, 1]], atol=1 / 255)


def test_heat_clips_to_the_ends_given():
    gray = figures.heat(np.asarray([[0.0, 1.0, 9.0]]), colormap="gray", low=1, high=3)[..., 0]
    np.testing.assert_array_equal(gray, [[0, 0, 1]])


def test_a_map_of_zeros_is_the_low_end_of_the_colours():
    zeros = figures.heat(np.zeros((2, 2)), colormap="gray")
    np.testing.assert_array_equal(zeros, 0)
    np.testing.assert_array_equal(figures.heat(np.full((2, 2), -3.0), colormap="gray"), 0)
    np.testing.assert_array_equal(figures.signed(np.zeros((2, 2))), 1)


def test_signed_is_red_above_white_at_and_blue_below_zero():
    high, zero, low = figures.signed(np.asarray([[2.0, 0.0, -2.0]]))[0]
    assert high[0] > high[2] and low[2] > low[0]
    np.testing.assert_array_equal(zero, 1)


def test_signed_sums_channels():
    rgb = np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float32)
    np.testing.assert_allclose(figures.signed(rgb), figures.signed(rgb.sum(-1)), atol=1e-6)


def test_one_limit_shows_equal_values_in_equal_colours():
    weak, strong = np.asarray([[1.0, 0.5]]), np.asarray([[1.0, -4.0]])
    limit = figures.shared_limit([weak, strong])
    assert limit == 4
    a, b = (figures.signed(m, limit=limit) for m in (weak, strong))
    np.testing.assert_array_equal(a[0, 0], b[0, 0])


def test_one_range_shows_equal_values_in_equal_colours():
    weak, strong = np.asarray([[1.0, 0.5]]), np.asarray([[1.0, 4.0]])
    low, high = figures.shared_range(np.stack([weak, strong]))
    assert (low, high) == (0, 4)
    a, b = (figures.heat(m, low=low, high=high) for m in (weak, strong))
    np.testing.assert_array_equal(a[0, 0], b[0, 0])


def test_shared_scales_of_zeros_can_be_used():
    zeros = np.zeros((2, 2))
    low, high = figures.shared_range([zeros])
    figures.heat(zeros, low=low, high=high)
    figures.signed(zeros, limit=figures.shared_limit([zeros]))


def test_shared_limit_sums_channels_as_signed_does():
    assert figures.shared_limit([np.ones((2, 2, 3))]) == 3


def test_shared_scales_need_a_map():
    with pytest.raises(ValueError, match="at least one map"):
        figures.shared_range([])
    with pytest.raises(ValueError, match="at least one map"):
        figures.shared_limit([])


def test_overlay_blends():
    image, heatmap = np.full((4, 4, 3), 0.5), np.ones((2, 2))
    np.testing.assert_allclose(figures.overlay(image, heatmap, alpha=0), 0.5)
    colored = figures.overlay(image, heatmap, alpha=1, colormap="viridis")
    np.testing.assert_allclose(colored, figures.heat(np.ones((4, 4))), atol=1e-6)
    half = figures.overlay(image, heatmap, alpha=0.5, colormap="gray")
    np.testing.assert_allclose(half, 0.75, atol=1e-6)


def test_overlay_places_a_coarse_map_where_it_belongs():
    heatmap = np.zeros((4, 4))
    heatmap[0, 3] = 1
    colored = figures.overlay(np.zeros((64, 64, 3)), heatmap, alpha=1, colormap="gray")[..., 0]
    assert np.unravel_index(colored.argmax(), colored.shape) == (0, 56)  # the corner is flat
    assert colored[:8, 56:].min() > 0.99 and colored[32:].max() == 0 and colored[:, :32].max() == 0


def test_clip_percentile_keeps_signs_and_order():
    values = np.random.default_rng(1).normal(size=(30, 30)) ** 3
    clipped = figures.clip_percentile(values, 95)
    bound = np.percentile(np.abs(values), 95)
    np.testing.assert_allclose(np.abs(clipped).max(), bound, rtol=1e-6)
    np.testing.assert_array_equal(np.sign(clipped), np.sign(values))
    np.testing.assert_allclose(figures.clip_percentile(values, 100), values, rtol=1e-6)


def test_clip_percentile_leaves_a_sparse_map():
    sparse = np.zeros((30, 30))
    sparse[3, 4] = 7
    assert figures.clip_percentile(sparse).max() == 7


def test_grid_tiles_row_by_row():
    images = np.arange(1, 4, dtype=np.float32)[:, None, None, None] / 4 * np.ones((3, 2, 5, 3))
    tiled = figures.grid(images, columns=2, pad=1, background=0)
    assert is_picture(tiled, 5, 11)
    np.testing.assert_allclose(tiled[:2, :5], 0.25)
    np.testing.assert_allclose(tiled[:2, 6:], 0.5)
    np.testing.assert_allclose(tiled[3:, :5], 0.75)
    np.testing.assert_allclose(tiled[3:, 6:], 0)
    np.testing.assert_allclose(tiled[2], 0)


def test_grid_takes_grey_and_bytes_and_a_colour():
    pictures = [np.zeros((4, 4)), np.full((4, 4, 3), 255, np.uint8)]
    tiled = figures.grid(pictures, columns=2, pad=2, background=(1.0, 0.0, 0.0))
    np.testing.assert_array_equal(tiled[0, 4], [1, 0, 0])
    assert tiled[0, 0, 0] == 0 and tiled[0, -1, 0] == 1


def test_sheet_shows_every_picture_untouched():
    rng = np.random.default_rng(2)
    rows = [[rng.random((40, 50, 3)).astype(np.float32) for _ in range(3)] for _ in range(2)]
    made = figures.sheet(
        rows,
        title="A title",
        row_labels=["gradient", "integrated gradients"],
        column_labels=["cat", "dog", "a label that is much too long for its column"],
        captions=["0 … 1", "−0.3 … 0.4, ε = 8/255"],
    )
    assert is_picture(made, *made.shape[:2])
    windows = np.lib.stride_tricks.sliding_window_view(made, (4, 4, 3))[:, :, 0]
    for picture in (p for row in rows for p in row):
        assert (windows == picture[:4, :4]).all(axis=(-1, -2, -3)).sum() == 1
    np.testing.assert_array_equal(made[[0, -1]], 1)  # the margin is white
    np.testing.assert_array_equal(made[:, [0, -1]], 1)


def test_sheet_without_labels_and_with_empty_places():
    picture = np.zeros((40, 40, 3))
    made = figures.sheet([[picture, None], [picture]], pad=4)
    assert (made == 0).all(-1).sum() == 2 * 1600


def test_labels_leave_dark_grey_ink():
    picture = np.ones((40, 40, 3))
    bare = figures.sheet([[picture]])
    labelled = figures.sheet([[picture]], row_labels=["a method"], column_labels=["an image"])
    assert bare.min() == 1
    assert labelled.min() == pytest.approx(0.2, abs=0.05)


def test_letters_that_the_font_lacks_are_spelled_out():
    picture = np.zeros((64, 400, 3))
    for sign, spelled in [
        ("ε", "epsilon"),
        ("Σ", "Sigma"),
        ("×", "x"),
        ("é", "e"),
        ("ϵ", "epsilon"),
    ]:
        np.testing.assert_array_equal(figures.caption(picture, sign), figures.caption(picture, spelled))


def test_caption_is_broken_to_the_width_of_its_picture():
    picture = np.full((60, 80, 3), 0.5, np.float32)
    one, many = figures.caption(picture, "one"), figures.caption(picture, "many words " * 5)
    assert one.shape[1] == many.shape[1] == 80
    assert many.shape[0] > one.shape[0] > 60
    np.testing.assert_array_equal(one[:60], picture)
    assert is_picture(figures.caption(picture, ""), *figures.caption(picture, "").shape[:2])


def test_matplotlib_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "vizsynth\[figures\]"'):
        figures.heat(np.eye(3))
    assert is_picture(figures.signed(np.eye(3)), 3, 3)  # needs none


def test_pyplot_is_never_imported(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # where others imported it, too
    figures.heat(np.eye(3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: figures.heat(np.ones((2, 3, 3))), r"heatmap must be \[h, w\].*heatmaps\[0\]"),
        (lambda: figures.heat(np.asarray([[np.nan, 1.0]])), "1 values that are NaN"),
        (lambda: figures.heat(np.eye(2), colormap="virids"), "near names: viridis"),
        (lambda: figures.heat(np.eye(2), low=2, high=1), "high must be above low"),
        (lambda: figures.heat(np.eye(2), high=np.nan), "high must be a finite number"),
        (lambda: figures.signed(np.ones((2, 2, 4))), r"\[h, w\] or \[h, w, 3\]"),
        (lambda: figures.signed(np.eye(2), limit=0), "limit must be above 0"),
        (lambda: figures.overlay(np.ones((2, 2, 3)), np.eye(2), alpha=1.5), r"alpha must lie in"),
        (lambda: figures.overlay(np.full((2, 2, 3), 200.0), np.eye(2)), "looks like 0..255"),
        (lambda: figures.overlay(np.ones((1, 2, 2, 3)), np.eye(2)), r"image\[0\]"),
        (lambda: figures.overlay(np.ones((3, 8, 8)), np.eye(2)), "transpose"),
        (lambda: figures.clip_percentile(np.eye(2), 0), "percent must lie in"),
        (lambda: figures.grid([]), "at least one picture"),
        (lambda: figures.grid(np.ones((4, 4, 3))), r"image\[None\]"),
        (lambda: figures.grid([np.ones((2, 2)), np.ones((3, 2))]), "one size, not 2x2, 3x2"),
        (lambda: figures.grid([np.eye(2)], columns=0), "columns must be at least 1"),
        (lambda: figures.grid([np.eye(2)], pad=-1), "pad must be 0 or more"),
        (lambda: figures.sheet([[None]]), "at least one picture"),
        (lambda: figures.sheet([[np.eye(2)]], row_labels=["a", "b"]), "row_labels must be one for"),
        (lambda: figures.sheet([[np.eye(2)]], column_labels=[]), "column_labels must be one for"),
        (lambda: figures.sheet([[np.eye(2)]], captions=["a", "b"]), "captions must be one for"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_integers_other_than_bytes_are_no_picture():
    with pytest.raises(TypeError, match="float in \\[0, 1\\] or uint8, not int64"):
        figures.as_picture(np.ones((2, 2, 3), np.int64))


def test_a_title_may_be_wider_than_the_pictures() -> None:
    made = figures.sheet([[np.zeros((20, 20, 3))]], title="an_uncommonly_long_word")
    assert made.shape[1] > 100


def test_stretch_makes_the_largest_departure_black_or_white() -> None:
    image = np.full((4, 4, 3), 0.5, np.float32)
    image[0, 0], image[3, 3] = 0.6, 0.45
    made = figures.stretch(image, center=0.5, percentile=100.0)
    np.testing.assert_allclose(made[0, 0], 1, atol=1e-6)
    np.testing.assert_allclose(made[3, 3], 0.25, atol=1e-6)
    np.testing.assert_allclose(made[1, 1], 0.5)


def test_scattered_pictures_lie_at_their_points() -> None:
    points = np.array([[0.0, 0.0], [10.0, 5.0], [5.0, 5.0]])
    colors = np.eye(3)
    pictures = [np.full((4, 6, 3), c) for c in colors]
    made = figures.scatter(points, pictures, size=(20, 46))
    np.testing.assert_array_equal(made[16:, :6], np.broadcast_to(colors[0], (4, 6, 3)))  # low left
    np.testing.assert_array_equal(made[:4, 40:], np.broadcast_to(colors[1], (4, 6, 3)))  # high right
    np.testing.assert_array_equal(made[:4, 20:26], np.broadcast_to(colors[2], (4, 6, 3)))
    assert (made == 1).all(axis=-1).sum() == 20 * 46 - 3 * 24
    framed = figures.scatter(points[:1], pictures[:1], size=(20, 46), frames=colors[1:2])
    assert (framed == colors[1]).all(axis=-1).sum() == 8 * 10 - 24
    with pytest.raises(ValueError, match=r"points must be \[2, 2\]"):
        figures.scatter(points, pictures[:2])
    with pytest.raises(ValueError, match="frames must be"):
        figures.scatter(points, pictures, frames=colors[:2])
    with pytest.raises(ValueError, match="do not fit"):
        figures.scatter(points, pictures, size=(3, 50))
