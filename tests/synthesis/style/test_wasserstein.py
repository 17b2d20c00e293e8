"""The Wasserstein distance of normal distributions, from its definition and in closed form."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

from vizsynth.synthesis.style.wasserstein import Moments, Wasserstein

x64 = pytest.mark.usefixtures("x64")


def by_hand(F: np.ndarray, P: np.ndarray, eps: float) -> float:
    def moments(A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        A = A.reshape(-1, A.shape[-1])
        mean = A.mean(0)
        return mean, A.T @ A / len(A) - np.outer(mean, mean) + eps * np.eye(len(mean))

    (m, C), (n, D) = moments(F), moments(P)
    root: Any = scipy.linalg.sqrtm(D)
    cross = np.real(np.asarray(scipy.linalg.sqrtm(root @ C @ root)))
    return float((np.sum((m - n) ** 2) + np.trace(C + D - 2 * cross)) / len(m))


@x64
def test_the_distance_by_hand_and_its_gradient() -> None:
    rng = np.random.default_rng(0)
    F, P = rng.normal(size=(2, 6, 7, 4)) * [1, 2, 0.5, 1]
    loss = Wasserstein()

    def E(F: jax.Array) -> jax.Array:
        return loss.distance(loss.statistics(F), loss.statistics(jnp.asarray(P)))

    value, g = jax.jit(jax.value_and_grad(E))(F)
    np.testing.assert_allclose(value, by_hand(F, P, 1e-4), rtol=1e-10)
    way = rng.normal(size=F.shape)
    slope = (by_hand(F + 1e-6 * way, P, 1e-4) - by_hand(F - 1e-6 * way, P, 1e-4)) / 2e-6
    np.testing.assert_allclose(np.sum(np.asarray(g) * way), slope, rtol=1e-6)


@x64
def test_commuting_covariances_differ_as_deviations_do() -> None:
    """Of diagonal covariances, W₂² = Σ (μ − ν)² + Σ (σ − τ)²."""
    sigma, tau = np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 0.5])
    one = Moments(jnp.zeros(3), jnp.diag(jnp.asarray(sigma**2)))
    other = Moments(jnp.asarray([1.0, 0.0, 0.0]), jnp.diag(jnp.asarray(tau**2)))
    wanted = (1 + np.sum((sigma - tau) ** 2)) / 3
    np.testing.assert_allclose(Wasserstein().distance(one, other), wanted, rtol=1e-12)


@jax.jit
def distance(F: jax.Array, P: jax.Array) -> jax.Array:
    loss = Wasserstein()
    return loss.distance(loss.statistics(F), loss.statistics(P))


@given(st.integers(0, 2**31))
def test_it_is_a_distance(seed: int) -> None:
    F, P = np.random.default_rng(seed).normal(size=(2, 4, 5, 3)).astype(np.float32)
    there = float(distance(F, P))
    np.testing.assert_allclose(there, distance(P, F), rtol=1e-3, atol=1e-5)
    assert there > -1e-5
    np.testing.assert_allclose(distance(F, F), 0, atol=1e-5)


def test_dead_features_give_a_finite_gradient() -> None:
    """More features than positions, and some always 0: the covariance has no inverse."""
    F = jnp.zeros((2, 2, 8)).at[..., 0].set(jnp.arange(4.0).reshape(2, 2))
    P = jax.random.normal(jax.random.key(0), (2, 2, 8))
    slope = jax.jit(jax.grad(distance))
    for other in (P, jnp.zeros_like(P)):
        assert np.isfinite(slope(F, other)).all()


@x64
def test_guidance_chooses_positions() -> None:
    F = np.random.default_rng(0).normal(size=(4, 6, 3))
    mask = np.zeros((4, 6))
    mask[:, :2] = 1
    loss = Wasserstein()
    found = loss.statistics(jnp.asarray(F), jnp.asarray(mask))
    wanted = loss.statistics(jnp.asarray(F[:, :2]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), found, wanted)
