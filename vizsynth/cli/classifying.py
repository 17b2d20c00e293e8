"""What `train` and `fine-tune` share: their options, the labelled images, the training, what it leaves."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from vizsynth.cli import common, making, options
from vizsynth.cli.options import Resumable
from vizsynth.cli.settings import argument, name_of, option
from vizsynth.core.signals import exit_code

NETWORK, HISTORY, CURVES = "network.safetensors", "history.json", "history.png"
SCHEDULES = ("constant", "cosine", "one-cycle", "stairs")
AUGMENTATIONS = ("none", "shift", "mirror")
TOLD = 20  # images that could not be read, by name; numbers.json has them all


def learning_rate(usual: float) -> Any:
    """Return the option for the learning rate."""
    return option(usual, "At its highest", type=options.ABOVE_0, metavar="RATE")


def size(usual: int) -> Any:
    """Return the option for the size of the images."""
    return option(usual, "Of images, cut square", type=click.IntRange(8, 4096), metavar="PIXELS")


@dataclass(frozen=True, kw_only=True)
class Training(Resumable):
    """The settings of a training."""

    data: Path = argument(metavar="DATA")
    network: str = options.network()
    weights: str | None = options.weights()
    epochs: int = option(10, "How often all images are seen", type=click.IntRange(1, 100_000))
    batch_size: int = option(
        64, "Images a step", type=click.IntRange(1, 65536), metavar="IMAGES", hidden=True
    )
    learning_rate: float = learning_rate(1e-3)
    weight_decay: float = option(
        1e-4, "Of kernels, as AdamW has it", type=options.WEIGHT, metavar="DECAY", hidden=True
    )
    schedule: str = option("cosine", "How the learning rate goes", type=click.Choice(SCHEDULES), hidden=True)
    augment: str = option("none", "Shift images; mirror: that, too", type=click.Choice(AUGMENTATIONS))
    freeze: tuple[str, ...] = option(
        (), "A layer, or what its name begins with, that is not trained; repeatable", metavar="LAYER",
        hidden=True,
    )  # fmt: skip
    freeze_to: str | None = option(None, "Train only what comes after this layer", metavar="LAYER")
    patience: int | None = option(
        None, "Stop after so many that were no better", type=options.COUNT, metavar="EPOCHS"
    )
    validation: float = option(
        0.1, "Held out, where DATA holds none out itself", type=click.FloatRange(0, 1, max_open=True),
        metavar="SHARE", hidden=True,
    )  # fmt: skip
    size: int = size(64)
    out: Path | None = options.out("DATA-NAME")


def augmentation(name: str, size: int) -> Any:
    """Return what changes the training images."""
    from vizsynth.transforms import Jitter, Mirror, Pad, Sequence, none

    shift = max(1, size // 16)
    shifted = (Pad(shift), Jitter(2 * shift))
    return {"none": none, "shift": Sequence(shifted), "mirror": Sequence((Mirror(), *shifted))}[name]


def train(made: Callable[[tuple[str, ...], int], Any], settings: Training, network: str) -> None:
    """Train a network on labelled images and write what comes of it.

    Args:
        made: `made(classes, seed)` is the network before the training.
        settings: how it goes.
        network: the network's name.
    """
    import jax

    import vizsynth
    from vizsynth import models, training
    from vizsynth.datasets.folders import Skipped
    from vizsynth.datasets.labelled import read_labelled

    began = time.monotonic()
    data, quiet = settings.data, settings.quiet
    names = (data.absolute().stem, network)
    folder = settings.open(*names, resolved={"network": network})
    folder.check([NETWORK, HISTORY, CURVES], inputs=[data])

    key = jax.random.key(settings.seed)
    skipped: list[Skipped] = []
    common.say(f"reading {data} ...", quiet)
    examples, held_out = read_labelled(data, settings.size, skipped=skipped)
    if held_out is None and settings.validation > 0:
        examples, held_out = training.split(examples, settings.validation, key=key)
    _tell(skipped, quiet)
    if held_out is None and settings.patience is not None:
        raise common.BadInput("--patience needs images that are held out; give --validation a share above 0")
    net = made(examples.classes, settings.seed)
    frozen = settings.freeze
    if settings.freeze_to is not None:
        frozen += training.up_to(net, models.layer_name(net, settings.freeze_to))
    asked: Any = None

    def watched(now: Any) -> bool:
        nonlocal asked
        asked = watch(now)
        return bool(asked)

    try:
        with folder.working() as states, _watched(network, settings.epochs, quiet) as watch:
            fitted = vizsynth.fit(
                net, examples, key=key, validation=held_out, epochs=settings.epochs,
                batch_size=settings.batch_size, learning_rate=settings.learning_rate,
                weight_decay=settings.weight_decay, schedule=training.SCHEDULES[settings.schedule],
                augment=augmentation(settings.augment, settings.size), frozen=frozen,
                patience=settings.patience, folder=states,
                origin={"network": network, "weights": settings.weights}, watch=watched,
            )  # fmt: skip
    except training.Diverged as error:
        raise making.Stopped(str(error), 1) from None
    net = models.fold_batch_norm(fitted.net)
    best = fitted.best
    numbers = {
        "classes": list(examples.classes),
        "images": len(examples.labels),
        "held_out": 0 if held_out is None else len(held_out.labels),
        "skipped": [{"path": str(bad.path), "reason": bad.reason} for bad in skipped],
        "frozen": list(frozen),
        "steps": int(fitted.state.step),
        "epochs_done": len(fitted.history),
        "finished": fitted.finished,
        "best": None if best is None else best._asdict(),
        "seconds": round(time.monotonic() - began, 1),
    }

    def save(path: Path) -> None:
        how = f"vizsynth {name_of(settings)}: {len(fitted.history)} epochs of {len(examples.labels)} images"
        record = models.record_of(net, network, input_size=(settings.size, settings.size), origin=how)
        models.save(path, net, record)

    files: dict[str, Any] = {NETWORK: save, HISTORY: _as_json(fitted.history)}
    if fitted.history:
        files[CURVES] = lambda path: draw_history(path, fitted.history)
    settings.write(folder, files, numbers, _summary(fitted))
    if not fitted.finished:
        steps = f"after {len(fitted.history)} of {settings.epochs} epochs"
        raise making.Stopped(f"interrupted {steps}; --resume goes on from there", exit_code(asked))
    folder.discard()


def _tell(skipped: Sequence[Any], quiet: bool) -> None:
    if skipped:
        names = ", ".join(str(bad.path) for bad in skipped[:TOLD])
        more = f" and {len(skipped) - TOLD} more" if len(skipped) > TOLD else ""
        common.say(f"{len(skipped)} images cannot be read and are left out: {names}{more}", quiet)


def _as_json(history: Sequence[Any]) -> str:
    return json.dumps([record._asdict() for record in history], indent=1) + "\n"


def _summary(fitted: Any) -> str:
    best = fitted.best
    if best is None:
        return "no epoch was finished"
    if best.validation_accuracy is None:
        return f"accuracy {best.accuracy:.4f} in epoch {best.epoch}, on the images it learned from"
    return f"accuracy {best.validation_accuracy:.4f} on the images held out, in epoch {best.epoch}"


@contextmanager
def _watched(what: str, epochs: int, quiet: bool) -> Iterator[Callable[[Any], Any]]:
    """Give what `fit` is to call after each step: it shows how far it is, and returns what asked to stop."""
    shown, epoch = 0.0, 0
    with ExitStack() as stack, making.patient() as asked:
        advance: Callable[[int, np.ndarray], None] | None = None

        def watch(now: Any) -> Any:
            nonlocal shown, epoch, advance
            if advance is None:
                advance = stack.enter_context(making.bar(what, now.steps, quiet))
            ended = len(now.history) > epoch
            if ended or time.monotonic() - shown > 1:
                shown = time.monotonic()
                advance(now.step, np.asarray([[float(now.loss)]]))
            if ended:
                epoch = len(now.history)
                common.say(f"epoch {epoch}/{epochs}: {_line(now.history[-1])}", quiet)
            return asked()

        yield watch


def _line(record: Any) -> str:
    text = f"loss {record.loss:.4f}, accuracy {record.accuracy:.4f}"
    if record.validation_accuracy is None:
        return text
    return f"{text}; held out: loss {record.validation_loss:.4f}, accuracy {record.validation_accuracy:.4f}"


def draw_history(path: Path, history: Sequence[Any]) -> None:
    """Draw loss, accuracy and learning rate against the epochs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.4), layout="constrained")
    epochs = [record.epoch for record in history]
    measures: Mapping[str, Mapping[str, str]] = {
        "loss": {"training": "loss", "held out": "validation_loss"},
        "accuracy": {"training": "accuracy", "held out": "validation_accuracy"},
        "learning rate": {"": "learning_rate"},
    }
    for axes, (title, lines) in zip(figure.subplots(1, 3), measures.items(), strict=True):
        for label, field in lines.items():
            values = [getattr(record, field) for record in history]
            if values[0] is not None:
                axes.plot(epochs, values, marker="o", markersize=3, label=f"{label} {values[-1]:.4g}".strip())
        axes.set(title=title, xlabel="epoch")
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=120, format="png")
