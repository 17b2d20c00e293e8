"""`vizsynth convert`: weights of others, in our format."""

import os
from dataclasses import dataclass
from pathlib import Path

import click

from vizsynth.cli import common, options
from vizsynth.cli.common import BadInput
from vizsynth.cli.settings import argument, command_of, option

PREPARED = click.Choice(["imagenet", "caffe", "unit", "symmetric"])


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Of `vizsynth convert`."""

    source: str = argument(metavar="IN")
    destination: Path = argument(metavar="OUT.safetensors")
    network: str | None = option(
        None, "Where IN does not say it: the network", "--network", "-n", metavar="NAME"
    )
    preprocessing: str | None = option(
        None, "How pixels were prepared: imagenet, caffe, unit or symmetric", type=PREPARED, metavar="NAME"
    )
    half: bool = option(False, "Keep numbers as float16: half the size")
    overwrite: bool = option(False, "Replace OUT where it exists")
    as_json: bool = options.as_json()


@command_of(Settings)
def command(settings: Settings) -> None:
    """Write the weights in IN as safetensors that know their network.

    IN is torchvision's .pth, Keras' .h5 or .keras, .onnx, .safetensors, or a
    name that `vizsynth networks` lists. Nothing in it is executed, and nothing
    is written unless all of it fits. `vizsynth explain --network OUT` takes it.
    """
    destination = settings.destination
    if os.path.lexists(destination) and not settings.overwrite:
        raise BadInput(f"{destination} exists; give another name, or --overwrite")
    from vizsynth.models import convert

    record = convert(
        settings.source,
        destination,
        network=settings.network,
        preprocessing=settings.preprocessing,
        dtype="float16" if settings.half else None,
    )
    classes = getattr(record.config, "num_classes", None)
    size = destination.stat().st_size
    if settings.as_json:
        found = {"network": record.network, "num_classes": classes, "out": str(destination), "bytes": size}
        common.tell_json(found)
        return
    told = f"{record.network}, " + ("a trunk" if classes is None else f"{classes} classes")
    common.tell(f"wrote {destination}: {told}, {size / 1e6:.1f} MB")
