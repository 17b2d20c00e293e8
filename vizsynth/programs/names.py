"""The names of the layers of a traced program.

A module's output has the module's path, `blocks.0.conv`. An operation between modules has its kind and its
number within the enclosing module, `blocks.0.relu1`. The second use of a module is `conv@2`.
"""

from collections import Counter
from collections.abc import Sequence

from vizsynth.programs.steps import Path, Step

_KINDS = {
    "relu": "relu",
    "max_pool": "pool",
    "mean_pool": "pool",
    "global_max": "pool",
    "global_mean": "mean",
    "add": "add",
    "concatenate": "concatenate",
    "affine": "norm",
    "product": "layer",
    "activation": "activation",
}


class _Run:
    """Steps of one call of a module."""

    def __init__(self, path: Path):
        self.path = path
        self.steps: list[int] = []


def _runs(steps: Sequence[Step]) -> list[_Run]:
    """Return the calls of all modules; the call of an outer module includes those of its inner ones."""
    closed: list[_Run] = []
    opened: dict[Path, _Run] = {}
    for i, step in enumerate(steps):
        paths = [step.owner[:k] for k in range(1, len(step.owner) + 1)]
        for path in [path for path in opened if path not in paths]:
            closed.append(opened.pop(path))
        own = opened.get(step.owner)
        if own is not None and step.kind == "product" and _repeats(steps, own, step):
            closed.append(opened.pop(step.owner))  # a layer applied to its own output
        for path in paths:
            opened.setdefault(path, _Run(path)).steps.append(i)
    return [*closed, *opened.values()]


def _repeats(steps: Sequence[Step], run: _Run, step: Step) -> bool:
    return any(steps[i].kind == "product" and steps[i].weight == step.weight for i in run.steps)


def layer_names(steps: Sequence[Step], results: set[int], *, classes: bool) -> list[list[str]]:
    """Return the tap names of each step's output, the innermost module's first.

    Args:
        steps: the program.
        results: its return values.
        classes: whether it returns one vector per image; its last name is then `logits`.
    """
    users: dict[int, set[int]] = {}
    for i, step in enumerate(steps):
        for value in step.inputs:
            users.setdefault(value, set()).add(i)

    ends: list[tuple[int, _Run]] = []
    for run in _runs(steps):
        within = set(run.steps)
        left = [
            i for i in run.steps if steps[i].output in results or users.get(steps[i].output, set()) - within
        ]
        if len(left) == 1:  # a module with several outputs has none to tap
            ends.append((left[0], run))

    named: list[list[str]] = [[] for _ in steps]
    taken: Counter[str] = Counter()

    def name(i: int, typed: str) -> None:
        taken[typed] += 1
        named[i].append(typed if taken[typed] == 1 else f"{typed}@{taken[typed]}")

    for i, run in sorted(ends, key=lambda end: (end[0], -len(end[1].path))):
        name(i, run.path[-1])
    counts: Counter[tuple[Path, str]] = Counter()
    for i, step in enumerate(steps):
        if named[i] or step.kind not in _KINDS:
            continue
        kind = _KINDS[step.kind]
        counts[step.owner, kind] += 1
        name(i, ".".join((*step.owner[-1:], f"{kind}{counts[step.owner, kind]}")))
    for i, step in enumerate(steps):
        if classes and step.output in results and "logits" not in named[i]:
            name(i, "logits")
    return named
