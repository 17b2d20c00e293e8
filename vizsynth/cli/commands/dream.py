"""`vizsynth dream`: a network exaggerates what it sees in a photo."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from vizsynth.cli import common, making, options
from vizsynth.cli.options import Stepwise
from vizsynth.cli.output import FRAMES, OutputFolder
from vizsynth.cli.photos import Photo
from vizsynth.cli.settings import argument, command_of, option
from vizsynth.core.signals import Interrupted, exit_code

DREAM, SHEET, ZOOM = "dream.png", "sheet.png", "zoom.webp"


@dataclass(frozen=True, kw_only=True)
class Settings(Stepwise):
    """Of `vizsynth dream`."""

    photo: Photo = argument()
    network: str = options.network()
    weights: str | None = options.weights()
    layers: tuple[str, ...] = options.layers("What is amplified; may be repeated")
    guide: Photo | None = option(None, "A photo to dream of", metavar="PHOTO")
    octaves: int = option(4, "How many sizes", type=click.IntRange(1, 20))
    octave_scale: float = option(1.4, "Between two of them", type=click.FloatRange(1, 4, min_open=True))
    steps_an_octave: int = options.steps(10, "On each octave", record="origin")
    frames: int | None = option(
        None, "Dream on, zooming in [1 picture]", type=click.IntRange(1, 10_000), metavar="N", record=None
    )
    size: int = option(384, "The shorter side", type=options.PIXELS, metavar="PIXELS")
    out: Path | None = options.out("NAME-dream")


@command_of(Settings)
def command(settings: Settings) -> None:
    """Let a network exaggerate what it sees in PHOTO.

    Writes the dream, photo and dream side by side, and numbers.json into DIR;
    with --frames also zoom.webp, each frame the dream of the one before.
    """
    import jax

    import vizsynth
    from vizsynth.figures import sheet

    photo, guide, frames = settings.photo, settings.guide, settings.frames
    octaves, steps, every = settings.octaves, settings.steps_an_octave, settings.every
    net = common.load_network(settings.network, settings.weights)
    chosen = [common.pick_layer(net, name) for name in settings.layers] or [common.roles(net).dream]
    if guide is not None and len(chosen) > 1:
        raise common.BadInput("a guide is compared at one layer; give --layer once")
    if frames is not None and (settings.resume or every):
        raise common.BadInput(
            "--frames keeps each of its frames, and goes on by itself: leave out --every, --resume"
        )
    image = photo.read(settings.size)
    arguments: dict[str, Any] = {"octaves": octaves, "octave_scale": settings.octave_scale, "steps": steps}
    if guide is not None:
        arguments |= {"layer": chosen[0], "guide": guide.read(min(common.input_size(net)))[None]}
    elif len(chosen) == 1:
        arguments["layer"] = chosen[0]
    else:
        from vizsynth.scores import LayerNorm

        target = LayerNorm(chosen[0])
        for name in chosen[1:]:
            target = target + LayerNorm(name)
        arguments["target"] = target
    folder = settings.open(
        photo.stem,
        resolved={"layers": chosen, "guide": guide and guide.digest, "zooming": frames is not None},
    )
    if frames is None:
        files, mine = [DREAM, SHEET], making.frames(every, octaves * steps, folder)
    else:
        files, mine = [DREAM, SHEET, ZOOM, *map(_frame, range(frames))], lambda name: False
    folder.check(files, inputs=[photo] if guide is None else [photo, guide], frames=mine)
    key = jax.random.key(settings.seed)

    pictures: dict[str, Any] = {}
    if frames is not None:
        film = vizsynth.deepdream_zoom(net, image[None], key=key, frames=frames, **arguments)
        made = _film(film, folder, frames, photo.name, settings.quiet)
        pictures[ZOOM] = partial(_animate, frames=[folder.path / name for name in made.frames])
    else:
        made = making.make(
            lambda state, count: vizsynth.deepdream(
                net, image[None], key=key, state=state, take=count, **arguments
            ),
            what=f"{photo.name} at {', '.join(chosen)}", steps=octaves * steps, every=every, folder=folder,
            quiet=settings.quiet,
        )  # fmt: skip
    dreamt = made.images[0]
    numbers = {
        **made.numbers,
        "objective": making.objective_summary(made.trace),
        "height": dreamt.shape[0],
        "width": dreamt.shape[1],
    }
    title = f"{settings.network}, {', '.join(chosen)}, {octaves} octaves of {steps} steps"
    pictures |= {DREAM: dreamt, SHEET: sheet([[image, dreamt]], title=title)}
    settings.write(folder, pictures, numbers)
    making.finish(folder, [made])


def _film(film: Any, folder: OutputFolder, count: int, what: str, quiet: bool) -> making.Made:
    """Write the frames as they come; return what there is at the end, or when interrupted."""
    names: list[str] = []
    stopped, code, last = None, 0, None
    try:
        with making.bar(what, count, quiet, unit="frames") as advance, making.patient() as asked_to_stop:
            for found in film:
                last = np.asarray(found)
                folder.keep_frame(_frame(len(names)), last[0])
                names.append(_frame(len(names)))
                advance(len(names), np.zeros((1, 0)))
                if len(names) < count and (asked := asked_to_stop()):
                    raise Interrupted(asked)
    except BaseException as error:
        if not names or not isinstance(error, KeyboardInterrupt):
            folder.undo()
            raise
        stopped, code = f"interrupted at frame {len(names)} of {count}", exit_code(error)
    if last is None:
        raise click.ClickException("the run gave no frame")
    return making.Made(last, np.zeros((1, 0)), len(names), None, names, stopped, code)


def _frame(number: int) -> str:
    return f"{FRAMES}/{number:04d}.png"


def _animate(path: Path, frames: list[Path]) -> None:
    from vizsynth.files import read_image, write_animation

    write_animation(path, (np.asarray(read_image(frame)) for frame in frames))
