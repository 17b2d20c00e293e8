"""What `train` and `fine-tune` share: their options, the labelled images, the training, what it leaves."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np

from vizsynth.cli import common, making
from vizsynth.cli.output import OutputFolder
from vizsynth.core.signals import exit_code

NETWORK, HISTORY, CURVES = "network.safetensors", "history.json", "history.png"
SCHEDULES = ("constant", "cosine", "one-cycle", "stairs")
AUGMENTATIONS = ("none", "shift", "mirror")
TOLD = 20  # images that could not be read, by name; numbers.json has them all

data = click.argument("data", type=click.Path(path_type=Path), metavar="DATA")
epochs = click.option(
    "--epochs", type=click.IntRange(1, 100_000), default=10, help="How often all images are seen [10]."
)
batch_size = click.option(
    "--batch-size", type=click.IntRange(1, 65536), default=64, metavar="IMAGES", hidden=True,
    help="Images a step [64].",
)  # fmt: skip
weight_decay = click.option(
    "--weight-decay", type=click.FloatRange(0), default=1e-4, metavar="DECAY", hidden=True,
    help="Of kernels, as AdamW has it [0.0001].",
)  # fmt: skip
schedule = click.option(
    "--schedule", type=click.Choice(SCHEDULES), default="cosine", hidden=True,
    help="How the learning rate goes [cosine].",
)  # fmt: skip
augment = click.option(
    "--augment", type=click.Choice(AUGMENTATIONS), default="none",
    help="Shift images; mirror: that, too [none].",
)  # fmt: skip
freeze = click.option(
    "--freeze", multiple=True, metavar="LAYER", hidden=True,
    help="A layer, or what its name begins with, that is not trained; repeatable.",
)  # fmt: skip
freeze_to = click.option("--freeze-to", metavar="LAYER", help="Train only what comes after this layer.")
patience = click.option(
    "--patience", type=click.IntRange(1), metavar="EPOCHS",
    help="Stop after so many that were no better.",
)  # fmt: skip
validation = click.option(
    "--validation", type=click.FloatRange(0, 1, max_open=True), default=0.1, metavar="SHARE",
    hidden=True, help="Held out, where DATA holds none out itself [0.1].",
)  # fmt: skip


def learning_rate(default: float) -> Callable[[Any], Any]:
    """Return the option for the learning rate."""
    return click.option(
        "--learning-rate", type=click.FloatRange(0, min_open=True), default=default, metavar="RATE",
        help=f"At its highest [{default:g}].",
    )  # fmt: skip


def size(default: int) -> Callable[[Any], Any]:
    """Return the option for the size of the images."""
    return click.option(
        "--size", type=click.IntRange(8, 4096), default=default, metavar="PIXELS",
        help=f"Of images, cut square [{default}].",
    )  # fmt: skip


class Settings(NamedTuple):
    """How a training goes."""

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    schedule: str
    augment: str
    freeze: tuple[str, ...]
    freeze_to: str | None
    patience: int | None
    validation: float
    size: int
    seed: int


def augmentation(name: str, size: int) -> Any:
    """Return what changes the training images."""
    from vizsynth.transforms import Jitter, Mirror, Pad, Sequence, none

    shift = max(1, size // 16)
    shifted = (Pad(shift), Jitter(2 * shift))
    return {"none": none, "shift": Sequence(shifted), "mirror": Sequence((Mirror(), *shifted))}[name]


def train(
    made: Callable[[tuple[str, ...], int], Any],
    data: Path,
    settings: Settings,
    *,
    command: str,
    network: str,
    weights: str | None,
    out: Path | None,
    resume: bool,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Train a network on labelled images and write what comes of it.

    Args:
        made: `made(classes, seed)` is the network before the training.
        data: the labelled images.
        settings: how it goes.
        command: its name.
        network: the network's.
        weights: those it began with.
        out: where files go.
        resume: whether to go on with a training that was stopped there.
        overwrite: whether files of others may go.
        as_json: whether to print JSON.
        quiet: whether to show nothing on the way.
    """
    import jax

    import vizsynth
    from vizsynth import models, training
    from vizsynth.datasets.folders import Skipped
    from vizsynth.datasets.labelled import read_labelled

    began = time.monotonic()
    origin = {
        "command": command, "data": data.name, "network": network, "weights": weights,
        **{k: list(v) if isinstance(v, tuple) else v for k, v in settings._asdict().items()},
    }  # fmt: skip
    folder = OutputFolder(
        out or common.usual_folder(data.absolute().stem, f"-{common.plain_name(network)}"),
        origin,
        overwrite=overwrite,
        resume=resume,
    )
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
                patience=settings.patience, folder=states, origin={"network": network, "weights": weights},
                watch=watched,
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
        "versions": common.versions(),
        "device": jax.devices()[0].device_kind,
    }

    def save(path: Path) -> None:
        how = f"vizsynth {command}: {len(fitted.history)} epochs of {len(examples.labels)} images"
        record = models.record_of(net, network, input_size=(settings.size, settings.size), origin=how)
        models.save(path, net, record)

    files: dict[str, Any] = {NETWORK: save, HISTORY: _as_json(fitted.history)}
    if fitted.history:
        files[CURVES] = lambda path: draw_history(path, fitted.history)
    names = folder.write(files, numbers)
    if as_json:
        common.tell_json({**origin, **numbers, "out": str(folder.path), "files": names})
    else:
        common.tell(_summary(fitted), f"wrote into {folder.path}: {', '.join(names)}")
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
