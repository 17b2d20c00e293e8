"""`vizsynth train`: a fresh network learns the classes of labelled images."""

from pathlib import Path
from typing import Any

import click

from vizsynth.cli import classifying, common, making


@click.command("train")
@classifying.data
@click.option(
    "--network", "-n", default="resnet18", metavar="NAME",
    help="As `vizsynth networks` lists them [resnet18].",
)  # fmt: skip
@classifying.epochs
@classifying.batch_size
@classifying.learning_rate(1e-3)
@classifying.weight_decay
@classifying.schedule
@classifying.augment
@classifying.patience
@classifying.validation
@classifying.size(64)
@making.resume
@common.seed
@common.out("out/DATA-NAME")
@common.overwrite
@common.as_json
@common.quiet
@common.help_all
def command(
    data: Path,
    network: str,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    schedule: str,
    augment: str,
    patience: int | None,
    validation: float,
    size: int,
    resume: bool,
    seed: int,
    out: Path | None,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Train a fresh network on DATA: labelled images.

    DATA: a folder with a folder of images for each class (or such in train and
    val), CIFAR-10's archive, MNIST's folder, or a CSV of pixels and labels.
    Writes network.safetensors, which every --weights takes, and its history.
    """
    from vizsynth.models import catalogue, fresh_network

    if network not in (known := catalogue()):
        raise common.BadInput(f"no network is called {network!r}; known are: {', '.join(known)}")

    def made(classes: tuple[str, ...], seed: int) -> Any:
        return fresh_network(network, classes, seed=seed)

    settings = classifying.Settings(
        epochs, batch_size, learning_rate, weight_decay, schedule, augment, (), None, patience, validation,
        size, seed,
    )  # fmt: skip
    classifying.train(
        made, data, settings, command="train", network=network, weights=None, out=out, resume=resume,
        overwrite=overwrite, as_json=as_json, quiet=quiet,
    )  # fmt: skip
