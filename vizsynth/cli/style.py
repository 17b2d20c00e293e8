"""`vizsynth style`: a photo's forms, painted as other pictures are."""

from pathlib import Path
from typing import Any

import click
import numpy as np

from vizsynth.cli import common, making, styling
from vizsynth.cli.output import OutputFolder

STYLED, SHEET = "styled.png", "sheet.png"
KEPT = ("luminance", "histogram", "match")
RATES = {"lbfgs": 1.0, "adam": 0.02}
DECAY = 0.99  # of the mean that Adam's pictures are


@click.command("style")
@click.argument("content", type=click.Path(path_type=Path))
@click.argument("styles", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="STYLE...")
@common.network
@common.weights
@click.option(
    "--size", type=click.IntRange(33, 4096), default=384, metavar="PIXELS", help="The longer side [384]."
)
@click.option(
    "--style-scale", type=click.FloatRange(0, min_open=True), default=1.0, metavar="FACTOR",
    help="How large a style is beside CONTENT [1].",
)  # fmt: skip
@click.option(
    "--style-size", type=click.IntRange(33, 4096), metavar="PIXELS", hidden=True,
    help="Its longer side, in place of --style-scale.",
)  # fmt: skip
@making.steps(200, "On each scale")
@click.option("--scales", type=click.IntRange(1, 12), default=1, help="From coarse to fine, so many [1].")
@click.option(
    "--style-weight", type=click.FloatRange(0), metavar="WEIGHT",
    help="How much the styles count [20; 10 with VGG].",
)  # fmt: skip
@click.option(
    "--content-weight", type=click.FloatRange(0), default=1.0, metavar="WEIGHT", hidden=True,
    help="How much CONTENT counts [1].",
)  # fmt: skip
@click.option(
    "--tv-weight", type=click.FloatRange(0), default=0.0, metavar="WEIGHT", hidden=True,
    help="How much smoothness counts [0].",
)  # fmt: skip
@click.option(
    "--mix", metavar="W,W...", callback=styling.numbers_between_commas,
    help="How much of each style, 3,1 for instance.",
)  # fmt: skip
@click.option(
    "--mask", "masks", multiple=True, type=click.Path(path_type=Path), metavar="PICTURE",
    help="For each style: white where it goes.",
)  # fmt: skip
@click.option(
    "--colors", type=click.Choice(KEPT), metavar="HOW", help="Keep CONTENT's: luminance, histogram, match."
)
@click.option(
    "--noise", type=click.FloatRange(0, 1), default=0.0, metavar="SHARE", hidden=True,
    help="How much of the beginning is noise [0].",
)  # fmt: skip
@styling.content_layer
@styling.style_layer
@click.option(
    "--loss", type=click.Choice(("gram", "wasserstein")), default="gram", hidden=True,
    help="How styles are compared [gram].",
)  # fmt: skip
@click.option(
    "--pooling", type=click.Choice(("max", "average")), default="max", hidden=True,
    help="How the network pools [max, as it was trained].",
)  # fmt: skip
@click.option(
    "--optimizer",
    type=click.Choice(tuple(RATES)),
    default="lbfgs",
    hidden=True,
    help="What descends [lbfgs].",
)
@click.option(
    "--learning-rate", type=click.FloatRange(0, min_open=True), metavar="RATE", hidden=True,
    help="Its step [1 for lbfgs, 0.02 for adam].",
)  # fmt: skip
@click.option(
    "--average", type=click.FloatRange(0, 1, max_open=True), metavar="DECAY", hidden=True,
    help="Mean of the steps' pictures [0.99 for adam].",
)  # fmt: skip
@styling.cut
@making.every
@making.resume
@common.seed
@common.out("out/NAME-styled")
@common.overwrite
@common.as_json
@common.quiet
@common.help_all
def command(
    content: Path,
    styles: tuple[Path, ...],
    network: str,
    weights: str | None,
    size: int,
    style_scale: float,
    style_size: int | None,
    steps: int,
    scales: int,
    style_weight: float | None,
    content_weight: float,
    tv_weight: float,
    mix: list[float] | None,
    masks: tuple[Path, ...],
    colors: str | None,
    noise: float,
    content_layers: tuple[str, ...],
    style_layers: tuple[str, ...],
    loss: str,
    pooling: str,
    optimizer: str,
    learning_rate: float | None,
    average: float | None,
    cut: bool | None,
    every: int | None,
    resume: bool,
    seed: int,
    out: Path | None,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Paint CONTENT in the style of one picture, or of several.

    Writes the result, a sheet of all and numbers.json into DIR. --colors: match
    and histogram give the styles CONTENT's colours before, luminance after.
    """
    import jax
    import optax

    import vizsynth
    from vizsynth.figures import sheet
    from vizsynth.ops import average_pooling
    from vizsynth.parametrizations import Fourier, Pixels
    from vizsynth.synthesis.style.gatys import enlarge
    from vizsynth.synthesis.style.wasserstein import Wasserstein
    from vizsynth.synthesis.texture.gatys import Gram

    for what, count in (
        ("weights in --mix", None if mix is None else len(mix)),
        ("--mask", len(masks) or None),
    ):
        if count is not None and count != len(styles):
            raise common.BadInput(f"{len(styles)} styles take as many {what}, not {count}")
    net = common.load_network(network, weights)
    usual = common.roles(net)
    of_content = styling.pick_layers(net, content_layers, usual.content)
    of_style = styling.pick_layers(net, style_layers, usual.style)
    if style_weight is None:
        style_weight = usual.style_weight
    photo, *pictures = styling.given([content, *styles], quiet)
    regions = [styling.given([path], quiet=True)[0] for path in masks]
    _check_masks(regions, photo)
    sides = styling.sizes(styling.scaled(photo.size, size), scales)
    cuts = styling.pick_cuts(net, cut, sides[-1])
    if average is None and optimizer == "adam":
        average = DECAY
    descent: dict[str, Any] = {
        "optimizer": {"lbfgs": optax.lbfgs, "adam": optax.adam}[optimizer],
        "learning_rate": RATES[optimizer] if learning_rate is None else learning_rate,
        "parametrization": Fourier() if optimizer == "lbfgs" else Pixels(),
        "average": average,
    }
    options: dict[str, Any] = {
        "content_layers": of_content,
        "style_layers": of_style,
        "content_weight": content_weight,
        "style_weight": style_weight,
        "tv_weight": tv_weight,
        "mixture": mix,
        "loss": Gram() if loss == "gram" else Wasserstein(),
        "noise": noise,
        "cuts": cuts,
        "ops": None if pooling == "max" else average_pooling,
        **descent,
    }
    origin = {
        "command": "style", "content": photo.described, "styles": [p.described for p in pictures],
        "masks": [m.described for m in regions], "network": network, "weights": weights,
        "content_layers": list(of_content), "style_layers": list(of_style), "size": size,
        "style_scale": style_scale, "style_size": style_size, "content_weight": content_weight,
        "style_weight": style_weight, "tv_weight": tv_weight, "mix": mix, "colors": colors, "noise": noise,
        "loss": loss, "pooling": pooling, "optimizer": optimizer, "learning_rate": descent["learning_rate"],
        "average": average, "scales": scales, "steps_a_scale": steps if scales > 1 else None, "seed": seed,
    }  # fmt: skip
    folder = OutputFolder(
        out or common.usual_folder(content.stem, "-styled"), origin, overwrite=overwrite, resume=resume
    )
    runs = [f"scale-{number}" for number in range(1, scales + 1)] if scales > 1 else [making.ONLY]
    kept = making.frames(every, steps, folder, runs)
    folder.check([STYLED, SHEET], inputs=[content, *styles, *masks], frames=kept)

    def style_side(side: styling.Size) -> int:
        return style_size or max(1, round(max(side) * style_scale))

    shown = [(p.path, styling.scaled(p.size, style_side(sides[-1]))) for p in pictures]
    styling.warn_of_small_styles(net, shown, of_style)
    key = jax.random.key(seed)
    made: list[making.Made] = []
    for run, side in zip(runs, sides, strict=True):
        image = photo.read(side)
        of = [_colored(p.read(styling.scaled(p.size, style_side(side))), image, colors) for p in pictures]
        where = [_region(mask, side) for mask in regions] or None
        before = made[-1].state if made else None

        def take(
            state: Any, count: int, image: Any = image, of: Any = of, where: Any = where, before: Any = before
        ) -> Any:
            if state is None and before is not None:
                state = enlarge(before, image.shape[:2], **descent)
                state = state._replace(step=0 * state.step)
            with styling.said_before():
                return vizsynth.transfer_style(
                    net, image, of, key=key, steps=count, masks=where, state=state, **options
                )

        def show(result: Any, image: Any = image) -> np.ndarray:
            return _finished(np.asarray(result.images[0]), image, colors)

        told = f"{photo.path.name} in the style of {', '.join(p.path.name for p in pictures)}"
        made.append(
            making.make(
                take,
                what=told if scales == 1 else f"{told}, {side[1]}x{side[0]}",
                steps=steps,
                every=every,
                folder=folder,
                quiet=quiet,
                show=show,
                name=run,
            )
        )
        if made[-1].stopped is not None:
            break
    side = sides[len(made) - 1]
    image = photo.read(side)
    styled = _finished(made[-1].images[0], image, colors)
    numbers = {
        "steps": sum(one.steps for one in made),
        "finished": len(made) == scales and made[-1].stopped is None,
        "loss_of_scales": [
            {"height": side[0], "width": side[1], "steps": one.steps, **styling.loss_summary(one.trace)}
            for side, one in zip(sides, made, strict=False)
        ],
        "height": side[0],
        "width": side[1],
        "frames": [frame for one in made for frame in one.frames],
        "versions": common.versions(),
        "device": jax.devices()[0].device_kind,
    }
    row = [image, *(p.read(shape) for p, (_, shape) in zip(pictures, shown, strict=True)), styled]
    labels = [photo.path.stem, *(p.path.stem for p in pictures), "styled"]
    title = f"{network}: {', '.join(of_content)} of the first, {', '.join(of_style)} of the style"
    files = folder.write({STYLED: styled, SHEET: sheet([row], column_labels=labels, title=title)}, numbers)
    if as_json:
        common.tell_json({**origin, **numbers, "out": str(folder.path), "files": files})
    else:
        common.tell(f"wrote into {folder.path}: {', '.join(files)}")
    making.finish(folder, made)


def _check_masks(masks: list[styling.Given], photo: styling.Given) -> None:
    for mask in masks:
        if mask.size != photo.size:
            h, w = photo.size
            raise common.BadInput(
                f"{mask.path} must be of the size of {photo.path.name}, {w}x{h}, not "
                f"{mask.size[1]}x{mask.size[0]}"
            )


def _region(mask: styling.Given, size: styling.Size) -> Any:
    """Return a mask's light at a size."""
    from vizsynth.images import luminance

    return np.clip(np.asarray(luminance(mask.read(size))), 0, 1)  # on the host, where it is checked


def _colored(style: Any, image: Any, colors: str | None) -> Any:
    """Return a style with the content's colours, if it is to have them."""
    import jax.numpy as jnp

    from vizsynth.colors import match_colors, match_histogram

    match colors:
        case "histogram":
            return jnp.clip(match_histogram(style, to=image), 0, 1)
        case "match":
            return jnp.clip(match_colors(style, to=image), 0, 1)
        case _:
            return style


def _finished(styled: np.ndarray, image: Any, colors: str | None) -> np.ndarray:
    """Return the picture with the content's own colours, if it is to have them."""
    import jax.numpy as jnp

    from vizsynth.colors import keep_luminance

    if colors != "luminance":
        return styled
    return np.clip(np.asarray(keep_luminance(jnp.asarray(styled), colors=image)), 0, 1)
