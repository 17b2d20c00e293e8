"""`vizsynth dream`: a network exaggerates what it sees in a photo."""

from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from vizsynth.cli import common, making
from vizsynth.cli.output import FRAMES, OutputFolder
from vizsynth.cli.photos import digest, read_photo
from vizsynth.core.signals import Interrupted, exit_code

DREAM, SHEET, ZOOM = "dream.png", "sheet.png", "zoom.webp"


@click.command("dream")
@click.argument("photo", type=click.Path(path_type=Path))
@common.network
@common.weights
@click.option(
    "--layer", "-l", "layers", multiple=True, metavar="NAME", help="What is amplified; may be repeated."
)
@click.option("--guide", type=click.Path(path_type=Path), metavar="PHOTO", help="A photo to dream of.")
@click.option("--octaves", type=click.IntRange(1, 20), default=4, help="How many sizes [4].")
@click.option(
    "--octave-scale", type=click.FloatRange(1, 4, min_open=True), default=1.4,
    help="Between two of them [1.4].",
)  # fmt: skip
@making.steps(10, "On each octave")
@click.option(
    "--frames",
    type=click.IntRange(1, 10_000),
    metavar="N",
    help="Dream on, zooming in [1 picture].",
)
@click.option(
    "--size", type=click.IntRange(33, 4096), default=384, metavar="PIXELS",
    help="The shorter side [384].",
)  # fmt: skip
@making.every
@making.resume
@common.seed
@common.out("out/NAME-dream")
@common.overwrite
@common.as_json
@common.quiet
def command(
    photo: Path,
    network: str,
    weights: str | None,
    layers: tuple[str, ...],
    guide: Path | None,
    octaves: int,
    octave_scale: float,
    steps: int,
    frames: int | None,
    size: int,
    every: int | None,
    resume: bool,
    seed: int,
    out: Path | None,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Let a network exaggerate what it sees in PHOTO.

    Writes the dream, photo and dream side by side, and numbers.json into DIR;
    with --frames also zoom.webp, each frame the dream of the one before.
    """
    import jax

    import vizsynth
    from vizsynth.figures import sheet

    net = common.load_network(network, weights)
    chosen = [common.pick_layer(net, name) for name in layers] or [common.roles(net).dream]
    if guide is not None and len(chosen) > 1:
        raise common.BadInput("a guide is compared at one layer; give --layer once")
    if frames is not None and (resume or every):
        raise common.BadInput(
            "--frames keeps each of its frames, and goes on by itself: leave out --every, --resume"
        )
    image = read_photo(photo, size)
    options: dict[str, Any] = {
        "octaves": octaves,
        "octave_scale": octave_scale,
        "steps": steps,
    }
    if guide is not None:
        options |= {"layer": chosen[0], "guide": read_photo(guide, min(common.input_size(net)))[None]}
    elif len(chosen) == 1:
        options["layer"] = chosen[0]
    else:
        from vizsynth.scores import LayerNorm

        target = LayerNorm(chosen[0])
        for name in chosen[1:]:
            target = target + LayerNorm(name)
        options["target"] = target
    origin = {
        "command": "dream", "photo": {"name": photo.name, "sha256": digest(photo)}, "network": network,
        "weights": weights, "layers": chosen, "guide": None if guide is None else digest(guide),
        "octaves": octaves, "octave_scale": octave_scale, "steps_an_octave": steps,
        "size": size, "seed": seed, "zooming": frames is not None,
    }  # fmt: skip
    folder = OutputFolder(
        out or common.usual_folder(photo.stem, "-dream"), origin, overwrite=overwrite, resume=resume
    )
    if frames is None:
        files, mine = [DREAM, SHEET], making.frames(every, octaves * steps, folder)
    else:
        files, mine = [DREAM, SHEET, ZOOM, *map(_frame, range(frames))], lambda name: False
    folder.check(files, inputs=[photo] if guide is None else [photo, guide], frames=mine)
    key = jax.random.key(seed)

    pictures: dict[str, Any] = {}
    if frames is not None:
        film = vizsynth.deepdream_zoom(net, image[None], key=key, frames=frames, **options)
        made = _film(film, folder, frames, photo.name, quiet)
        pictures[ZOOM] = partial(_animate, frames=[folder.path / name for name in made.frames])
    else:
        made = making.make(
            lambda state, count: vizsynth.deepdream(
                net, image[None], key=key, state=state, take=count, **options
            ),
            what=f"{photo.name} at {', '.join(chosen)}",
            steps=octaves * steps,
            every=every,
            folder=folder,
            quiet=quiet,
        )
    dreamt = made.images[0]
    numbers = {
        "steps": made.steps,
        "finished": made.stopped is None,
        "objective": making.objective_summary(made.trace),
        "height": dreamt.shape[0],
        "width": dreamt.shape[1],
        "frames": made.frames,
        "versions": common.versions(),
        "device": jax.devices()[0].device_kind,
    }
    title = f"{network}, {', '.join(chosen)}, {octaves} octaves of {steps} steps"
    pictures |= {DREAM: dreamt, SHEET: sheet([[image, dreamt]], title=title)}
    files = folder.write(pictures, numbers)
    if as_json:
        common.tell_json({**origin, **numbers, "out": str(folder.path), "files": files})
    else:
        common.tell(f"wrote into {folder.path}: {', '.join(files)}")
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
