"""`vizsynth texture`: more of a texture than there is of it."""

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np

from vizsynth.cli import common, making, options, styling
from vizsynth.cli.options import Stepwise
from vizsynth.cli.photos import Photo, look_at
from vizsynth.cli.settings import argument, command_of, option

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


def _size(typed: str) -> styling.Size:
    found = re.fullmatch(r"(\d{1,4})(?:x(\d{1,4}))?", typed)
    width, height = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not (33 <= width <= 4096 and 33 <= height <= 4096):
        raise ValueError(f"{typed!r} is neither a side nor WIDTHxHEIGHT, from 33 to 4096 pixels")
    return height, width


@dataclass(frozen=True, kw_only=True)
class Settings(Stepwise):
    """Of `vizsynth texture`."""

    image: Photo = argument()
    method: str = option(
        GRAM, "How, see below", "--method", "-m", type=click.Choice(tuple(METHODS)), metavar="NAME"
    )
    network: str = options.network(record=None)
    weights: str | None = options.weights(record=None)
    layers: tuple[str, ...] = options.layers("Where it is read; may be repeated", record=None)
    size: styling.Size | None = option(
        None, "A side, or WIDTHxHEIGHT [see below]", metavar="PIXELS", parse=_size
    )
    source_size: int | None = option(
        None, "IMAGE's longer side [see below]", type=options.PIXELS, metavar="PIXELS"
    )
    steps: int = options.steps(200, "Of gram")
    window: int | None = option(
        None, "What the others compare [18, 11, 9]", type=click.IntRange(3), metavar="PIXELS", hidden=True,
        record=None,
    )  # fmt: skip
    cut: bool | None = styling.cut()
    out: Path | None = options.out("NAME-texture")


@command_of(Settings, epilog=EPILOG)
def command(settings: Settings) -> None:
    """Make another picture of IMAGE's texture, of any size.

    Writes it, a sheet with the source and numbers.json into DIR.
    """
    import jax

    import vizsynth
    from vizsynth.figures import sheet
    from vizsynth.parametrizations import Fourier

    image, method, window = settings.image, settings.method, settings.window
    steps, every, quiet = settings.steps, settings.every, settings.quiet
    if method != GRAM and (settings.resume or every or settings.layers):
        raise common.BadInput(
            f"{method} reads no layers and is made in one go: leave out --layer, --every, --resume"
        )
    if method == GRAM and window is not None:
        raise common.BadInput(
            "gram compares layers, not windows: leave out --window, or name another --method"
        )
    look_at([image], quiet)
    usual = METHODS[method]
    shape = settings.size or (usual.made, usual.made)
    texture = image.read(styling.scaled(image.size, settings.source_size or usual.source))
    read: dict[str, Any] = {"window": window}
    net: Any = None
    chosen: tuple[str, ...] = ()
    start = Fourier()
    cuts: tuple[str, ...] = ()
    if method == GRAM:
        net = common.load_network(settings.network, settings.weights)
        of_family = common.roles(net)
        chosen = styling.pick_layers(net, settings.layers, of_family.texture)
        std, decay = of_family.texture_start
        start = Fourier(std=std, decay=decay)
        read = {"network": settings.network, "weights": settings.weights, "layers": list(chosen)}
        styling.warn_of_small_styles(net, [(image.name, texture.shape[:2])], chosen)
        cuts = styling.pick_cuts(net, settings.cut, shape)
    folder = settings.open(image.stem, resolved={"size": list(shape), **read})
    folder.check([TEXTURE, SHEET], inputs=[image], frames=making.frames(every, steps, folder))
    key = jax.random.key(settings.seed)

    if method == GRAM:
        made = making.make(
            lambda state, count: vizsynth.synthesize_texture(
                net, texture, key=key, size=shape, steps=count, layers=chosen, cuts=cuts, state=state,
                parametrization=start,
            ),
            what=f"the texture of {image.name}", steps=steps, every=every, folder=folder, quiet=quiet,
        )  # fmt: skip
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
        **made.numbers,
        "loss": styling.loss_summary(made.trace),
        "source": {"height": texture.shape[0], "width": texture.shape[1]},
    }
    title = f"{settings.network}: {', '.join(chosen)}, {made.steps} steps" if method == GRAM else method
    shown = sheet([[texture, made.images[0]]], column_labels=[image.stem, "made of it"], title=title)
    settings.write(folder, {TEXTURE: made.images[0], SHEET: shown}, numbers)
    making.finish(folder, [made])
