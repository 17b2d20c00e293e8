"""The files that weights come in, read as arrays by name. Nothing in them is ever executed."""

import io
import os
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np

from vizsynth.models import keras
from vizsynth.models.weights import WeightsError, read_safetensors

_HDF5 = b"\x89HDF\r\n\x1a\n"
_TORCH_LEGACY = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"  # PyTorch's magic number, pickled
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network")
_AGAIN = "copy or download it again"


class Contents(NamedTuple):
    """What a file holds."""

    tensors: dict[str, np.ndarray]
    metadata: dict[str, str]
    """A safetensors file's own."""
    model: "keras.Description | None"
    """A Keras file's model."""


def read_file(path: str | os.PathLike[str]) -> Contents:
    """Read a file of weights; what it is shows in its first bytes, not in its name.

    `.safetensors`; PyTorch's `.pth` and `.pt`, both kinds; Keras' `.h5`, `.weights.h5` and `.keras`;
    ONNX's initializers; pickles of NumPy arrays.

    Raises:
        WeightsError: no such file, a damaged one, one of another kind, or one that would run code; the
            message is one line that names the remedy.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from None
    if start.startswith(_HDF5):
        return Contents(*_keras(path, lambda: keras.read_h5(path)))
    if start.startswith(b"PK\x03\x04"):
        return _read_zip(path)
    if start[:1] == b"\x80" and _TORCH_LEGACY in start:
        return Contents(_read_torch(path), {}, None)
    if start[:1] == b"\x80":
        return Contents(_read_pickle(path), {}, None)
    if start[8:9] == b"{" or path.suffix == ".safetensors":
        tensors, metadata = read_safetensors(path)
        return Contents(tensors, metadata, None)
    if path.suffix == ".onnx":
        return Contents(_read_onnx(path), {}, None)
    raise WeightsError(
        f"{path} holds no weights that can be read: give .safetensors, .pth, .h5, .keras or .onnx"
        + ("" if start else " (this file is empty)")
    )


def _read_zip(path: Path) -> Contents:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        raise WeightsError(f"{path} is damaged or cut off: {_AGAIN}") from None
    if "config.json" in members and "model.weights.h5" in members:
        return Contents(*_keras(path, lambda: keras.read_archive(path)))
    if any(member.endswith("data.pkl") for member in members):
        return Contents(_read_torch(path), {}, None)
    raise WeightsError(f"{path} is an archive of something else: give a .pth or a .keras file")


def _keras(
    path: Path, read: Callable[[], tuple[dict[str, np.ndarray], "keras.Description | None"]]
) -> tuple[dict[str, np.ndarray], dict[str, str], "keras.Description | None"]:
    try:
        import h5py  # noqa: F401
    except ImportError:
        raise WeightsError(f"{path} needs h5py: pip install 'vizsynth[keras]'") from None
    try:
        tensors, description = read()
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None
    except (OSError, RuntimeError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(f"{path} is damaged or cut off ({reason}): {_AGAIN}") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WeightsError(
            f"{path} is not laid out as Keras does ({type(error).__name__}: {error}): save it again"
        ) from None
    return tensors, {}, description


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError:
        raise WeightsError(f"{path} needs PyTorch to be read: pip install 'vizsynth[torch]'") from None
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "weights_only" not in str(error).lower() and "unsupported" not in str(error).lower():
            raise WeightsError(f"{path} is damaged or cut off: {_AGAIN}") from None
        raise WeightsError(
            f"{path} holds more than tensors, and is refused because reading it could run code: save "
            "only the weights, torch.save(model.state_dict(), PATH)"
        ) from None
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, TypeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise WeightsError(f"{path} is damaged or cut off ({reason}): {_AGAIN}") from None
    return {name: _numpy(tensor) for name, tensor in _state_dict(loaded, torch.Tensor, path).items()}


def _numpy(tensor: Any) -> np.ndarray:
    """Return a tensor as an array; bfloat16, which NumPy has not, as float32."""
    tensor = tensor.detach()
    known = tensor.is_floating_point() and tensor.element_size() < 4
    return (tensor.float() if known else tensor).numpy()


def _state_dict(loaded: Any, kind: type, path: Path) -> dict[str, Any]:
    """Find the tensors in a checkpoint, which may hold an epoch and an optimizer beside them."""
    if isinstance(loaded, Mapping):
        for wrapper in _WRAPPERS:
            if isinstance(loaded.get(wrapper), Mapping):
                return _state_dict(loaded[wrapper], kind, path)
        tensors = {str(name): value for name, value in loaded.items() if isinstance(value, kind)}
        if tensors:
            return tensors
    raise WeightsError(f"{path} holds no tensors by name: save model.state_dict()")


def _read_pickle(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as file:
            loaded = ArrayUnpickler(file).load()
    except Refused as error:
        raise WeightsError(
            f"{path} is refused, because reading it could run code ({error}): save the weights as "
            ".safetensors"
        ) from None
    except Exception as error:  # a damaged pickle raises whatever its bytes happen to say
        raise WeightsError(f"{path} is damaged or cut off ({type(error).__name__}): {_AGAIN}") from None
    arrays = dict(_flattened(loaded))
    if not arrays:
        raise WeightsError(f"{path} holds no arrays by name: save the weights as .safetensors")
    return arrays


def _flattened(tree: Any, prefix: str = "") -> list[tuple[str, np.ndarray]]:
    if isinstance(tree, _Array):
        return [(prefix, tree.array)]
    if not isinstance(tree, dict):
        return []
    return [
        leaf
        for name, branch in tree.items()
        for leaf in _flattened(branch, f"{prefix}/{name}" if prefix else str(name))
    ]


class Refused(pickle.UnpicklingError):
    """A pickle asks for something else than arrays."""


class _Dtype:
    """Stands for a pickled dtype. NumPy's own would take its flags on trust."""

    def __init__(self, code: str | bytes, *flags: Any):
        self.code = _text(code)
        self.order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = _text(state[1])

    @property
    def dtype(self) -> np.dtype:
        if not re.fullmatch(r"[fiub][1248]", self.code):
            raise Refused(f"it asks for arrays of {self.code}")
        return np.dtype(self.code).newbyteorder(cast(Any, self.order))


class _Array:
    """Stands for a pickled array, whose bytes it copies."""

    array = np.zeros(0)

    def __init__(self, *prototype: Any):
        pass

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        flat = np.frombuffer(data, dtype.dtype)
        self.array = flat.reshape(shape, order="F" if fortran else "C")


def _text(code: str | bytes) -> str:
    """Return a short text; Python 2 pickled it as bytes."""
    return code.decode("latin1") if isinstance(code, bytes) else str(code)


def _bytes(text: str, encoding: str) -> bytes:
    return text.encode("latin1")


class ArrayUnpickler(pickle.Unpickler):
    """Reads arrays, numbers, texts and their containers; whatever else a pickle names is refused."""

    known: ClassVar[dict[tuple[str, str], Any]] = {
        ("numpy.core.multiarray", "_reconstruct"): _Array,
        ("numpy._core.multiarray", "_reconstruct"): _Array,
        ("numpy", "ndarray"): None,  # only ever handed to _reconstruct
        ("numpy", "dtype"): _Dtype,
        ("_codecs", "encode"): _bytes,  # how old protocols write bytes
        ("collections", "OrderedDict"): dict,
    }

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for this name here; none but those of arrays has anything."""
        if (module, name) not in self.known:
            raise Refused(f"it asks for {module}.{name}")
        return self.known[module, name]


def unpickle(data: bytes) -> Any:
    """Return the arrays, numbers, texts and containers of a pickle, also of one that Python 2 wrote.

    The keys of dictionaries are texts.

    Raises:
        Refused: it asks for something else.
        Exception: a damaged pickle raises whatever its bytes happen to say.

    >>> unpickle(pickle.dumps({b"labels": [1, 2], b"data": np.arange(3)}))
    {'labels': [1, 2], 'data': array([0, 1, 2])}
    """
    return _plain(ArrayUnpickler(io.BytesIO(data), encoding="bytes").load())


def _plain(tree: Any) -> Any:
    if isinstance(tree, _Array):
        return tree.array
    if isinstance(tree, dict):
        return {_text(name): _plain(branch) for name, branch in tree.items()}
    return tree


def _read_onnx(path: Path) -> dict[str, np.ndarray]:
    try:
        import onnx
    except ImportError:
        raise WeightsError(f"{path} needs onnx to be read: pip install 'vizsynth[onnx]'") from None
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(io.BytesIO(path.read_bytes()), load_external_data=False)
        initializers = model.graph.initializer
        if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in initializers):
            raise WeightsError(f"{path} keeps its weights in other files: save it as one file")
        arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in initializers}
    except DecodeError:
        raise WeightsError(f"{path} is damaged or is not ONNX: {_AGAIN}") from None
    except (ValueError, TypeError) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(f"{path} is damaged ({error}): {_AGAIN}") from None
    if not arrays:
        raise WeightsError(f"{path} holds no initializers: export the model with its weights")
    return arrays
