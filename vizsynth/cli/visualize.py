"""`vizsynth visualize`: the pictures that a network takes for a class, or that excite a channel, most."""

from pathlib import Path
from typing import Any

import click
import numpy as np

from vizsynth.cli import common, making
from vizsynth.cli.output import OutputFolder

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


@click.command("visualize", epilog=EPILOG)
@click.argument("what", nargs=-1, required=True, metavar="CLASS|CHANNEL...")
@common.network
@common.weights
@click.option("--layer", "-l", metavar="NAME", help="Visualize channels of this layer: give their numbers.")
@click.option(
    "--recipe", type=click.Choice((ROBUST, SIMONYAN, *REGULARIZED)), default=ROBUST,
    metavar="NAME", help="How, see below [robust].",
)  # fmt: skip
@making.steps(256)
@making.side
@making.every
@making.resume
@common.seed
@common.out("out/visualize")
@common.overwrite
@common.as_json
@common.quiet
def command(
    what: tuple[str, ...],
    network: str,
    weights: str | None,
    layer: str | None,
    recipe: str,
    steps: int,
    size: int,
    every: int | None,
    resume: bool,
    seed: int,
    out: Path | None,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Make the pictures that excite classes, or channels of a layer, most.

    Classes go by name or number, channels by number or range (0-7). Writes a
    picture for each, a sheet of them and numbers.json into DIR.
    """
    import jax
    import jax.numpy as jnp

    from vizsynth.figures import caption, sheet, stretch
    from vizsynth.models.network import layer_shapes

    net = common.load_network(network, weights)
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

    origin = {
        "command": "visualize", "network": network, "weights": weights, "layer": layer, "targets": targets,
        "recipe": recipe, "size": size, "seed": seed,
    }  # fmt: skip
    folder = OutputFolder(out or common.usual_folder("visualize"), origin, overwrite=overwrite, resume=resume)
    folder.check([*files, SHEET], frames=making.frames(every, steps, folder))

    take = _take(net, network, jnp.asarray(targets), layer, recipe, size, jax.random.key(seed))
    made = making.make(
        take,
        what=", ".join(names) if len(names) < 4 else f"{len(names)} pictures",
        steps=steps,
        every=every,
        folder=folder,
        quiet=quiet,
    )
    shown = made.images if recipe == ROBUST else np.stack([stretch(image) for image in made.images])
    numbers: dict[str, Any] = {
        "steps": made.steps,
        "finished": made.stopped is None,
        "objective": making.objective_summary(made.trace),
        "frames": made.frames,
        "versions": common.versions(),
        "device": jax.devices()[0].device_kind,
    }
    captions = names
    if layer is None:
        p = np.asarray(jax.jit(lambda net, x: jax.nn.softmax(net(x)))(net, made.images), np.float64)
        sure = [round(float(row[label]), 6) for row, label in zip(p, targets, strict=True)]
        numbers["probability"] = sure
        captions = [f"{name}, p = {q:.3f}" for name, q in zip(names, sure, strict=True)]
    columns = min(len(shown), 5)
    rows = [list(shown[i : i + columns]) for i in range(0, len(shown), columns)]
    labelled = [list(captions[i : i + columns]) for i in range(0, len(captions), columns)]
    tiles = [
        [caption(picture, text) for picture, text in zip(row, texts, strict=True)]
        for row, texts in zip(rows, labelled, strict=True)
    ]
    pictures = dict(zip(files, shown, strict=True))
    pictures[SHEET] = sheet(tiles, title=f"{network}, {recipe}, {made.steps} steps")
    written = folder.write(pictures, numbers)

    if as_json:
        common.tell_json({**origin, **numbers, "out": str(folder.path), "files": written})
    else:
        for text in captions:
            common.tell(text)
        common.tell("", f"wrote into {folder.path}: {', '.join(written)}")
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
