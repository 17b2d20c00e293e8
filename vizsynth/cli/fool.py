"""`vizsynth fool`: change a photo, hardly to be seen, until the network says another class."""

from pathlib import Path
from typing import Any

import click
import numpy as np

from vizsynth.cli import common, making
from vizsynth.cli.output import OutputFolder
from vizsynth.cli.photos import digest, read_photo

FOOLED, DIFFERENCE, SHEET = "fooled.png", "difference.png", "sheet.png"

MARGIN = 1.0  # by how much the class's logit exceeds all others


@click.command("fool")
@click.argument("photo", type=click.Path(path_type=Path))
@click.option(
    "--to", "to", required=True, metavar="CLASS", help="What it shall be taken for, name or number."
)
@common.network
@common.weights
@making.steps(200, "At most so many steps")
@click.option(
    "--step-size", type=click.FloatRange(0, min_open=True), default=0.5, metavar="LENGTH",
    help="The Euclidean length of a step, pixels being 0 to 1 [0.5].",
)  # fmt: skip
@click.option(
    "--magnify", type=click.FloatRange(1), default=10.0, help="How much the difference is magnified [10]."
)
@common.size
@making.every
@making.resume
@common.seed
@common.out("out/NAME-fooled")
@common.overwrite
@common.as_json
@common.quiet
def command(
    photo: Path,
    to: str,
    network: str,
    weights: str | None,
    steps: int,
    step_size: float,
    magnify: float,
    size: int | None,
    every: int | None,
    resume: bool,
    seed: int,
    out: Path | None,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Change PHOTO until the network takes it for another class.

    Writes the changed photo (as the network sees it; PNG, so that nothing is
    lost), the difference magnified, a sheet of all three and numbers.json.
    """
    import jax
    import jax.numpy as jnp

    import vizsynth
    from vizsynth.figures import sheet
    from vizsynth.types import Synthesis

    net = common.load_network(network, weights)
    common.need_classes(net, network)
    label = common.pick_class(net, to)
    image = read_photo(photo, size or min(common.input_size(net)))
    origin = {
        "command": "fool", "photo": {"name": photo.name, "sha256": digest(photo)}, "network": network,
        "weights": weights, "to": label, "step_size": step_size, "size": size,
    }  # fmt: skip
    folder = OutputFolder(
        out or common.usual_folder(photo.stem, "-fooled"), origin, overwrite=overwrite, resume=resume
    )
    kept = making.frames(every, steps, folder)
    folder.check([FOOLED, DIFFERENCE, SHEET], inputs=[photo], frames=kept)

    softmax = jax.jit(lambda net, images: jax.nn.softmax(net(images)))
    before = np.asarray(softmax(net, image[None])[0], np.float64)

    def take(state: Any, count: int) -> Any:
        if count == 0:
            return Synthesis(state.images, jnp.zeros((1, 0)), state)
        # Some room, so that the picture still fools when it is rounded to eight bits.
        return vizsynth.fool(
            net, image[None], label, steps=count, step_size=step_size, margin=MARGIN, state=state
        )

    made = making.make(
        take,
        what=f"{photo.name} to {common.class_name(net, label)}",
        steps=steps,
        every=every,
        folder=folder,
        quiet=quiet,
        until=lambda state: bool(np.asarray(state.fooled).all()),
    )
    # What counts is the picture that is written: eight bits a value.
    written_image = np.round(made.images[0] * 255).astype(np.float32) / 255
    after = np.asarray(softmax(net, written_image[None])[0], np.float64)
    difference = written_image - np.asarray(image)

    def described(p: np.ndarray, wanted: int) -> dict[str, Any]:
        return {
            "label": wanted,
            "name": common.class_name(net, wanted),
            "probability": round(float(p[wanted]), 6),
        }

    was, now = int(before.argmax()), int(after.argmax())
    numbers = {
        "before": described(before, was),
        "after": described(after, now),
        "wanted": described(after, label),
        "fooled": now == label,
        "steps": made.steps,
        "finished": made.stopped is None,
        "l2": float(np.sqrt((difference**2).sum())),
        "linf": float(np.abs(difference).max()),
        "magnified": magnify,
        "frames": made.frames,
        "versions": common.versions(),
        "device": jax.devices()[0].device_kind,
    }
    shown = np.asarray(vizsynth.magnified(image[None], jnp.asarray(written_image)[None], factor=magnify))[0]
    texts = [
        f"{common.class_name(net, was)}, p = {before[was]:.2f}",
        f"{common.class_name(net, now)}, p = {after[now]:.2f}",
        f"difference x {magnify:g}",
    ]
    title = f"{network}: {made.steps} steps, L2 {numbers['l2']:.2f}, Linf {numbers['linf']:.3f}"
    pictures = {
        FOOLED: written_image,
        DIFFERENCE: shown,
        SHEET: sheet([[image, written_image, shown]], column_labels=texts, title=title),
    }
    files = folder.write(pictures, numbers)
    if as_json:
        common.tell_json({**origin, **numbers, "out": str(folder.path), "files": files})
    else:
        common.tell(f"before: {texts[0]}", f"after {made.steps} steps: {texts[1]}")
        common.tell(f"L2 {numbers['l2']:.3f}, Linf {numbers['linf']:.4f}")
        common.tell("", f"wrote into {folder.path}: {', '.join(files)}")
    making.finish(folder, [made])
    if now != label:
        raise click.ClickException(
            f"{made.steps} steps did not do; give more --steps, or a larger --step-size"
        )
