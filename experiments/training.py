"""What the scripts that train a classifier share: progress on paper, checkpoints, the history's picture."""

import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

import vizsynth
from vizsynth import models, training
from vizsynth.cli.classifying import draw_history


def train(
    net: Any,
    data: training.Examples,
    validation: training.Examples,
    out: Path,
    *,
    name: str,
    seed: int = 0,
    steps: int | None = None,
    folded: bool = True,
    **settings: Any,
) -> tuple[Any, dict[str, Any]]:
    """Fit a network, going on from a checkpoint in `out`; return it and its numbers.

    Its weights, its history and the curves are written as `NAME.safetensors`, `NAME.json`, `NAME.png`.

    Args:
        net: where to begin.
        data: what it learns from.
        validation: what chooses the epoch.
        out: the folder.
        name: of the files.
        seed: of the order and the changes.
        steps: stop after so many, as `--quick` does.
        folded: whether batch normalization becomes part of the convolutions.
        settings: of `vizsynth.fit`.
    """
    out.mkdir(parents=True, exist_ok=True)
    began = told = time.perf_counter()

    def watch(now: training.Progress) -> bool:
        nonlocal told
        stop = steps is not None and now.step >= steps
        ended = now.history[-1] if now.history and now.step % (now.steps // settings["epochs"]) == 0 else None
        if ended is not None:
            print(
                f"{name}: epoch {ended.epoch}/{settings['epochs']}: loss {ended.loss:.4f}, accuracy "
                f"{ended.accuracy:.4f}; held out: loss {ended.validation_loss:.4f}, accuracy "
                f"{ended.validation_accuracy:.4f}; {time.perf_counter() - began:.0f} s",
                flush=True,
            )
        elif stop or time.perf_counter() - told > 15:
            told = time.perf_counter()
            print(f"{name}: step {now.step}/{now.steps}, loss {float(now.loss):.4f}", flush=True)
        return stop

    fitted = vizsynth.fit(
        net,
        data,
        validation=validation,
        key=jax.random.key(seed),
        folder=None if steps is not None else out / "state" / name,
        watch=watch,
        **settings,
    )
    seconds = time.perf_counter() - began
    made = models.fold_batch_norm(fitted.net) if folded else fitted.net
    size = (data.images.shape[1], data.images.shape[2])
    origin = f"trained by experiments of vizsynth ({name})"
    record = models.record_of(made, name, input_size=size, origin=origin)
    models.save(out / f"{name}.safetensors", made, record)
    numbers = {
        "examples": len(data.labels),
        "held_out": len(validation.labels),
        "seconds": round(seconds, 1),
        "steps": int(fitted.state.step),
        "epoch": None if fitted.best is None else fitted.best.epoch,
        "held_out_accuracy": vizsynth.predict(made, validation).accuracy,
        "settings": {k: v if isinstance(v, int | float) else str(v) for k, v in settings.items()},
    }
    training.write_history(out / f"{name}.json", fitted.history)
    if fitted.history:
        draw_history(out / f"{name}.png", fitted.history)
    return made, numbers


def as_floats(images: np.ndarray) -> np.ndarray:
    """Return uint8 images as float in [0, 1]."""
    return images.astype(np.float32) / 255
