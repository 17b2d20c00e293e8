"""Find the initializers of an ONNX graph without parsing anything else.

A message of Protocol Buffers is a row of fields: a number and a kind, then the value. ONNX's own reader makes
an object of each field, so that two bytes in the file take a hundred in memory. This reader skips all
fields but the initializers.
"""

import math
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

from vizsynth.core.claims import shown
from vizsynth.models.io.stored import Stored, WeightsError

MOST_FIELDS = 1 << 22  # a node of a graph has about ten
_GRAPH, _INITIALIZER = 7, 5  # fields of a model, and of a graph
_STRINGS, _EXTERNAL, _LOCATION = 6, 13, 14  # fields of a tensor
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5


def list_onnx(data: bytes) -> dict[str, Stored]:
    """Return the initializers of a model.

    Raises:
        WeightsError: the initializers lie in other files, are too many, or are not numbers.
        ValueError: the data is not ONNX, or is cut off.
    """
    from google.protobuf.message import DecodeError
    from onnx import TensorProto

    found: dict[str, Stored] = {}
    steps = iter(range(MOST_FIELDS))
    for number, graph in _fields(memoryview(data), steps):
        if number != _GRAPH or not isinstance(graph, memoryview):
            continue
        for field, part in _fields(graph, steps):
            if field != _INITIALIZER or not isinstance(part, memoryview):
                continue
            inside = dict(_fields(part, steps))
            if _EXTERNAL in inside or inside.get(_LOCATION) == 1:
                raise WeightsError("keeps its weights in other files: save it as one file")
            if _STRINGS in inside:
                raise WeightsError("holds texts among its weights: no network has them")
            try:
                tensor = TensorProto.FromString(bytes(part))
            except DecodeError:
                raise ValueError("it is cut off") from None
            if tensor.name in found:
                raise WeightsError(f"holds two arrays called {shown(tensor.name)}")
            found[tensor.name] = _stored(tensor)
    return found


def _stored(tensor: Any) -> Stored:
    from onnx import helper, numpy_helper

    shape = tuple(tensor.dims)
    if min(shape, default=1) < 0 or math.prod(shape) > tensor.ByteSize():
        raise ValueError(f"{shown(tensor.name)} says that it has the shape {shown(shape)}")
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
    if dtype.kind not in "fiub" and dtype != jnp.bfloat16:
        raise WeightsError(
            f"holds numbers of the precision {dtype}, which cannot be read: save them as float"
        )
    return Stored(shape, dtype, lambda: numpy_helper.to_array(tensor))


def _fields(message: memoryview, steps: Iterator[int]) -> Iterator[tuple[int, memoryview | int]]:
    """Yield the number and the value of each field of a message."""
    place, end = 0, len(message)

    def varint() -> int:
        nonlocal place
        value = shift = 0
        while True:
            if place >= end or shift > 63:
                raise ValueError("it is cut off")
            byte = message[place]
            place += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while place < end:
        if next(steps, None) is None:
            raise WeightsError(f"has more than {MOST_FIELDS:,} fields, more than any network")
        tag = varint()
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            yield number, varint()
            continue
        if kind not in (_EIGHT, _BYTES, _FOUR):
            raise ValueError("it is no message")
        size = varint() if kind == _BYTES else {_EIGHT: 8, _FOUR: 4}[kind]
        if size > end - place:
            raise ValueError("it is cut off")
        yield number, message[place : place + size]
        place += size
