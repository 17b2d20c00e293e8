"""A run that needs no network: some arithmetic, step by step."""

from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from vizsynth.cli import making
from vizsynth.cli.output import OutputFolder
from vizsynth.types import Synthesis

ORIGIN = {"command": "toy", "seed": 0}


class State(NamedTuple):
    params: Any
    step: Any


def take(state: Any, count: int, n: int = 1) -> Synthesis:
    """Take steps towards white; the objective is the mean light before each of them."""
    if state is None:
        state = State(jnp.zeros((n, 4, 4, 3)), jnp.zeros((n,), jnp.int32))
    images, trace = state.params, [jnp.zeros((len(state.params), 0))]
    for _ in range(count):
        trace.append(images.mean(axis=(1, 2, 3))[:, None])
        images = images * 0.75 + 0.25
    return Synthesis(images, jnp.concatenate(trace, axis=1), State(images, state.step + count))


def opened(out: Path, *, steps: int = 6, every: int | None = 2, **options: Any) -> OutputFolder:
    """Return the folder of a run, checked."""
    folder = OutputFolder(out, options.pop("origin", ORIGIN), **({"resume": False} | options))
    folder.check(["made.png"], frames=making.frames(every, steps, folder))
    return folder


def made(
    out: Path, *, steps: int = 6, every: int | None = 2, takes: Any = take, **options: Any
) -> dict[str, Any]:
    """Run it as a command does; return the numbers."""
    folder = opened(out, steps=steps, every=every, **options)
    found = making.make(takes, what="toy", steps=steps, every=every, folder=folder, quiet=True)
    numbers = {
        "steps": found.steps,
        "finished": found.stopped is None,
        "objective": making.objective_summary(found.trace),
        "trace": np.asarray(found.trace).tolist(),
        "frames": found.frames,
    }
    folder.write({"made.png": found.images[0]}, numbers)
    making.finish(folder, [found])
    return numbers
