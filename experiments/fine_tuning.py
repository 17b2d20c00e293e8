"""What a network has learned helps it to learn more: `python -m experiments.fine_tuning [--quick]`.

SqueezeNet, which knows ImageNet, gets a head for ten photos' squares and learns with all layers up to `fire7`
frozen; the same network with fresh weights learns all of its layers. Both see the same squares from the left
halves of the photos, and are asked about squares from the right halves. Squares are grey: colour alone would
tell most photos apart.

- `curves.png`: held-out accuracy by epoch; `squares.png`: what they are asked;
- `fine_tuning.json`: accuracies, settings, seconds; `caption.md`; each network, history and curves.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np

import vizsynth
from experiments import figure
from experiments.photo_crops import CLASSES, photo_crops
from experiments.training import as_floats, train
from vizsynth import figures, models, training
from vizsynth.files import write_image

SIDE = 96
FROZEN_TO = "fire7"


def draw(path: Path, histories: dict[str, tuple[training.Record, ...]]) -> None:
    """Draw the held-out accuracy of each by epoch."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(6, 3.6), layout="constrained")
    axes = drawing.subplots()
    for name, history in histories.items():
        values = [float(record.validation_accuracy or 0) for record in history]
        axes.plot([record.epoch for record in history], values, marker="o", label=name)
    axes.set(title="held-out accuracy", xlabel="epoch", ylim=(0, 1))
    axes.legend(fontsize=8)
    drawing.savefig(path, dpi=120)


def run(out: Path, *, quick: bool = False, seed: int = 0, epochs: int = 6, count: int = 60) -> None:
    """Train both, and compare them."""
    out.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"seed": seed, "grey": True}
    data = photo_crops(CLASSES, 2 if quick else count, SIDE, half="left", **options)
    held_out = photo_crops(CLASSES, 1 if quick else count // 2, SIDE, half="right", **options)
    key = jax.random.key(seed)
    known = models.with_classes(vizsynth.load("squeezenet1_1", folded=False), CLASSES, key=key)
    fresh = models.fresh_network("squeezenet1_1", CLASSES, seed=seed)
    frozen = training.up_to(known, FROZEN_TO)
    record: dict[str, Any] = {"seed": seed, "frozen_to": FROZEN_TO}
    histories = {}
    for name, net, held in (("fine_tuned", known, frozen), ("from_scratch", fresh, ())):
        _, record[name] = train(
            net, data, held_out, out, name=name, seed=seed, steps=1 if quick else None,
            epochs=1 if quick else epochs, batch_size=20, learning_rate=1e-3, frozen=held,
        )  # fmt: skip
        histories[name.replace("_", " ")] = training.read_history(out / f"{name}.json")
    draw(out / "curves.png", histories)
    places = np.linspace(0, len(held_out.labels) - 1, 10).astype(int)
    rows = [list(as_floats(part.images[np.linspace(0, len(part.labels) - 1, 10).astype(int)]))
            for part in (data, held_out)]  # fmt: skip
    heads = [CLASSES[label].replace("_", " ") for label in held_out.labels[places]]
    write_image(
        out / "squares.png", figures.sheet(rows, row_labels=["learned", "asked"], column_labels=heads)
    )
    best, scratch = (record[name]["held_out_accuracy"] for name in ("fine_tuned", "from_scratch"))
    print(f"fine-tuned {best:.4f}, from scratch {scratch:.4f}", flush=True)
    caption = (
        f"Held-out accuracy of SqueezeNet 1.1 on grey squares of ten photos ({len(data.labels)} from left "
        f"halves to learn from, {len(held_out.labels)} from right halves to ask about): fine-tuned from "
        f"ImageNet with all up to {FROZEN_TO} frozen {best:.1%}, from scratch {scratch:.1%}, after the same "
        "epochs (Yosinski et al., How transferable are features in deep neural networks?, 2014)."
    )
    figure.tell(out, "fine_tuning", record, caption)


def main() -> None:
    """Read the command line."""
    parser = figure.options(__doc__, "fine_tuning", quick="one step each")
    parser.add_argument("--epochs", type=int, default=6)
    given = parser.parse_args()
    run(given.out, quick=given.quick, seed=given.seed, epochs=given.epochs)


if __name__ == "__main__":
    main()
