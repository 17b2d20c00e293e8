"""Convolution by Winograd's minimal filtering, and the networks that are prepared for it."""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import tiny_resnet

import vizsynth
from vizsynth import ops
from vizsynth.cpu import convolution, thresholds, winograd
from vizsynth.models import fold_batch_norm, with_precision
from vizsynth.models.io.weights import paths
from vizsynth.models.sequential import Conv, Dense, GlobalMean, MaxPool, ReLU, sequential

KEY = jax.random.key(0)
FEW = replace(thresholds.MEASURED, tiled_channels=4)
STACK = [Conv(8), ReLU(), Conv(8), ReLU(), MaxPool(), Conv(12), ReLU(), GlobalMean(), Dense(5)]


@pytest.fixture(scope="module", autouse=True)
def _few_channels_are_enough() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(thresholds, "MEASURED", FEW)
        yield


@pytest.fixture(scope="module")
def net() -> Any:
    return sequential(STACK, (20, 36, 3), key=KEY)


@pytest.fixture(scope="module")
def fast(net: Any) -> Any:
    return vizsynth.prepare(net)


@pytest.fixture(scope="module")
def images() -> Any:
    return jax.random.uniform(jax.random.key(1), (2, 20, 36, 3))


def transforms(function: Any, *args: Any) -> int:
    """Return how many convolutions of a program on CPU are six batches of products, one a row of a tile."""
    text: Any = jax.jit(function).lower(*args).compile().as_text()
    rows = re.findall(r" = f32\[(?:\d+,)?6,\d+,8\]\S* dot\(", text)
    assert len(rows) % 6 == 0
    return len(rows) // 6


def close(got: Any, want: Any, tolerance: float) -> None:
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert np.linalg.norm(got - want) <= tolerance * np.linalg.norm(want)


def energy(net: Any, images: Any) -> Any:
    """Return a smooth score: `conv2` before its ReLU."""
    return (vizsynth.features(net, images, ("conv2",))["conv2"] ** 2).sum()


forward = jax.jit(lambda net, images: net(images))
energy_gradient = jax.jit(jax.grad(energy, 1))


def kernel_of(kernel: Any) -> winograd.Kernel:
    gradient = winograd.flipped(kernel)
    return winograd.Kernel(kernel, gradient, winograd.transform(kernel), winograd.transform(gradient))


def looped(x: np.ndarray, kernel: np.ndarray, padding: Any) -> np.ndarray:
    """Return the convolution by its definition, in float64."""
    x = np.pad(x.astype(np.float64), ((0, 0), *padding, (0, 0)))
    h, w = x.shape[1] - 2, x.shape[2] - 2
    taps = [(i, j) for i in range(3) for j in range(3)]
    return sum(x[:, i : i + h, j : j + w] @ kernel[i, j].astype(np.float64) for i, j in taps)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("size", "padding"),
    [((28, 27), ((1, 1), (1, 1))), ((33, 30), ((0, 2), (1, 0))), ((30, 33), ((0, 0), (2, 1)))],
    ids=str,
)
def test_any_size_and_padding(size: Any, padding: Any) -> None:
    """Values and gradient, against sums in float64; the gradient is ⟨g, conv(v)⟩ for any direction v."""
    rng = np.random.default_rng([*size, *padding[0], *padding[1]])
    x, v = (rng.normal(size=(1, *size, 8)).astype(np.float32) for _ in range(2))
    kernel = rng.normal(size=(3, 3, 8, 8)).astype(np.float32) / 8
    made = kernel_of(jnp.asarray(kernel))
    assert winograd.pays(jnp.asarray(x), made.plain)
    wanted, moved = looped(x, kernel, padding), looped(v, kernel, padding)
    g = rng.normal(size=wanted.shape).astype(np.float32)

    @jax.jit
    def both(x: Any, made: Any, g: Any) -> Any:
        y, back = jax.vjp(lambda x: ops.fast.conv(x, made, None, padding=padding), x)
        return y, back(g)[0]

    y, dx = both(x, made, g)
    close(y, wanted, 2e-6)
    got = (np.asarray(dx, np.float64) * v).sum()
    assert abs(got - (g * moved).sum()) < 1e-5 * np.linalg.norm(g) * np.linalg.norm(moved)


def test_a_prepared_network_is_the_same_network(net: Any, fast: Any, images: Any) -> None:
    close(forward(fast, images), forward(net, images), 2e-6)
    close(energy_gradient(fast, images), energy_gradient(net, images), 5e-6)
    assert fast.layers == net.layers
    assert transforms(lambda net, x: net(x), fast, images) == 1  # 20x36 has 45 tiles, 10x18 too few
    assert transforms(lambda net, x: net(x), net, images) == 0


def test_second_order(net: Any, fast: Any, images: Any) -> None:
    def steepness(net: Any, images: Any) -> Any:
        return (jax.grad(energy, 1)(net, images) ** 2).sum()

    steepest = jax.jit(jax.grad(steepness, 1))
    close(steepest(fast, images), steepest(net, images), 2e-5)


@pytest.mark.parametrize("how", ["vmap", "scan", "remat"])
def test_in_every_transformation(net: Any, fast: Any, images: Any, how: str) -> None:
    gradient = jax.grad(energy, 1)

    def in_vmap(net: Any) -> Any:
        return jax.vmap(lambda x: gradient(net, x[None])[0])(images)

    def in_scan(net: Any) -> Any:
        return (
            jax.lax.scan(lambda x, _: (x + 1e-6 * gradient(net, x), None), images, None, length=2)[0] - images
        )

    def in_remat(net: Any) -> Any:
        return jax.grad(jax.checkpoint(lambda x: energy(net, x)))(images)

    run = {"vmap": in_vmap, "scan": in_scan, "remat": in_remat}[how]
    close(jax.jit(run)(fast), jax.jit(run)(net), 1e-4 if how == "scan" else 1e-5)
    assert transforms(run, fast) >= 2


def test_an_image_does_not_depend_on_its_batch(fast: Any, images: Any) -> None:
    together = forward(fast, jnp.concatenate([images] * 3))
    close(together[:2], forward(fast, images), 1e-6)


def test_the_gradient_of_weights_is_refused(fast: Any, images: Any) -> None:
    with pytest.raises(ValueError, match=r"before vizsynth\.prepare"):
        jax.grad(energy)(fast, images)


def test_exact_is_never_transformed(net: Any, fast: Any, images: Any) -> None:
    for marked in (vizsynth.prepare(net, exact=True), vizsynth.prepare(fast, exact=True)):
        assert transforms(lambda net, x: vizsynth.integrated_gradients(net, x, 1), marked, images) == 0
        np.testing.assert_array_equal(forward(marked, images), forward(net, images))
        assert vizsynth.prepare(marked).conv2.transformed is None


def test_functions_of_many_gradients_prepare_by_themselves(net: Any, fast: Any, images: Any) -> None:
    """And what they return is the same to rounding, of a network that was prepared before as well."""

    def attributions(net: Any, images: Any) -> Any:
        return vizsynth.integrated_gradients(net, images, vizsynth.scores.Neuron("conv2", 3), steps=4)

    assert transforms(attributions, net, images) == 1  # a score that is linear in conv2 needs no value of it
    close(attributions(net, images), attributions(fast, images), 1e-6)
    exact = vizsynth.prepare(net, exact=True)
    close(attributions(net, images), attributions(exact, images), 1e-5)


def test_other_precisions_stay_as_they_are(net: Any, fast: Any, images: Any) -> None:
    half = with_precision(fast, jnp.bfloat16)
    assert half.conv2.transformed is None
    assert vizsynth.prepare(half).conv2.transformed is None
    halved = images.astype(jnp.bfloat16)
    np.testing.assert_array_equal(forward(fast, halved), forward(net, halved))


def test_who_changes_weights_takes_the_plain_network(net: Any, fast: Any, images: Any) -> None:
    assert list(paths(fast)) == list(paths(net))
    by = {"key": jax.random.key(3), "of": vizsynth.gradient}
    got, want = (vizsynth.cascading_randomization(n, images, 1, **by) for n in (fast, net))
    jax.tree.map(np.testing.assert_array_equal, got, want)
    deep: Any = tiny_resnet(bottleneck=False)
    folded, plain = fold_batch_norm(vizsynth.prepare(deep)), fold_batch_norm(deep)
    assert folded.layer1[0].conv1.transformed is None
    np.testing.assert_array_equal(folded.layer1[0].conv1.kernel[...], plain.layer1[0].conv1.kernel[...])


def test_other_backends_are_left_alone(net: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert vizsynth.prepare(net) is net


@pytest.mark.parametrize(
    ("window", "strides", "apart"),
    [
        (5, (1, 1), 1),
        (3, (2, 2), 1),
        (3, (2, 2), thresholds.MEASURED.apart_pairs),
        (7, (3, 2), 1),
        (7, (3, 2), thresholds.MEASURED.apart_pairs),
    ],
)
def test_gradients_of_other_windows_and_strides_are_what_they_were(
    window: int, strides: Any, apart: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their kernels are made beforehand; nothing else changes, to second order."""
    monkeypatch.setattr(thresholds, "MEASURED", replace(FEW, apart_pairs=apart))
    rng = np.random.default_rng(window)
    x = jnp.asarray(rng.normal(size=(2, 13, 14, 3)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(window, window, 3, 4)), jnp.float32)
    padding = ((window // 2, window // 2), (1, 0))
    made = winograd.Kernel(kernel, convolution.gradient_kernel(kernel, strides, padding))

    def score(x: Any, kernel: Any) -> Any:
        return (ops.fast.conv(x, kernel, None, strides=strides, padding=padding) ** 2).sum()

    def steepness(x: Any, kernel: Any) -> Any:
        return (jax.grad(score)(x, kernel) ** 2).sum()

    @jax.jit
    def both(x: Any, made: Any, kernel: Any) -> Any:
        return [(jax.grad(f)(x, made), jax.grad(f)(x, kernel)) for f in (score, steepness)]

    for found, wanted in both(x, made, kernel):
        close(found, wanted, 1e-6)


def test_images_that_are_mapped_over_are_a_batch() -> None:
    """A product would have an axis of its own for them, and all tiles would be transposed for it."""
    draw = np.random.default_rng(0)
    x = jnp.asarray(draw.normal(size=(2, 3, 18, 22, 8)), jnp.float32)
    U = winograd.transform(jnp.asarray(draw.normal(size=(3, 3, 8, 12)), jnp.float32))

    def products(function: Any, x: Any) -> list[str]:
        text = jax.jit(function).lower(x, U).as_text()
        return re.findall(r"dot_general.*-> (\S+)", text)

    once = jax.vmap(winograd.conv, in_axes=(0, None))
    twice = jax.vmap(jax.vmap(lambda x, U: winograd.conv(x[None], U)[0], (0, None)), (0, None))
    second = jax.jit(winograd.conv)(x[1], U)
    for function in (once, twice):
        assert products(function, x) == 6 * ["tensor<6x120x12xf32>"]
        np.testing.assert_array_equal(jax.jit(function)(x, U)[1], second)
    both = tuple(jnp.stack([u, 2 * u]) for u in U)
    per_kernel = jax.jit(jax.vmap(winograd.conv, in_axes=(None, 0)))(x[0], both)
    close(per_kernel[1], 2 * per_kernel[0], 1e-6)
