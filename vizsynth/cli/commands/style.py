"""`vizsynth style`: a photo's forms, painted as other pictures are."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from vizsynth.cli import common, making, options, styling
from vizsynth.cli.options import Stepwise
from vizsynth.cli.photos import Photo, look_at
from vizsynth.cli.settings import argument, command_of, option
from vizsynth.cli.styling import weight

STYLED, SHEET = "styled.png", "sheet.png"
KEPT = ("luminance", "histogram", "match")
RATES = {"lbfgs": 1.0, "adam": 0.02}
DECAY = 0.99  # of the mean that Adam's pictures are


@dataclass(frozen=True, kw_only=True)
class Settings(Stepwise):
    """Of `vizsynth style`."""

    content: Photo = argument()
    styles: tuple[Photo, ...] = argument(metavar="STYLE...", many=True)
    network: str = options.network()
    weights: str | None = options.weights()
    size: int = option(384, "The longer side", type=options.PIXELS, metavar="PIXELS")
    style_scale: float = option(
        1.0, "How large a style is beside CONTENT", type=options.ABOVE_0, metavar="FACTOR"
    )
    style_size: int | None = option(
        None, "Its longer side, in place of --style-scale", type=options.PIXELS, metavar="PIXELS", hidden=True
    )
    steps: int = options.steps(200, "On each scale")
    scales: int = option(1, "From coarse to fine, so many", type=click.IntRange(1, 12))
    style_weight: float | None = weight(None, "How much the styles count [20; 10 with VGG]")
    content_weight: float = weight(1.0, "How much CONTENT counts", hidden=True)
    tv_weight: float = weight(0.0, "How much smoothness counts", hidden=True)
    mix: list[float] | None = option(
        None, "How much of each style, 3,1 for instance", metavar="W,W...",
        parse=styling.numbers_between_commas,
    )  # fmt: skip
    masks: tuple[Photo, ...] = option((), "For each style: white where it goes", "--mask", metavar="PICTURE")
    colors: str | None = option(
        None, "Keep CONTENT's: luminance, histogram, match", type=click.Choice(KEPT), metavar="HOW"
    )
    noise: float = option(
        0.0, "How much of the beginning is noise", type=click.FloatRange(0, 1), metavar="SHARE", hidden=True
    )
    content_layers: tuple[str, ...] = styling.content_layers()
    style_layers: tuple[str, ...] = styling.style_layers()
    loss: str = option(
        "gram", "How styles are compared", type=click.Choice(("gram", "wasserstein")), hidden=True
    )
    pooling: str = option(
        "max", "How the network pools [max, as it was trained]", type=click.Choice(("max", "average")),
        hidden=True,
    )  # fmt: skip
    optimizer: str = option("lbfgs", "What descends", type=click.Choice(tuple(RATES)), hidden=True)
    learning_rate: float | None = option(
        None, "Its step [1 for lbfgs, 0.02 for adam]", type=options.ABOVE_0, metavar="RATE", hidden=True
    )
    average: float | None = option(
        None, "Mean of the steps' pictures [0.99 for adam]", type=click.FloatRange(0, 1, max_open=True),
        metavar="DECAY", hidden=True,
    )  # fmt: skip
    cut: bool | None = styling.cut()
    out: Path | None = options.out("NAME-styled")


@command_of(Settings)
def command(settings: Settings) -> None:
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
    from vizsynth.synthesis.style.gatys import enlarge, style_targets
    from vizsynth.synthesis.style.wasserstein import Wasserstein
    from vizsynth.synthesis.texture.gatys import Gram

    photo, styles, masks, mix = settings.content, settings.styles, settings.masks, settings.mix
    colors, steps, scales, quiet = settings.colors, settings.steps, settings.scales, settings.quiet
    for what, count in (
        ("weights in --mix", None if mix is None else len(mix)),
        ("--mask", len(masks) or None),
    ):
        if count is not None and count != len(styles):
            raise common.BadInput(f"{len(styles)} styles take as many {what}, not {count}")
    net = common.load_network(settings.network, settings.weights)
    usual = common.roles(net)
    of_content = styling.pick_layers(net, settings.content_layers, usual.content)
    of_style = styling.pick_layers(net, settings.style_layers, usual.style)
    look_at([photo, *styles], quiet)
    look_at(masks, quiet=True)
    _check_masks(masks, photo)
    sides = styling.sizes(styling.scaled(photo.size, settings.size), scales)
    cuts = styling.pick_cuts(net, settings.cut, sides[-1])
    lbfgs, rate = settings.optimizer == "lbfgs", settings.learning_rate
    resolved = {
        "content_layers": list(of_content),
        "style_layers": list(of_style),
        "style_weight": usual.style_weight if settings.style_weight is None else settings.style_weight,
        "learning_rate": RATES[settings.optimizer] if rate is None else rate,
        "average": DECAY if settings.average is None and not lbfgs else settings.average,
        "steps_a_scale": steps if scales > 1 else None,
    }
    descent: dict[str, Any] = {
        "optimizer": optax.lbfgs if lbfgs else optax.adam,
        "learning_rate": resolved["learning_rate"],
        "parametrization": Fourier() if lbfgs else Pixels(),
        "average": resolved["average"],
    }
    aims: dict[str, Any] = {
        "content_layers": of_content,
        "style_layers": of_style,
        "mixture": mix,
        "loss": Gram() if settings.loss == "gram" else Wasserstein(),
        "ops": None if settings.pooling == "max" else average_pooling,
    }
    arguments: dict[str, Any] = {
        "content_weight": settings.content_weight,
        "style_weight": resolved["style_weight"],
        "tv_weight": settings.tv_weight,
        "noise": settings.noise,
        "cuts": cuts,
        **descent,
    }
    folder = settings.open(photo.stem, resolved=resolved)
    runs = [f"scale-{number}" for number in range(1, scales + 1)] if scales > 1 else [making.ONLY]
    kept = making.frames(settings.every, steps, folder, runs)
    folder.check([STYLED, SHEET], inputs=[photo, *styles, *masks], frames=kept)

    def style_side(side: styling.Size) -> int:
        return settings.style_size or max(1, round(max(side) * settings.style_scale))

    shown = [(p.name, styling.scaled(p.size, style_side(sides[-1]))) for p in styles]
    styling.warn_of_small_styles(net, shown, of_style)
    key = jax.random.key(settings.seed)
    made: list[making.Made] = []
    for run, side in zip(runs, sides, strict=True):
        image = photo.read(side)
        of = [_colored(p.read(styling.scaled(p.size, style_side(side))), image, colors) for p in styles]
        given = {"masks": [_region(mask, side) for mask in masks] or None, **aims}
        with styling.said_before():  # the same in all steps
            given["targets"] = style_targets(net, image, of, **given)
        before = made[-1].state if made else None

        def take(
            state: Any, count: int, image: Any = image, of: Any = of, given: Any = given, before: Any = before
        ) -> Any:
            if state is None and before is not None:
                state = enlarge(before, image.shape[:2], **descent)
                state = state._replace(step=0 * state.step)
            with styling.said_before():
                return vizsynth.transfer_style(
                    net, image, of, key=key, steps=count, state=state, **given, **arguments
                )

        def show(result: Any, image: Any = image) -> np.ndarray:
            return _finished(np.asarray(result.images[0]), image, colors)

        told = f"{photo.name} in the style of {', '.join(p.name for p in styles)}"
        made.append(
            making.make(
                take,
                what=told if scales == 1 else f"{told}, {side[1]}x{side[0]}",
                steps=steps,
                every=settings.every,
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
    }
    row = [image, *(p.read(shape) for p, (_, shape) in zip(styles, shown, strict=True)), styled]
    labels = [photo.stem, *(p.stem for p in styles), "styled"]
    title = f"{settings.network}: {', '.join(of_content)} of the first, {', '.join(of_style)} of the style"
    settings.write(folder, {STYLED: styled, SHEET: sheet([row], column_labels=labels, title=title)}, numbers)
    making.finish(folder, made)


def _check_masks(masks: Sequence[Photo], photo: Photo) -> None:
    for mask in masks:
        if mask.size != photo.size:
            (h, w), (height, width) = photo.size, mask.size
            raise common.BadInput(
                f"{mask.path} must be of the size of {photo.name}, {w}x{h}, not {width}x{height}"
            )


def _region(mask: Photo, size: styling.Size) -> Any:
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
