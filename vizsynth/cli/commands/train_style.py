"""`vizsynth train-style`: a network learns styles, so that `vizsynth stylize` needs one pass."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from vizsynth.cli import common, folders, making, options, styling
from vizsynth.cli.options import Stepwise
from vizsynth.cli.photos import Photo, digest, distinct_names, look_at
from vizsynth.cli.settings import argument, command_of, option

STYLIZER, SHEET = "stylizer.safetensors", "sheet.png"
MOST = 1000  # photos: all are in memory


@dataclass(frozen=True, kw_only=True)
class Settings(Stepwise):
    """Of `vizsynth train-style`."""

    styles: tuple[Photo, ...] = argument(metavar="STYLE...", many=True)
    photos: Path = option(help=f"What is stylized while it learns; {MOST} at most", metavar="FOLDER")
    network: str = options.network()
    weights: str | None = options.weights()
    steps: int = options.steps(2000)
    size: int = option(128, "Of the crops", type=click.IntRange(33, 1024), metavar="PIXELS")
    style_size: int = option(256, "Of the styles, cut square", type=options.PIXELS, metavar="PIXELS")
    batch: int = options.batch(4, "Crops a step", 256)
    parts: int = option(
        1, "Of a crop, along each axis, that have the style each: for styles that gather in places",
        type=click.IntRange(1, 16), metavar="PARTS", hidden=True,
    )  # fmt: skip
    style_weight: float = styling.weight(10.0, "How much the styles count")
    content_weight: float = styling.weight(1.0, "How much the photos count", hidden=True)
    tv_weight: float = styling.weight(2.0, "How much smoothness counts", hidden=True)
    content_layers: tuple[str, ...] = styling.content_layers()
    style_layers: tuple[str, ...] = styling.style_layers()
    learning_rate: float = option(
        2e-3, "At first; it falls to 0", type=options.ABOVE_0, metavar="RATE", hidden=True
    )
    width: int = option(
        16, "Channels at full size, twice and four times as many below", type=click.IntRange(1, 256),
        hidden=True,
    )  # fmt: skip
    blocks: int = option(5, "How many residual blocks", type=click.IntRange(1, 50), hidden=True)
    skips: bool = option(
        False, "Join what the first layers saw; Johnson's does not [no]", "--skips/--no-skips", hidden=True
    )
    every: int = option(
        25, "A sample so often, in DIR/frames", type=options.COUNT, metavar="STEPS", record=None
    )
    out: Path | None = options.out("NAME-stylizer")


@command_of(Settings)
def command(settings: Settings) -> None:
    """Train a network to paint photos in the style of each STYLE, in one pass.

    Writes it as safetensors, a sample of it and numbers.json into DIR, whenever
    it is stopped. `vizsynth stylize --stylizer FILE` takes it.
    """
    import jax
    import jax.numpy as jnp
    import optax

    import vizsynth
    from vizsynth import ascent
    from vizsynth.datasets.folders import Skipped, read_batches
    from vizsynth.figures import sheet
    from vizsynth.files import list_images
    from vizsynth.models import Picture, save_stylizer, stylizer

    network, styles, photos = settings.network, settings.styles, settings.photos
    steps, every, size, quiet = settings.steps, settings.every, settings.size, settings.quiet
    found = list_images(photos)
    if len(found) > MOST:
        common.say(f"{photos} holds {len(found)} pictures; the first {MOST} are taken", quiet)
    found = found[:MOST]
    net = common.load_network(network, settings.weights)
    usual = common.roles(net)
    of_content = styling.pick_layers(net, settings.content_layers, usual.training_content)
    of_style = styling.pick_layers(net, settings.style_layers, usual.training_style)
    look_at(styles, quiet)
    names = distinct_names(styles)
    folder = settings.open(
        names[0],
        resolved={
            "photos": {"count": len(found), "sha256": _digest_of_all(found)},
            "content_layers": list(of_content),
            "style_layers": list(of_style),
        },
    )
    kept = making.frames(every, steps, folder)
    folder.check([STYLIZER, SHEET], inputs=[*styles, *found], frames=kept)

    side = size * 4 // 3  # room for the crops to lie anywhere
    skipped: list[Skipped] = []
    read = [images for _, images in read_batches(found, side, batch_size=16, skipped=skipped)]
    folders.tell_skipped(skipped, quiet)
    if not read:
        raise common.BadInput(f"none of the {len(found)} photos can be read: {skipped[0].reason}")
    seen = jnp.concatenate(read)
    cut = settings.style_size
    of = jnp.stack([style.read((cut, cut)) for style in styles])
    key, run_key = jax.random.split(jax.random.key(settings.seed))
    widths = (settings.width, 2 * settings.width, 4 * settings.width)
    fresh = stylizer(names, widths=widths, blocks=settings.blocks, skips=settings.skips, key=key)

    def take(state: Any, count: int) -> Any:
        if state is None:  # begun here, as it would else be a program of its own
            state = ascent.init(fresh, optax.adam(optax.constant_schedule(0.0)), key=run_key)
        return vizsynth.train_style(
            net, fresh, seen, of, state=state, steps=count, size=size, batch_size=settings.batch,
            parts=settings.parts, content_layers=of_content, style_layers=of_style,
            content_weight=settings.content_weight, style_weight=settings.style_weight,
            tv_weight=settings.tv_weight, learning_rate=settings.learning_rate, horizon=float(steps),
        )  # fmt: skip

    told = f"learning {', '.join(names)}"
    made = making.make(take, what=told, steps=steps, every=every, folder=folder, quiet=quiet)
    trained = made.state.params
    numbers = {
        **made.numbers,
        "styles_learned": names,
        "loss": styling.loss_summary(made.trace),
        "trace": [float(v) for v in np.nan_to_num(made.trace[0])],
        "skipped": folders.as_record(skipped),
    }

    def save(path: Path) -> None:
        said = [
            Picture(name, license="unknown", origin=style.name)
            for name, style in zip(names, styles, strict=True)
        ]
        how = f"vizsynth train-style: {made.steps} steps, {len(seen)} photos, judged by {network}"
        save_stylizer(path, trained, pictures=said, origin=how)

    top = (side - size) // 2
    row = [np.asarray(seen[0, top : top + size, top : top + size]), *made.images]
    title = f"{network}: {made.steps} steps of {settings.batch} crops"
    shown = sheet([[row[0], *of], row], column_labels=["photo", *names], title=title)
    settings.write(folder, {STYLIZER: save, SHEET: shown}, numbers)
    making.finish(folder, [made])


def _digest_of_all(paths: list[Path]) -> str:
    """Return what tells these files from all others."""
    return hashlib.sha256("".join(map(digest, paths)).encode()).hexdigest()
