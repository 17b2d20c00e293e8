"""Calls that do not wait for each other, held to the bits of the same calls waited for."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import calls
import jax
import numpy as np


def hold(subject: calls.Subject, methods: Mapping[str, calls.Call]) -> dict[str, list[np.ndarray]]:
    """Call all methods one by one, and three times back to back; return their results."""
    wanted = {name: calls.leaves(jax.block_until_ready(call(subject))) for name, call in methods.items()}
    broken = [
        name
        for name, arrays in wanted.items()
        if name != "no_patches" and not all(np.isfinite(a).all() for a in arrays if a.dtype.kind == "f")
    ]
    assert not broken, f"not finite: {broken}"
    for _ in range(3):
        results = {name: call(subject) for name, call in methods.items()}
        assert not calls.different(results, wanted)
    return wanted


def hold_from_threads(subject: calls.Subject, methods: Mapping[str, calls.Call]) -> None:
    """Call all methods one by one, and from four threads."""
    wanted = {name: calls.leaves(jax.block_until_ready(call(subject))) for name, call in methods.items()}
    names = list(methods)

    def run(thread: int) -> dict[str, Any]:
        # Two threads call the same ones, in opposite orders.
        mine = names[thread // 2 :: 2]
        return {name: methods[name](subject) for name in (mine if thread % 2 else mine[::-1])}

    with ThreadPoolExecutor(4) as pool:
        for results in pool.map(run, range(4)):
            assert not calls.different(results, wanted)
