"""`vizsynth fine-tune`: a network that has learned learns other classes."""

from pathlib import Path
from typing import Any

import click

from vizsynth.cli import classifying, common, making


@click.command("fine-tune")
@classifying.data
@common.network
@common.weights
@classifying.epochs
@classifying.batch_size
@classifying.learning_rate(3e-4)
@classifying.weight_decay
@classifying.schedule
@classifying.augment
@classifying.freeze
@classifying.freeze_to
@classifying.patience
@classifying.validation
@classifying.size(224)
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
    weights: str | None,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    schedule: str,
    augment: str,
    freeze: tuple[str, ...],
    freeze_to: str | None,
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
    """Train a network that knows other images further, with a fresh last layer.

    DATA is as for `vizsynth train`. Writes network.safetensors and its history.
    """
    import jax

    from vizsynth.models import load, with_classes

    loaded = load(network, weights, folded=False)
    name = loaded.record.network

    def made(classes: tuple[str, ...], seed: int) -> Any:
        return with_classes(loaded, classes, key=jax.random.fold_in(jax.random.key(seed), 1))

    settings = classifying.Settings(
        epochs, batch_size, learning_rate, weight_decay, schedule, augment, freeze, freeze_to, patience,
        validation, size, seed,
    )  # fmt: skip
    classifying.train(
        made, data, settings, command="fine-tune", network=name, weights=weights, out=out, resume=resume,
        overwrite=overwrite, as_json=as_json, quiet=quiet,
    )  # fmt: skip
