"""The history of a training: a record an epoch."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Array

from vizsynth.core.atomic import write_atomic
from vizsynth.core.claims import parse_json


class Record(NamedTuple):
    """What an epoch gave."""

    epoch: int
    """From 1 on."""
    learning_rate: float
    """At the epoch's last step."""
    loss: float
    """The mean over the epoch's batches, each before its step and as it was changed."""
    accuracy: float
    """The share of them that was told right."""
    validation_loss: float | None
    """At the epoch's end."""
    validation_accuracy: float | None


def records(history: Array) -> tuple[Record, ...]:
    """Return the records that a state holds as an array; NaN stands for none."""
    known = [
        [None if np.isnan(v) else float(str(v)) for v in row] for row in np.asarray(history)
    ]  # 0.4, not 0.4000000059
    return tuple(Record(i, *row) for i, row in enumerate(known, start=1) if row[0] is not None)  # type: ignore


def best_epoch(history: Sequence[Record]) -> Record | None:
    """Return the epoch of the highest validation accuracy, of the lowest loss among equals, the first of all.

    Without validation it is the last one.
    """
    if not history or history[-1].validation_accuracy is None:
        return history[-1] if history else None
    return max(history, key=lambda r: (r.validation_accuracy, -(r.validation_loss or 0.0), -r.epoch))


def is_over(history: Sequence[Record], epochs: int, patience: int | None) -> bool:
    """Tell whether all epochs are done, or so many in a row were no better than the best."""
    best = best_epoch(history)
    waited = 0 if best is None else history[-1].epoch - best.epoch
    return len(history) == epochs or (patience is not None and waited >= patience)


def write_history(path: str | Path, history: Sequence[Record]) -> None:
    """Write the records as JSON, whole or not at all."""
    write_atomic(path, json.dumps([r._asdict() for r in history], indent=1) + "\n")


def read_history(path: str | Path) -> tuple[Record, ...]:
    """Read the records that `write_history` wrote.

    Raises:
        OSError: no such file.
        ValueError: a damaged one.
    """
    try:
        return tuple(Record(**fields) for fields in parse_json(Path(path).read_bytes()))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is no history of a training ({error})") from None
