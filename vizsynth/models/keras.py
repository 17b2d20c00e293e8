"""Keras' files: their weights by `layer/kernel` and `layer/bias`, and the model that they describe.

Three layouts. `.h5`, of `model.save` and `save_weights` up to Keras 2: a group for each layer, whose
attribute `weight_names` lists its arrays. `.weights.h5`, of Keras 3: arrays numbered in `vars`, in
groups named by class and number. `.keras`: a zip of the latter and of the model as JSON.
"""

import io
import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vizsynth.models.sequential import (
    Conv,
    Dense,
    Flatten,
    GlobalMean,
    Layer,
    MaxPool,
    MeanPool,
    ReLU,
    SequentialConfig,
    layer_names,
)
from vizsynth.models.vgg import DEPTHS, VGGConfig
from vizsynth.models.weights import Config, WeightsError

if TYPE_CHECKING:
    import h5py

Tensors = dict[str, np.ndarray]


@dataclass(frozen=True)
class KerasLayer:
    """One layer of a Keras model, nested models unfolded."""

    kind: str
    """Its class, such as `Conv2D`."""
    name: str
    config: dict[str, Any]


@dataclass(frozen=True)
class Description:
    """What a Keras model is here."""

    network: str
    """`vgg16`, `vgg19`, or `sequential` for any other chain of layers."""
    config: Config
    input_size: tuple[int, int]
    preprocessing: str
    """How its pixels are taken to be prepared; a key of `vizsynth.models.weights.PIXELS`."""


def read_h5(path: Path) -> tuple[Tensors, Description | None]:
    """Read an `.h5` or a `.weights.h5` file."""
    import h5py

    with h5py.File(path, "r") as file:
        if "layers" in file or "_layer_checkpoint_dependencies" in file:
            return {f"{_last(where)}/{part}": x for where, part, x in _numbered(file)}, None
        described = file.attrs.get("model_config")
        tensors = _named(file.get("model_weights", file))
    if described is None:
        return tensors, None
    text = described.decode() if isinstance(described, bytes) else str(described)
    return _described(list(_unfold(json.loads(text))), tensors)


def read_archive(path: Path) -> tuple[Tensors, Description | None]:
    """Read a `.keras` file."""
    import h5py

    with zipfile.ZipFile(path) as archive:
        model = json.loads(archive.read("config.json"))
        weights = archive.read("model.weights.h5")
    with h5py.File(io.BytesIO(weights), "r") as file:
        stored = {(where, part): x for where, part, x in _numbered(file)}
    layers = list(_unfold(model))
    tensors = {
        f"{layer.name}/{part}": stored.pop((where, part))
        for layer, where in zip(layers, _places(model), strict=True)
        for part in ("kernel", "bias")
        if (where, part) in stored
    }
    left = {f"{where}/{part}": x for (where, part), x in stored.items()}  # for `fit` to say so
    return _described(layers, tensors | left)


def _last(where: str) -> str:
    return where.rpartition("/")[2]


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _attribute(group: Any, name: str) -> list[str]:
    """Return a list of names; long ones are split over `name0`, `name1`, ..."""
    if name in group.attrs:
        return [_text(value) for value in group.attrs[name]]
    parts = []
    while f"{name}{len(parts)}" in group.attrs:
        parts.append(group.attrs[f"{name}{len(parts)}"])
    if not parts:
        raise WeightsError(f"it has no {name}: this is no file of Keras' weights")
    return [_text(value) for part in parts for value in part]


def _named(root: Any) -> Tensors:
    """Read the layout of `.h5`."""
    tensors: Tensors = {}
    for layer in _attribute(root, "layer_names"):
        group = root[layer]
        names = _attribute(group, "weight_names")
        owners = [_owner(name) for name in names]
        nested = len(set(owners)) > 1 or re.fullmatch(r"vgg\d+(_\d+)?", layer)
        for name, owner in zip(names, owners, strict=True):
            array = np.asarray(group[name])
            # A model that is built twice in one session numbers its layers' variables: block1_conv1_1.
            owner = re.sub(r"^(block\d_conv\d)_\d+$", r"\1", owner) if nested else layer
            tensors[f"{owner}/{_part(name, array)}"] = array
    return tensors


def _owner(name: str) -> str:
    """Return the layer in `block1_conv1/kernel:0`, or in Keras 1's `block1_conv1_W_1:0`."""
    name = name.partition(":")[0]
    owner, _, _ = name.rpartition("/")
    return _last(owner) if owner else re.sub(r"_[Wb](_\d+)?$", "", name)


def _part(name: str, array: np.ndarray) -> str:
    """Return which of the layer's arrays this is: its own word for it, or its rank's."""
    word = re.sub(r"_\d+$", "", _last(name.partition(":")[0]))
    if word in ("kernel", "bias") or not re.search(r"_[Wb]$", word):
        return word
    return "bias" if array.ndim == 1 else "kernel"


def _numbered(file: "h5py.File") -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield where, which part, and the array, from the layout of `.weights.h5`."""
    found: list[tuple[str, str, np.ndarray]] = []

    def visit(name: str, item: Any) -> None:
        where, _, variables = name.rpartition("/vars")
        if variables == "" and where and hasattr(item, "keys") and not name.startswith("optimizer"):
            arrays = [np.asarray(item[key]) for key in sorted(item, key=int)]
            parts = ("kernel", "bias") if len(arrays) <= 2 else tuple(map(str, range(len(arrays))))
            where = where.replace("_layer_checkpoint_dependencies", "layers")
            found.extend((where, part, array) for part, array in zip(parts, arrays, strict=False))

    file.visititems(visit)
    yield from found


def _entries(model: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the layers of a model's JSON; the oldest Sequential is a bare list."""
    config = model["config"]
    return config if isinstance(config, list) else config["layers"]


def _is_model(entry: dict[str, Any]) -> bool:
    config = entry["config"]
    return isinstance(config, list) or "layers" in config


def _unfold(model: dict[str, Any]) -> Iterator[KerasLayer]:
    """Yield the layers of a model, those of nested models in their place."""
    _check_chain(model)
    for entry in _entries(model):
        if _is_model(entry):
            yield from _unfold(entry)
        else:
            config = entry["config"]
            yield KerasLayer(entry["class_name"], config.get("name") or entry.get("name", ""), config)


def _places(model: dict[str, Any], prefix: str = "layers") -> Iterator[str]:
    """Yield the group of each layer in the numbered layout: class names, counted in their model."""
    counts: Counter[str] = Counter()
    for entry in _entries(model):
        word = _snake(entry["class_name"])
        name = f"{word}_{counts[word]}" if counts[word] else word
        counts[word] += 1
        if _is_model(entry):
            yield from _places(entry, f"{prefix}/{name}/layers")
        else:
            yield f"{prefix}/{name}"


def _snake(name: str) -> str:
    """Return `max_pooling2d` for `MaxPooling2D`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])|(?<=[a-z])(?=[A-Z])", "_", name).lower()


def _check_chain(model: dict[str, Any]) -> None:
    """Raise unless each layer takes what the layer before it gives."""
    names = [entry.get("name") or _name_of(entry) for entry in _entries(model)]
    for i, entry in enumerate(_entries(model)):
        sources = {text for text in _strings(entry.get("inbound_nodes", [])) if text in names}
        if i and sources and sources != {names[i - 1]}:
            raise WeightsError(
                f"layer {names[i]!r} does not follow {names[i - 1]!r} alone: only chains of layers can be "
                "read from Keras' files"
            )


def _name_of(entry: dict[str, Any]) -> str:
    config = entry["config"]
    return config.get("name", "") if isinstance(config, dict) else ""


def _strings(tree: Any) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, dict):
        for value in tree.values():
            yield from _strings(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _strings(value)


_CONV = re.compile(r"block(\d)_conv(\d)")
_NOTHING = ("InputLayer", "Dropout", "SpatialDropout2D")
_ACTIVATIONS = {"Activation": "activation", "ReLU": "", "Softmax": ""}


def _described(layers: list[KerasLayer], tensors: Tensors) -> tuple[Tensors, Description]:
    """Return the tensors by the names that the dialects know, and the description of the model."""
    size = _input_size(layers)
    preprocessing, layers = _preprocessing(layers)
    trunk = [layer for layer in layers if re.match(r"block\d_(conv\d|pool)$", layer.name)]
    if not trunk:
        stack, weighted = _stack(layers)
        config = SequentialConfig(stack, (*_required(size), 3))
        return _renamed(tensors, weighted, stack), Description(
            "sequential", config, _required(size), preprocessing or "unit"
        )
    depths, widths = _depths(trunk), _widths(trunk)
    network = next((f"vgg{n}" for n, d in DEPTHS.items() if d == depths), None)
    if network is None or layers[: len(trunk)] != trunk:
        raise WeightsError(f"its blocks {depths} are not those of VGG16 or VGG19")
    head = layers[len(trunk) :]
    names = [layer.name for layer in head if layer.kind == "Dense"]
    if names == ["fc1", "fc2", "predictions"]:
        hidden, _, classes = (layer.config["units"] for layer in head if layer.kind == "Dense")
        size = size or (224, 224)
        reduced = (size[0] // 32, size[1] // 32)
        config = VGGConfig(depths, False, classes, widths, hidden=hidden, head_size=reduced)
        return tensors, Description(network, config, size, preprocessing or "caffe")
    if not names:  # without its top, or with a mean in its place
        config = VGGConfig(depths, False, None, widths)
        return tensors, Description(network, config, size or (224, 224), preprocessing or "caffe")
    stack, weighted = _stack(head)
    rows = tensors.get(f"{weighted[0]}/kernel", np.zeros((0, 0))).shape[0]
    reduced = _head_size(size, rows, widths[-1]) if Flatten() in stack else (1, 1)
    size = size or (reduced[0] * 32, reduced[1] * 32)
    config = VGGConfig(depths, False, stack[-1].features, widths, head=stack, head_size=reduced)  # type: ignore[union-attr]
    return _renamed(tensors, weighted, stack), Description(network, config, size, preprocessing or "unit")


def _renamed(tensors: Tensors, weighted: list[str], stack: tuple[Layer, ...]) -> Tensors:
    """Name the layers of a described chain as `sequential` does; biases that Keras omits are zero."""
    named = zip(layer_names(stack), stack, strict=True)
    ours = [name for name, layer in named if isinstance(layer, Conv | Dense)]
    names = dict(zip(weighted, ours, strict=True))
    renamed: Tensors = {}
    for name, tensor in tensors.items():
        layer, _, part = name.rpartition("/")
        renamed[f"{names.get(layer, layer)}/{part}"] = tensor
    for name in ours:
        if f"{name}/kernel" in renamed and f"{name}/bias" not in renamed:
            features = renamed[f"{name}/kernel"].shape[-1]
            renamed[f"{name}/bias"] = np.zeros(features, np.float32)
    return renamed


def _input_size(layers: list[KerasLayer]) -> tuple[int, int] | None:
    for layer in layers:
        shape = layer.config.get("batch_input_shape") or layer.config.get("batch_shape")
        if shape is not None:
            _, h, w, channels = shape
            if channels != 3:
                raise WeightsError(f"it takes images of {channels} channels: only RGB is known here")
            return None if h is None or w is None else (int(h), int(w))
    return None


def _required(size: tuple[int, int] | None) -> tuple[int, int]:
    if size is None:
        raise WeightsError("it does not say how large its images are: build the model with an input shape")
    return size


def _preprocessing(layers: list[KerasLayer]) -> tuple[str | None, list[KerasLayer]]:
    """Read the preprocessing from a Rescaling layer, and leave out what does nothing when predicting."""
    layers = [layer for layer in layers if layer.kind not in _NOTHING]
    if not layers or layers[0].kind != "Rescaling":
        return None, layers
    scale, offset = layers[0].config["scale"], layers[0].config.get("offset", 0)
    for name, known in (("unit", (1 / 255, 0)), ("symmetric", (1 / 127.5, -1))):
        if np.allclose((scale, offset), known):
            return name, layers[1:]
    raise WeightsError(f"its Rescaling({scale}, {offset}) is neither 1/255 nor 1/127.5 - 1")


def _depths(trunk: list[KerasLayer]) -> tuple[int, ...]:
    counts = Counter(m[1] for layer in trunk if (m := _CONV.fullmatch(layer.name)))
    return tuple(counts[block] for block in sorted(counts))


def _widths(trunk: list[KerasLayer]) -> tuple[int, ...]:
    firsts = [layer for layer in trunk if (m := _CONV.fullmatch(layer.name)) and m[2] == "1"]
    return tuple(layer.config["filters"] for layer in firsts)


def _head_size(size: tuple[int, int] | None, rows: int, channels: int) -> tuple[int, int]:
    """Return the size of `pool5` that the first matrix was made for."""
    if size is not None:
        return size[0] // 32, size[1] // 32
    side = round((rows / channels) ** 0.5)
    if side * side * channels != rows:
        _required(None)
    return side, side


def _stack(layers: list[KerasLayer]) -> tuple[tuple[Layer, ...], list[str]]:
    """Return the layers as `sequential` describes them, and the names of those with weights."""
    stack: list[Layer] = []
    weighted: list[str] = []
    for i, layer in enumerate(layers):
        config = layer.config
        match layer.kind:
            case "Conv2D":
                stack.append(_conv(layer))
                weighted.append(layer.name)
                activation = config.get("activation", "linear")
            case "Dense":
                stack.append(Dense(config["units"]))
                weighted.append(layer.name)
                activation = config.get("activation", "linear")
            case "MaxPooling2D":
                stack.append(MaxPool(*_pool(layer)))
                activation = "linear"
            case "AveragePooling2D":
                stack.append(MeanPool(*_pool(layer)))
                activation = "linear"
            case "GlobalAveragePooling2D":
                stack.append(GlobalMean())
                activation = "linear"
            case "Flatten":
                stack.append(Flatten())
                activation = "linear"
            case "ReLU" if not any(config.get(k) for k in ("max_value", "negative_slope", "threshold")):
                activation = "relu"
            case "Softmax":
                activation = "softmax"
            case "Activation":
                activation = config["activation"]
            case _:
                raise WeightsError(
                    f"layer {layer.name!r} is a {layer.kind}, which is not known here: known are Conv2D, "
                    "MaxPooling2D, AveragePooling2D, GlobalAveragePooling2D, Flatten, Dense, ReLU, Dropout"
                )
        if activation == "relu":
            stack.append(ReLU())
        elif activation in ("softmax", "sigmoid") and i == len(layers) - 1:
            pass  # logits come before it
        elif activation != "linear":
            raise WeightsError(
                f"layer {layer.name!r} has the activation {activation!r}, which is not known here: known are "
                "relu and linear, and softmax or sigmoid at the end"
            )
    if not stack or not isinstance(stack[-1], Dense):
        raise WeightsError("its last layer is not Dense: its classes have no logits")
    return tuple(stack), weighted


def _conv(layer: KerasLayer) -> Conv:
    config = layer.config
    (h, w), (sy, sx) = config["kernel_size"], config.get("strides", (1, 1))
    same = config.get("padding") == "same"
    plain = tuple(config.get("dilation_rate", (1, 1))) == (1, 1) and config.get("groups", 1) == 1
    first = config.get("data_format") in (None, "channels_last")
    if h != w or sy != sx or not plain or not first or (same and (sy != 1 or h % 2 == 0)):
        raise WeightsError(
            f"layer {layer.name!r} is a convolution that is not known here: known are square windows and "
            "strides, without dilation or groups; padding 'same' only with odd windows and stride 1"
        )
    return Conv(config["filters"], h, sy, None if same else 0)


def _pool(layer: KerasLayer) -> tuple[int, int]:
    (h, w), (sy, sx) = layer.config["pool_size"], layer.config.get("strides") or layer.config["pool_size"]
    if h != w or sy != sx or layer.config.get("padding", "valid") != "valid":
        raise WeightsError(f"layer {layer.name!r} is a pooling that is not square, or not 'valid'")
    return h, sy
