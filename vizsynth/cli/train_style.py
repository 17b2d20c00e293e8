"""`vizsynth train-style`: a network learns styles, so that `vizsynth stylize` needs one pass."""

import hashlib
from pathlib import Path
from typing import Any

import click
import numpy as np

from vizsynth.cli import common, folders, making, styling
from vizsynth.cli.output import OutputFolder
from vizsynth.cli.photos import digest

STYLIZER, SHEET = "stylizer.safetensors", "sheet.png"
MOST = 1000  # photos: all are in memory


@click.command("train-style")
@click.argument("styles", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="STYLE...")
@click.option(
    "--photos", required=True, type=click.Path(path_type=Path), metavar="FOLDER",
    help=f"What is stylized while it learns; {MOST} at most.",
)  # fmt: skip
@common.network
@common.weights
@making.steps(2000)
@click.option(
    "--size", type=click.IntRange(33, 1024), default=128, metavar="PIXELS", help="Of the crops [128]."
)
@click.option(
    "--style-size", type=click.IntRange(33, 4096), default=256, metavar="PIXELS",
    help="Of the styles, cut square [256].",
)  # fmt: skip
@click.option(
    "--batch-size", "batch", type=click.IntRange(1, 256), default=4, metavar="IMAGES",
    help="Crops a step [4].",
)  # fmt: skip
@click.option(
    "--parts", type=click.IntRange(1, 16), default=1, metavar="PARTS", hidden=True,
    help="Of a crop, along each axis, that have the style each: for styles that gather in places [1].",
)  # fmt: skip
@click.option(
    "--style-weight", type=click.FloatRange(0), default=10.0, metavar="WEIGHT",
    help="How much the styles count [10].",
)  # fmt: skip
@click.option(
    "--content-weight", type=click.FloatRange(0), default=1.0, metavar="WEIGHT", hidden=True,
    help="How much the photos count [1].",
)  # fmt: skip
@click.option(
    "--tv-weight", type=click.FloatRange(0), default=2.0, metavar="WEIGHT", hidden=True,
    help="How much smoothness counts [2].",
)  # fmt: skip
@styling.content_layer
@styling.style_layer
@click.option(
    "--learning-rate", type=click.FloatRange(0, min_open=True), default=2e-3, metavar="RATE", hidden=True,
    help="At first; it falls to 0 [0.002].",
)  # fmt: skip
@click.option(
    "--width", type=click.IntRange(1, 256), default=16, hidden=True,
    help="Channels at full size, twice and four times as many below [16].",
)  # fmt: skip
@click.option(
    "--blocks", type=click.IntRange(1, 50), default=5, hidden=True, help="How many residual blocks [5]."
)
@click.option(
    "--skips/--no-skips",
    default=False,
    hidden=True,
    help="Join what the first layers saw; Johnson's does not [no].",
)
@click.option(
    "--every", type=click.IntRange(1), default=25, metavar="STEPS",
    help="A sample so often, in DIR/frames [25].",
)  # fmt: skip
@making.resume
@common.seed
@common.out("out/NAME-stylizer")
@common.overwrite
@common.as_json
@common.quiet
@common.help_all
def command(
    styles: tuple[Path, ...],
    photos: Path,
    network: str,
    weights: str | None,
    steps: int,
    size: int,
    style_size: int,
    batch: int,
    parts: int,
    style_weight: float,
    content_weight: float,
    tv_weight: float,
    content_layers: tuple[str, ...],
    style_layers: tuple[str, ...],
    learning_rate: float,
    width: int,
    blocks: int,
    skips: bool,
    every: int,
    resume: bool,
    seed: int,
    out: Path | None,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
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

    found = list_images(photos)
    if len(found) > MOST:
        common.say(f"{photos} holds {len(found)} pictures; the first {MOST} are taken", quiet)
    found = found[:MOST]
    net = common.load_network(network, weights)
    usual = common.roles(net)
    of_content = styling.pick_layers(net, content_layers, usual.training_content)
    of_style = styling.pick_layers(net, style_layers, usual.training_style)
    pictures = styling.given(styles, quiet)
    names = styling.names(pictures)
    origin = {
        "command": "train-style", "styles": [p.described for p in pictures],
        "photos": {"count": len(found), "sha256": _digest_of_all(found)}, "network": network,
        "weights": weights, "content_layers": list(of_content), "style_layers": list(of_style),
        "size": size, "style_size": style_size, "batch": batch, "parts": parts, "style_weight": style_weight,
        "content_weight": content_weight, "tv_weight": tv_weight, "learning_rate": learning_rate,
        "width": width, "blocks": blocks, "skips": skips, "seed": seed,
    }  # fmt: skip
    folder = OutputFolder(
        out or common.usual_folder(names[0], "-stylizer"), origin, overwrite=overwrite, resume=resume
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
    of = jnp.stack([picture.read((style_size, style_size)) for picture in pictures])
    key, run_key = jax.random.split(jax.random.key(seed))
    fresh = stylizer(names, widths=(width, 2 * width, 4 * width), blocks=blocks, skips=skips, key=key)

    def take(state: Any, count: int) -> Any:
        if state is None:  # begun here, as it would else be a program of its own
            state = ascent.init(fresh, optax.adam(optax.constant_schedule(0.0)), key=run_key)
        return vizsynth.train_style(
            net, fresh, seen, of, state=state, steps=count, size=size, batch_size=batch,
            parts=parts, content_layers=of_content, style_layers=of_style, content_weight=content_weight,
            style_weight=style_weight, tv_weight=tv_weight, learning_rate=learning_rate,
            horizon=float(steps),
        )  # fmt: skip

    made = making.make(
        take,
        what=f"learning {', '.join(names)}",
        steps=steps,
        every=every,
        folder=folder,
        quiet=quiet,
    )
    trained = made.state.params
    numbers = {
        "styles_learned": names,
        "steps": made.steps,
        "finished": made.stopped is None,
        "loss": styling.loss_summary(made.trace),
        "trace": [float(v) for v in np.nan_to_num(made.trace[0])],
        "frames": made.frames,
        "skipped": [{"file": str(one.path), "reason": one.reason} for one in skipped],
        "versions": common.versions(),
        "device": jax.devices()[0].device_kind,
    }

    def save(path: Path) -> None:
        said = [
            Picture(name, license="unknown", origin=picture.path.name)
            for name, picture in zip(names, pictures, strict=True)
        ]
        how = f"vizsynth train-style: {made.steps} steps, {len(seen)} photos, judged by {network}"
        save_stylizer(path, trained, pictures=said, origin=how)

    top = (side - size) // 2
    row = [np.asarray(seen[0, top : top + size, top : top + size]), *made.images]
    title = f"{network}: {made.steps} steps of {batch} crops"
    shown = sheet([[row[0], *of], row], column_labels=["photo", *names], title=title)
    files = folder.write({STYLIZER: save, SHEET: shown}, numbers)
    if as_json:
        common.tell_json({**origin, **numbers, "out": str(folder.path), "files": files})
    else:
        common.tell(f"wrote into {folder.path}: {', '.join(files)}")
    making.finish(folder, [made])


def _digest_of_all(paths: list[Path]) -> str:
    """Return what tells these files from all others."""
    return hashlib.sha256("".join(map(digest, paths)).encode()).hexdigest()
