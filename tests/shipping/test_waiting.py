"""What tells that a call waits for its arrays: every way in which they become NumPy's or Python's."""

from collections.abc import Callable
from typing import Any

import calls
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import together

SUBJECT = calls.Subject(None, jnp.ones((2, 2)), jnp.asarray([1, 0]), "")
WAYS: dict[str, Callable[[Any], Any]] = {
    "asarray": np.asarray,
    "isfinite": np.isfinite,
    "any": lambda x: bool((x > 0).any()),
    "float": lambda x: float(x[0, 0]),
    "int": lambda x: int(x.sum()),
    "tolist": lambda x: x.tolist(),
    "item": lambda x: x[0, 0].item(),
    "device_get": jax.device_get,
    "list": lambda x: [float(v) for v in x[0]],
    "block_until_ready": jax.block_until_ready,
}


@pytest.mark.parametrize("name", WAYS)
def test_what_looks_at_values_is_seen_to_wait(name: str) -> None:
    assert together.waits(lambda s: WAYS[name](s.images), SUBJECT, tries=1)


def test_what_computes_with_them_does_not_wait() -> None:
    for function in (jax.jit(jnp.sin), jnp.sin, jnp.asarray, np.shape):
        jax.block_until_ready(function(SUBJECT.images))
        assert not together.waits(lambda s, f=function: f(s.images), SUBJECT)
