"""`vizsynth fine-tune`: a network that has learned learns other classes."""

from dataclasses import dataclass
from typing import Any

from vizsynth.cli import classifying
from vizsynth.cli.settings import command_of


@dataclass(frozen=True, kw_only=True)
class Settings(classifying.Training):
    """Of `vizsynth fine-tune`."""

    learning_rate: float = classifying.learning_rate(3e-4)
    size: int = classifying.size(224)


@command_of(Settings)
def command(settings: Settings) -> None:
    """Train a network that knows other images further, with a fresh last layer.

    DATA is as for `vizsynth train`. Writes network.safetensors and its history.
    """
    import jax

    from vizsynth.models import load, with_classes

    loaded = load(settings.network, settings.weights, folded=False)

    def made(classes: tuple[str, ...], seed: int) -> Any:
        return with_classes(loaded, classes, key=jax.random.fold_in(jax.random.key(seed), 1))

    classifying.train(made, settings, loaded.record.network)
