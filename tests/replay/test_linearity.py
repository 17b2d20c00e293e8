"""Only what is affine is called so."""

import jax
import jax.numpy as jnp
import pytest

from vizsynth.replay.linearity import is_affine

X = jnp.arange(12.0).reshape(2, 2, 3)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x,
        lambda x: 3 - 2 * x / 7,
        lambda x: x.mean(axis=(0, 1)) @ jnp.ones((3, 4)) + jnp.arange(4.0),
        lambda x: jnp.take_along_axis(x.reshape(2, 6), jnp.asarray([[1], [2]]), axis=1),
        jax.jit(lambda x: x.sum() * jnp.exp(2.0)),
        lambda x: jnp.concatenate([x, -x[::-1]]).transpose(2, 0, 1),
    ],
)
def test_affine(function):
    assert is_affine(function, X)
    at = [function(X * t) for t in (0.0, 1.0, 2.0)]
    assert jnp.allclose(at[2] - at[1], at[1] - at[0], atol=1e-4)


@pytest.mark.parametrize(
    "function",
    [
        jax.nn.relu,
        lambda x: x * x,
        lambda x: x @ x.transpose(0, 2, 1),
        lambda x: 1 / (1 + x),
        lambda x: jnp.where(x > 1, x, 0),
        jax.jit(jnp.tanh),
        lambda x: x.max(),
        lambda x: jax.lax.scan(lambda c, r: (c + r, None), jnp.zeros((2, 3)), x)[0],  # not told
    ],
)
def test_not_known_to_be_affine(function):
    assert not is_affine(function, X)
