"""Calls that wait neither for each other nor for their arguments, held to the bits of calls waited for."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import calls
import jax
import jax.numpy as jnp
import numpy as np


def hold(subject: calls.Subject, methods: Mapping[str, calls.Call]) -> dict[str, list[np.ndarray]]:
    """Call all methods one by one, twice back to back, and before their arguments are there."""
    wanted = {name: calls.leaves(jax.block_until_ready(call(subject))) for name, call in methods.items()}
    broken = [
        name
        for name, arrays in wanted.items()
        if name != "no_patches" and not all(np.isfinite(a).all() for a in arrays if a.dtype.kind == "f")
    ]
    assert not broken, f"not finite: {broken}"
    for _ in range(2):
        results = {name: call(subject) for name, call in methods.items()}
        assert not calls.different(results, wanted)
    waiting = [
        name
        for name, call in methods.items()
        if name not in calls.waiting() and waits(call, subject, wanted={name: wanted[name]})
    ]
    assert not waiting, f"returned only after their arguments were ready: {waiting}"
    return wanted


@jax.jit
def later(arrays: Any, ones: Any) -> Any:
    """Return the arrays as they are, half a second later."""
    end = jax.lax.fori_loop(0, 1000, lambda _, a: a @ ones / len(ones), ones).min()
    return jax.tree.map(lambda leaf: jnp.where(end > 0, leaf, 0 * leaf), arrays)


def waits(
    call: calls.Call, subject: Any, *, wanted: Mapping[str, list[np.ndarray]] | None = None, tries: int = 3
) -> bool:
    """Tell whether a call returns only after its arguments are ready, in each of several tries."""
    for _ in range(tries):
        net, images, target = later((subject.net, subject.images, subject.target), jnp.ones((512, 512)))
        result = call(subject._replace(net=net, images=images, target=target))
        returned_before = not images.is_ready()
        if wanted is not None:
            assert not calls.different(dict.fromkeys(wanted, result), wanted)
        if returned_before:
            return False
    return True


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
