"""Read files of weights as arrays by name. Nothing in them is executed.

Each reader first lists names, shapes and precisions, and checks them against the size of the file. It reads
the numbers only after the caller has accepted the list.
"""

import io
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vizsynth.core.claims import MOST_TEXT, file_size, most_unpacked, shown, stand_in
from vizsynth.models.io import keras, onnx_files, torch_files
from vizsynth.models.io.pickles import Odd, arrays_by_name
from vizsynth.models.io.pickles import Refused as Refused
from vizsynth.models.io.pickles import unpickle as unpickle
from vizsynth.models.io.stored import Stored, check_names, of_array
from vizsynth.models.io.weights import WeightsError, list_safetensors

_HDF5 = b"\x89HDF\r\n\x1a\n"
_AGAIN = "copy or download it again"
_ODDITIES = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)  # from malformed contents
_DAMAGES = (*_ODDITIES, EOFError, MemoryError, OSError, RuntimeError, zipfile.BadZipFile, zlib.error)


class Contents(NamedTuple):
    """The contents of a file."""

    tensors: dict[str, np.ndarray]
    metadata: dict[str, str]
    """Empty unless the file is safetensors."""
    model: "keras.Description | None"
    """The model of a Keras file."""


class _Listing(NamedTuple):
    """The contents of a file, before its numbers are read."""

    stored: dict[str, Stored]
    metadata: dict[str, str]
    model: "keras.Description | None"


def read_file(path: str | os.PathLike[str], check: Callable[[Contents], None] | None = None) -> Contents:
    """Read a file of weights; its first bytes, not its name, tell its format.

    `.safetensors`; PyTorch's `.pth` and `.pt`, in both layouts; Keras' `.h5`, `.weights.h5` and `.keras`;
    the initializers of ONNX; pickles of NumPy arrays.

    Args:
        path: of the file.
        check: called with the contents before the numbers are read, with zeros that take no memory in their
            place; it raises to stop the reading.

    Raises:
        WeightsError: the file is missing, damaged, of another format, would run code, or claims more
            contents than it has; the message is one line that names the remedy.
    """
    path = Path(path)
    with ExitStack() as stack:
        with _told(path):
            found = _listed(path, stack)
            check_names(path, found.stored)
            outlines = {name: array.outline() for name, array in found.stored.items()}
        if check is not None:
            check(Contents(outlines, found.metadata, found.model))
        with _told(path):
            return Contents(
                {name: array.read() for name, array in found.stored.items()}, found.metadata, found.model
            )


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Raise any failure as one line: damaged bytes can raise any exception."""
    try:
        yield
    except WeightsError:
        raise
    except Odd as error:
        raise WeightsError(f"{path} {error}") from None
    except _DAMAGES as error:
        reason = shown(next(iter(str(error).splitlines()), "")) or type(error).__name__
        raise WeightsError(f"{path} is damaged or cut off ({reason}): {_AGAIN}") from None


def _listed(path: Path, stack: ExitStack) -> _Listing:
    try:
        size = file_size(path)
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from None
    if (instead := stand_in(path)) is not None:
        raise WeightsError(f"{path} {instead}")
    if start.startswith(_HDF5):
        return _list_h5(path, size, stack)
    if start.startswith(b"PK\x03\x04"):
        return _list_zip(path, size, stack)
    # Before pickles: the length of a safetensors header may begin with the first byte of a pickle.
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= size - 8:
        return _Listing(*list_safetensors(path, stack), None)
    if start[:1] == b"\x80" and torch_files.MAGIC in start:
        with _as_torch(path):
            return _Listing(torch_files.tensors_in_row(path.read_bytes()), {}, None)
    if start[:1] == b"\x80":
        return _list_pickle(path)
    if start[8:9] == b"{" or path.suffix == ".safetensors":
        return _Listing(*list_safetensors(path, stack), None)
    if path.suffix == ".onnx":
        return _list_onnx(path)
    raise WeightsError(
        f"{path} holds no weights that can be read: give .safetensors, .pth, .h5, .keras or .onnx"
        + ("" if start else " (this file is empty)")
    )


# Of zip, and HDF5 -----------------------------------------------------------------------


def _list_zip(path: Path, size: int, stack: ExitStack) -> _Listing:
    archive = stack.enter_context(zipfile.ZipFile(path))
    members = {member.filename: member for member in archive.infolist()}
    if any(member.compress_size > size for member in members.values()):
        raise EOFError("its members are larger than the file")
    if "config.json" in members and "model.weights.h5" in members:
        return _list_keras(path, archive, members, stack)
    if any(name.endswith(("/constants.pkl", "/code/")) or "/code/" in name for name in members):
        raise WeightsError(
            f"{path} is TorchScript, a compiled program, not a file of weights: save its weights, "
            f"torch.save(torch.jit.load({path.name!r}).state_dict(), PATH)"
        )
    if any(name == "data.pkl" or name.endswith("/data.pkl") for name in members):
        with _as_torch(path):
            return _Listing(torch_files.tensors_in_zip(archive, size), {}, None)
    raise WeightsError(f"{path} is an archive without weights: give a .pth or a .keras file")


def _list_h5(path: Path, size: int, stack: ExitStack) -> _Listing:
    h5py = _h5py(path)
    from vizsynth.models.io.hdf5 import Reader

    with _as_keras(path):
        file = stack.enter_context(h5py.File(path, "r"))
        tensors, model = keras.list_h5(Reader(file, size))
    return _Listing(tensors, {}, model)


def _list_keras(
    path: Path, archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], stack: ExitStack
) -> _Listing:
    h5py = _h5py(path)
    from vizsynth.models.io.hdf5 import Reader

    description, weights = members["config.json"], members["model.weights.h5"]
    unpacked = description.file_size + weights.file_size
    if description.file_size > MOST_TEXT or unpacked > most_unpacked(weights.compress_size):
        raise WeightsError(f"{path} unpacks to {unpacked:,} bytes, more than weights can: save it again")
    with _as_keras(path):
        model = keras.parsed(archive.read(description))
        data = archive.read(weights)
        file = stack.enter_context(h5py.File(io.BytesIO(data), "r"))
        tensors, found = keras.list_archive(model, Reader(file, len(data)))
    return _Listing(tensors, {}, found)


def _h5py(path: Path) -> Any:
    try:
        import h5py
    except ImportError:
        raise WeightsError(f"{path} needs h5py: pip install 'vizsynth[keras]'") from None
    return h5py


@contextmanager
def _as_keras(path: Path) -> Iterator[None]:
    try:
        yield
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None
    except (*_ODDITIES, RecursionError) as error:
        reason = f"{type(error).__name__}: {shown(str(error))}"
        raise WeightsError(f"{path} does not have the layout of Keras ({reason}): save it again") from None


# Of pickles, and ONNX -------------------------------------------------------------------


@contextmanager
def _as_torch(path: Path) -> Iterator[None]:
    try:
        yield
    except Refused as error:
        raise WeightsError(
            f"{path} holds more than tensors ({error}), and is refused because reading it could run code: "
            "save only the weights, torch.save(model.state_dict(), PATH)"
        ) from None


def _list_pickle(path: Path) -> _Listing:
    try:
        arrays = arrays_by_name(path.read_bytes())
    except Refused as error:
        raise WeightsError(
            f"{path} is refused, because reading it could run code ({error}): save the weights as "
            ".safetensors"
        ) from None
    except Odd as error:
        raise WeightsError(f"{path} {error}: save the weights as .safetensors") from None
    if not arrays:
        raise WeightsError(f"{path} holds no arrays by name: save the weights as .safetensors")
    return _Listing({name: of_array(array) for name, array in arrays.items()}, {}, None)


def _list_onnx(path: Path) -> _Listing:
    try:
        import onnx  # noqa: F401
    except ImportError:
        raise WeightsError(f"{path} needs onnx to be read: pip install 'vizsynth[onnx]'") from None
    try:
        arrays = onnx_files.list_onnx(path.read_bytes())
    except WeightsError as error:
        raise WeightsError(f"{path} {error}") from None
    if not arrays:
        raise WeightsError(f"{path} holds no initializers: export the model with its weights")
    return _Listing(arrays, {}, None)
