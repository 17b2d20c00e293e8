"""`vizsynth texture`: more of a texture than there is of it."""

import re
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np

from vizsynth.cli import common, making, styling
from vizsynth.cli.output import OutputFolder

TEXTURE, SHEET = "texture.png", "sheet.png"


class Usual(NamedTuple):
    """The longer side of the source, and the side of the picture, unless they are given."""

    source: int
    made: int


GRAM = "gram"
# Every pixel that grows is compared with every one of the source.
METHODS = {
    GRAM: Usual(256, 256),
    "quilting": Usual(192, 384),
    "efros-leung": Usual(64, 128),
    "wei-levoy": Usual(64, 128),
}

EPILOG = """\b
Methods: gram (a network's features occur together as in IMAGE; 256 of 256
pixels), quilting (blocks cut where they fit; 384 of 192), efros-leung and
wei-levoy (pixel by pixel; 128 of 64).
"""


def _size(context: click.Context, parameter: click.Parameter, typed: str | None) -> styling.Size | None:
    if typed is None:
        return None
    found = re.fullmatch(r"(\d{1,4})(?:x(\d{1,4}))?", typed)
    width, height = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not (33 <= width <= 4096 and 33 <= height <= 4096):
        raise click.BadParameter(
            f"{typed!r} is neither a side nor WIDTHxHEIGHT, from 33 to 4096 pixels", context, parameter
        )
    return height, width


@click.command("texture", epilog=EPILOG)
@click.argument("image", type=click.Path(path_type=Path))
@click.option(
    "--method",
    "-m",
    type=click.Choice(tuple(METHODS)),
    default=GRAM,
    metavar="NAME",
    help="How, see below [gram].",
)
@common.network
@common.weights
@click.option(
    "--layer", "-l", "layers", multiple=True, metavar="NAME", help="Where it is read; may be repeated."
)
@click.option("--size", callback=_size, metavar="PIXELS", help="A side, or WIDTHxHEIGHT [see below].")
@click.option(
    "--source-size", type=click.IntRange(33, 4096), metavar="PIXELS", help="IMAGE's longer side [see below]."
)
@making.steps(200, "Of gram")
@click.option(
    "--window", type=click.IntRange(3), metavar="PIXELS", hidden=True,
    help="What the others compare [18, 11, 9].",
)  # fmt: skip
@styling.cut
@making.every
@making.resume
@common.seed
@common.out("out/NAME-texture")
@common.overwrite
@common.as_json
@common.quiet
@common.help_all
def command(
    image: Path,
    method: str,
    network: str,
    weights: str | None,
    layers: tuple[str, ...],
    size: styling.Size | None,
    source_size: int | None,
    steps: int,
    window: int | None,
    cut: bool | None,
    every: int | None,
    resume: bool,
    seed: int,
    out: Path | None,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Make another picture of IMAGE's texture, of any size.

    Writes it, a sheet with the source and numbers.json into DIR.
    """
    import jax

    import vizsynth
    from vizsynth.figures import sheet
    from vizsynth.parametrizations import Fourier

    if method != GRAM and (resume or every or layers):
        raise common.BadInput(
            f"{method} reads no layers and is made in one go: leave out --layer, --every, --resume"
        )
    if method == GRAM and window is not None:
        raise common.BadInput(
            "gram compares layers, not windows: leave out --window, or name another --method"
        )
    (picture,) = styling.given([image], quiet)
    usual = METHODS[method]
    shape = size or (usual.made, usual.made)
    texture = picture.read(styling.scaled(picture.size, source_size or usual.source))
    settings: dict[str, Any] = {"window": window}
    net: Any = None
    chosen: tuple[str, ...] = ()
    start = Fourier()
    cuts: tuple[str, ...] = ()
    if method == GRAM:
        net = common.load_network(network, weights)
        of_family = common.roles(net)
        chosen = styling.pick_layers(net, layers, of_family.texture)
        std, decay = of_family.texture_start
        start = Fourier(std=std, decay=decay)
        settings = {"network": network, "weights": weights, "layers": list(chosen)}
        styling.warn_of_small_styles(net, [(image, texture.shape[:2])], chosen)
        cuts = styling.pick_cuts(net, cut, shape)
    origin = {
        "command": "texture", "image": picture.described, "method": method, "size": list(shape),
        "source_size": source_size, "seed": seed, **settings,
    }  # fmt: skip
    folder = OutputFolder(
        out or common.usual_folder(image.stem, "-texture"), origin, overwrite=overwrite, resume=resume
    )
    folder.check([TEXTURE, SHEET], inputs=[image], frames=making.frames(every, steps, folder))
    key = jax.random.key(seed)

    if method == GRAM:
        made = making.make(
            lambda state, count: vizsynth.synthesize_texture(
                net,
                texture,
                key=key,
                size=shape,
                steps=count,
                layers=chosen,
                cuts=cuts,
                state=state,
                parametrization=start,
            ),
            what=f"the texture of {image.name}",
            steps=steps,
            every=every,
            folder=folder,
            quiet=quiet,
        )
    else:
        compared = {} if window is None else {"block" if method == "quilting" else "window": window}
        function = {
            "quilting": vizsynth.quilt_texture,
            "efros-leung": vizsynth.efros_leung,
            "wei-levoy": vizsynth.wei_levoy,
        }[method]
        with common.progress(f"the texture of {image.name}", [method], quiet) as begin:
            begin(method)
            found = np.asarray(partial(function, texture, key=key, size=shape, **compared)())
        made = making.Made(found[None], np.zeros((1, 0)), 1, None, [], None)
    numbers = {
        "steps": made.steps,
        "finished": made.stopped is None,
        "loss": styling.loss_summary(made.trace),
        "source": {"height": texture.shape[0], "width": texture.shape[1]},
        "frames": made.frames,
        "versions": common.versions(),
        "device": jax.devices()[0].device_kind,
    }
    title = f"{network}: {', '.join(chosen)}, {made.steps} steps" if method == GRAM else method
    files = folder.write(
        {
            TEXTURE: made.images[0],
            SHEET: sheet([[texture, made.images[0]]], column_labels=[image.stem, "made of it"], title=title),
        },
        numbers,
    )
    if as_json:
        common.tell_json({**origin, **numbers, "out": str(folder.path), "files": files})
    else:
        common.tell(f"wrote into {folder.path}: {', '.join(files)}")
    making.finish(folder, [made])
