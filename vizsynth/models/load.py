"""Networks with their weights, by name."""

import os
from importlib.resources import files
from pathlib import Path
from typing import Any

from vizsynth.models.labels import imagenet_labels
from vizsynth.models.layers import fold_batch_norm
from vizsynth.models.network import with_attributes
from vizsynth.models.weights import Weights, WeightsError, fit, is_folded, read, skeleton

BUNDLED = Path(str(files("vizsynth") / "data" / "squeezenet1_1.safetensors"))


def load(name: str, weights: str | os.PathLike[str] | None = None) -> Any:
    """Return a network with its weights."""
    path = BUNDLED if name == "squeezenet1_1" and weights in (None, "bundled") else weights or name
    tensors, record = read(path)
    if record.network != name != path:
        raise WeightsError(f"{path} holds weights of {record.network}, not of {name}")
    net = fit(skeleton(record.config, folded=is_folded(tensors)), tensors)
    return finished(net, record)


def finished(net: Any, record: Weights) -> Any:
    """Fold the batch normalization, and let the network know its record."""
    labels = record.labels
    if labels is None and net.num_classes == 1000:
        labels = imagenet_labels()
    return with_attributes(
        fold_batch_norm(net), labels=labels, standardize=record.standardize, record=record
    )
