"""`vizsynth invert`: what each layer still knows of a photo."""

from pathlib import Path
from typing import Any

import click

from vizsynth.cli import common, making
from vizsynth.cli.output import OutputFolder
from vizsynth.cli.photos import digest, read_photo

SHEET = "sheet.png"


@click.command("invert")
@click.argument("photo", type=click.Path(path_type=Path))
@common.network
@common.weights
@click.option(
    "--layer", "-l", "layers", multiple=True, metavar="NAME", help="Of this layer; may be repeated."
)
@making.steps(64, "On each layer")
@click.option(
    "--tv", type=click.FloatRange(0), default=0.3, metavar="WEIGHT",
    help="How smooth the picture is to be: the weight of its total variation [0.3].",
)  # fmt: skip
@common.size
@making.every
@making.resume
@common.seed
@common.out("out/NAME-inverted")
@common.overwrite
@common.as_json
@common.quiet
def command(
    photo: Path,
    network: str,
    weights: str | None,
    layers: tuple[str, ...],
    steps: int,
    tv: float,
    size: int | None,
    every: int | None,
    resume: bool,
    seed: int,
    out: Path | None,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Find pictures whose features, at each layer, are those of PHOTO.

    What a layer has forgotten, its picture lacks. Writes a picture for each
    layer, a strip of them and numbers.json (with the errors) into DIR.
    """
    import jax
    import jax.numpy as jnp

    import vizsynth
    from vizsynth.figures import sheet
    from vizsynth.synthesis.features.inversion import normalized_error

    net = common.load_network(network, weights)
    chosen = [common.pick_layer(net, name) for name in layers] or list(common.roles(net).inverted)
    image = read_photo(photo, size or min(common.input_size(net)))
    files = [f"{i + 1}-{name.replace('/', '-')}.png" for i, name in enumerate(chosen)]
    origin = {
        "command": "invert", "photo": {"name": photo.name, "sha256": digest(photo)}, "network": network,
        "weights": weights, "layers": chosen, "tv": tv, "size": size, "seed": seed,
    }  # fmt: skip
    folder = OutputFolder(
        out or common.usual_folder(photo.stem, "-inverted"), origin, overwrite=overwrite, resume=resume
    )
    names = [name.replace("/", "-") for name in chosen]
    kept = making.frames(every, steps, folder, names)
    folder.check([*files, SHEET], inputs=[photo], frames=kept)
    key = jax.random.key(seed)

    made: list[making.Made] = []
    for name, run in zip(chosen, names, strict=True):

        def take(state: Any, count: int, name: str = name) -> Any:
            return vizsynth.invert(net, image[None], name, key=key, steps=count, tv_weight=tv, state=state)

        made.append(
            making.make(
                take,
                what=f"{photo.name} at {name}",
                steps=steps,
                every=every,
                folder=folder,
                quiet=quiet,
                name=run,
            )
        )
        if made[-1].stopped is not None:
            break
    done = chosen[: len(made)]
    errors = {
        name: float(normalized_error(net, jnp.asarray(one.images), of=image[None], layer=name)[0])
        for name, one in zip(done, made, strict=True)
    }
    numbers = {
        "errors": errors,
        "steps": {name: one.steps for name, one in zip(done, made, strict=True)},
        "finished": len(made) == len(chosen) and made[-1].stopped is None,
        "frames": [frame for one in made for frame in one.frames],
        "versions": common.versions(),
        "device": jax.devices()[0].device_kind,
    }
    pictures: dict[str, Any] = {f: one.images[0] for f, one in zip(files, made, strict=False)}
    labels = [photo.stem, *(f"{name}: {errors[name]:.3f}" for name in done)]
    pictures[SHEET] = sheet(
        [[image, *(one.images[0] for one in made)]],
        column_labels=labels,
        title=f"{network}: the photo, and what each layer knows of it (normalized error)",
    )
    written = folder.write(pictures, numbers)
    if as_json:
        common.tell_json({**origin, **numbers, "out": str(folder.path), "files": written})
    else:
        for name in done:
            common.tell(f"{name:12} error {errors[name]:.4f}")
        common.tell("", f"wrote into {folder.path}: {', '.join(written)}")
    making.finish(folder, made)
