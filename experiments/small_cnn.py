"""A small network learns two kinds of pictures; what its channels see. `python -m experiments.small_cnn`.

Four pairs of a 5x5 convolution (32, 64, 64, 64 channels, whole windows only) and a 2x2 max-pool on pictures
of 100 pixels, then fully connected layers of 128, 64, 32 and 2; ReLU between. It tells the texture of brick
from that of grass, learned from the left halves of two photos and asked about the right ones, or, by
`--data`, two folders of your own. Then the channels of its first convolution (96x96) and of its fourth
(5x5): the sixth layer as Keras counts from 0, pools included.

- `layer1.png`, `layer6.png`: 32 channels in eight rows of four, each from its least value to its greatest;
- `held_out.png`: some of the pictures, with what they are told to be; `small_cnn.png`: loss and accuracy;
- `small_cnn.json`: accuracies, settings, seconds; `caption.md`; `small_cnn.safetensors`.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import vizsynth
from experiments import figure
from experiments.photo_crops import photo_crops
from experiments.training import as_floats, train
from vizsynth import figures, training
from vizsynth.datasets.folders import Skipped
from vizsynth.datasets.labelled import read_labelled
from vizsynth.files import write_image
from vizsynth.images import Standardize, resize
from vizsynth.models import sequential
from vizsynth.models.sequential import Conv, Dense, Flatten, MaxPool, ReLU, Sequential
from vizsynth.training import Parts
from vizsynth.transforms import Mirror, none

SIDE = 100
STANDARDIZE = Standardize(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
TEXTURES = ("brick", "grass")
STACK = (
    *(layer for width in (32, 64, 64, 64) for layer in (Conv(width, 5, padding=0), ReLU(), MaxPool(2))),
    Flatten(),
    *(layer for width in (128, 64, 32) for layer in (Dense(width), ReLU())),
    Dense(2),
)
LAYERS = {"layer1": "relu1", "layer6": "relu4"}
CHANNELS = 32


def fresh(seed: int = 0) -> Sequential:
    """Return the network before it learns."""
    return sequential(STACK, (SIDE, SIDE, 3), standardize=STANDARDIZE, key=jax.random.key(seed))


def read(data: Path | None, seed: int, count: int, skipped: list[Skipped]) -> Parts:
    """Return the pictures to learn from, and those held out."""
    if data is None:
        return Parts(
            photo_crops(TEXTURES, count, SIDE, half="left", seed=seed, even=True),
            photo_crops(TEXTURES, max(4, count // 3), SIDE, half="right", seed=seed, even=True),
        )
    parts = read_labelled(data, SIDE, skipped=skipped)
    if len(parts.training.classes) != 2:
        raise SystemExit(f"{data} must hold two class folders, not {len(parts.training.classes)}")
    return (
        parts if parts.held_out is not None else training.split(parts.training, 0.2, key=jax.random.key(seed))
    )


def channels(net: Any, image: np.ndarray, layer: str) -> np.ndarray:
    """Return the first channels of a layer, eight rows of four, each from its least value to its greatest."""
    maps = np.asarray(vizsynth.features(net, jnp.asarray(image)[None], [layer])[layer][0])[..., :CHANNELS]
    tiles = [
        figures.heat(m, low=float(m.min()), high=max(float(m.max()), float(m.min()) + 1e-9))
        for m in np.moveaxis(maps, -1, 0)
    ]
    large = resize(jnp.stack([jnp.asarray(tile) for tile in tiles]), (SIDE, SIDE), method="nearest")
    return figures.grid(np.asarray(large), columns=4, pad=4)


def run(
    out: Path,
    *,
    quick: bool = False,
    seed: int = 0,
    data: Path | None = None,
    epochs: int = 6,
    count: int = 300,
) -> None:
    """Train, and make all pictures."""
    skipped: list[Skipped] = []
    parts = read(data, seed, 8 if quick else count, skipped)
    net, numbers = train(
        fresh(seed), parts.training, parts.held_out, out, name="small_cnn", seed=seed,
        steps=2 if quick else None, epochs=1 if quick else epochs, batch_size=8 if quick else 32,
        learning_rate=3e-4, augment=none if data is None else Mirror(),
    )  # fmt: skip
    held_out = parts.held_out
    places = np.linspace(0, len(held_out.labels) - 1, 8).astype(int)
    images = as_floats(held_out.images[places])
    told = np.asarray(net(jnp.asarray(images)).argmax(-1))
    heads = [
        f"{held_out.classes[t]}" + ("" if t == y else " (wrong)")
        for t, y in zip(told, held_out.labels[places], strict=True)
    ]
    write_image(out / "held_out.png", figures.sheet([list(images)], column_labels=heads))
    for name, layer in LAYERS.items():
        write_image(out / f"{name}.png", channels(net, images[0], layer))
    accuracy = numbers["held_out_accuracy"]
    print(f"held-out accuracy {accuracy:.4f} after {numbers['seconds']} s", flush=True)
    of = " and ".join(held_out.classes)
    caption = (
        f"What 32 channels of a small network see of {held_out.classes[held_out.labels[0]]}: its "
        f"first convolution at 96x96, its fourth at 5x5, each channel from its least value to its greatest. "
        f"It learned {of} from {numbers['examples']} squares and tells {accuracy:.1%} of "
        f"{numbers['held_out']} held-out ones right."
    )
    record = {"seed": seed, "classes": held_out.classes, "skipped": [str(bad.path) for bad in skipped]}
    figure.tell(out, "small_cnn", record | numbers, caption)


def main() -> None:
    """Read the command line."""
    parser = figure.options(__doc__, "small_cnn", quick="two steps")
    parser.add_argument("--data", type=Path, help="a folder of two class folders, in place of textures")
    parser.add_argument("--epochs", type=int, default=6)
    given = parser.parse_args()
    run(given.out, quick=given.quick, seed=given.seed, data=given.data, epochs=given.epochs)


if __name__ == "__main__":
    main()
