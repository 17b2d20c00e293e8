"""Files in the layouts that Keras writes, made without Keras, and Keras' arithmetic in NumPy.

`legacy` writes `.h5` as Keras 2 does, `numbered` writes `.weights.h5` and `archive` `.keras` as Keras 3
does. A model is a list of layers as in its JSON; an entry with layers of its own is a nested model.
"""

import io
import json
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Entry = dict[str, Any]
Arrays = Mapping[str, list[np.ndarray]]  # of each layer with weights: kernel, bias


def layer(kind: str, name: str, **config: Any) -> Entry:
    return {"class_name": kind, "config": {"name": name, **config}}


def conv(name: str, filters: int, window: int = 3, activation: str = "relu", **config: Any) -> Entry:
    config = {"strides": [1, 1], "padding": "same", "activation": activation, "use_bias": True, **config}
    return layer("Conv2D", name, filters=filters, kernel_size=[window, window], **config)


def dense(name: str, units: int, activation: str = "linear") -> Entry:
    return layer("Dense", name, units=units, activation=activation, use_bias=True)


def pool(name: str, kind: str = "MaxPooling2D") -> Entry:
    return layer(kind, name, pool_size=[2, 2], strides=[2, 2], padding="valid")


def inputs(size: int | None) -> Entry:
    return layer("InputLayer", "input_1", batch_input_shape=[None, size, size, 3])


def model(entries: Sequence[Entry], name: str = "sequential_1", kind: str = "Sequential") -> Entry:
    """Make the model of a chain; a functional one says what each layer takes."""
    entries = [dict(entry) for entry in entries]
    if kind != "Sequential":
        for i, entry in enumerate(entries):
            entry["name"] = entry["config"]["name"]
            entry["inbound_nodes"] = [[[entries[i - 1]["name"], 0, 0, {}]]] if i else []
    return {"class_name": kind, "config": {"name": name, "layers": entries}}


def vgg_base(
    depths: Sequence[int], widths: Sequence[int], size: int | None, name: str = "vgg16", kind: str = "Model"
) -> Entry:
    """Make keras.applications' VGG without its top."""
    return model([inputs(size), *vgg_blocks(depths, widths)], name, kind)


def vgg_blocks(depths: Sequence[int], widths: Sequence[int]) -> list[Entry]:
    entries = []
    for b, (depth, width) in enumerate(zip(depths, widths, strict=True), start=1):
        entries += [conv(f"block{b}_conv{i}", width) for i in range(1, depth + 1)]
        entries.append(pool(f"block{b}_pool"))
    return entries


def is_model(entry: Entry) -> bool:
    return "layers" in entry["config"]


def unfolded(entry: Entry) -> list[Entry]:
    children = entry["config"]["layers"]
    return [leaf for child in children for leaf in (unfolded(child) if is_model(child) else [child])]


def random_arrays(entry: Entry, size: int, seed: int = 0) -> dict[str, list[np.ndarray]]:
    """Draw the weights of a model for square RGB images."""
    rng = np.random.default_rng(seed)
    shape: tuple[int, ...] = (size, size, 3)
    arrays = {}
    for leaf in unfolded(entry):
        config, kind = leaf["config"], leaf["class_name"]
        if kind == "Conv2D":
            kernel = (*config["kernel_size"], shape[-1], config["filters"])
            shrink = 0 if config["padding"] == "same" else kernel[0] - 1
            shape = (shape[0] - shrink, shape[1] - shrink, kernel[-1])
        elif kind == "Dense":
            kernel = (shape[-1], config["units"])
            shape = (config["units"],)
        else:
            if kind.endswith("Pooling2D") and not kind.startswith("Global"):
                shape = (shape[0] // 2, shape[1] // 2, shape[2])
            elif kind == "Flatten":
                shape = (int(np.prod(shape)),)
            elif kind.startswith("Global"):
                shape = (shape[-1],)
            continue
        scale = np.sqrt(2 / np.prod(kernel[:-1]))
        weights = [rng.normal(0, scale, kernel), rng.normal(0, 0.1, kernel[-1])]
        arrays[config["name"]] = [w.astype(np.float32) for w in weights]
    return arrays


def predict(entry: Entry, arrays: Arrays, images: np.ndarray) -> dict[str, np.ndarray]:
    """Run a model as Keras does, in NumPy and in double precision; return each layer's output."""
    x = images.astype(np.float64)
    outputs = {}
    for leaf in unfolded(entry):
        config, kind = leaf["config"], leaf["class_name"]
        if kind == "Conv2D":
            kernel, bias = arrays[config["name"]]
            pad = kernel.shape[0] // 2 if config["padding"] == "same" else 0
            padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
            windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape[:2], axis=(1, 2))
            x = np.einsum("nhwcij,ijck->nhwk", windows, kernel, optimize=True) + bias
        elif kind == "Dense":
            kernel, bias = arrays[config["name"]]
            x = x @ kernel + bias
        elif kind in ("MaxPooling2D", "AveragePooling2D"):
            n, h, w, c = x.shape
            blocks = x[:, : h // 2 * 2, : w // 2 * 2].reshape(n, h // 2, 2, w // 2, 2, c)
            x = blocks.max((2, 4)) if kind.startswith("Max") else blocks.mean((2, 4))
        elif kind == "Flatten":
            x = x.reshape(len(x), -1)
        elif kind == "GlobalAveragePooling2D":
            x = x.mean((1, 2))
        outputs[f"{config['name']}:linear"] = x
        activation = config.get("activation", "linear")
        if activation == "relu":
            x = np.maximum(x, 0)
        elif activation == "sigmoid":
            x = 1 / (1 + np.exp(-x))
        elif activation == "softmax":
            x = np.exp(x - x.max(-1, keepdims=True))
            x = x / x.sum(-1, keepdims=True)
        outputs[config["name"]] = x
    return outputs


def legacy(path: Path, entry: Entry, arrays: Arrays, *, weights_only: bool = False, suffix: str = "") -> Path:
    """Write `.h5`: a group for each layer; a nested model is one group with all of its arrays."""
    with h5py.File(path, "w") as file:
        root = file if weights_only else file.create_group("model_weights")
        if not weights_only:
            file.attrs["model_config"] = json.dumps(entry).encode()
            file.create_group("optimizer_weights")
        children = entry["config"]["layers"]
        root.attrs["layer_names"] = [child["config"]["name"].encode() for child in children]
        for child in children:
            group = root.create_group(child["config"]["name"])
            names = []
            for leaf in unfolded(child) if is_model(child) else [child]:
                name = leaf["config"]["name"]
                for part, array in zip(("kernel", "bias"), arrays.get(name, []), strict=False):
                    names.append(f"{name}{suffix}/{part}:0")
                    group[names[-1]] = array
            group.attrs["weight_names"] = [name.encode() for name in names]
    return path


def _number(file: h5py.File, entry: Entry, arrays: Arrays, prefix: str) -> None:
    counts: Counter[str] = Counter()
    for child in entry["config"]["layers"]:
        kind = {
            "Conv2D": "conv2d",
            "MaxPooling2D": "max_pooling2d",
            "InputLayer": "input_layer",
            "GlobalAveragePooling2D": "global_average_pooling2d",
        }.get(child["class_name"], child["class_name"].lower())
        name = f"{prefix}/{kind}_{counts[kind]}" if counts[kind] else f"{prefix}/{kind}"
        counts[kind] += 1
        variables = file.create_group(f"{name}/vars")
        for i, array in enumerate(arrays.get(child["config"]["name"], [])):
            variables[str(i)] = array
        if is_model(child):
            _number(file, child, arrays, f"{name}/layers")


def numbered(path: Path | io.BytesIO, entry: Entry, arrays: Arrays) -> Path | io.BytesIO:
    """Write `.weights.h5`: numbered arrays in groups named by class."""
    with h5py.File(path, "w") as file:
        _number(file, entry, arrays, "layers")
        file.create_group("vars")
        file.create_group("optimizer/vars")["0"] = np.zeros(())
    return path


def archive(path: Path, entry: Entry, arrays: Arrays) -> Path:
    """Write `.keras`."""
    weights = io.BytesIO()
    numbered(weights, entry, arrays)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("metadata.json", json.dumps({"keras_version": "3.0.0"}))
        file.writestr("config.json", json.dumps(entry))
        file.writestr("model.weights.h5", weights.getvalue())
    return path
