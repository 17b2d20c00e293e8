"""`vizsynth invert`: what each layer still knows of a photo."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vizsynth.cli import common, making, options
from vizsynth.cli.options import Stepwise
from vizsynth.cli.photos import Photo
from vizsynth.cli.settings import argument, command_of, option

SHEET = "sheet.png"


@dataclass(frozen=True, kw_only=True)
class Settings(Stepwise):
    """Of `vizsynth invert`."""

    photo: Photo = argument()
    network: str = options.network()
    weights: str | None = options.weights()
    layers: tuple[str, ...] = options.layers("Of this layer; may be repeated")
    steps: int = options.steps(64, "On each layer")
    tv: float = option(
        0.3, "How smooth the picture is to be: the weight of its total variation", type=options.WEIGHT,
        metavar="WEIGHT",
    )  # fmt: skip
    size: int | None = options.size()
    out: Path | None = options.out("NAME-inverted")


@command_of(Settings)
def command(settings: Settings) -> None:
    """Find pictures whose features, at each layer, are those of PHOTO.

    What a layer has forgotten, its picture lacks. Writes a picture for each
    layer, a strip of them and numbers.json (with the errors) into DIR.
    """
    import jax
    import jax.numpy as jnp

    import vizsynth
    from vizsynth.figures import sheet
    from vizsynth.synthesis.features.inversion import normalized_error

    photo, steps, every = settings.photo, settings.steps, settings.every
    net = common.load_network(settings.network, settings.weights)
    chosen = [common.pick_layer(net, name) for name in settings.layers] or list(common.roles(net).inverted)
    image = photo.read(settings.size or min(common.input_size(net)))
    names = [name.replace("/", "-") for name in chosen]
    files = [f"{i + 1}-{name}.png" for i, name in enumerate(names)]
    folder = settings.open(photo.stem, resolved={"layers": chosen})
    kept = making.frames(every, steps, folder, names)
    folder.check([*files, SHEET], inputs=[photo], frames=kept)
    key = jax.random.key(settings.seed)

    made: list[making.Made] = []
    for name, run in zip(chosen, names, strict=True):

        def take(state: Any, count: int, name: str = name) -> Any:
            return vizsynth.invert(
                net, image[None], name, key=key, steps=count, tv_weight=settings.tv, state=state
            )

        told = f"{photo.name} at {name}"
        made.append(
            making.make(
                take, what=told, steps=steps, every=every, folder=folder, quiet=settings.quiet, name=run
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
    }
    pictures: dict[str, Any] = {f: one.images[0] for f, one in zip(files, made, strict=False)}
    labels = [photo.stem, *(f"{name}: {errors[name]:.3f}" for name in done)]
    pictures[SHEET] = sheet(
        [[image, *(one.images[0] for one in made)]],
        column_labels=labels,
        title=f"{settings.network}: the photo, and what each layer knows of it (normalized error)",
    )
    settings.write(folder, pictures, numbers, *(f"{name:12} error {errors[name]:.4f}" for name in done), "")
    making.finish(folder, made)
