"""`vizsynth visualize`: the pictures that a network takes for a class, or that excite a channel, most."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from vizsynth.cli import common, making, options
from vizsynth.cli.options import Stepwise
from vizsynth.cli.settings import argument, command_of, option

SHEET = "sheet.png"
ROBUST, SIMONYAN = "robust", "simonyan"
# Yosinski's four settings, by the names that `vizsynth.synthesis.features.yosinski` gives them.
REGULARIZED = ("blur-and-norm", "decay-and-norm", "decay-and-blur", "blur-and-contribution")
RATES = {"squeezenet1_1": 10.0}  # its logits change less with a pixel than CaffeNet's

EPILOG = """\b
Recipes: robust (a Fourier picture that must survive jitter, scaling and
turning), simonyan (pixels and an L2 penalty), and Yosinski's four settings:
blur-and-norm, decay-and-norm, decay-and-blur, blur-and-contribution.
"""


@dataclass(frozen=True, kw_only=True)
class Settings(Stepwise):
    """Of `vizsynth visualize`."""

    targets: tuple[str, ...] = argument(metavar="CLASS|CHANNEL...", many=True)
    network: str = options.network()
    weights: str | None = options.weights()
    layer: str | None = options.layer("Visualize channels of this layer: give their numbers")
    recipe: str = option(
        ROBUST, "How, see below", type=click.Choice((ROBUST, SIMONYAN, *REGULARIZED)), metavar="NAME"
    )
    steps: int = options.steps(256)
    size: int = options.side()
    out: Path | None = options.out("visualize")


@command_of(Settings, epilog=EPILOG)
def command(settings: Settings) -> None:
    """Make the pictures that excite classes, or channels of a layer, most.

    Classes go by name or number, channels by number or range (0-7). Writes a
    picture for each, a sheet of them and numbers.json into DIR.
    """
    import jax
    import jax.numpy as jnp

    from vizsynth.figures import caption, sheet, stretch
    from vizsynth.models.network import layer_shapes

    what, network, layer, recipe = settings.targets, settings.network, settings.layer, settings.recipe
    steps, every = settings.steps, settings.every
    net = common.load_network(network, settings.weights)
    targets: list[int]
    if layer is None:
        common.need_classes(net, network)
        targets = [common.pick_class(net, typed) for typed in what]
        names = [common.class_name(net, label) for label in targets]
        files = [f"{label:04d}.png" for label in targets]
    else:
        layer = common.pick_layer(net, layer)
        targets = _channels(what, layer, layer_shapes(net, common.input_size(net))[layer][-1])
        names = [f"{layer} : {channel}" for channel in targets]
        files = [f"{layer.replace('/', '-')}-{channel:04d}.png" for channel in targets]
    if len(set(targets)) < len(targets):
        raise common.BadInput("the same class or channel is asked for twice; name each once")

    folder = settings.open(resolved={"layer": layer, "targets": targets})
    folder.check([*files, SHEET], frames=making.frames(every, steps, folder))

    take = _take(
        net, network, jnp.asarray(targets), layer, recipe, settings.size, jax.random.key(settings.seed)
    )
    told = ", ".join(names) if len(names) < 4 else f"{len(names)} pictures"
    made = making.make(take, what=told, steps=steps, every=every, folder=folder, quiet=settings.quiet)
    shown = made.images if recipe == ROBUST else np.stack([stretch(image) for image in made.images])
    numbers = {**made.numbers, "objective": making.objective_summary(made.trace)}
    captions = names
    if layer is None:
        p = np.asarray(jax.jit(lambda net, x: jax.nn.softmax(net(x)))(net, made.images), np.float64)
        sure = [round(float(row[label]), 6) for row, label in zip(p, targets, strict=True)]
        numbers["probability"] = sure
        captions = [f"{name}, p = {q:.3f}" for name, q in zip(names, sure, strict=True)]
    columns = min(len(shown), 5)
    tiles = [caption(picture, text) for picture, text in zip(shown, captions, strict=True)]
    rows = [tiles[i : i + columns] for i in range(0, len(tiles), columns)]
    pictures = dict(zip(files, shown, strict=True))
    pictures[SHEET] = sheet(rows, title=f"{network}, {recipe}, {made.steps} steps")
    settings.write(folder, pictures, numbers, *captions, "")
    making.finish(folder, [made])


def _take(net: Any, network: str, targets: Any, layer: str | None, recipe: str, size: int, key: Any) -> Any:
    """Return the function that takes some steps from a state on."""
    import vizsynth
    from vizsynth.parametrizations import Pixels
    from vizsynth.scores import Channel
    from vizsynth.synthesis.features import yosinski
    from vizsynth.transforms import none

    target = targets if layer is None else Channel(layer, targets)
    if recipe in REGULARIZED:
        settings, _ = yosinski.TABLE[recipe]
        rate = RATES.get(network, 1.0)
        return lambda state, steps: vizsynth.visualize_regularized(
            net, target, key=key, settings=settings, rate=rate, steps=steps, size=size, state=state
        )
    if recipe == SIMONYAN:
        plain = vizsynth.Optimization(Pixels(std=0.0), none, learning_rate=0.005)
        return lambda state, steps: vizsynth.visualize_class(
            net, target, key=key, steps=steps, size=size, state=state, optimization=plain, l2=1e-3
        )
    if layer is not None:
        return lambda state, steps: vizsynth.visualize_feature(
            net, target, key=key, steps=steps, size=size, state=state
        )
    return lambda state, steps: vizsynth.visualize_class(
        net, target, key=key, steps=steps, size=size, state=state
    )


def _channels(what: tuple[str, ...], layer: str, count: int) -> list[int]:
    """Return the channels that were typed, numbers and ranges."""
    channels: list[int] = []
    for typed in ",".join(what).split(","):
        first, dash, last = typed.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise common.BadInput(f"a channel is a number or a range (0-7), not {typed!r}")
        channels += range(int(first), int(last or first) + 1)
    if wrong := [c for c in channels if c >= count]:
        raise common.BadInput(f"{layer} has {count} channels, 0 to {count - 1}: there is no {wrong[0]}")
    return channels
