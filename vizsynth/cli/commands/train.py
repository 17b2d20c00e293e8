"""`vizsynth train`: a fresh network learns the classes of labelled images."""

from dataclasses import dataclass
from typing import Any

from vizsynth.cli import classifying, common, options
from vizsynth.cli.settings import command_of, fixed


@dataclass(frozen=True, kw_only=True)
class Settings(classifying.Training):
    """Of `vizsynth train`."""

    network: str = options.network("resnet18")
    weights: None = fixed(None)
    freeze: tuple[str, ...] = fixed(())
    freeze_to: None = fixed(None)


@command_of(Settings)
def command(settings: Settings) -> None:
    """Train a fresh network on DATA: labelled images.

    DATA: a folder with a folder of images for each class (or such in train and
    val), CIFAR-10's archive, MNIST's folder, or a CSV of pixels and labels.
    Writes network.safetensors, which every --weights takes, and its history.
    """
    from vizsynth.models import catalogue, fresh_network

    network = settings.network
    if network not in (known := catalogue()):
        raise common.BadInput(f"no network is called {network!r}; known are: {', '.join(known)}")

    def made(classes: tuple[str, ...], seed: int) -> Any:
        return fresh_network(network, classes, seed=seed)

    classifying.train(made, settings, network)
