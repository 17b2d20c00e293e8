"""Every public function on the network that comes with the package, called back to back."""

import inspect
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import calls
import jax
import numpy as np
import pytest

import vizsynth

ALL = calls.compiled() | calls.on_the_host()
# What has nothing to compute: classes, and what changes the process or the disk.
OTHERS = {"keep_memory", "write_image"}


@pytest.fixture(scope="module")
def wanted() -> dict[str, list[np.ndarray]]:
    """Return the result of each call, waited for before the next one."""
    subject = calls.bundled()
    return {name: calls.leaves(jax.block_until_ready(call(subject))) for name, call in ALL.items()}


def test_every_public_function_is_called() -> None:
    public = {name: getattr(vizsynth, name) for name in dir(vizsynth) if not name.startswith("_")}
    functions = {
        name
        for name, value in public.items()
        if (inspect.isfunction(value) or hasattr(value, "compiled"))
        and value.__module__.startswith("vizsynth")
    }
    assert functions - OTHERS == set(ALL)


def test_results_are_finite(wanted: dict[str, list[np.ndarray]]) -> None:
    assert not [
        name
        for name, found in wanted.items()
        if not all(np.isfinite(a).all() for a in found if a.dtype.kind == "f") and name != "no_patches"
    ]


def test_calls_that_nobody_waits_for(wanted: dict[str, list[np.ndarray]]) -> None:
    subject = calls.bundled()
    for _ in range(3):
        results = {name: call(subject) for name, call in ALL.items()}
        assert not calls.different(results, wanted)


def test_four_threads(wanted: dict[str, list[np.ndarray]]) -> None:
    subject, names = calls.bundled(), list(calls.compiled())

    def run(thread: int) -> dict[str, Any]:
        first = thread * len(names) // 4  # each begins elsewhere
        return {name: ALL[name](subject) for name in names[first:] + names[:first]}

    with ThreadPoolExecutor(4) as pool:
        for results in pool.map(run, range(4)):
            assert not calls.different(results, wanted)
