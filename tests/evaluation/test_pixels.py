"""The order of pixels, held to NumPy's stable sort."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from vizsynth.evaluation.pixels import ranks


def sorted_ranks(maps: np.ndarray) -> np.ndarray:
    """Return the place of each value by two sorts in float64."""
    order = np.argsort(-maps.astype(np.float64).reshape(len(maps), -1), axis=1, kind="stable")
    return np.argsort(order, axis=1).reshape(maps.shape)


@given(
    arrays.arrays(np.float32, (2, 3, 4), elements=st.floats(-2, 2, width=16))
    | arrays.arrays(np.float32, (2, 3, 4), elements=st.floats(width=32, allow_nan=False))
)
def test_the_largest_comes_first_and_the_first_of_equal_ones(maps: np.ndarray) -> None:
    np.testing.assert_array_equal(ranks(jnp.asarray(maps)), sorted_ranks(maps))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_of_any_precision_in_any_loop(dtype: str, x64: None) -> None:
    maps = jax.random.normal(jax.random.key(0), (3, 20, 30)).round(1).astype(dtype)
    maps = maps.at[0].set(0.0).at[0, 3].set(-0.0).at[1, 2].multiply(1e4)
    wanted = sorted_ranks(np.asarray(maps))
    looped = jax.jit(lambda maps: jax.lax.map(lambda m: ranks(m[None])[0], maps))
    for function in (ranks, jax.jit(ranks), looped):
        found = function(maps)
        np.testing.assert_array_equal(found, wanted)
        assert found.dtype == jnp.int32
