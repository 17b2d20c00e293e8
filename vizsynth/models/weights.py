"""Our weights format: safetensors whose tensors are named by the network's own parameter paths.

A file holds `conv1_1.kernel`, `layer1.0.conv1.norm.scale` and so on, and, as JSON in its metadata, the
`Weights` record: which network they are for, how it wants its pixels, its class names, where the
weights come from and under which licence. Nothing in a file is ever executed.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_flatten_with_path
from jaxtyping import Array

from vizsynth.core.atomic import write_atomic
from vizsynth.images import Standardize
from vizsynth.models.alexnet import AlexNet, AlexNetConfig
from vizsynth.models.layers import fold_batch_norm, undrawn
from vizsynth.models.network import IMAGENET
from vizsynth.models.resnet import ResNet, ResNetConfig
from vizsynth.models.sequential import (
    Conv,
    Dense,
    Flatten,
    GlobalMean,
    MaxPool,
    MeanPool,
    ReLU,
    Sequential,
    SequentialConfig,
)
from vizsynth.models.squeezenet import SqueezeNet, SqueezeNetConfig
from vizsynth.models.vgg import VGG, VGGConfig
from vizsynth.winograd import unprepared

FORMAT = "vizsynth-1"  # the key of the record in the metadata; the number rises when its fields change
Config = VGGConfig | ResNetConfig | AlexNetConfig | SqueezeNetConfig | SequentialConfig
FAMILIES: dict[str, tuple[type, type]] = {
    "vgg": (VGG, VGGConfig),
    "resnet": (ResNet, ResNetConfig),
    "alexnet": (AlexNet, AlexNetConfig),
    "squeezenet": (SqueezeNet, SqueezeNetConfig),
    "sequential": (Sequential, SequentialConfig),
}
DESCRIPTIONS = {kind.__name__: kind for kind in (Conv, ReLU, MaxPool, MeanPool, GlobalMean, Flatten, Dense)}
Net = TypeVar("Net")


class WeightsError(ValueError):
    """Weights that cannot be read, or that do not fit the network."""


class Pixels(NamedTuple):
    """How weights want their pixels."""

    mean: tuple[float, float, float] | None
    std: tuple[float, float, float] | None
    pixel_range: tuple[float, float]
    channel_order: str


PIXELS = {
    # torchvision's, and most of timm's
    "imagenet": Pixels(IMAGENET.mean, IMAGENET.std, (0.0, 1.0), "RGB"),
    # Caffe's, and Keras' VGG: BGR 0..255 minus (103.939, 116.779, 123.68), here in RGB and in [0, 1]
    "caffe": Pixels(
        (123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255, 1 / 255, 1 / 255), (0.0, 255.0), "BGR"
    ),
    # [0, 1] as it is: what comes of `image / 255`
    "unit": Pixels(None, None, (0.0, 1.0), "RGB"),
    # [-1, 1]
    "symmetric": Pixels((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), (-1.0, 1.0), "RGB"),
}
"""The preprocessings that weights are trained with, by the names that `load` takes."""


@dataclass(frozen=True)
class Weights:
    """What is known about a set of weights; it travels with them."""

    network: str
    """The name that `vizsynth.load` knows, such as `vgg16`."""
    config: Config
    """What distinguishes the network from others of its family."""
    mean: tuple[float, float, float] | None
    """Subtracted from RGB pixels in [0, 1]; None: pixels are taken as they are."""
    std: tuple[float, float, float] | None
    """What the rest is divided by."""
    pixel_range: tuple[float, float] = (0.0, 1.0)
    """The range of the pixels that the weights were trained on; ours are always in [0, 1]."""
    channel_order: str = "RGB"
    """The order of the channels that the weights were trained on; ours are always RGB."""
    input_size: tuple[int, int] = (224, 224)
    """The height and width of the images that the weights were trained on."""
    labels: tuple[str, ...] | None = field(default=None, hash=False)  # long, and seldom the difference
    """The names of the classes."""
    license: str = "unknown"
    """The licence of the weights."""
    origin: str = "unknown"
    """Where the weights come from."""

    @property
    def standardize(self) -> Standardize | None:
        """The standardization that the network does inside."""
        return None if self.mean is None or self.std is None else Standardize(self.mean, self.std)


def skeleton(config: Config, *, folded: bool = False) -> Any:
    """Return the network of a configuration with shapes in place of its weights.

    Nothing is drawn or computed. `folded` gives it without batch normalization.

    >>> net = skeleton(SqueezeNetConfig(num_classes=10))
    >>> net.conv10.kernel.shape
    (1, 1, 512, 10)
    """
    family = next(net for net, kind in FAMILIES.values() if kind is type(config))
    with undrawn():
        net = jax.eval_shape(lambda: family(config, key=jax.random.key(0)))
    return jax.eval_shape(fold_batch_norm, net) if folded else net


def paths(net: Any) -> dict[str, Any]:
    """Return the parameters (arrays or shapes) of a network by their paths.

    >>> list(paths(skeleton(SqueezeNetConfig())))[:2]
    ['conv1.bias', 'conv1.kernel']
    """
    leaves, _ = tree_flatten_with_path(unprepared(net))
    return {keystr(path, simple=True, separator=".").removesuffix(".value"): leaf for path, leaf in leaves}


def fit(
    net: Net,
    tensors: Mapping[str, np.ndarray],
    *,
    names: Mapping[str, str] | None = None,
) -> Net:
    """Return the network with these weights, in float32.

    Args:
        net: a network, or its `skeleton`; its own weights are not looked at.
        tensors: an array for each of its `paths`.
        names: what the arrays are called in the file that they come from, for the message.

    Raises:
        WeightsError: the two do not match; the message lists every tensor that is missing, not
            expected, of another shape, not of numbers, or not finite.

    Example:
        >>> net = skeleton(SqueezeNetConfig(num_classes=2))
        >>> zeros = {name: np.zeros(shape.shape) for name, shape in paths(net).items()}
        >>> fit(net, zeros).conv1.bias.dtype
        dtype('float32')
    """
    wanted = paths(net)
    names = names or {}

    def called(path: str) -> str:
        return f"{path} ({names[path]} in the file)" if names.get(path, path) != path else path

    complaints = [
        f"missing: {called(path)} {tuple(leaf.shape)}" for path, leaf in wanted.items() if path not in tensors
    ]
    for path, tensor in tensors.items():
        if path not in wanted:
            complaints.append(f"unexpected: {called(path)} {tuple(tensor.shape)}")
        elif tuple(tensor.shape) != tuple(wanted[path].shape):
            complaints.append(
                f"shape: {called(path)} must be {tuple(wanted[path].shape)}, not {tuple(tensor.shape)}"
            )
        elif not jnp.issubdtype(tensor.dtype, jnp.floating):
            complaints.append(f"type: {called(path)} must be floating point, not {tensor.dtype}")
        elif not np.isfinite(tensor).all():
            complaints.append(f"values: {called(path)} holds NaN or infinity")
    if complaints:
        raise WeightsError(
            f"these weights do not fit the network, in {len(complaints)} places:\n  "
            + "\n  ".join(complaints)
        )
    # Copied: the file may be mapped into memory, and may change after it was read. (By NumPy, as `jnp.array`
    # compiles a program for each shape.)
    leaves = [jax.device_put(np.array(tensors[path], np.float32)) for path in wanted]
    return jax.tree.unflatten(jax.tree.structure(net), leaves)


def save(path: str | os.PathLike[str], net: Any, record: Weights, *, dtype: Any = None) -> None:
    """Write a network's weights and their record.

    The file appears whole or not at all.

    Args:
        path: of the file, `.safetensors`.
        net: a network of `record.config`; its batch normalization may be folded.
        record: what is to be known about the weights.
        dtype: of the numbers in the file, such as `float16`; by default the network's own.

    Raises:
        WeightsError: the network is not of `record.config`; numbers too large for `dtype`; the file
            cannot be written.

    Example:
        >>> import tempfile, vizsynth
        >>> net = vizsynth.models.squeezenet1_1(num_classes=2, key=jax.random.key(0))
        >>> record = Weights("squeezenet1_1", net.config, None, None, labels=("cat", "dog"))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(f"{folder}/mine.safetensors", net, record)
        ...     vizsynth.load(f"{folder}/mine.safetensors").labels
        ('cat', 'dog')
    """
    arrays = {name: np.asarray(leaf) for name, leaf in paths(net).items()}
    fit(skeleton(record.config, folded=is_folded(arrays)), arrays)
    write(path, arrays, record, dtype=dtype)


def write(
    path: str | os.PathLike[str],
    arrays: Mapping[str, np.ndarray | Array],
    record: Weights,
    *,
    dtype: Any = None,
) -> None:
    """Write arrays, named by their paths, and their record; the file appears whole or not at all."""
    write_tensors(path, arrays, {FORMAT: to_json(record)}, dtype=dtype)


def write_tensors(
    path: str | os.PathLike[str],
    arrays: Mapping[str, np.ndarray | Array],
    metadata: Mapping[str, str],
    *,
    dtype: Any = None,
) -> None:
    """Write arrays and metadata as safetensors; the file appears whole or not at all."""
    from safetensors.numpy import save as encode

    path = Path(path)
    if dtype is not None:
        with np.errstate(over="ignore"):
            arrays = {name: np.asarray(array).astype(dtype) for name, array in arrays.items()}
        if large := [name for name, array in arrays.items() if not np.isfinite(array).all()]:
            raise WeightsError(f"numbers too large for {np.dtype(dtype)} in {', '.join(large)}")
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    data = encode(contiguous, metadata=dict(metadata))
    try:
        write_atomic(path, data)
    except OSError as error:
        raise WeightsError(f"cannot write {path}: {error.strerror or error}") from None


def is_folded(names: Mapping[str, Any]) -> bool:
    """Tell whether these parameters are those of a network without batch normalization."""
    return not any(name.endswith(".norm.scale") for name in names)


def read(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], Weights]:
    """Read a file in our format: its arrays by their paths, and its record.

    Raises:
        WeightsError: no such file; a file that is damaged, or in another format.

    Example:
        >>> from vizsynth.models.load import BUNDLED
        >>> arrays, record = read(BUNDLED)
        >>> record.network, record.input_size, arrays["conv1.kernel"].dtype
        ('squeezenet1_1', (227, 227), dtype('float16'))
    """
    arrays, metadata = read_safetensors(path)
    if FORMAT not in metadata:
        raise WeightsError(
            f"{path} is not in vizsynth's format: name its network, load(NETWORK, weights=PATH)"
        )
    return arrays, from_json(metadata[FORMAT], path)


def read_safetensors(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read the arrays and the metadata of any safetensors file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(os.fspath(path), framework="numpy") as file:
            names = list(file.keys())
            return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
    except SafetensorError as error:
        raise WeightsError(
            f"{path} is damaged or is not safetensors ({error}): copy or download it again"
        ) from None
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from None


def to_json(record: Weights) -> str:
    """Return a record as JSON."""
    family = next(name for name, (_, kind) in FAMILIES.items() if kind is type(record.config))
    fields = {f.name: getattr(record, f.name) for f in dataclasses.fields(record)}
    config = {f.name: getattr(record.config, f.name) for f in dataclasses.fields(record.config)}
    described = {name: _describe(value) for name, value in config.items()}
    return json.dumps({**fields, "config": {"family": family, **described}})


def from_json(text: str, path: object = "the record") -> Weights:
    """Return the record that `to_json` wrote."""
    try:
        fields = json.loads(text)
        described = dict(fields["config"])
        _, kind = FAMILIES[described.pop("family")]
        config = kind(**{name: _undescribe(value) for name, value in described.items()})
        return Weights(**{name: _tuples(value) for name, value in fields.items()} | {"config": config})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WeightsError(
            f"{path}: its record is damaged, or of a newer vizsynth ({type(error).__name__}: {error})"
        ) from None


def _describe(value: Any) -> Any:
    """Make JSON of a field of a configuration; layers become their name and their numbers."""
    if type(value) in DESCRIPTIONS.values():
        return {type(value).__name__: dataclasses.astuple(value)}
    return [_describe(v) for v in value] if isinstance(value, tuple) else value


def _undescribe(value: Any) -> Any:
    if isinstance(value, dict):
        ((name, numbers),) = value.items()
        return DESCRIPTIONS[name](*numbers)
    return tuple(_undescribe(v) for v in value) if isinstance(value, list) else value


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
