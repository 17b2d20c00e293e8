"""`vizsynth convert`: weights of others, in our format."""

import os
from pathlib import Path

import click

from vizsynth.cli import common
from vizsynth.cli.common import BadInput


@click.command("convert")
@click.argument("source", metavar="IN")
@click.argument("destination", metavar="OUT.safetensors", type=click.Path(path_type=Path))
@click.option("--network", "-n", metavar="NAME", help="Where IN does not say it: the network.")
@click.option(
    "--preprocessing", metavar="NAME",
    type=click.Choice(["imagenet", "caffe", "unit", "symmetric"]),
    help="How pixels were prepared: imagenet, caffe, unit or symmetric.",
)  # fmt: skip
@click.option("--half", is_flag=True, help="Keep numbers as float16: half the size.")
@click.option("--overwrite", is_flag=True, help="Replace OUT where it exists.")
@common.as_json
def command(
    source: str,
    destination: Path,
    network: str | None,
    preprocessing: str | None,
    half: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write the weights in IN as safetensors that know their network.

    IN is torchvision's .pth, Keras' .h5 or .keras, .onnx, .safetensors, or a
    name that `vizsynth networks` lists. Nothing in it is executed, and nothing
    is written unless all of it fits. `vizsynth explain --network OUT` takes it.
    """
    if os.path.lexists(destination) and not overwrite:
        raise BadInput(f"{destination} exists; give another name, or --overwrite")
    from vizsynth.models import convert

    record = convert(
        source, destination, network=network, preprocessing=preprocessing, dtype="float16" if half else None
    )
    classes = getattr(record.config, "num_classes", None)
    size = destination.stat().st_size
    if as_json:
        found = {"network": record.network, "num_classes": classes, "out": str(destination), "bytes": size}
        common.tell_json(found)
        return
    told = f"{record.network}, " + ("a trunk" if classes is None else f"{classes} classes")
    common.tell(f"wrote {destination}: {told}, {size / 1e6:.1f} MB")
