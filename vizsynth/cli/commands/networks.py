"""`vizsynth networks`: which there are, where their weights can be had, and their layers."""

import math
from dataclasses import dataclass
from typing import Any

from vizsynth.cli import common, options
from vizsynth.cli.settings import argument, command_of


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Of `vizsynth networks`."""

    name: str | None = argument(None)
    as_json: bool = options.as_json()


@command_of(Settings)
def command(settings: Settings) -> None:
    """List the networks and where their weights can be had.

    With NAME (a network, or a file that says which it is for) list its layers,
    and their shapes at the size of images that it was trained on.
    """
    name = settings.name
    if name is None:
        listed: Any = _networks()
        lines = _table
    else:
        listed = _layers(name)
        lines = _layer_table
    if settings.as_json:
        common.tell_json(listed)
    else:
        common.tell(*lines(listed))


def _networks() -> list[dict[str, Any]]:
    from vizsynth.models import catalogue, parameter_count
    from vizsynth.models.io.load import NETWORKS
    from vizsynth.models.io.weights import skeleton

    return [
        {
            "network": name,
            "parameters": parameter_count(skeleton(NETWORKS[name])),
            "weights": [source._asdict() for source in sources],
        }
        for name, sources in catalogue().items()
    ]


def _table(networks: list[dict[str, Any]]) -> list[str]:
    def told(weights: dict[str, Any]) -> str:
        mark = "*" if weights["ready"] else ""
        return f"{weights['weights']}{mark}{'' if weights['classes'] else ' (trunk)'}"

    wide = max(len(n["network"]) for n in networks)
    lines = [f"{'network':{wide}}   parameters   weights"]
    for n in networks:
        lines.append(f"{n['network']:{wide}}  {n['parameters']:>11,}   {', '.join(map(told, n['weights']))}")
    notes = {
        w["weights"]: w["note"] for n in networks for w in n["weights"] if not w["weights"].startswith("hf:")
    }
    lines += ["", "* is here and needs nothing more; a trunk has no classes."]
    lines += [f"{weights}: {note}" for weights, note in notes.items()]
    lines += ["hf:OWNER/NAME: of the Hugging Face hub; needs pip install 'vizsynth[hub]'"]
    return lines


def _layers(name: str) -> dict[str, Any]:
    from vizsynth.models import catalogue, load, parameter_count
    from vizsynth.models.io.load import NETWORKS
    from vizsynth.models.io.weights import skeleton
    from vizsynth.models.network import layer_shapes

    bundled = any(source.weights == "bundled" for source in catalogue().get(name, ()))
    net = load(name) if bundled or name not in NETWORKS else skeleton(NETWORKS[name])
    size = common.input_size(net)
    shapes = layer_shapes(net, size)
    return {
        "network": name,
        "parameters": parameter_count(net),
        "num_classes": net.num_classes,
        "input_size": list(size),
        "layers": {layer: list(shape) for layer, shape in shapes.items()},
    }


def _layer_table(described: dict[str, Any]) -> list[str]:
    height, width = described["input_size"]
    classes = described["num_classes"]
    lines = [
        f"{described['network']}: {described['parameters']:,} parameters, "
        + ("a trunk" if classes is None else f"{classes} classes"),
        "",
    ]
    wide = max(map(len, described["layers"]))
    lines.append(f"{'image':{wide}}  {height:>4} x {width:<4} x 3")
    for layer, shape in described["layers"].items():
        if len(shape) == 3:
            lines.append(f"{layer:{wide}}  {shape[0]:>4} x {shape[1]:<4} x {shape[2]}")
        else:
            lines.append(f"{layer:{wide}}  {'':13}{math.prod(shape)}")
    return lines
