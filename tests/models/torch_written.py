"""PyTorch's layouts, written without PyTorch: the instructions of its pickles, and its two kinds of file."""

import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", value)


def row(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"t"


def called(module: str, name: str, *arguments: bytes) -> bytes:
    return named(module, name) + row(*arguments) + b"R"


def dictionary(items: Mapping[str, bytes]) -> bytes:
    return b"}(" + b"".join(text(name) + value for name, value in items.items()) + b"u"


def storage(
    count: int, kind: str = "FloatStorage", key: str = "0", module: str = "torch", *more: bytes
) -> bytes:
    return row(text("storage"), named(module, kind), text(key), text("cpu"), number(count), *more) + b"Q"


def tensor(
    size: Sequence[int],
    stride: Sequence[int],
    offset: int = 0,
    *,
    of: bytes | None = None,
    kind: str = "_rebuild_tensor_v2",
    more: Sequence[bytes] = (),
) -> bytes:
    of = storage(4) if of is None else of
    shape, steps = row(*map(number, size)), row(*map(number, stride))
    hooks = called("collections", "OrderedDict")
    return called("torch._utils", kind, of, number(offset), shape, steps, b"\x89", hooks, *more)


def zipped(
    path: Path, tree: bytes, storages: Mapping[str, bytes], *, order: str = "little", packed: bool = False
) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + tree + b".")
        archive.writestr("archive/byteorder", order)
        archive.writestr("archive/version", "3\n")
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key}", data)
    return path


def in_row(path: Path, tree: bytes, storages: Mapping[str, tuple[int, bytes]]) -> Path:
    system = b"\x80\x02" + dictionary({"little_endian": b"\x88"}) + b"."
    keys = b"\x80\x02](" + b"".join(map(text, storages)) + b"e."
    raw = b"".join(struct.pack("<q", count) + data for count, data in storages.values())
    path.write_bytes(MAGIC + b"\x80\x02M\xe9\x03." + system + b"\x80\x02" + tree + b"." + keys + raw)
    return path
