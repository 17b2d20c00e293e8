"""The history of a training: a record per epoch."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Array

from vizsynth.core.atomic import write_atomic
from vizsynth.core.claims import parse_json


class Record(NamedTuple):
    """The numbers of an epoch."""

    epoch: int
    """From 1."""
    learning_rate: float
    """At the epoch's last step."""
    loss: float
    """The mean over the epoch's augmented batches, each before its step."""
    accuracy: float
    """The share of the same images that was classified correctly."""
    validation_loss: float | None
    """At the epoch's end."""
    validation_accuracy: float | None


def records(history: Array) -> tuple[Record, ...]:
    """Return the records of a state's array; NaN becomes None."""
    known = [
        [None if np.isnan(v) else float(str(v)) for v in row] for row in np.asarray(history)
    ]  # 0.4, not 0.4000000059
    return tuple(Record(i, *row) for i, row in enumerate(known, start=1) if row[0] is not None)  # type: ignore


def best_epoch(history: Sequence[Record]) -> Record | None:
    """Return the epoch of the highest validation accuracy; ties go to the lower loss, then to the earlier
    epoch.

    Without validation, return the last epoch.
    """
    if not history or history[-1].validation_accuracy is None:
        return history[-1] if history else None
    return max(history, key=lambda r: (r.validation_accuracy, -(r.validation_loss or 0.0), -r.epoch))


def is_over(history: Sequence[Record], epochs: int, patience: int | None) -> bool:
    """Tell whether all epochs are done, or `patience` epochs passed since the best one."""
    best = best_epoch(history)
    waited = 0 if best is None else history[-1].epoch - best.epoch
    return len(history) == epochs or (patience is not None and waited >= patience)


def write_history(path: str | Path, history: Sequence[Record]) -> None:
    """Write the records as JSON, whole or not at all."""
    write_atomic(path, json.dumps([r._asdict() for r in history], indent=1) + "\n")


def read_history(path: str | Path) -> tuple[Record, ...]:
    """Read the records that `write_history` wrote.

    Raises:
        OSError: there is no such file.
        ValueError: the file is damaged.
    """
    try:
        return tuple(Record(**fields) for fields in parse_json(Path(path).read_bytes()))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is no history of a training ({error})") from None
