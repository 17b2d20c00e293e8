"""Infidelity against its definition, and what it must be on a linear network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from evaluated import LABELS, SIZE, N, images, linear, logit, network

import vizsynth

KEY = jax.random.key(8)


def _perturbations(samples=6, n=N, dtype=np.float64):
    return np.random.default_rng(2).normal(0, 0.3, (samples, n, *SIZE, 3)).astype(dtype)


@pytest.mark.parametrize("shared", [False, True])
def test_follows_the_paper(x64, shared):
    net, x = network(np.float64), images(np.float64)
    phi = vizsynth.gradient(net, x, LABELS)
    given = _perturbations(n=1 if shared else N)
    found = vizsynth.infidelity(net, x, LABELS, phi, perturbations=jnp.asarray(given), batch_size=4)
    f = logit(net)
    for i, (image, label) in enumerate(zip(np.asarray(x), LABELS, strict=True)):
        a, b = [], []
        for I in given[:, 0 if shared else i]:
            a.append(np.sum(I * np.asarray(phi[i])))
            b.append(f(image, label) - f(image - I, label))
        a, b = np.asarray(a), np.asarray(b)
        beta = np.mean(a * b) / np.mean(a * a)
        np.testing.assert_allclose(found.values[i], np.mean((a - b) ** 2), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(found.scale[i], beta, rtol=1e-9)
        np.testing.assert_allclose(found.scaled[i], np.mean((beta * a - b) ** 2), rtol=1e-9, atol=1e-12)


def test_the_gradient_of_a_linear_network_is_faithful(x64):
    net, x = linear(np.float64), images(np.float64)
    phi = vizsynth.gradient(net, x, LABELS)
    found = vizsynth.infidelity(net, x, LABELS, phi, key=KEY, samples=20)
    assert float(found.values.max()) < 1e-20
    half = vizsynth.infidelity(net, x, LABELS, phi / 2, key=KEY, samples=20)
    np.testing.assert_allclose(half.scale, 2, rtol=1e-9)
    assert float(half.scaled.max()) < 1e-20 < float(half.values.min())


def test_no_map_is_as_unfaithful_as_the_score_varies(x64):
    # Φ = 0 on a linear network: E[(wᵀI)²] = σ² ‖w‖²
    net, x, label = linear(np.float64), images(np.float64, n=1), LABELS[:1]
    w = vizsynth.gradient(net, x, label)
    zero = jnp.zeros_like(x)
    found = vizsynth.infidelity(net, x, label, zero, key=KEY, samples=4000, noise=0.3, batch_size=500)
    np.testing.assert_allclose(found.values, 0.09 * (w**2).sum((1, 2, 3)), rtol=0.1)
    np.testing.assert_array_equal(found.scale, 0)


def test_does_not_depend_on_chunks_or_on_the_batch():
    net, x = network(), images()
    phi, keys = vizsynth.gradient(net, x, LABELS), jax.random.split(KEY, N)
    whole = vizsynth.infidelity(net, x, LABELS, phi, key=keys, samples=9, batch_size=9)
    chunked = vizsynth.infidelity(net, x, LABELS, phi, key=keys, samples=9, batch_size=2)
    np.testing.assert_allclose(whole.values, chunked.values, rtol=1e-4)
    alone = vizsynth.infidelity(net, x[2:], LABELS[2:], phi[2:], key=keys[2:], samples=9)
    np.testing.assert_allclose(whole.values[2:], alone.values, rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attributions": jnp.zeros((N, *SIZE))}, "attributions must be as the images"),
        ({"attributions": np.full((N, *SIZE, 3), np.nan)}, "NaN"),
        ({"key": None}, "either a key"),
        ({"perturbations": jnp.zeros((2, N, *SIZE, 3))}, "either a key"),
        ({"key": None, "perturbations": jnp.zeros((2, 2, *SIZE, 3))}, "perturbations must be"),
        ({"key": None, "perturbations": jnp.zeros((N, *SIZE, 3))}, "perturbations must be"),
        ({"samples": 0}, "samples must be"),
        ({"noise": 0.0}, "noise must be positive"),
        ({"key": jax.random.PRNGKey(0)}, "new-style key"),
    ],
)
def test_says_what_is_wrong(changes, message):
    arguments = {"target": 0, "attributions": jnp.zeros((N, *SIZE, 3)), "key": KEY} | changes
    with pytest.raises((TypeError, ValueError), match=message):
        vizsynth.infidelity(network(), images(), **arguments)
