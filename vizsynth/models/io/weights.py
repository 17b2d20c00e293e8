"""vizsynth's format of weights: safetensors with the network's own parameter paths as names.

A file holds `conv1_1.kernel`, `layer1.0.conv1.norm.scale` and so on. The `Weights` record lies in its
metadata as
JSON: the network, its preprocessing, its class names, and the origin and the licence of the weights. Nothing
    in a file is executed.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_flatten_with_path
from jaxtyping import Array

from vizsynth.core.atomic import write_atomic
from vizsynth.core.claims import check_fields, file_size, parse_json, shown, stand_in
from vizsynth.images import Standardize
from vizsynth.models.alexnet import AlexNet, AlexNetConfig
from vizsynth.models.io.stored import Stored, check_names
from vizsynth.models.io.stored import WeightsError as WeightsError
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
from vizsynth.ops import unprepared

FORMAT = "vizsynth-1"  # the key of the record in the metadata; the number rises if its fields change
Config = VGGConfig | ResNetConfig | AlexNetConfig | SqueezeNetConfig | SequentialConfig
FAMILIES: dict[str, tuple[type, type]] = {
    "vgg": (VGG, VGGConfig),
    "resnet": (ResNet, ResNetConfig),
    "alexnet": (AlexNet, AlexNetConfig),
    "squeezenet": (SqueezeNet, SqueezeNetConfig),
    "sequential": (Sequential, SequentialConfig),
}
DESCRIPTIONS = {kind.__name__: kind for kind in (Conv, ReLU, MaxPool, MeanPool, GlobalMean, Flatten, Dense)}
MOST_LAYERS = 1000  # of a network in a file; the largest of Keras' own has 813
MOST_SIDE = 4096  # pixels of the input size in a file
MOST_TOLD = 1000  # mismatches in a message; ResNet-152 has 932 arrays
Net = TypeVar("Net")


class Pixels(NamedTuple):
    """The preprocessing that weights were trained with."""

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
    # [0, 1], as `image / 255` gives it
    "unit": Pixels(None, None, (0.0, 1.0), "RGB"),
    # [-1, 1]
    "symmetric": Pixels((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), (-1.0, 1.0), "RGB"),
}
"""Preprocessings by the names that `load` takes."""


@dataclass(frozen=True)
class Weights:
    """The description of a set of weights, saved in their file."""

    network: str
    """The name that `vizsynth.load` knows, such as `vgg16`."""
    config: Config
    """The numbers that set the network apart from others of its family."""
    mean: tuple[float, float, float] | None
    """Subtracted from RGB pixels in [0, 1]; None leaves the pixels as they are."""
    std: tuple[float, float, float] | None
    """The divisor after the subtraction."""
    pixel_range: tuple[float, float] = (0.0, 1.0)
    """The range of the training pixels; the network here takes [0, 1]."""
    channel_order: str = "RGB"
    """The order of the training channels; the network here takes RGB."""
    input_size: tuple[int, int] = (224, 224)
    """The height and the width of the training images."""
    labels: tuple[str, ...] | None = field(default=None, hash=False)  # long, and rarely all that differs
    """The names of the classes."""
    license: str = "unknown"
    origin: str = "unknown"
    """The source of the weights."""

    @property
    def standardize(self) -> Standardize | None:
        """The standardization inside the network."""
        return None if self.mean is None or self.std is None else Standardize(self.mean, self.std)


def skeleton(config: Config, *, folded: bool = False) -> Any:
    """Return the network of a configuration with shapes in place of its weights; nothing is drawn or
    computed.

    `folded` leaves batch normalization out.

    >>> net = skeleton(SqueezeNetConfig(num_classes=10))
    >>> net.conv10.kernel.shape
    (1, 1, 512, 10)
    """
    family = next(net for net, kind in FAMILIES.values() if kind is type(config))
    with undrawn():
        net = jax.eval_shape(lambda: family(config, key=jax.random.key(0)))
    return jax.eval_shape(fold_batch_norm, net) if folded else net


def check_config(config: Config) -> None:
    """Raise if a configuration from a file cannot be that of a network.

    Raises:
        ValueError: a field has another type or is out of bounds, or there are more layers than any network
            has.

    >>> check_config(VGGConfig((1, 1, 10_000_000, 1, 1)))
    Traceback (most recent call last):
    ValueError: the network has 10,000,004 layers, more than 1,000
    """
    count = max((len(value) for value in vars(config).values() if isinstance(value, tuple)), default=0)
    layers: tuple[Any, ...] = ()
    if count <= MOST_LAYERS:  # the check visits each layer
        check_fields(config, zero=("padding",))
        layers = getattr(config, "stack", None) or getattr(config, "head", None) or ()
        count = len(layers) + sum(getattr(config, "depths", ()))
    if count > MOST_LAYERS:
        raise ValueError(f"the network has {count:,} layers, more than {MOST_LAYERS:,}")
    if isinstance(config, VGGConfig) and len(config.depths) > 7:
        raise ValueError(f"{len(config.depths)} blocks leave nothing of an image")
    if isinstance(config, SequentialConfig):
        check_size(config.input_shape[:2])
    for layer in layers:
        if isinstance(layer, Conv) and (layer.padding or 0) > layer.window:
            raise ValueError(f"a padding of {layer.padding} is wider than a window of {layer.window}")


def check_size(size: tuple[int, ...]) -> None:
    """Raise if images are too large: the size in a file is the default of synthesis.

    >>> check_size((224, 100_000))
    Traceback (most recent call last):
    ValueError: images must have at most 4096 pixels on a side, not (224, 100000)
    """
    if max(size) > MOST_SIDE:
        raise ValueError(f"images must have at most {MOST_SIDE} pixels on a side, not {shown(size)}")


@lru_cache(maxsize=16)
def template(config: Config, folded: bool) -> Any:
    """Return the `skeleton` of a configuration from a file. It is cached: do not change it.

    Raises:
        WeightsError: the network cannot be built.

    >>> template(SqueezeNetConfig(10), False).conv10.bias.shape
    (10,)
    """
    try:
        return skeleton(config, folded=folded)
    except (ValueError, TypeError, ArithmeticError) as error:
        reason = shown(str(error).splitlines()[0])
        raise WeightsError(f"the described network cannot be built: {reason}") from None


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
        net: a network, or its `skeleton`; its weights are ignored.
        tensors: an array for each of its `paths`.
        names: the name of each array in its file, for the message.

    Raises:
        WeightsError: the message lists every tensor that is missing, unexpected, of another shape, not
            floating point, or not finite.

    Example:
        >>> net = skeleton(SqueezeNetConfig(num_classes=2))
        >>> zeros = {name: np.zeros(shape.shape) for name, shape in paths(net).items()}
        >>> fit(net, zeros).conv1.bias.dtype
        dtype('float32')
    """
    wanted = paths(net)
    mismatches = _mismatches(wanted, tensors, names or {})
    mismatches += [
        f"values: {_called(path, names or {})} holds NaN or infinity"
        for path, tensor in tensors.items()
        if path in wanted and jnp.issubdtype(tensor.dtype, jnp.floating) and not np.isfinite(tensor).all()
    ]
    _refuse(mismatches)
    # Copy: the file may be mapped into memory and change later. By NumPy: `jnp.array` compiles per shape.
    leaves = [jax.device_put(np.array(tensors[path], np.float32)) for path in wanted]
    return jax.tree.unflatten(jax.tree.structure(net), leaves)


def check_fit(
    wanted: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    *,
    names: Mapping[str, str] | None = None,
) -> None:
    """Raise unless the arrays fit by name, shape and type; their values are not checked.

    Args:
        wanted: the `paths` of a network's skeleton.
        tensors: arrays, or their outlines, for each of its paths.
        names: the name of each array in its file, for the message.

    Raises:
        WeightsError: the message lists every tensor that is missing, unexpected, of another shape, or not
            floating point.

    >>> check_fit({"bias": np.zeros(3)}, {"bias": np.zeros(2)})
    Traceback (most recent call last):
    vizsynth.models.io.stored.WeightsError: these weights do not fit the network, in 1 places:
      shape: bias must be (3,), not (2,)
    """
    _refuse(_mismatches(wanted, tensors, names or {}))


def _mismatches(
    wanted: Mapping[str, Any], tensors: Mapping[str, np.ndarray], names: Mapping[str, str]
) -> list[str]:
    found = [
        f"missing: {_called(path, names)} {tuple(leaf.shape)}"
        for path, leaf in wanted.items()
        if path not in tensors
    ]
    for path, tensor in tensors.items():
        called, shape = _called(path, names), tuple(tensor.shape)
        if path not in wanted:
            found.append(f"unexpected: {called} {shape}")
        elif shape != tuple(wanted[path].shape):
            found.append(f"shape: {called} must be {tuple(wanted[path].shape)}, not {shape}")
        elif not jnp.issubdtype(tensor.dtype, jnp.floating):
            found.append(f"type: {called} must be floating point, not {tensor.dtype}")
    return found


def _called(path: str, names: Mapping[str, str]) -> str:
    return f"{path} ({names[path]} in the file)" if names.get(path, path) != path else path


def _refuse(mismatches: list[str]) -> None:
    if not mismatches:
        return
    more = [f"and {len(mismatches) - MOST_TOLD} more"] if len(mismatches) > MOST_TOLD else []
    raise WeightsError(
        f"these weights do not fit the network, in {len(mismatches)} places:\n  "
        + "\n  ".join(mismatches[:MOST_TOLD] + more)
    )


def save(path: str | os.PathLike[str], net: Any, record: Weights, *, dtype: Any = None) -> None:
    """Write a network's weights and their record. The file appears whole or not at all.

    Args:
        path: of the file, `.safetensors`.
        net: a network of `record.config`; its batch normalization may be folded.
        record: the description of the weights.
        dtype: of the numbers in the file, such as `float16`; by default the network's own.

    Raises:
        WeightsError: the network does not match `record.config`, a number is too large for `dtype`, or the
            file cannot be written.

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
    """Tell whether no parameter belongs to a batch normalization."""
    return not any(name.endswith(".norm.scale") for name in names)


def read(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], Weights]:
    """Read a file in vizsynth's format: its arrays by their paths, and its record.

    Raises:
        WeightsError: the file is missing, damaged, or in another format.

    Example:
        >>> from vizsynth.models.io.load import BUNDLED
        >>> arrays, record = read(BUNDLED)
        >>> record.network, record.input_size, arrays["conv1.kernel"].dtype
        ('squeezenet1_1', (227, 227), dtype('float16'))
    """
    with ExitStack() as stack:
        stored, metadata = list_safetensors(path, stack)
        if FORMAT not in metadata:
            raise WeightsError(
                f"{path} is not in vizsynth's format: name its network, load(NETWORK, weights=PATH)"
            )
        arrays = {name: array.read() for name, array in stored.items()}
    return arrays, from_json(metadata[FORMAT], path)


_PRECISIONS = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": jnp.bfloat16,
    "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8,
    "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8, "BOOL": np.bool_,
}  # fmt: skip


def list_safetensors(
    path: str | os.PathLike[str], stack: ExitStack
) -> tuple[dict[str, Stored], dict[str, str]]:
    """List the contents of a safetensors file; it stays open as long as `stack`."""
    from safetensors import SafetensorError, safe_open

    def stored(file: Any, name: str) -> Stored:
        part = file.get_slice(name)
        if (code := part.get_dtype()) not in _PRECISIONS:
            raise WeightsError(
                f"{path}: {shown(name)} has the precision {code}, which cannot be read: save it as F32 or F16"
            )
        return Stored(tuple(part.get_shape()), np.dtype(_PRECISIONS[code]), lambda: file.get_tensor(name))

    if (instead := stand_in(path)) is not None:
        raise WeightsError(f"{path} {instead}")
    try:
        file_size(path)  # raises for a folder or a pipe
        file: Any = stack.enter_context(safe_open(os.fspath(path), framework="numpy"))
        names = list(file.keys())
        check_names(path, names)
        found = {name: stored(file, name) for name in names}
        metadata = dict(file.metadata() or {})
    except SafetensorError as error:
        raise WeightsError(
            f"{path} is damaged or is not safetensors ({shown(str(error))}): copy or download it again"
        ) from None
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from None
    return found, metadata


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
        fields = parse_json(text)
        described = dict(fields["config"])
        _, kind = FAMILIES[described.pop("family")]
        config = kind(**{name: _undescribe(value) for name, value in described.items()})
        record = Weights(**{name: _tuples(value) for name, value in fields.items()} | {"config": config})
        check_record(record)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise WeightsError(
            f"{path}: its record is damaged, or of a newer vizsynth ({type(error).__name__}: "
            f"{shown(' '.join(str(error).split()))})"
        ) from None
    return record


def check_record(record: Weights) -> None:
    """Raise if a record from a file cannot be true.

    Raises:
        ValueError: a field has another type or is out of bounds.
    """
    check_config(record.config)
    check_fields(record, zero=("padding",))
    check_size(record.input_size)
    if record.std is not None and min(record.std) <= 0:
        raise ValueError(f"std must be above 0, not {record.std}")


def _describe(value: Any) -> Any:
    """Return a field of a configuration for JSON; a layer becomes its name and its numbers."""
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
