"""Integrated gradients: the sum by hand, its axioms, the doubling of steps, and memory."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.polynomial.legendre import leggauss
from subjects import BY_HAND, LABELS, ByHand, assert_equal, by_hand
from tiny import random_images, tiny

import vizsynth
from vizsynth.models import fold_batch_norm, sequential, with_precision
from vizsynth.models.sequential import Conv, Dense, Flatten, GlobalMean, ReLU
from vizsynth.scores import Class
from vizsynth.taps import passthrough

x64 = pytest.mark.usefixtures("x64")


def summed_by_hand(subject: ByHand, start: np.ndarray, steps: int) -> np.ndarray:
    """Return (x − x′) Σ_k w_k ∂F(x′ + α_k (x − x′)), one step after another."""
    nodes, weights = leggauss(steps)
    integral = np.zeros_like(subject.pixels)
    for node, weight in zip(nodes, weights, strict=True):
        alpha = (1 + node) / 2
        integral += weight / 2 * subject.hand.gradient(start + alpha * (subject.pixels - start), LABELS)
    return (subject.pixels - start) * integral


def scores(subject: ByHand, pixels: Any) -> np.ndarray:
    return subject.hand.logits(np.broadcast_to(pixels, subject.pixels.shape))[np.arange(3), LABELS]


def baselines(pixels: np.ndarray) -> list[Any]:
    one = np.random.default_rng(7).random(pixels.shape[1:])
    return [0.0, 0.5, one, np.random.default_rng(8).random(pixels.shape)]


@x64
@pytest.mark.parametrize("name", BY_HAND)
@pytest.mark.parametrize("which", range(4), ids=["black", "grey", "one image", "one for each"])
def test_it_is_the_quadrature_by_hand(name: str, which: int) -> None:
    subject = by_hand(name)
    baseline = baselines(subject.pixels)[which]
    given = baseline if np.ndim(baseline) == 0 else jnp.asarray(baseline)
    ours = vizsynth.integrated_gradients(subject.net, subject.images, LABELS, baseline=given, steps=7)
    assert_equal(ours, summed_by_hand(subject, np.broadcast_to(baseline, subject.pixels.shape), 7))


@x64
@pytest.mark.parametrize("which", range(4), ids=["black", "grey", "one image", "one for each"])
def test_completeness_is_the_sum_less_the_change_of_the_score(which: int) -> None:
    subject = by_hand("sequential")
    baseline = baselines(subject.pixels)[which]
    given = baseline if np.ndim(baseline) == 0 else jnp.asarray(baseline)
    maps = np.random.default_rng(3).normal(size=subject.pixels.shape)
    ours = vizsynth.completeness(subject.net, subject.images, LABELS, jnp.asarray(maps), baseline=given)
    change = scores(subject, subject.pixels) - scores(subject, baseline)
    assert_equal(ours, maps.sum(axis=(1, 2, 3)) - change)


@x64
def test_it_is_complete_up_to_the_kinks_of_the_relu() -> None:
    subject = by_hand("sequential")
    errors = []
    for steps in (4, 32, 256):
        maps = vizsynth.integrated_gradients(subject.net, subject.images, LABELS, steps=steps, batch_size=64)
        delta = vizsynth.completeness(subject.net, subject.images, LABELS, maps)
        errors.append(float(jnp.abs(delta).max()))
    change = np.abs(scores(subject, subject.pixels) - scores(subject, 0.0)).max()
    assert errors[2] < 4e-3 * change
    assert errors[2] < errors[1] / 2 < errors[0] / 10


@x64
def test_a_linear_network_is_complete_in_one_step() -> None:
    key = jax.random.key(0)
    net = with_precision(sequential((Conv(4), Flatten(), Dense(3)), (8, 8, 3), key=key), jnp.float64)
    images = random_images(2, 8, 8, dtype=np.float64)
    maps = vizsynth.integrated_gradients(net, images, 1, steps=1, baseline=0.2)
    gradient = vizsynth.gradient(net, images, 1)
    assert_equal(maps, (images - 0.2) * gradient)
    delta = vizsynth.completeness(net, images, 1, maps, baseline=0.2)
    assert float(jnp.abs(delta).max()) < 1e-12


@x64
def test_a_quadrature_of_n_steps_is_exact_up_to_degree_2n_minus_1() -> None:
    def cubic(images: Any, *, tap: Any = passthrough, ops: Any = None) -> Any:
        return tap("logits", (images**3).sum(axis=(1, 2)))

    images = random_images(2, 5, 4, dtype=np.float64)
    maps = vizsynth.integrated_gradients(cubic, images, 2, steps=2)  # the gradient is of degree 2
    assert_equal(maps[..., 2], np.asarray(images)[..., 2] ** 3, 1e-14)


@x64
def test_it_is_linear_in_the_score_and_blind_to_what_does_not_matter() -> None:
    net, _, images, _, _ = by_hand("sequential")
    ig = partial(vizsynth.integrated_gradients, net, images, steps=6)
    assert_equal(ig(2.0 * Class(1) - 0.5 * Class(3)), 2 * ig(1) - 0.5 * ig(3))
    # Sensitivity(b): conv1 has no padding and stride 1, so a column is seen, unless it is held.
    at_baseline = images.at[:, :, 5].set(0.0)
    assert float(jnp.abs(vizsynth.integrated_gradients(net, at_baseline, 1, steps=6)[:, :, 5]).max()) == 0


@x64
def test_it_is_invariant_to_the_implementation() -> None:
    net, images = with_precision(tiny("vgg_bn").net, jnp.float64), tiny("vgg_bn").images(dtype=np.float64)
    folded = vizsynth.integrated_gradients(fold_batch_norm(net), images, 2, steps=5)
    assert_equal(folded, vizsynth.integrated_gradients(net, images, 2, steps=5))


@x64
def test_another_path_of_the_same_ends_gives_the_same_total() -> None:
    subject = by_hand("sequential_mean")
    ig = partial(vizsynth.integrated_gradients, subject.net, target=LABELS, steps=128, batch_size=64)
    half = 0.5 * subject.images
    whole = ig(subject.images).sum(axis=(1, 2, 3))
    parts = ig(half).sum(axis=(1, 2, 3)) + ig(subject.images, baseline=half).sum(axis=(1, 2, 3))
    assert_equal(parts, np.asarray(whole), 4e-3)


# Doubling --------------------------------------------------------------------


@x64
@pytest.mark.parametrize("name", BY_HAND)
def test_doubling_reaches_its_tolerance(name: str) -> None:
    tolerance = 0.1
    net, _, images, _, _ = subject = by_hand(name)
    found = vizsynth.adaptive_integrated_gradients(
        net, images, LABELS, tolerance=tolerance, max_steps=128, batch_size=32
    )
    change = np.abs(scores(subject, subject.pixels) - scores(subject, 0.0))
    assert (np.abs(found.delta) <= tolerance * change).all()
    assert_equal(
        found.delta, np.asarray(vizsynth.completeness(net, images, LABELS, found.attributions)), 1e-6
    )
    assert set(found.steps.tolist()) <= {8, 16, 32, 64, 128}


TIGHT = 3e-2


@x64
def test_each_image_keeps_the_map_of_its_own_number_of_steps() -> None:
    net, _, images, _, _ = subject = by_hand("sequential", n=3)
    found = vizsynth.adaptive_integrated_gradients(
        net, images, LABELS, tolerance=TIGHT, max_steps=64, batch_size=16
    )
    assert len(set(found.steps.tolist())) > 1, "all images were done at once: nothing was kept"
    change = np.abs(scores(subject, subject.pixels) - scores(subject, 0.0))
    for i, steps in enumerate(found.steps.tolist()):
        at = partial(vizsynth.integrated_gradients, net, images, LABELS, batch_size=16)
        assert_equal(found.attributions[i], np.asarray(at(steps=steps)[i]), 1e-12)
        if steps > 8:  # half as many were not enough
            before = vizsynth.completeness(net, images, LABELS, at(steps=steps // 2))
            assert abs(float(before[i])) > TIGHT * change[i]


@x64
def test_an_image_doubles_as_it_would_alone() -> None:
    net, _, images, _, _ = by_hand("sequential")
    call = partial(vizsynth.adaptive_integrated_gradients, net, tolerance=3e-2, max_steps=32)
    together = call(images, LABELS)
    for i in range(3):
        alone = call(images[i : i + 1], int(LABELS[i]))
        assert int(alone.steps[0]) == int(together.steps[i])
        assert_equal(alone.attributions[0], np.asarray(together.attributions[i]))


@x64
@pytest.mark.parametrize(("max_steps", "rounds"), [(5, [5]), (9, [5, 9]), (20, [5, 10, 20])])
def test_doubling_ends_at_max_steps(max_steps: int, rounds: list[int]) -> None:
    net, _, images, _, _ = by_hand("sequential")
    call = partial(vizsynth.adaptive_integrated_gradients, net, images, LABELS, max_steps=max_steps)
    found = call(tolerance=1e-12, batch_size=3)
    assert found.steps.tolist() == [rounds[-1]] * 3
    expected = vizsynth.integrated_gradients(net, images, LABELS, steps=max_steps)
    assert_equal(found.attributions, np.asarray(expected), 1e-12)
    assert call(tolerance=1e9).steps.tolist() == [rounds[0]] * 3


@x64
def test_an_image_that_is_its_baseline_is_done_at_once() -> None:
    net, _, images, _, _ = by_hand("sequential")
    found = vizsynth.adaptive_integrated_gradients(net, images, 1, baseline=images, max_steps=64)
    assert not found.attributions.any()
    assert not found.delta.any()
    assert found.steps.tolist() == [8, 8, 8]


def test_one_program_serves_every_tolerance_and_baseline() -> None:
    net, images = tiny("sequential_mean").net, tiny("sequential_mean").images(2)
    adaptive, fixed = vizsynth.adaptive_integrated_gradients, vizsynth.integrated_gradients
    before = adaptive.compiled._cache_size(), fixed.compiled._cache_size()
    for label, tolerance in [(0, 0.1), (1, 0.01), (2, 0.001)]:
        adaptive(net, images, label, tolerance=tolerance, max_steps=32)
        fixed(net, images, label, baseline=tolerance, steps=11)
    after = adaptive.compiled._cache_size(), fixed.compiled._cache_size()
    assert (after[0] - before[0], after[1] - before[1]) == (1, 1)


# Memory and chunks -----------------------------------------------------------


def small_vgg() -> tuple[Any, Any]:
    """Return a network of 64 px whose activations outweigh its weights."""
    stack = (Conv(16), ReLU(), Conv(16), ReLU(), Conv(16), ReLU(), GlobalMean(), Dense(5))
    return sequential(stack, (64, 64, 3), key=jax.random.key(0)), random_images(2, 64, 64)


def temporary_bytes(function: Any, *args: Any, **options: Any) -> int:
    return function.compiled.lower(*args, **options).compile().memory_analysis().temp_size_in_bytes


def test_memory_does_not_grow_with_the_steps() -> None:
    net, images = small_vgg()
    used = {
        steps: temporary_bytes(vizsynth.integrated_gradients, net, images, Class(1), steps=steps)
        for steps in (20, 200)
    }
    assert used[200] <= 1.2 * used[20]
    assert (
        temporary_bytes(vizsynth.integrated_gradients, net, images, Class(1), steps=20, batch_size=20)
        > 2 * used[20]
    )


def test_memory_does_not_grow_with_the_doublings() -> None:
    net, images = small_vgg()
    used = [
        temporary_bytes(vizsynth.adaptive_integrated_gradients, net, images, Class(1), max_steps=max_steps)
        for max_steps in (16, 512)
    ]
    assert used[1] <= 1.2 * used[0]


@x64
@pytest.mark.parametrize("batch_size", [3, 100])
def test_the_batch_size_does_not_matter(batch_size: int) -> None:
    net, _, images, _, _ = by_hand("sequential")
    call = partial(vizsynth.integrated_gradients, net, images, LABELS, steps=10)
    assert_equal(call(batch_size=batch_size), np.asarray(call(batch_size=2)), 1e-12)
    adaptive = partial(vizsynth.adaptive_integrated_gradients, net, images, LABELS, max_steps=16)
    found, expected = adaptive(batch_size=batch_size), adaptive(batch_size=2)
    assert_equal(found.attributions, np.asarray(expected.attributions), 1e-12)
    assert found.steps.tolist() == expected.steps.tolist()


# What is refused -------------------------------------------------------------


@pytest.mark.parametrize(
    "method",
    [
        vizsynth.integrated_gradients,
        vizsynth.adaptive_integrated_gradients,
        lambda net, images, target, **o: vizsynth.completeness(net, images, target, images, **o),
    ],
)
@pytest.mark.parametrize("shape", [(3,), (16, 16), (15, 19, 1), (1, 15, 19, 3), (3, 15, 19, 3)])
def test_a_baseline_of_another_shape_is_refused(method: Any, shape: tuple[int, ...]) -> None:
    subject = tiny("sequential_mean")
    with pytest.raises(ValueError, match=r"baseline must be .*\(15, 19, 3\).*\(2, 15, 19, 3\).*not \("):
        method(subject.net, subject.images(2), 1, baseline=np.zeros(shape))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be a positive integer, not 0"),
        ({"steps": True}, "steps must be a positive integer, not True"),
        ({"batch_size": 0}, "batch_size must be a positive integer, not 0"),
    ],
)
def test_too_few_steps_are_refused(options: dict[str, Any], message: str) -> None:
    subject = tiny("sequential_mean")
    with pytest.raises(ValueError, match=message):
        vizsynth.integrated_gradients(subject.net, subject.images(), 1, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tolerance": 0.0}, "tolerance must be positive"),
        ({"tolerance": -1.0}, "tolerance must be positive"),
        ({"tolerance": float("nan")}, "tolerance must be positive"),
        ({"max_steps": 0}, "max_steps must be a positive integer"),
        ({"batch_size": -4}, "batch_size must be a positive integer"),
    ],
)
def test_an_impossible_tolerance_is_refused(options: dict[str, Any], message: str) -> None:
    subject = tiny("sequential_mean")
    with pytest.raises(ValueError, match=message):
        vizsynth.adaptive_integrated_gradients(subject.net, subject.images(), 1, **options)
