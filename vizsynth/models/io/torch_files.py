"""Read PyTorch's files without PyTorch: a pickle that places tensors in storages, and the storages.

Two layouts. Since PyTorch 1.6, a zip without compression: `NAME/data.pkl`, and `NAME/data/KEY` for each
storage. Before 1.6, a row of pickles (a magic number, the version, the byte order, the tensors, the keys of
the storages), and then the length and the numbers of each storage.

PyTorch's own safe loading, `weights_only=True`, runs no code, but allocates as many numbers as a file asks
for: a pickle of thirty bytes may ask for a gigabyte. Here a tensor has no more numbers than its storage, and
a storage no more than the file.
"""

import io
import math
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from vizsynth.models.io.pickles import Machine, Named, Odd, Refused, as_text
from vizsynth.models.io.stored import Stored

MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"  # PyTorch's magic number, pickled
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network")
_PRECISIONS = {
    "float64": "<f8", "float32": "<f4", "float16": "<f2", "bfloat16": jnp.bfloat16,
    "int64": "<i8", "int32": "<i4", "int16": "<i2", "int8": "i1",
    "uint64": "<u8", "uint32": "<u4", "uint16": "<u2", "uint8": "u1", "bool": "?",
}  # fmt: skip
_STORAGES = {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16",
    "Long": "int64", "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool",
}  # fmt: skip
_NOT_READ = {
    "_rebuild_sparse_tensor": "sparse tensors: save each as tensor.to_dense()",
    "_rebuild_sparse_csr_tensor": "sparse tensors: save each as tensor.to_dense()",
    "_rebuild_qtensor": "quantized tensors: save each as tensor.dequantize()",
    "_rebuild_nested_tensor": "nested tensors: save each as tensors of one shape",
    "_rebuild_meta_tensor_no_storage": "tensors on the device meta, without numbers: load them before saving",
    "_rebuild_device_tensor_from_numpy": "tensors of another device: save each as tensor.cpu()",
    "_rebuild_device_tensor_from_cpu_tensor": "tensors of another device: save each as tensor.cpu()",
    "_rebuild_wrapper_subclass": "tensors of a class of their own: save each as a plain tensor",
}


class _Kind(NamedTuple):
    """Stands for a class of storages or a precision."""

    dtype: np.dtype


class _Storage(NamedTuple):
    """A row of numbers that the file keeps outside the pickle."""

    dtype: np.dtype
    length: int
    read: Callable[[], np.ndarray]


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Stored:
    """Return a tensor from its offset in the storage, its sizes and its strides."""
    if not isinstance(storage, _Storage) or len(size) != len(stride) or len(size) > 16:
        raise TypeError("no tensor")
    for number in (offset, *size, *stride):
        _natural(number)
    count, shape = math.prod(size), tuple(size)
    if count > storage.length:
        raise Odd(
            f"holds a tensor of {count:,} numbers, but stores only {storage.length:,}: save it as "
            "tensor.contiguous()"
        )
    if count and offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) >= storage.length:
        raise Odd("has a tensor that reaches beyond what is stored")
    if not count and max(shape, default=0) > 1 << 32:
        raise TypeError("no tensor")

    def read() -> np.ndarray:
        steps = [s * storage.dtype.itemsize for s in stride]
        return np.lib.stride_tricks.as_strided(storage.read()[offset:], shape, steps)

    return Stored(shape, storage.dtype, read if count else lambda: np.zeros(shape, storage.dtype))


def _tensor_of_bytes(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Stored:
    """Return a tensor whose precision is given here, not by its storage."""
    dtype = rest[2].dtype  # after two arguments that only gradients need
    count = storage.length // dtype.itemsize
    typed = _Storage(dtype, count, lambda: storage.read()[: count * dtype.itemsize].view(dtype))
    return _tensor(typed, offset, size, stride)


def _of_type(function: Any, kind: Any, arguments: Any, state: Any) -> Any:
    """Return a tensor with attributes, or a parameter: the class and the attributes are dropped."""
    if not isinstance(function, Named):
        raise Refused("it calls an object that it has made")
    return function.function(*arguments)


_KNOWN: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor"): Named(_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): Named(_tensor),
    ("torch._utils", "_rebuild_tensor_v3"): Named(_tensor_of_bytes),
    ("torch._utils", "_rebuild_parameter"): Named(lambda tensor, *_: tensor),
    ("torch._utils", "_rebuild_parameter_with_state"): Named(lambda tensor, *_: tensor),
    ("torch._tensor", "_rebuild_from_type_v2"): Named(_of_type),
    ("torch", "Tensor"): "a class",
    ("torch.nn.parameter", "Parameter"): "a class",
    ("torch.storage", "UntypedStorage"): _Kind(np.dtype("u1")),
    ("torch", "Size"): Named(lambda sizes=(): sizes),
    # Objects that may lie beside the weights and hold no weights.
    ("torch", "device"): Named(lambda *_: None),
    ("builtins", "set"): Named(lambda *_: None),
    ("__builtin__", "set"): Named(lambda *_: None),
    ("collections", "Counter"): Named(lambda *_: None),
    **{("torch", f"{name}Storage"): _Kind(np.dtype(_PRECISIONS[p])) for name, p in _STORAGES.items()},
    **{("torch", name): _Kind(np.dtype(code)) for name, code in _PRECISIONS.items()},
}


def _refused(module: str, name: str) -> Exception:
    if module == "torch._utils" and name in _NOT_READ:
        return Odd(f"holds {_NOT_READ[name]}")
    if module == "torch" and name.startswith(("float", "complex", "ComplexF", "ComplexD")):
        return Odd(f"holds numbers of torch.{name}, which cannot be read: save them as torch.float32")
    return Refused(f"it asks for {module}.{name}")


def tensors_in_zip(archive: zipfile.ZipFile, size: int) -> dict[str, Stored]:
    """Return the tensors of a file in the layout since PyTorch 1.6.

    Args:
        archive: the open file; it must stay open until the tensors are read.
        size: of the file, in bytes.

    Raises:
        Refused: the pickle asks for anything but tensors.
        Odd: the tensors are of a kind that cannot be read, or claim more numbers than the file has.
        Exception: any other, if the file is damaged.
    """
    members = {member.filename: member for member in archive.infolist()}
    pickles = [name for name in members if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise Odd("holds several pickles: save only the weights, torch.save(model.state_dict(), PATH)")
    if any(member.compress_type != zipfile.ZIP_STORED for member in members.values()):
        raise Odd("is a packed zip, which PyTorch does not write: save it again by torch.save")
    prefix = pickles[0].removesuffix("data.pkl")
    order = members.get(f"{prefix}byteorder")
    big = order is not None and order.file_size < 16 and archive.read(order) == b"big"
    kept: dict[str, np.ndarray] = {}
    left = [size]

    def raw(key: str) -> np.ndarray:
        member = members[f"{prefix}data/{key}"]
        if key not in kept:
            left[0] -= member.file_size
            if left[0] < 0:
                raise Odd("holds the same storage several times")
            kept[key] = np.frombuffer(archive.read(member), np.uint8)
        return kept[key]

    def persistent(key: Any) -> _Storage:
        dtype, name, count, _ = _keyed(key, big)
        nbytes = members[f"{prefix}data/{name}"].file_size
        if count * dtype.itemsize > nbytes:
            raise Odd(f"says that it stores {count:,} numbers, but has {nbytes:,} bytes")
        return _Storage(dtype, count, lambda: raw(name)[: count * dtype.itemsize].view(dtype))

    data = archive.read(members[pickles[0]])
    machine = Machine(_KNOWN, persistent=persistent, refused=_refused, length=len(data))
    return _state_dict(machine.run(io.BytesIO(data)))


def tensors_in_row(data: bytes) -> dict[str, Stored]:
    """Return the tensors of a file in the layout before PyTorch 1.6. It raises what `tensors_in_zip` does."""
    kinds: dict[str, tuple[np.dtype, int]] = {}  # the precision and the length of each storage
    places: dict[str, int] = {}
    big = False

    def persistent(key: Any) -> _Storage:
        dtype, name, count, view = _keyed(key, big)
        if count * dtype.itemsize > len(data):
            raise Odd(f"says that it stores {count:,} numbers, but has {len(data):,} bytes")
        if kinds.setdefault(name, (dtype, count)) != (dtype, count):
            raise ValueError("a storage of two kinds")
        first, seen = (0, count) if view is None else view[1:]
        if _natural(first) + _natural(seen) > count:
            raise Odd("has a tensor that reaches beyond what is stored")
        return _Storage(dtype, seen, lambda: np.frombuffer(data, dtype, count, places[name])[first:][:seen])

    file = io.BytesIO(data)
    machine = Machine(_KNOWN, persistent=persistent, refused=_refused, length=len(data))
    machine.run(file)  # the magic number
    machine.run(file)  # the version
    big = machine.run(file).get("little_endian") is False
    loaded = machine.run(file)
    for name in machine.run(file):
        dtype, count = kinds[name]
        if int.from_bytes(file.read(8), "big" if big else "little") != count:
            raise ValueError("a storage of another size")
        places[name] = file.tell()
        file.seek(count * dtype.itemsize, io.SEEK_CUR)
    if file.tell() > len(data) or len(places) < len(kinds):
        raise EOFError("no end")
    return _state_dict(loaded)


def _keyed(key: Any, big: bool) -> tuple[np.dtype, str, int, Any]:
    """Return the precision, the name, the length and the view that the key of a storage gives."""
    what, kind, name, _, count, *view = key
    if what != "storage" or not isinstance(kind, _Kind) or not isinstance(name, str):
        raise Refused("it asks for something that is not a storage")
    dtype = kind.dtype.newbyteorder(">") if big else kind.dtype
    return dtype, name, _natural(count), view[0] if view else None


def _natural(number: Any) -> int:
    if type(number) is not int or number < 0:
        raise TypeError("no number")
    return number


def _state_dict(loaded: Any) -> dict[str, Stored]:
    """Find the tensors in a checkpoint, which may also hold an epoch and an optimizer."""
    for _ in range(10):
        if not isinstance(loaded, Mapping):
            break
        inner = next((w for w in _WRAPPERS if isinstance(loaded.get(w), Mapping)), None)
        if inner is None:
            named = {
                as_text(name) if isinstance(name, bytes) else str(name): value
                for name, value in loaded.items()
                if isinstance(value, Stored)
            }
            if named:
                return named
            break
        loaded = loaded[inner]
    raise Odd("holds no tensors by name: save model.state_dict()")
