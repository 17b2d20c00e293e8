"""Read Keras' files: their weights by `layer/kernel` and `layer/bias`, and their model.

Three layouts. `.h5`, of `model.save` and `save_weights` up to Keras 2: a group per layer, with its arrays by
name. `.weights.h5`, of Keras 3: arrays numbered in `vars`, in groups named by class and number. `.keras`: a
zip of a `.weights.h5` and of the model as JSON.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vizsynth.core.claims import check_fields, parse_json, shown
from vizsynth.models.io.stored import LONGEST, Stored, WeightsError, of_array
from vizsynth.models.io.weights import MOST_LAYERS, Config, check_config, check_size
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

if TYPE_CHECKING:
    from vizsynth.models.io import hdf5

Tensors = dict[str, Stored]


@dataclass(frozen=True)
class KerasLayer:
    """A layer of a Keras model, whose nested models are unfolded."""

    kind: str
    """Its class, such as `Conv2D`."""
    name: str
    config: dict[str, Any]


@dataclass(frozen=True)
class Description:
    """The network of a Keras model."""

    network: str
    """`vgg16`, `vgg19`, or `sequential` for any other chain of layers."""
    config: Config
    input_size: tuple[int, int]
    preprocessing: str
    """The preprocessing of its images; a key of `vizsynth.models.io.weights.PIXELS`."""


def list_h5(reader: "hdf5.Reader") -> tuple[Tensors, Description | None]:
    """List the contents of an `.h5` or a `.weights.h5` file."""
    from vizsynth.models.io import hdf5

    file = reader.file
    if "layers" in file or "_layer_checkpoint_dependencies" in file:
        return {f"{_last(where)}/{part}": x for (where, part), x in _numbered(reader).items()}, None
    described = hdf5.text(file, "model_config")
    root = reader.member(file, "model_weights") if "model_weights" in file else file
    if "layer_names" not in root.attrs and "layer_names0" not in root.attrs:
        raise WeightsError("it has no layer_names: give a file of weights that Keras wrote")
    model = None if described is None else parsed(described)
    tensors = _named(reader, root)
    return (tensors, None) if model is None else _described(list(_unfold(model)), tensors)


def list_archive(model: dict[str, Any], reader: "hdf5.Reader") -> tuple[Tensors, Description]:
    """List the contents of a `.keras` file, in the layout of `.weights.h5`, and its model."""
    layers = list(_unfold(model))
    stored = _numbered(reader)
    tensors = {
        f"{layer.name}/{part}": stored.pop((where, part))
        for layer, where in zip(layers, _places(model), strict=True)
        for part in ("kernel", "bias")
        if (where, part) in stored
    }
    left = {f"{where}/{part}": x for (where, part), x in stored.items()}  # `fit` reports them
    return _described(layers, tensors | left)


def parsed(text: str | bytes) -> dict[str, Any]:
    """Parse the description of a model, if it has at most `MOST_LAYERS` layers."""
    model = parse_json(text)
    models, count = [model], 0
    while models:
        entries = _entries(models.pop())
        count += len(entries)
        if count > MOST_LAYERS:
            raise WeightsError(f"it describes more than {MOST_LAYERS} layers")
        models += [entry for entry in entries if _is_model(entry)]
    return model


def _last(where: str) -> str:
    return where.rpartition("/")[2]


def _named(reader: "hdf5.Reader", root: Any) -> Tensors:
    """List the arrays of the layout of `.h5`."""
    tensors: Tensors = {}
    for layer, group in reader.members(root):
        if not hasattr(group, "keys") or layer == "optimizer_weights":
            continue
        arrays = dict(reader.arrays(group))
        owners = [_owner(name) for name in arrays]
        nested = len(set(owners)) > 1 or re.fullmatch(r"vgg\d+(_\d+)?", layer)
        for (name, array), owner in zip(arrays.items(), owners, strict=True):
            # Keras numbers the variables of a model that is built twice in one session: block1_conv1_1.
            owner = re.sub(r"^(block\d_conv\d)_\d+$", r"\1", owner) if nested else layer
            called = f"{owner}/{_part(name, array)}"
            if called in tensors:
                raise WeightsError(f"two of its arrays are called {shown(called)}")
            tensors[called] = array
    return tensors


def _owner(name: str) -> str:
    """Return the layer in `block1_conv1/kernel:0`, or in Keras 1's `block1_conv1_W_1:0`."""
    name = name.partition(":")[0]
    owner, _, _ = name.rpartition("/")
    return _last(owner) if owner else re.sub(r"_[Wb](_\d+)?$", "", name)


def _part(name: str, array: Stored) -> str:
    """Return the array's part of its layer, from its name, or else from its rank."""
    word = re.sub(r"_\d+$", "", _last(name.partition(":")[0]))
    if word in ("kernel", "bias") or not re.search(r"_[Wb]$", word):
        return word
    return "bias" if len(array.shape) == 1 else "kernel"


def _numbered(reader: "hdf5.Reader") -> dict[tuple[str, str], Stored]:
    """List the arrays of the layout of `.weights.h5` by group and part."""
    layers: dict[str, dict[int, Stored]] = {}
    for place, group in reader.members(reader.file):
        if not place.startswith("optimizer") and hasattr(group, "keys"):
            for path, array in reader.arrays(group, f"{place}/"):
                where, _, number = path.rpartition("/vars/")
                if where:
                    layers.setdefault(where, {})[int(number)] = array
    found: dict[tuple[str, str], Stored] = {}
    for where, arrays in layers.items():
        parts = ("kernel", "bias") if len(arrays) <= 2 else tuple(map(str, range(len(arrays))))
        where = where.replace("_layer_checkpoint_dependencies", "layers")
        found |= {(where, part): arrays[i] for part, i in zip(parts, sorted(arrays), strict=False)}
    return found


def _entries(model: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the layers of a model's JSON; the oldest Sequential is a bare list."""
    config = model["config"]
    return config if isinstance(config, list) else config["layers"]


def _is_model(entry: dict[str, Any]) -> bool:
    config = entry["config"]
    return isinstance(config, list) or "layers" in config


def _unfold(model: dict[str, Any]) -> Iterator[KerasLayer]:
    """Yield the layers of a model and, in their place, of its nested models."""
    _check_chain(model)
    for entry in _entries(model):
        if _is_model(entry):
            yield from _unfold(entry)
        else:
            config, kind = entry["config"], entry["class_name"]
            name = config.get("name") or entry.get("name", "")
            if not isinstance(kind, str) or not isinstance(name, str) or max(len(kind), len(name)) > LONGEST:
                raise TypeError("a layer without a name")
            if config.get("data_format") not in (None, "channels_last"):
                raise WeightsError(f"layer {name!r} takes channels first: only channels last can be read")
            yield KerasLayer(kind, name, config)


def _places(model: dict[str, Any], prefix: str = "layers") -> Iterator[str]:
    """Yield the group of each layer in `.weights.h5`: its class and its number in the model."""
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
    """Raise unless the input of each layer is the output of the layer before it."""
    names = [entry.get("name") or _name_of(entry) for entry in _entries(model)]
    known = set(names)
    for i, entry in enumerate(_entries(model)):
        sources = {text for text in _strings(entry.get("inbound_nodes", [])) if text in known}
        if i and sources and sources != {names[i - 1]}:
            raise WeightsError(
                f"layer {shown(names[i])!r} does not follow {shown(names[i - 1])!r} alone: only chains of "
                "layers can be read from Keras' files"
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


def _described(layers: list[KerasLayer], tensors: Tensors) -> tuple[Tensors, Description]:
    """Return the tensors by the names of the dialects, and the checked description of the model."""
    tensors, description = _understood(layers, tensors)
    check_config(description.config)
    check_fields(description, zero=("padding",))
    check_size(description.input_size)
    return tensors, description


def _understood(layers: list[KerasLayer], tensors: Tensors) -> tuple[Tensors, Description]:
    size = _input_size(layers)
    preprocessing, layers = _preprocessing(layers)
    trunk = [layer for layer in layers if re.match(r"block\d_(conv\d|pool)$", layer.name)]
    if not trunk:
        stack, weighted = _classifier(layers)
        config = SequentialConfig(stack, (*_required(size), 3))
        return _renamed(tensors, weighted, stack), Description(
            "sequential", config, _required(size), preprocessing or "unit"
        )
    depths, widths = _depths(trunk), _widths(trunk)
    network = next((f"vgg{n}" for n, d in DEPTHS.items() if d == depths), None)
    if network is None or layers[: len(trunk)] != trunk or _stack(trunk)[0] != _blocks(depths, widths):
        raise WeightsError(f"its blocks {shown(depths)} are not those of VGG16 or VGG19")
    head = layers[len(trunk) :]
    names = [layer.name for layer in head if layer.kind == "Dense"]
    if not names:  # without its top, or with global average pooling in its place
        config = VGGConfig(depths, False, None, widths)
        return tensors, Description(network, config, size or (224, 224), preprocessing or "caffe")
    stack, weighted = _classifier(head)
    hidden, classes = weighted[0].config.get("units", 0), weighted[-1].config["units"]
    if names == ["fc1", "fc2", "predictions"] and stack == _top(hidden, classes):
        size = size or (224, 224)
        reduced = (size[0] // 32, size[1] // 32)
        config = VGGConfig(depths, False, classes, widths, hidden=hidden, head_size=reduced)
        return tensors, Description(network, config, size, preprocessing or "caffe")
    first = tensors.get(f"{weighted[0].name}/kernel")
    reduced = _head_size(size, first.shape[0] if first else 0, widths[-1]) if Flatten() in stack else (1, 1)
    size = size or (reduced[0] * 32, reduced[1] * 32)
    config = VGGConfig(depths, False, classes, widths, head=stack, head_size=reduced)
    return _renamed(tensors, weighted, stack), Description(network, config, size, preprocessing or "unit")


def _blocks(depths: tuple[int, ...], widths: tuple[int, ...]) -> tuple[Layer, ...]:
    """Return the layers of VGG's blocks."""
    stack: list[Layer] = []
    for depth, width in zip(depths, widths, strict=True):
        stack += [Conv(width, 3, 1, None), ReLU()] * depth + [MaxPool(2, 2)]
    return tuple(stack)


def _top(hidden: int, classes: int) -> tuple[Layer, ...]:
    """Return the layers of Keras' own top of VGG."""
    wide = Dense(hidden)
    return (Flatten(), wide, ReLU(), wide, ReLU(), Dense(classes))


def _renamed(tensors: Tensors, weighted: list[KerasLayer], stack: tuple[Layer, ...]) -> Tensors:
    """Name the layers of a chain as `sequential` does; a missing bias becomes zeros."""
    named = zip(layer_names(stack), stack, strict=True)
    ours = [name for name, layer in named if isinstance(layer, Conv | Dense)]
    names = dict(zip((layer.name for layer in weighted), ours, strict=True))
    renamed: Tensors = {}
    for name, tensor in tensors.items():
        layer, _, part = name.rpartition("/")
        renamed[f"{names.get(layer, layer)}/{part}"] = tensor
    for name, layer in zip(ours, weighted, strict=True):
        kernel = renamed.get(f"{name}/kernel")
        if layer.config.get("use_bias", True) is False and kernel is not None and kernel.nbytes:
            if f"{name}/bias" in renamed:
                raise WeightsError(f"layer {layer.name!r} uses no bias, but the file holds one")
            renamed[f"{name}/bias"] = of_array(np.zeros(kernel.shape[-1], np.float32))
    return renamed


def _input_size(layers: list[KerasLayer]) -> tuple[int, int] | None:
    for layer in layers:
        shape = layer.config.get("batch_input_shape") or layer.config.get("batch_shape")
        if shape is not None:
            _, h, w, channels = shape
            if channels != 3:
                raise WeightsError(f"it takes images of {shown(channels)} channels: only RGB can be read")
            return None if h is None or w is None else (int(h), int(w))
    return None


def _required(size: tuple[int, int] | None) -> tuple[int, int]:
    if size is None:
        raise WeightsError("it does not give the size of its images: build the model with an input shape")
    return size


def _preprocessing(layers: list[KerasLayer]) -> tuple[str | None, list[KerasLayer]]:
    """Read the preprocessing from a Rescaling layer, and drop layers that do nothing in evaluation."""
    layers = [layer for layer in layers if layer.kind not in _NOTHING]
    if not layers or layers[0].kind != "Rescaling":
        return None, layers
    scale, offset = layers[0].config["scale"], layers[0].config.get("offset", 0)
    for name, known in (("unit", (1 / 255, 0)), ("symmetric", (1 / 127.5, -1))):
        if np.allclose((scale, offset), known):
            return name, layers[1:]
    raise WeightsError(f"its Rescaling({shown(scale)}, {shown(offset)}) is neither 1/255 nor 1/127.5 - 1")


def _depths(trunk: list[KerasLayer]) -> tuple[int, ...]:
    counts = Counter(m[1] for layer in trunk if (m := _CONV.fullmatch(layer.name)))
    return tuple(counts[block] for block in sorted(counts))


def _widths(trunk: list[KerasLayer]) -> tuple[int, ...]:
    firsts = [layer for layer in trunk if (m := _CONV.fullmatch(layer.name)) and m[2] == "1"]
    return tuple(layer.config["filters"] for layer in firsts)


def _head_size(size: tuple[int, int] | None, rows: int, channels: int) -> tuple[int, int]:
    """Return the size of `pool5` that the first matrix takes."""
    if size is not None:
        return size[0] // 32, size[1] // 32
    side = round((rows / channels) ** 0.5)
    if side * side * channels != rows:
        _required(None)
    return side, side


def _classifier(layers: list[KerasLayer]) -> tuple[tuple[Layer, ...], list[KerasLayer]]:
    """Return the `_stack` of layers that end with the logits."""
    stack, weighted = _stack(layers)
    if not stack or not isinstance(stack[-1], Dense):
        raise WeightsError("its last layer must be Dense, which computes the logits")
    return stack, weighted


def _stack(layers: list[KerasLayer]) -> tuple[tuple[Layer, ...], list[KerasLayer]]:
    """Return the layers as `sequential` describes them, and the layers with weights."""
    stack: list[Layer] = []
    weighted: list[KerasLayer] = []
    for i, layer in enumerate(layers):
        config, activation = layer.config, "linear"
        match layer.kind:
            case "Conv2D" | "Dense":
                stack.append(_conv(layer) if layer.kind == "Conv2D" else Dense(config["units"]))
                weighted.append(layer)
                activation = config.get("activation", "linear")
            case "MaxPooling2D":
                stack.append(MaxPool(*_pool(layer)))
            case "AveragePooling2D":
                stack.append(MeanPool(*_pool(layer)))
            case "GlobalAveragePooling2D":
                stack.append(GlobalMean())
            case "Flatten":
                stack.append(Flatten())
            case "ReLU" if not any(config.get(k) for k in ("max_value", "negative_slope", "threshold")):
                activation = "relu"
            case "Softmax":
                activation = "softmax"
            case "Activation":
                activation = config["activation"]
            case _:
                raise WeightsError(
                    f"layer {layer.name!r} is a {layer.kind}, which cannot be read: give a chain of Conv2D, "
                    "MaxPooling2D, AveragePooling2D, GlobalAveragePooling2D, Flatten, Dense, ReLU, Dropout"
                )
        if activation == "relu":
            stack.append(ReLU())
        elif activation in ("softmax", "sigmoid") and i == len(layers) - 1:
            pass  # the logits are its input
        elif activation != "linear":
            raise WeightsError(
                f"layer {layer.name!r} has the activation {shown(activation)!r}: it must be relu or linear, "
                "or softmax or sigmoid at the end"
            )
    return tuple(stack), weighted


def _conv(layer: KerasLayer) -> Conv:
    config = layer.config
    (h, w), (sy, sx) = config["kernel_size"], config.get("strides", (1, 1))
    padding = config.get("padding", "valid")
    same = padding == "same"
    plain = tuple(config.get("dilation_rate", (1, 1))) == (1, 1) and config.get("groups", 1) == 1
    known = padding in ("same", "valid") and not (same and (sy != 1 or h % 2 == 0))
    if h != w or sy != sx or not plain or not known:
        raise WeightsError(
            f"layer {layer.name!r} is a convolution that cannot be read: it must have a square window and "
            "stride, no dilation and no groups; padding 'same' only with an odd window and stride 1"
        )
    return Conv(config["filters"], h, sy, None if same else 0)


def _pool(layer: KerasLayer) -> tuple[int, int]:
    (h, w), (sy, sx) = layer.config["pool_size"], layer.config.get("strides") or layer.config["pool_size"]
    if h != w or sy != sx or layer.config.get("padding", "valid") != "valid":
        raise WeightsError(
            f"layer {layer.name!r} is a pooling that cannot be read: it must be square and 'valid'"
        )
    return h, sy
