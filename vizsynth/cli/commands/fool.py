"""`vizsynth fool`: change a photo, hardly to be seen, until the network says another class."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from vizsynth.cli import common, making, options
from vizsynth.cli.options import Stepwise
from vizsynth.cli.photos import Photo
from vizsynth.cli.settings import argument, command_of, option

FOOLED, DIFFERENCE, SHEET = "fooled.png", "difference.png", "sheet.png"

MARGIN = 1.0  # by how much the class's logit exceeds all others


@dataclass(frozen=True, kw_only=True)
class Settings(Stepwise):
    """Of `vizsynth fool`."""

    photo: Photo = argument()
    to: str = option(help="What it shall be taken for, name or number", metavar="CLASS")
    network: str = options.network()
    weights: str | None = options.weights()
    steps: int = options.steps(200, "At most so many steps")
    step_size: float = option(
        0.5, "The Euclidean length of a step, pixels being 0 to 1", type=options.ABOVE_0, metavar="LENGTH"
    )
    magnify: float = option(
        10.0, "How much the difference is magnified", type=click.FloatRange(1), record=None
    )
    size: int | None = options.size()
    seed: int = options.seed(record=None)
    out: Path | None = options.out("NAME-fooled")


@command_of(Settings)
def command(settings: Settings) -> None:
    """Change PHOTO until the network takes it for another class.

    Writes the changed photo (as the network sees it; PNG, so that nothing is
    lost), the difference magnified, a sheet of all three and numbers.json.
    """
    import jax
    import jax.numpy as jnp

    import vizsynth
    from vizsynth.figures import sheet
    from vizsynth.types import Synthesis

    photo, magnify = settings.photo, settings.magnify
    net = common.load_network(settings.network, settings.weights)
    common.need_classes(net, settings.network)
    label = common.pick_class(net, settings.to)
    image = photo.read(settings.size or min(common.input_size(net)))
    folder = settings.open(photo.stem, resolved={"to": label})
    kept = making.frames(settings.every, settings.steps, folder)
    folder.check([FOOLED, DIFFERENCE, SHEET], inputs=[photo], frames=kept)

    softmax = jax.jit(lambda net, images: jax.nn.softmax(net(images)))
    before = np.asarray(softmax(net, image[None])[0], np.float64)

    def take(state: Any, count: int) -> Any:
        if count == 0:
            return Synthesis(state.images, jnp.zeros((1, 0)), state)
        # Some room, so that the picture still fools when it is rounded to eight bits.
        return vizsynth.fool(
            net, image[None], label, steps=count, step_size=settings.step_size, margin=MARGIN, state=state
        )

    made = making.make(
        take,
        what=f"{photo.name} to {common.class_name(net, label)}",
        steps=settings.steps,
        every=settings.every,
        folder=folder,
        quiet=settings.quiet,
        until=lambda state: bool(np.asarray(state.fooled).all()),
    )
    # What counts is the picture that is written: eight bits a value.
    written_image = np.round(made.images[0] * 255).astype(np.float32) / 255
    after = np.asarray(softmax(net, written_image[None])[0], np.float64)
    difference = written_image - np.asarray(image)

    was, now = int(before.argmax()), int(after.argmax())
    numbers = {
        "before": common.likely(net, before, was),
        "after": common.likely(net, after, now),
        "wanted": common.likely(net, after, label),
        "fooled": now == label,
        **made.numbers,
        "l2": float(np.sqrt((difference**2).sum())),
        "linf": float(np.abs(difference).max()),
        "magnified": magnify,
    }
    shown = np.asarray(vizsynth.magnified(image[None], jnp.asarray(written_image)[None], factor=magnify))[0]
    texts = [
        f"{common.class_name(net, was)}, p = {before[was]:.2f}",
        f"{common.class_name(net, now)}, p = {after[now]:.2f}",
        f"difference x {magnify:g}",
    ]
    title = f"{settings.network}: {made.steps} steps, L2 {numbers['l2']:.2f}, Linf {numbers['linf']:.3f}"
    pictures = {
        FOOLED: written_image,
        DIFFERENCE: shown,
        SHEET: sheet([[image, written_image, shown]], column_labels=texts, title=title),
    }
    lines = [
        f"before: {texts[0]}",
        f"after {made.steps} steps: {texts[1]}",
        f"L2 {numbers['l2']:.3f}, Linf {numbers['linf']:.4f}",
    ]
    settings.write(folder, pictures, numbers, *lines, "")
    making.finish(folder, [made])
    if now != label:
        raise click.ClickException(
            f"{made.steps} steps did not do; give more --steps, or a larger --step-size"
        )
