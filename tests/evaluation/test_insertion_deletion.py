"""Deletion and insertion against a loop over pixels, closed forms, and torch-cam's conventions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from evaluated import LABELS, SIZE, N, heatmaps, images, linear, network, order, probability, upsampled
from tiny import tiny

import vizsynth
from vizsynth.evaluation import insertion_deletion
from vizsynth.models import with_attributes
from vizsynth.scores import Class, LogProbability

STEPS = 7  # does not divide 99 pixels


def _slow(net, before, after, maps, steps):
    f = probability(net)
    scores = []
    for x, y, heatmap, label in zip(before, after, maps, LABELS, strict=True):
        ranking, row = order(heatmap), []
        for k in range(steps + 1):
            mixed = x.copy()
            for p in ranking[: k * len(ranking) // steps]:
                mixed[p] = y[p]
            row.append(f(mixed, label))
        scores.append(row)
    pixels = maps[0].size
    fractions = np.asarray([k * pixels // steps / pixels for k in range(steps + 1)])
    return fractions, np.asarray(scores), np.trapezoid(scores, fractions, axis=1)


@pytest.mark.parametrize(("baseline", "size"), [("number", SIZE), ("image", (3, 4)), ("images", SIZE)])
def test_follows_the_paper(x64, baseline, size):
    net, x, maps = network(np.float64), images(np.float64), heatmaps(np.float64, size)
    rng = np.random.default_rng(0)
    b = {"number": 0.3, "image": rng.random((*SIZE, 3)), "images": rng.random((N, *SIZE, 3))}[baseline]
    whole, gone = np.asarray(x), np.broadcast_to(b, x.shape)
    large = [upsampled(np.asarray(m), SIZE) for m in maps]
    deleted = vizsynth.deletion(net, x, LABELS, maps, steps=STEPS, baseline=b, batch_size=3)
    inserted = vizsynth.insertion(net, x, LABELS, maps, steps=STEPS, baseline=b, batch_size=3)
    for curve, ends in ((deleted, (whole, gone)), (inserted, (gone, whole))):
        for ours, slow in zip(curve, _slow(net, *ends, large, STEPS), strict=True):
            assert ours.dtype == np.float64
            np.testing.assert_allclose(ours, slow, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("start", "steps", "batch_size"), [(None, 1, 8), ("another", STEPS, 3), (None, STEPS, 1)]
)
def test_both_at_once_follow_the_paper(x64, start, steps, batch_size):
    net, x, maps = network(np.float64), images(np.float64), heatmaps(np.float64)
    rng = np.random.default_rng(0)
    gone = rng.random((N, *SIZE, 3))
    canvas = gone if start is None else rng.random((N, *SIZE, 3))
    options = {"baseline": gone, "start": start and canvas, "batch_size": batch_size}
    curves = vizsynth.deletion_and_insertion(net, x, LABELS, maps, steps=steps, **options)
    whole, large = np.asarray(x), [np.asarray(m) for m in maps]
    for curve, ends in ((curves.deletion, (whole, gone)), (curves.insertion, (canvas, whole))):
        for ours, slow in zip(curve, _slow(net, *ends, large, steps), strict=True):
            assert ours.dtype == np.float64
            np.testing.assert_allclose(ours, slow, rtol=0, atol=1e-10)


def test_both_at_once_run_2_pictures_a_step(monkeypatch):
    net, x, maps = network(), images(), heatmaps()
    points = []
    kept = insertion_deletion.each

    def each(score, xs, batch_size):
        points.append(len(jax.tree.leaves(xs)[0]))
        return kept(score, xs, batch_size)

    monkeypatch.setattr(insertion_deletion, "each", each)
    curves = vizsynth.deletion_and_insertion(net, x, LABELS, maps, steps=5)
    assert (curves.deletion.scores[:, -1] == curves.insertion.scores[:, 0]).all()
    vizsynth.deletion_and_insertion(net, x, LABELS, maps, steps=5, start=vizsynth.blurred(x))
    assert points == [10, 11]


def test_equal_values_go_in_the_order_of_the_rows():
    net, x = network(), images()
    maps = jnp.zeros((N, *SIZE)).at[:, ::2].set(-0.0)  # 0 and -0 are equal
    curve = vizsynth.deletion(net, x, LABELS, maps, steps=SIZE[0])
    f = probability(net)
    upper_rows_gone = np.asarray(x[0]).copy()
    upper_rows_gone[:4] = 0
    np.testing.assert_allclose(curve.scores[0, 4], f(upper_rows_gone, LABELS[0]), atol=1e-6)


def test_insertion_starts_from_a_blur():
    net, x, maps = network(), images(), heatmaps()
    default = vizsynth.insertion(net, x, LABELS, maps, steps=4)
    same = vizsynth.insertion(net, x, LABELS, maps, steps=4, baseline=vizsynth.blurred(x, 5.0))
    other = vizsynth.insertion(net, x, LABELS, maps, steps=4, baseline=vizsynth.blurred(x, 0.5))
    np.testing.assert_allclose(default.scores, same.scores, atol=1e-6)
    assert np.abs(default.scores[:, 0] - other.scores[:, 0]).min() > 1e-5
    flat = vizsynth.blurred(x, 50.0)
    assert float(flat.std(axis=(1, 2)).max()) < 0.3 * float(x.std(axis=(1, 2)).min())


def test_a_linear_network_loses_what_each_pixel_gives(x64):
    net, x = linear(np.float64), images(np.float64)
    given = vizsynth.input_x_gradient(net, x, LABELS).sum(-1)
    curve = vizsynth.deletion(net, x, Class(jnp.asarray(LABELS)), given, steps=given[0].size)
    falling = np.sort(np.asarray(given).reshape(N, -1), axis=1)[:, ::-1]
    nothing = np.asarray(net(jnp.zeros_like(x)))[np.arange(N), LABELS]
    left = np.concatenate([np.zeros((N, 1)), np.cumsum(falling, axis=1)], axis=1)
    expected = nothing[:, None] + left[:, -1:] - left
    np.testing.assert_allclose(curve.scores, expected, atol=1e-10)
    worse = vizsynth.deletion(net, x, Class(jnp.asarray(LABELS)), -given, steps=given[0].size)
    assert (worse.area > curve.area).all()


def test_a_label_means_its_probability_and_a_score_itself():
    net, x, maps = network(), images(), heatmaps()
    p = vizsynth.deletion(net, x, LABELS, maps, steps=3).scores
    log_p = vizsynth.deletion(net, x, LogProbability(jnp.asarray(LABELS)), maps, steps=3).scores
    np.testing.assert_allclose(jnp.log(p), log_p, rtol=1e-4)


def test_does_not_depend_on_chunks_or_on_the_batch():
    net, x, maps = network(), images(), heatmaps()
    whole = vizsynth.deletion(net, x, LABELS, maps, steps=10, batch_size=11)
    for batch_size in (1, 4):
        again = vizsynth.deletion(net, x, LABELS, maps, steps=10, batch_size=batch_size)
        np.testing.assert_allclose(again.scores, whole.scores, atol=1e-6)
    for i in range(N):
        alone = vizsynth.deletion(net, x[i : i + 1], int(LABELS[i]), maps[i : i + 1], steps=10)
        np.testing.assert_allclose(alone.scores[0], whole.scores[i], atol=1e-6)


@pytest.mark.parametrize("function", [vizsynth.deletion, vizsynth.deletion_and_insertion])
def test_numbers_do_not_compile_anew(function):
    net, x = network(), images()
    before = function.compiled._cache_size()
    for label, baseline in ((0, 0.0), (1, 0.25), (2, 0.5)):
        function(net, x, label, heatmaps(seed=label), steps=6, baseline=baseline)
    assert function.compiled._cache_size() - before == 1


def test_torch_cam_zeros_are_the_mean_color(x64):
    # torch-cam deletes from standardized images, down to zero, in 20 steps.
    subject = tiny("sequential")
    net = vizsynth.models.with_precision(subject.net, np.float64)
    x = subject.images(2, dtype=np.float64)
    maps = jnp.asarray(np.random.default_rng(1).normal(size=x.shape[:3]))
    bare = with_attributes(net, standardize=None)
    theirs = vizsynth.deletion(bare, net.standardize(x), 3, maps, steps=20, baseline=0.0)
    mean = jnp.broadcast_to(jnp.asarray(net.standardize.mean), x.shape[1:])
    ours = vizsynth.deletion(net, x, 3, maps, steps=20, baseline=mean)
    np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-12)


def test_works_under_vmap_over_labels():
    net, x, maps = network(), images(), heatmaps()

    def areas(label):
        return [curve.area for curve in vizsynth.deletion_and_insertion(net, x, label, maps, steps=4)]

    at_once = jax.vmap(areas)(jnp.arange(3))
    for label in range(3):
        gone = vizsynth.deletion(net, x, label, maps, steps=4).area
        come = vizsynth.insertion(net, x, label, maps, steps=4, baseline=0.0).area
        np.testing.assert_allclose(at_once[0][label], gone, atol=1e-6)
        np.testing.assert_allclose(at_once[1][label], come, atol=1e-6)


@pytest.mark.parametrize("function", [vizsynth.deletion, vizsynth.insertion, vizsynth.deletion_and_insertion])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heatmaps": jnp.zeros((2, *SIZE))}, "3 images need 3 heatmaps, not 2"),
        ({"heatmaps": jnp.zeros((N, *SIZE, 3))}, "reduce the channels"),
        ({"heatmaps": jnp.zeros(SIZE)}, r"give heatmaps\[None\]"),
        ({"heatmaps": jnp.zeros((N, 30, 30))}, "larger than their images"),
        ({"heatmaps": np.full((N, *SIZE), np.nan)}, "NaN"),
        ({"heatmaps": jnp.zeros((N, *SIZE), jnp.int32)}, "float"),
        ({"steps": 0}, "steps must be a positive integer"),
        ({"batch_size": 0}, "batch_size must be a positive integer"),
        ({"baseline": jnp.zeros((4, 4, 3))}, "baseline must be"),
        ({"baseline": jnp.nan}, "NaN"),
        ({"target": 9}, "outside the network's 5 classes"),
    ],
)
def test_says_what_is_wrong(function, changes, message):
    arguments = {"net": network(), "images": images(), "target": LABELS, "heatmaps": heatmaps()} | changes
    with pytest.raises((TypeError, ValueError), match=message):
        function(**arguments)


def test_says_which_of_two_baselines_is_wrong():
    with pytest.raises(ValueError, match="start must be a number"):
        vizsynth.deletion_and_insertion(
            network(), images(), LABELS, heatmaps(), start=jnp.zeros((4, 4, 3)), baseline=0.5
        )


def test_a_heatmap_that_is_not_finite_and_not_seen_gives_nan():
    broken = heatmaps().at[1, 0, 0].set(jnp.nan)
    for function in (vizsynth.deletion, vizsynth.insertion):
        found = function(network(), images(), LABELS, broken, steps=2)
        assert np.isnan(found.area).tolist() == [False, True, False]
        assert np.isnan(found.scores).all(axis=1).tolist() == [False, True, False]
