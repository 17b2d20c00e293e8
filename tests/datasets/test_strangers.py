"""Data sets that a stranger might give: each is read rightly, or refused in a line, in little memory."""

import gzip
import io
import os
import pickle
import resource
import struct
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest

from vizsynth.core import claims
from vizsynth.datasets import cifar, digits
from vizsynth.datasets.cifar import read_cifar10
from vizsynth.datasets.digits import read_digits
from vizsynth.datasets.errors import DataError
from vizsynth.datasets.labelled import read_labelled
from vizsynth.datasets.mnist import read_idx

MB = 1 << 20
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 170498071\n"


@pytest.fixture(autouse=True)
def little() -> Iterator[None]:
    """Every test here ends soon, with no more memory than it is left, as people run it."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 500 * MB, before[1]))
    jaxtyping.config.update("jaxtyping_disable", True)
    began = time.perf_counter()
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
    resource.setrlimit(resource.RLIMIT_AS, before)
    assert time.perf_counter() - began < 20


def refused(read: Callable[[Path], Any], path: Path, match: str) -> None:
    with pytest.raises(DataError, match=match) as caught:
        read(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def made(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def as_any(path: Path) -> Any:
    return read_labelled(path, 8, skipped=[])


# Tables, and IDX --------------------------------------------------------------------------


@pytest.mark.parametrize("text", [b"0,", b"\n", b"1\n", b"1,0\n"])
def test_a_table_that_unpacks_without_end(
    text: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made(tmp_path / "table.csv.gz", gzip.compress(text * (8 * MB // len(text))))
    monkeypatch.setattr(claims, "FREE", MB)
    for read in (read_digits, as_any):
        refused(read, path, r"unpacks from [\d,]+ bytes to more than 1,048,576, more than images can: copy")


def test_a_table_of_what_is_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "table.csv"
    refused(
        read_digits,
        made(path, b"0," * (4 * MB)),
        "4194305 columns: .* at most 1024 x 1024|columns: there should",
    )
    refused(read_digits, made(path, b"\n" * MB), "holds no rows")
    refused(read_digits, made(path, b"1\n" * MB), "has 1 columns")
    refused(read_digits, made(path, b"1,2,3,4,99999999999999999999\n"), "must hold whole numbers alone")
    refused(read_digits, made(path, b"1,2,3,4,0\n#,,,,\n"), "must hold whole numbers alone")
    refused(read_digits, made(path, b"9" * 5000 + b",2,3,4,0\n"), "must hold whole numbers alone")
    monkeypatch.setattr(digits, "BLOCK", 100)  # rows are parsed some at a time
    found = read_digits(
        made(path, b"label,a,b,c,d\r" + b"".join(b"%d,1,2,3,%d\r" % (i % 7, i % 256) for i in range(1000)))
    )
    assert found.labels.tolist() == [i % 7 for i in range(1000)]
    assert found.images[..., 1, 1, 0].tolist() == [i % 256 for i in range(1000)]
    refused(read_digits, made(path, b"1,2,3,4,0\n" * 900 + b"1,2,3,400,0\n"), "line 901: a pixel outside")


@pytest.mark.parametrize("packed", [False, True])
def test_images_that_are_not_there(packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "FREE", MB)
    for data, said in (
        (
            struct.pack(">HBB3I", 0, 8, 3, 1 << 31, 1 << 15, 1 << 15) + bytes(100),
            "must hold 2147483648 x 32768",
        ),
        (struct.pack(">HBB3I", 0, 8, 3, 1 << 31, 0, 28), "says that its images have 0 x 28 pixels"),
        (struct.pack(">HBB3I", 0, 8, 3, 8 * MB, 1, 1) + bytes(8 * MB), "unpacks from"),
    ):
        if packed or said != "unpacks from":
            refused(read_idx, made(tmp_path / "idx", gzip.compress(data) if packed else data), said)


# CIFAR-10 ---------------------------------------------------------------------------------


def batches(**changed: Any) -> dict[str, bytes]:
    held = {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 1]}
    files = {name: pickle.dumps(held, 2) for name in cifar._PYTHON}
    return files | {
        name: data if isinstance(data, bytes) else pickle.dumps(data, 2) for name, data in changed.items()
    }


def archive(
    path: Path, files: dict[str, bytes], *members: tuple[tarfile.TarInfo, bytes], **options: Any
) -> Path:
    with tarfile.open(path, "w:gz", **options) as made:
        for name, data in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(data)
            made.addfile(member, io.BytesIO(data))
        for member, data in members:
            made.addfile(member, io.BytesIO(data))
    return path


def of(name: str, size: int = 0, **fields: Any) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    for field, value in fields.items():
        setattr(member, field, value)
    return member


def shared(times: int) -> list[Any]:
    tree: list[Any] = [0]
    for _ in range(times):
        tree = [tree, tree]
    return tree


def test_archives_that_unpack_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar, "_MOST_UNPACKED", 4 * MB)
    path = tmp_path / "cifar-10-python.tar.gz"
    zeros = bytes(8 * MB)
    for members in (
        [(of("cifar-10-batches-py/data_batch_1", len(zeros)), zeros)],
        [(of("something else", len(zeros)), zeros)],
        [(of("header", len(zeros), type=tarfile.XHDTYPE), zeros)],  # which tarfile reads whole
        [(of("name", len(zeros), type=tarfile.GNUTYPE_LONGNAME), zeros)],
    ):
        archive(path, {}, *members)
        for read in (as_any, read_cifar10):
            refused(read, path, "tar.gz unpacks to more than 4,194,304 bytes, more than CIFAR-10 has")


def test_batches_that_are_none(tmp_path: Path) -> None:
    path, name = tmp_path / "cifar-10-python.tar.gz", "data_batch_1"
    again = (of(f"x/{name}", 3), b"abc")
    refused(read_cifar10, archive(path, batches(), again), "holds data_batch_1 twice")
    large = of(f"x/{name}", 1 << 33).tobuf()
    refused(read_cifar10, made(path, gzip.compress(large)), "larger than any of CIFAR-10's batches")
    hole = bytearray(of(f"x/{name}", 0, type=tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT))
    hole[483:495] = b"00200000000\0"  # its size with what is not there: 16 MB
    hole[148:156] = b"%06o\0 " % (sum(hole[:148]) + sum(hole[156:512]) + 256)
    refused(read_cifar10, made(path, gzip.compress(bytes(hole) + bytes(1024))), "larger than any|damaged")
    labels: tuple[Any, ...] = (
        shared(40),
        [0, shared(40)],
        [0, 1 << 70],
        [0.5, 1],
        "ab",
        np.zeros((2, 2), int),
        {0: 1, 1: 2},
    )
    for odd in labels:
        files = batches(data_batch_1={b"data": np.zeros((2, 3072), np.uint8), b"labels": odd})
        refused(
            read_cifar10,
            archive(path, files),
            "data_batch_1 (must hold data|has labels that are not integers)",
        )
    for odd in ([1, 2], b"\x80\x02}r\xff\xff\xff\x0f.", b"\x80\x02})" + b"\x85" * 100_000 + b"K\1s."):
        refused(
            read_cifar10, archive(path, batches(data_batch_1=odd)), "data_batch_1 (is damaged|must hold data)"
        )
    for names in (shared(40), [shared(40)] * 10, 7, [1] * 10):
        found = read_cifar10(archive(path, batches(**{"batches.meta": {b"label_names": names}})))
        assert found.training.classes == cifar.CLASSES


def test_a_folder_of_larger_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, data in batches().items():
        made(tmp_path / name, data)
    read_cifar10(tmp_path)
    monkeypatch.setattr(cifar, "_MOST", 100)
    refused(read_cifar10, tmp_path, "data_batch_1 is larger than any of CIFAR-10's batches")


# What is no data set ----------------------------------------------------------------------


def test_what_stands_for_a_file_is_told(tmp_path: Path) -> None:
    said = "is a Git LFS pointer, not the file of 170,498,071 bytes"
    refused(read_digits, made(tmp_path / "table.csv", POINTER), said)
    refused(as_any, made(tmp_path / "table.csv.gz", POINTER), said)
    refused(read_idx, made(tmp_path / "train-images-idx3-ubyte.gz", POINTER), said)
    refused(as_any, made(tmp_path / "cifar-10-python.tar.gz", POINTER), said)
    (tmp_path / "cifar-10-batches-py").mkdir()
    made(tmp_path / "cifar-10-batches-py" / "data_batch_1", POINTER)
    refused(read_cifar10, tmp_path / "cifar-10-batches-py", said)


def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    for read in (read_digits, read_idx, read_cifar10):
        refused(read, tmp_path / "pipe.csv", "a pipe or a device|damaged")
