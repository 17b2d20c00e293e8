"""Penalties and their gradients, summed pixel by pixel in float64."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vizsynth import priors

RNG = np.random.default_rng(4)
IMAGES = RNG.random((2, 4, 5, 3))

pytestmark = pytest.mark.usefixtures("x64")


def held(penalty: Any, value: Any, gradient: Any) -> None:
    """Compare a penalty of each image and its gradient."""
    found = penalty(jnp.asarray(IMAGES))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, [value(x) for x in IMAGES], rtol=0, atol=1e-10)
    slope = jax.grad(lambda x: penalty(x).sum())(jnp.asarray(IMAGES))
    np.testing.assert_allclose(slope, [gradient(x) for x in IMAGES], rtol=0, atol=1e-10)
    one = jax.jit(penalty)(jnp.asarray(IMAGES[1]))
    np.testing.assert_allclose(one, value(IMAGES[1]), rtol=0, atol=1e-10)


def steps(x: np.ndarray, i: int, j: int, c: int) -> tuple[float, float]:
    right = x[i, j + 1, c] - x[i, j, c] if j + 1 < x.shape[1] else 0.0
    down = x[i + 1, j, c] - x[i, j, c] if i + 1 < x.shape[0] else 0.0
    return right, down


@pytest.mark.parametrize(("beta", "eps"), [(2.0, 0.0), (1.0, 0.0), (1.0, 0.01), (2.5, 0.0), (3.0, 0.1)])
def test_total_variation(beta: float, eps: float) -> None:
    shift = 0.0 if beta == 2 else eps

    def value(x: np.ndarray) -> float:
        total = 0.0
        for i, j, c in np.ndindex(x.shape):
            right, down = steps(x, i, j, c)
            total += (right**2 + down**2 + shift) ** (beta / 2)
        return total

    def gradient(x: np.ndarray) -> np.ndarray:
        g = np.zeros_like(x)
        for i, j, c in np.ndindex(x.shape):
            right, down = steps(x, i, j, c)
            squared = right**2 + down**2 + shift
            if squared == 0:
                continue
            outer = beta / 2 * squared ** (beta / 2 - 1)
            g[i, j, c] -= outer * 2 * (right + down)
            if j + 1 < x.shape[1]:
                g[i, j + 1, c] += outer * 2 * right
            if i + 1 < x.shape[0]:
                g[i + 1, j, c] += outer * 2 * down
        return g

    held(lambda x: priors.total_variation(x, beta, eps=eps), value, gradient)


def test_total_variation_of_a_traced_power() -> None:
    found = jax.jit(priors.total_variation)(jnp.asarray(IMAGES), jnp.asarray(2.0))
    np.testing.assert_allclose(found, priors.total_variation(jnp.asarray(IMAGES)), rtol=1e-12)


@pytest.mark.parametrize("beta", [1.0, 2.0, 2.5])
def test_what_is_flat_has_no_variation_and_no_gradient(beta: float) -> None:
    flat = jnp.full((4, 4, 3), 0.7)
    value, slope = jax.value_and_grad(lambda x: priors.total_variation(x, beta))(flat)
    assert float(value) == 0
    np.testing.assert_array_equal(slope, 0)


@pytest.mark.parametrize("alpha", [6.0, 2.0, 3.0, 1.5])
def test_alpha_norm(alpha: float) -> None:
    def penalty(x: Any) -> Any:
        return priors.alpha_norm(x - 0.5, alpha)

    held(
        penalty,
        lambda x: sum(abs(v - 0.5) ** alpha for v in x.reshape(-1)),
        lambda x: alpha * np.abs(x - 0.5) ** (alpha - 1) * np.sign(x - 0.5),
    )


@pytest.mark.parametrize("center", [0.5, 0.2])
def test_squared_and_absolute_distances(center: float) -> None:
    held(
        lambda x: priors.l2(x, center),
        lambda x: sum((v - center) ** 2 for v in x.reshape(-1)),
        lambda x: 2 * (x - center),
    )
    held(
        lambda x: priors.l1(x, center),
        lambda x: sum(abs(v - center) for v in x.reshape(-1)),
        lambda x: np.sign(x - center),
    )


def test_blur_distance_holds_the_blur_fixed() -> None:
    def blurred(x: np.ndarray) -> np.ndarray:
        out = np.zeros_like(x)
        for i, j in np.ndindex(x.shape[:2]):
            total, weights = np.zeros(3), 0.0
            for a in (-1, 0, 1):
                for b in (-1, 0, 1):
                    if 0 <= i + a < x.shape[0] and 0 <= j + b < x.shape[1]:
                        weight = 1.0 if a == b == 0 else 0.5
                        total += weight * x[i + a, j + b]
                        weights += weight
            out[i, j] = total / weights
        return out

    held(
        priors.blur_distance,
        lambda x: 0.5 * ((x - blurred(x)) ** 2).sum(),
        lambda x: x - blurred(x),
    )
