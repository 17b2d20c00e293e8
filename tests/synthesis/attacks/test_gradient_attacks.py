"""FGSM, BIM, PGD and MI-FGSM, written out in NumPy; their balls, their starts, and transforms."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attacked import (
    affine,
    assert_equal,
    loss_gradient,
    network,
    norms,
    onto_l2,
    onto_linf,
    pictures,
    subject,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jax.tree_util import register_dataclass

import vizsynth
from vizsynth.core.entry import entry
from vizsynth.synthesis.attacks.adversarial import STARTS, l2_norm, random_start, stream, within

x64 = pytest.mark.usefixtures("x64")
KEY = jax.random.key(3)
SIGNS = pytest.mark.parametrize("targeted", [False, True])


@x64
@SIGNS
def test_fgsm_is_one_step_along_the_sign(targeted: bool) -> None:
    net, hand, images, x, y = subject()
    y = (y + 1) % 5 if targeted else y
    sign = -1 if targeted else 1
    expected = np.clip(x + sign * 0.03 * np.sign(loss_gradient(hand, x, y)), 0, 1)
    assert_equal(vizsynth.fgsm(net, images, y, epsilon=0.03, targeted=targeted), expected)


@x64
def test_fgsm_of_an_affine_classifier_of_two_classes_is_the_end_of_every_pgd() -> None:
    """J falls with (w_y − w_k)·x alone, whose sign does not change on the way."""
    from vizsynth.models import sequential, with_precision
    from vizsynth.models.sequential import Dense, Flatten

    net = sequential((Flatten(), Dense(2)), (8, 7, 3), key=jax.random.key(1))
    W = np.asarray(net.logits.kernel[...], np.float64)
    images = pictures(dtype=np.float64)
    labels = np.array([0, 1, 1, 0])
    w = (W[:, 1 - labels] - W[:, labels]).T.reshape(4, 8, 7, 3)
    expected = np.clip(np.asarray(images) + 0.02 * np.sign(w), 0, 1)
    net = with_precision(net, jnp.float64)
    assert_equal(vizsynth.fgsm(net, images, labels, epsilon=0.02), expected)
    options = {"epsilon": 0.02, "step_size": 0.005}
    assert_equal(vizsynth.bim(net, images, labels, steps=4, **options), expected)
    assert_equal(vizsynth.pgd(net, images, labels, steps=9, key=KEY, **options), expected)
    assert_equal(vizsynth.mi_fgsm(net, images, labels, steps=4, epsilon=0.02), expected)


@x64
@SIGNS
def test_bim_and_pgd_step_by_step(targeted: bool) -> None:
    net, hand, images, x, y = subject()
    y = (y + 1) % 5 if targeted else y
    sign = -1 if targeted else 1
    epsilon, alpha = 0.03, 0.012
    options = {"epsilon": epsilon, "step_size": alpha, "steps": 5, "targeted": targeted}
    moved = x
    for _ in range(5):
        moved = onto_linf(moved + sign * alpha * np.sign(loss_gradient(hand, moved, y)), x, epsilon)
    assert_equal(vizsynth.bim(net, images, y, **options), moved)
    assert_equal(vizsynth.pgd(net, images, y, **options), moved)
    moved = start = onto_linf(x + np.random.default_rng(0).uniform(-0.03, 0.03, x.shape), x, epsilon)
    for _ in range(5):
        moved = onto_linf(moved + sign * alpha * np.sign(loss_gradient(hand, moved, y)), x, epsilon)
    assert_equal(vizsynth.pgd(net, images, y, start=jnp.asarray(start), **options), moved)


@x64
@SIGNS
def test_pgd_in_the_l2_ball_step_by_step(targeted: bool) -> None:
    net, hand, images, x, y = subject()
    y = (y + 1) % 5 if targeted else y
    sign = -1 if targeted else 1
    moved = x
    for _ in range(6):
        g = loss_gradient(hand, moved, y)
        moved = onto_l2(moved + sign * 0.1 * g / norms(g)[:, None, None, None], x, 0.35)
    options = {"epsilon": 0.35, "steps": 6, "targeted": targeted}
    assert_equal(vizsynth.pgd_l2(net, images, y, step_size=0.1, **options), moved)
    by_default = vizsynth.pgd_l2(net, images, y, **options)
    assert_equal(by_default, np.asarray(vizsynth.pgd_l2(net, images, y, step_size=2.5 * 0.35 / 6, **options)))


@x64
@SIGNS
def test_mi_fgsm_step_by_step(targeted: bool) -> None:
    net, hand, images, x, y = subject()
    y = (y + 1) % 5 if targeted else y
    sign = -1 if targeted else 1
    epsilon, T, mu = 0.05, 6, 0.8
    moved, g = x, np.zeros_like(x)
    for _ in range(T):
        now = sign * loss_gradient(hand, moved, y)
        g = mu * g + now / np.abs(now).sum(axis=(1, 2, 3), keepdims=True)
        moved = np.clip(moved + epsilon / T * np.sign(g), 0, 1)
    options = {"epsilon": epsilon, "steps": T, "targeted": targeted}
    assert_equal(vizsynth.mi_fgsm(net, images, y, decay=mu, **options), moved)
    # Without momentum it is BIM.
    options |= {"step_size": 0.013}
    plain = vizsynth.bim(net, images, y, **options)
    assert_equal(vizsynth.mi_fgsm(net, images, y, decay=0.0, **options), np.asarray(plain))


# Starts --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["linf_ball", "l2_ball"])
def test_points_of_a_ball_are_uniform(name: str) -> None:
    ball = getattr(vizsynth, name)
    points = jax.vmap(lambda key: ball.uniform(key, (2, 2, 3)))(jax.random.split(KEY, 4000))
    radii = np.sort(np.asarray(jax.vmap(ball.norm)(points)))
    assert radii[-1] <= 1 + 1e-6
    # The volume within radius r grows as r^12.
    assert np.abs(radii**12 - (np.arange(4000) + 0.5) / 4000).max() < 0.025
    assert np.abs(np.asarray(points).mean(axis=0)).max() < 0.05


@pytest.mark.parametrize("name", ["linf_ball", "l2_ball"])
def test_pgd_starts_in_the_ball_where_its_key_says(name: str) -> None:
    ball, attack = getattr(vizsynth, name), vizsynth.pgd if name == "linf_ball" else vizsynth.pgd_l2
    images = pictures() * 0.8 + 0.1
    barely = {"epsilon": 0.05, "step_size": 1e-9, "steps": 1}
    found = attack(network(), images, 0, key=KEY, **barely)
    keys = stream(KEY, len(images), STARTS)
    np.testing.assert_allclose(found, random_start(ball, images, 0.05, keys), atol=1e-7)
    sizes = np.asarray(jax.vmap(ball.norm)(found - images))
    assert (sizes > 0.02).all() and (sizes <= 0.05 + 1e-6).all()
    # One key for all: all images start as far from where they are; one each: elsewhere.
    np.testing.assert_allclose((found - images)[0], (found - images)[1], atol=1e-6)
    each = attack(network(), images, 0, key=jax.random.split(KEY, 4), **barely)
    assert np.abs((each - images)[0] - (each - images)[1]).max() > 0.001
    still = attack(network(), images, 0, key=KEY, start=images, **barely)
    np.testing.assert_allclose(still, images, atol=1e-6)


def test_a_tiny_gradient_gives_a_full_step_and_none_stands_still() -> None:
    tiny = jnp.full((2, 2, 3), 1e-30)
    np.testing.assert_allclose(l2_norm(tiny), 12**0.5 * 1e-30, rtol=1e-5)
    np.testing.assert_allclose(vizsynth.l2_ball.steepest(tiny), 12**-0.5, rtol=1e-5)
    assert not vizsynth.l2_ball.steepest(tiny * 0).any()
    assert not vizsynth.linf_ball.steepest(tiny * 0).any()


# Balls ---------------------------------------------------------------------------


@given(
    seed=st.integers(0, 10**6),
    epsilon=st.floats(0.001, 0.9),
    share=st.floats(0.01, 4),
    start=st.booleans(),
)
def test_no_attack_leaves_its_ball_or_the_range(seed: int, epsilon: float, share: float, start: bool) -> None:
    images = jnp.round(pictures(2, seed=seed) * 1.4 - 0.2, 1).clip(0, 1)  # many at 0 and at 1
    labels = np.array([seed % 5, seed % 3])
    key = jax.random.key(seed) if start else jax.random.split(KEY, 2)
    options = {"epsilon": epsilon, "step_size": share * epsilon, "steps": 3}
    for attack in (vizsynth.bim, vizsynth.pgd, vizsynth.mi_fgsm, vizsynth.pgd_l2):
        more = {} if attack in (vizsynth.bim, vizsynth.mi_fgsm) else {"key": key}
        found = attack(network(), images, labels, **options, **more)
        assert found.min() >= 0 and found.max() <= 1
        delta = np.asarray(found, np.float64) - np.asarray(images, np.float64)
        size = norms(delta).max() if attack is vizsynth.pgd_l2 else np.abs(delta).max()
        assert size <= epsilon


@entry(static=("ball",))
def projected(x: Any, images: Any, *, epsilon: Any, ball: Any) -> Any:
    return within(ball, x, images, epsilon)


def drawn(rng: np.random.Generator, kind: str) -> np.ndarray:
    """Return an image of numbers whose sums with others are rounded in several ways."""
    values = rng.random((1, 4, 6, 3))
    values[0, 0, 0] = -0.0, 1e-40, 1
    return {
        "all": values,
        "middle": (1 + values) / 3,
        "dark": np.exp(-25 * values - 3),
        "few": values.round(1),
    }[kind]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("name", ["linf_ball", "l2_ball"])
@given(
    seed=st.integers(0, 10**6),
    kind=st.sampled_from(["all", "middle", "dark", "few"]),
    epsilon=st.sampled_from([8 / 255, 1 / 255, 1 / 256, 0.25]) | st.floats(1e-5, 1),
    share=st.floats(0.1, 4),
)
@example(seed=23, kind="dark", epsilon=0.1, share=1.0)  # whose sum of squares is rounded down
@settings(max_examples=40)
def test_in_every_precision_a_point_lies_in_its_ball_to_the_last_bit(
    name: str, dtype: Any, seed: int, kind: str, epsilon: float, share: float
) -> None:
    ball, rng = getattr(vizsynth, name), np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    images = drawn(rng, kind).astype(dtype)
    way = rng.normal(0, share * epsilon, images.shape)
    x = (images.astype(float) + (abs(way) if kind == "dark" else way)).astype(dtype)
    with jax.enable_x64(dtype == np.float64):
        found = np.asarray(projected(x, images, epsilon=epsilon, ball=ball))
        unmoved = np.asarray(projected(x, images, epsilon=0.0, ball=ball))
    assert found.dtype == dtype and found.min() >= 0 and found.max() <= 1
    np.testing.assert_array_equal(unmoved.view(np.uint8), images.view(np.uint8))
    for precision in (np.float64, np.float32) if dtype != np.float64 else (np.float64,):
        delta = found.astype(precision) - images.astype(precision)
        assert (norms(delta)[0] if name == "l2_ball" else np.abs(delta).max()) <= epsilon
    if name == "linf_ball":  # nor is it nearer than need be, but for the last bits
        exact = images.astype(float)
        wanted = x.astype(float).clip(exact - epsilon, exact + epsilon).clip(0, 1)
        assert (np.abs(found - wanted) <= 2 * np.spacing(np.maximum(images, found)).astype(float)).all()


def test_a_projection_has_the_slope_of_what_it_rounds() -> None:
    images = pictures(1) * 0.8 + 0.1
    for dtype in (jnp.float32, jnp.bfloat16):
        x = images.astype(dtype)
        moved = lambda x: within(vizsynth.linf_ball, x + 0.1, x, 0.05).sum()  # noqa: E731
        np.testing.assert_array_equal(np.asarray(jax.jit(jax.grad(moved))(x), float), 1)


def test_a_radius_an_image() -> None:
    epsilon = jnp.array([0.01, 0.02, 0.03, 0.04])
    images, labels = pictures(), np.arange(4)
    for attack in (vizsynth.fgsm, vizsynth.bim, vizsynth.pgd, vizsynth.pgd_l2, vizsynth.mi_fgsm):
        found = attack(network(), images, labels, epsilon=epsilon)
        for i in range(4):
            one = np.s_[i : i + 1]
            alone = attack(network(), images[one], labels[one], epsilon=float(epsilon[i]))
            np.testing.assert_allclose(found[one], alone, atol=1e-6)


# Transforms ----------------------------------------------------------------------


@register_dataclass
@dataclass(frozen=True)
class Brighten:
    """Add a random number up to `most` to all pixels."""

    most: Any

    def __call__(self, key: Any, image: Any) -> Any:
        most = jnp.asarray(self.most, image.dtype)
        return image + most * jax.random.uniform(key, (), image.dtype)


def flipped(key: Any, image: Any) -> Any:
    return image[:, ::-1]


ATTACKS: list[Callable[..., Any]] = [vizsynth.bim, vizsynth.pgd, vizsynth.pgd_l2, vizsynth.mi_fgsm]


@x64
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_transform_that_does_not_vary_is_a_part_of_the_network(attack: Callable[..., Any]) -> None:
    net, _, images, _, y = subject()
    options = {"epsilon": 0.05, "steps": 3, "key": KEY}
    plain = attack(net, images, y, **options)
    same = attack(net, images, y, transform=lambda key, image: image, samples=3, batch_size=2, **options)
    assert_equal(same, np.asarray(plain))
    if attack is vizsynth.pgd_l2:  # whose steps see the whole of the gradient
        mirrored = attack(lambda x, **how: net(x[:, :, ::-1], **how), images, y, **options)
        assert_equal(attack(net, images, y, transform=flipped, samples=2, **options), np.asarray(mirrored))
        assert np.abs(np.asarray(mirrored) - np.asarray(plain)).max() > 0.001


@x64
def test_the_gradient_is_the_mean_over_the_samples() -> None:
    net, hand, images, x, y = subject(2)
    samples, most = 5, 0.6
    keys = stream(KEY, 2, 1)
    g = np.zeros_like(x)
    for i in range(samples):
        fold = jax.random.fold_in  # of step 0, of sample i
        drawn = [jax.random.uniform(fold(fold(key, 0), i), (), jnp.float64) for key in keys]
        shift = np.array(drawn, float)
        g += loss_gradient(hand, x + most * shift[:, None, None, None], y) / samples
    expected = onto_l2(x + 0.2 * g / norms(g)[:, None, None, None], x, 0.3)
    options = {"epsilon": 0.3, "step_size": 0.2, "steps": 1, "key": KEY, "start": images}
    found = vizsynth.pgd_l2(net, images, y, transform=Brighten(most), samples=samples, **options)
    assert_equal(found, expected)
    in_chunks = vizsynth.pgd_l2(
        net, images, y, transform=Brighten(most), samples=samples, batch_size=2, **options
    )
    assert_equal(in_chunks, expected)


def test_another_number_of_a_transform_is_the_same_program() -> None:
    options = {"epsilon": 0.05, "steps": 2, "key": KEY}
    vizsynth.pgd(network(), pictures(), 0, transform=Brighten(0.1), **options)
    programs = vizsynth.pgd.compiled._cache_size()
    vizsynth.pgd(network(), pictures(), 0, transform=Brighten(0.2), **options)
    assert vizsynth.pgd.compiled._cache_size() == programs
    vizsynth.pgd(network(), pictures(), 0, transform=flipped, **options)
    vizsynth.pgd(network(), pictures(), 0, transform=flipped, **options)
    assert vizsynth.pgd.compiled._cache_size() == programs + 1


# What is refused -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"epsilon": -0.1}, ValueError, "epsilon must be at least 0 and finite, not -0.1"),
        ({"epsilon": float("nan")}, ValueError, "epsilon must be at least 0"),
        ({"epsilon": 8}, ValueError, "give 8 / 255"),
        ({"epsilon": np.ones(3) / 9}, ValueError, "one for each of the 4 images"),
        ({"step_size": 0.0}, ValueError, "step_size must be above 0"),
        ({"steps": 0}, ValueError, "steps must be a positive integer"),
        ({"samples": 2}, ValueError, "give transform="),
        ({"transform": flipped}, ValueError, "give key="),
        ({"transform": flipped, "key": KEY, "samples": 0}, ValueError, "samples must be a positive"),
        ({"transform": 3, "key": KEY}, TypeError, "transform must be a function"),
        ({"labels": 5}, ValueError, "outside the network's 5 classes"),
        ({"key": jax.random.split(KEY, 3)}, ValueError, "4 images take one key or 4 keys"),
    ],
)
@pytest.mark.parametrize("attack", ATTACKS)
def test_says_what_is_wrong(attack: Any, options: dict[str, Any], error: type, message: str) -> None:
    if attack is vizsynth.pgd_l2 and message == "give 8 / 255":
        return  # an L2 norm may be that large
    given = {"labels": 0, "epsilon": 0.1, "steps": 2} | options
    with pytest.raises(error, match=message):
        attack(network(), pictures(), **given)


def test_images_outside_the_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must lie there; these span .* give images.clip\(0, 1\)"):
        vizsynth.fgsm(affine(), np.asarray(pictures() * 2 - 1), 0, epsilon=0.1)
    with pytest.raises(ValueError, match="start must have the shape of the images"):
        vizsynth.pgd(network(), pictures(), 0, epsilon=0.1, start=pictures(2))
    with pytest.raises(ValueError, match="decay must not be negative"):
        vizsynth.mi_fgsm(network(), pictures(), 0, epsilon=0.1, decay=-1.0)
