"""What is done to an update, each against NumPy in float64."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import ndimage

from vizsynth import ascent, updates

RNG = np.random.default_rng(8)
X = RNG.normal(size=(6, 7, 3))
U = RNG.normal(size=(6, 7, 3))
G = RNG.normal(size=(6, 7, 3))

pytestmark = pytest.mark.usefixtures("x64")


def after(transformation: Any, x: np.ndarray = X, u: np.ndarray = U, **extra: Any) -> np.ndarray:
    """Return where a picture ends."""
    transformation = optax.with_extra_args_support(transformation)
    x, u = jnp.asarray(x), jnp.asarray(u)
    changed, _ = jax.jit(transformation.update)(u, transformation.init(x), x, **extra)
    assert changed.dtype == np.float64
    return np.asarray(optax.apply_updates(x, changed))


def close(ours: Any, theirs: Any) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10)


def test_the_mean_absolute_value() -> None:
    mean = sum(abs(v) for v in U.reshape(-1)) / U.size
    close(after(updates.normalize_by_mean_abs()), X + U / mean)
    close(after(updates.normalize_by_mean_abs(), u=0 * U), X)


def test_each_array_has_its_own_mean() -> None:
    step = updates.normalize_by_mean_abs()
    found, _ = step.update({"a": jnp.asarray([2.0, -4.0]), "b": jnp.asarray([0.5])}, step.init(None))
    close(found["a"], [2 / 3, -4 / 3])
    close(found["b"], [1.0])


def test_the_norm_is_that_of_the_whole() -> None:
    close(after(updates.normalize_by_norm()), X + U / np.sqrt((U**2).sum()))
    close(after(updates.normalize_by_norm(), u=0 * U), X)
    step = updates.normalize_by_norm()
    found, _ = step.update((jnp.asarray([3.0]), jnp.asarray([4.0])), step.init(None))
    close(found, ([0.6], [0.8]))


@pytest.mark.parametrize("largest", [np.inf, 1e-4])
def test_progress(largest: float) -> None:
    rate = min(0.7 / (U**2).sum(), largest)
    close(after(updates.scale_to_progress(0.7, largest)), X + rate * U)
    close(after(updates.scale_to_progress(0.7, largest), u=0 * U), X)


def test_a_linear_objective_rises_by_what_is_desired() -> None:
    optimizer = optax.chain(updates.scale_to_progress(2.0), optax.scale(-1.0))
    state = ascent.init(jnp.asarray(X), optimizer, key=jax.random.key(0))
    weights = jnp.asarray(G)
    state, trace = ascent.run(lambda x, key: (weights * x).sum(), optimizer, state, 5)
    close(np.diff(np.asarray(trace)), 2.0)
    close((G * np.asarray(state.params)).sum(), (G * X).sum() + 10)


def test_then_and_the_box() -> None:
    close(after(updates.then(lambda x: 2 * x)), 2 * (X + U))
    close(after(updates.keep_in_box(-0.5, 0.25)), (X + U).clip(-0.5, 0.25))
    close(after(updates.keep_in_box()), (X + U).clip(0, 1))


@pytest.mark.parametrize("center", [0.0, 0.5, (0.1, 0.2, 0.3)])
def test_decay(center: Any) -> None:
    middle = np.asarray(center)
    close(after(updates.decay_to(center, 0.1)), X + U - 0.1 * (X + U - middle))


def test_blur_comes_every_so_often() -> None:
    step = updates.blur_every(0.8, 3, radius=4)
    x = jnp.asarray(X)
    state, expected = step.init(x), X
    for i in range(7):
        change, state = step.update(jnp.asarray(U), state, x)
        x = optax.apply_updates(x, change)
        expected = expected + U
        if i % 3 == 0:
            expected = ndimage.gaussian_filter(expected, 0.8, axes=(0, 1), mode="nearest", radius=4)
        close(x, expected)
    assert int(state.updates) == 7


@pytest.mark.parametrize(("sigma", "every"), [(0.0, 1), (0.8, 0)])
def test_no_blur(sigma: float, every: int) -> None:
    close(after(updates.blur_every(sigma, every)), X + U)


def percentile(values: np.ndarray, percent: float) -> float:
    """Interpolate between the two nearest of the sorted values."""
    ordered = sorted(values.reshape(-1))
    at = percent / 100 * (len(ordered) - 1)
    low = int(np.floor(at))
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])


@pytest.mark.parametrize("percent", [0.0, 37.0, 90.0])
@pytest.mark.parametrize("center", [0.0, (0.1, 0.2, 0.3)])
def test_small_norms_are_left_out(percent: float, center: Any) -> None:
    expected = X + U
    middle = np.broadcast_to(center, (3,))
    norms = np.array([[np.sqrt(((p - middle) ** 2).sum()) for p in row] for row in expected])
    limit = percentile(norms, percent)
    for i, j in np.ndindex(norms.shape):
        if norms[i, j] < limit:
            expected[i, j] = middle
    close(after(updates.clip_small_norm(percent, center)), expected)


@pytest.mark.parametrize("percent", [0.0, 37.0, 90.0])
@pytest.mark.parametrize("center", [0.0, (0.1, 0.2, 0.3)])
def test_small_contributions_are_left_out(percent: float, center: Any) -> None:
    expected = X + U
    middle = np.broadcast_to(center, (3,))
    size = np.array(
        [
            [abs(sum(G[i, j, c] * (expected[i, j, c] - middle[c]) for c in range(3))) for j in range(7)]
            for i in range(6)
        ]
    )
    limit = percentile(size, percent)
    for i, j in np.ndindex(size.shape):
        if size[i, j] < limit:
            expected[i, j] = middle
    found = after(updates.clip_small_contribution(percent, center), grad=jnp.asarray(G))
    close(found, expected)


def test_a_contribution_is_that_of_the_raw_gradient() -> None:
    """In a chain, behind what changes the update, the gradient is still that of the objective."""
    optimizer = optax.chain(optax.sgd(0.1), updates.clip_small_contribution(50.0))
    state = ascent.init(jnp.asarray(X), optimizer, key=jax.random.key(0))
    weights = jnp.asarray(G)
    state, _ = ascent.run(lambda x, key: (weights * x).sum(), optimizer, state, 1)
    expected = X + 0.1 * G
    size = np.abs((G * expected).sum(axis=-1))
    expected[size < percentile(size, 50.0)] = 0
    close(state.params, expected)


def test_they_work_on_many_pictures_at_once() -> None:
    steps = optax.chain(
        updates.normalize_by_norm(), updates.blur_every(0.5, 2), updates.clip_small_norm(30.0)
    )
    x, u = (jnp.asarray(np.stack([v, v[::-1]])) for v in (X, U))
    together, _ = jax.vmap(lambda u, x: steps.update(u, steps.init(x), x))(u, x)
    for i in range(2):
        close(together[i], steps.update(u[i], steps.init(x[i]), x[i])[0])
