"""Files that a stranger might give: each is read rightly, or refused in a line, soon, in little memory."""

import io
import json
import os
import pickle
import resource
import struct
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import jaxtyping
import keras_files as kf
import numpy as np
import pytest
import torch_written as tw
from safetensors.numpy import save as save_tensors
from safetensors.numpy import save_file

from vizsynth.core import claims
from vizsynth.models import convert, load, load_stylizer
from vizsynth.models.io import hdf5, hub, onnx_files, pickles, stored
from vizsynth.models.io.formats import read_file
from vizsynth.models.io.weights import FORMAT, PIXELS, Weights, WeightsError, to_json
from vizsynth.models.squeezenet import SqueezeNetConfig
from vizsynth.models.stylizers import FORMAT as STYLIZER

MB = 1 << 20


@pytest.fixture(autouse=True)
def little() -> Iterator[None]:
    """Every test here ends soon, with no more memory than it is left."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 700 * MB, before[1]))
    began = time.perf_counter()
    jaxtyping.config.update("jaxtyping_disable", True)  # as people run it
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
    resource.setrlimit(resource.RLIMIT_AS, before)
    assert time.perf_counter() - began < 20


def refused(path: Path, match: str) -> None:
    with pytest.raises(WeightsError, match=match) as caught:
        read_file(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700


def made(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


# Pickles ----------------------------------------------------------------------------------


def nested(times: int, *, shared: bool = False) -> bytes:
    """Pickle dictionaries in dictionaries, without recursion."""
    return (
        b"\x80\x02}"
        + (b"2X\1\0\0\0a2sX\1\0\0\0bN0" if shared else b"")
        + b"X\1\0\0\0a}" * times
        + b"s" * times
        + b"."
    )


def doubled(times: int) -> bytes:
    tree: dict[str, Any] = {"a": np.zeros(1, np.float32)}
    for _ in range(times):
        tree = {"a": tree, "b": tree}
    return pickle.dumps(tree, 2)


def itself() -> bytes:
    tree: dict[str, Any] = {}
    tree["a"] = {"b": tree}
    return pickle.dumps(tree, 2)


def copies(calls: int) -> bytes:
    """Encode one long text many times."""
    one = tw.text("a" * 10_000) + b"q\x00" + b"0"
    call = tw.named("_codecs", "encode") + b"(h\x00" + tw.text("latin1") + b"tR"
    return b"\x80\x02" + one + b"(" + call * calls + b"l."


def dictionaries(calls: int) -> bytes:
    """Make one long dictionary many times."""
    pairs = b"](" + b"".join(b"](K" + bytes([i]) + b"K\1e" for i in range(250)) + b"eq\x000"
    call = tw.named("collections", "OrderedDict") + b"(h\x00tR"
    return b"\x80\x02" + pairs + b"(" + call * calls + b"l."


PICKLES: dict[str, tuple[bytes, str]] = {
    "memo": (b"\x80\x02}r\xff\xff\xff\x0f.", "holds no arrays by name"),
    "shared": (doubled(40), "shares its parts so often that they cannot be walked: save"),
    "itself": (itself(), "has a dictionary that holds itself: save the weights as .safetensors"),
    "deep": (nested(20_000), "has dictionaries more than 100 deep"),
    "deep key": (b"\x80\x02})" + b"\x85" * 100_000 + b"K\1s.", "whose keys are not names"),
    "bytes": (b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"a.", "damaged or cut off"),
    "frame": (b"\x80\x04\x95" + struct.pack("<Q", 1 << 40) + b"}.", "holds no arrays by name"),
    "number": (b"\x80\x02\x8b\xff\xff\xff\x7f1.", "damaged or cut off"),
    "copies": (copies(1000), "copies more than it holds"),
    "dictionaries": (dictionaries(1000), "copies more than it holds"),
    "nothing": (b"\x80\x02t.", "damaged or cut off"),
    "no end": (b"\x80\x02}", "damaged or cut off"),
    "changed": (b"\x80\x02" + tw.named("numpy", "dtype") + b"}b.", "could run code"),
}


@pytest.mark.parametrize("kind", PICKLES)
def test_pickles_that_ask_for_too_much(kind: str, tmp_path: Path) -> None:
    data, said = PICKLES[kind]
    refused(made(tmp_path / "w.pkl", data), said)


def test_a_pickled_array_of_another_size_is_refused(tmp_path: Path) -> None:
    data = pickle.dumps({"a": np.zeros(300, np.float32)}, 2).replace(b"M,\x01\x85", b"J\0\0\0@\x85"[:6], 1)
    assert b"J\0\0\0@\x85" in data
    refused(made(tmp_path / "w.pkl", data), "damaged")


def test_pickles_of_too_many_instructions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickles, "MOST_STEPS", 1000)
    refused(made(tmp_path / "w.pkl", b"\x80\x02(" + b"]" * 1000 + b"l."), "more than 1,000 instructions")


def test_parts_that_are_shared_now_and_then_are_read_at_both_places(tmp_path: Path) -> None:
    part = {"kernel": np.arange(3.0)}
    tensors = read_file(made(tmp_path / "w.pkl", pickle.dumps({"a": part, "b": {"c": part}}, 5))).tensors
    assert tensors.keys() == {"a/kernel", "b/c/kernel"}
    np.testing.assert_array_equal(tensors["b/c/kernel"], np.arange(3.0))


# PyTorch ----------------------------------------------------------------------------------

FOUR = np.arange(4, dtype="<f4").tobytes()
BYTES = tw.storage(16, "UntypedStorage", module="torch.storage")

TENSORS: dict[str, tuple[bytes, str]] = {
    "strided": (
        tw.tensor((1 << 14, 1 << 14), (0, 0)),
        "268,435,456 numbers, but stores only 4: save it as tensor",
    ),
    "beyond": (tw.tensor((2, 2), (2, 2)), "reaches beyond what is stored"),
    "offset": (tw.tensor((2,), (1,), 3), "reaches beyond what is stored"),
    "negative": (tw.tensor((2,), (-1,), 3), "damaged"),
    "stored": (tw.tensor((1 << 30,), (1,), of=tw.storage(1 << 30)), "1,073,741,824 numbers, but has"),
    "key": (tw.tensor((4,), (1,), of=tw.storage(4, key="../../etc/passwd")), "damaged"),
    "sparse": (
        tw.called("torch._utils", "_rebuild_sparse_tensor"),
        r"sparse tensors: save each as tensor.to_dense\(\)",
    ),
    "meta": (tw.called("torch._utils", "_rebuild_meta_tensor_no_storage"), "device meta, without numbers"),
    "quantized": (
        tw.called("torch._utils", "_rebuild_qtensor"),
        r"quantized tensors: save .* tensor.dequantize\(\)",
    ),
    "nested": (tw.called("torch._utils", "_rebuild_nested_tensor"), "nested tensors"),
    "complex": (
        tw.tensor((2,), (1,), of=tw.storage(2, "ComplexFloatStorage")),
        "numbers of torch.ComplexFloatStorage",
    ),
    "float8": (
        tw.tensor(
            (16,), (1,), of=BYTES, kind="_rebuild_tensor_v3", more=[tw.named("torch", "float8_e4m3fn")]
        ),
        "numbers of torch.float8_e4m3fn, which cannot be read: save them as torch.float32",
    ),
    "code": (
        tw.called("os", "system", tw.text("true")),
        r"\(it asks for os.system\), and is refused .* could run code: save",
    ),
    "bytearray": (tw.called("builtins", "bytearray", tw.number(1 << 40)), "could run code"),
    "a storage of its own": (tw.called("torch", "FloatStorage", tw.number(1 << 40)), "could run code"),
    "a tensor of its own": (tw.called("torch", "Tensor", tw.number(1 << 40)), "could run code"),
}


@pytest.mark.parametrize("kind", TENSORS)
def test_tensors_that_cannot_be_had(kind: str, tmp_path: Path) -> None:
    tree, said = TENSORS[kind]
    tree = tw.dictionary({"a": tree})
    refused(tw.zipped(tmp_path / "w.pt", tree, {"0": FOUR}), said)
    refused(tw.in_row(tmp_path / "w.pth", tree, {"0": (4, FOUR)}), said)


TREE = tw.dictionary({"a": tw.tensor((2, 2), (1, 2)), "b": tw.tensor((2,), (1,), 2), "n": tw.number(3)})


def test_tensors_are_read_without_pytorch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    wrapped = tw.dictionary(
        {"state_dict": TREE, "epoch": tw.number(1), "seen": tw.called("builtins", "set", b"]")}
    )
    for path in (
        tw.zipped(tmp_path / "a.pt", wrapped, {"0": FOUR}),
        tw.in_row(tmp_path / "b.pth", wrapped, {"0": (4, FOUR)}),
        tw.zipped(tmp_path / "c.pt", wrapped, {"0": np.arange(4, dtype=">f4").tobytes()}, order="big"),
    ):
        tensors = read_file(path).tensors
        assert tensors.keys() == {"a", "b"}
        np.testing.assert_array_equal(tensors["a"], [[0, 2], [1, 3]])
        np.testing.assert_array_equal(tensors["b"], [2, 3])


def test_a_part_of_a_storage_of_old(tmp_path: Path) -> None:
    part = tw.storage(4, "FloatStorage", "0", "torch", tw.row(tw.text("v"), tw.number(1), tw.number(2)))
    tree = tw.dictionary({"a": tw.tensor((2,), (1,), of=part)})
    np.testing.assert_array_equal(
        read_file(tw.in_row(tmp_path / "w.pth", tree, {"0": (4, FOUR)})).tensors["a"], [1, 2]
    )


def test_other_precisions_and_tensors_with_attributes(tmp_path: Path) -> None:
    half = tw.tensor((3,), (1,), of=tw.storage(8, "BFloat16Storage"))
    short = tw.tensor((8,), (1,), of=BYTES, kind="_rebuild_tensor_v3", more=[tw.named("torch", "uint16")])
    function = tw.named("torch._utils", "_rebuild_tensor_v2")
    arguments = tw.row(tw.storage(4), tw.number(0), tw.row(tw.number(4)), tw.row(tw.number(1)), b"\x89", b"N")
    typed = tw.called(
        "torch._tensor", "_rebuild_from_type_v2", function, tw.named("torch", "Tensor"), arguments, b"}"
    )
    tree = tw.dictionary({"half": half, "short": short, "typed": typed})
    tensors = read_file(tw.zipped(tmp_path / "w.pt", tree, {"0": FOUR})).tensors
    assert tensors["half"].dtype.name == "bfloat16" and tensors["short"].dtype == np.uint16
    np.testing.assert_array_equal(tensors["typed"], [0, 1, 2, 3])


def test_archives_that_pytorch_does_not_write(tmp_path: Path) -> None:
    refused(
        tw.zipped(tmp_path / "p.pt", TREE, {"0": bytes(MB)}, packed=True),
        "is a packed zip, which PyTorch does not write",
    )
    refused(tw.zipped(tmp_path / "i.pt", b"}2" + tw.text("model") + b"2s", {}), "damaged|no tensors by name")
    loop = b"}q\0" + tw.text("model") + b"h\0s"
    refused(tw.zipped(tmp_path / "l.pt", loop, {}), "holds no tensors by name")
    with zipfile.ZipFile(tmp_path / "s.pt", "w") as archive:
        for name in ("s/data.pkl", "s/code/__torch__.py", "s/constants.pkl"):
            archive.writestr(name, b"")
    refused(
        tmp_path / "s.pt",
        r"is TorchScript, a compiled program, .* torch.save\(torch.jit.load\('s.pt'\).state_dict",
    )


def test_one_part_that_is_stored_under_many_names(tmp_path: Path) -> None:
    """The directory of the archive lists one megabyte fifty times."""
    tensors = {f"t{i}": tw.tensor((MB // 4,), (1,), of=tw.storage(MB // 4, key=str(i))) for i in range(50)}
    path = tw.zipped(tmp_path / "w.pt", tw.dictionary(tensors), {"0": bytes(MB)})
    with zipfile.ZipFile(path, "a") as archive:
        first = archive.getinfo("archive/data/0")
        for i in range(1, 50):
            other = zipfile.ZipInfo(f"archive/data/{i}")
            other.header_offset, other.CRC = first.header_offset, first.CRC
            other.file_size = other.compress_size = MB
            archive.filelist.append(other)
            archive.NameToInfo[other.filename] = other
        archive._didModify = True  # type: ignore[attr-defined]
    refused(path, "damaged|several times")


# HDF5, and Keras --------------------------------------------------------------------------

Put = Callable[[Any, str], Any]


def keras_h5(
    path: Path, put: Put | None = None, entries: list[kf.Entry] | None = None, **settings: Any
) -> Path:
    """Write a model of one convolution and one dense layer, the first kernel by `put(group, name)`."""
    entries = [kf.inputs(8), kf.conv("c", 4), kf.layer("GlobalAveragePooling2D", "g"), kf.dense("d", 2)]
    entry = kf.model(entries)
    kf.legacy(path, entry, kf.random_arrays(entry, 8), **settings)
    if put is not None:
        with h5py.File(path, "r+") as file:
            group = file["model_weights/c"]
            del group["c/kernel:0"]
            put(group, "c/kernel:0")
    return path


SHAPE = (3, 3, 3, 4)


def elsewhere(group: Any) -> str:
    """Return another file, of numbers that nobody should see."""
    path = Path(group.file.filename).with_name("secret.h5")
    with h5py.File(path, "w") as file:
        file["kernel"] = np.full(SHAPE, 7, np.float32)
    return str(path)


def virtual(group: Any, name: str) -> None:
    layout = h5py.VirtualLayout(SHAPE, "f4")
    layout[...] = h5py.VirtualSource(elsewhere(group), "kernel", SHAPE)
    group.create_virtual_dataset(name, layout)


def packed_zeros(group: Any, name: str) -> None:
    """128 MB of zeros in 64 chunks, that are one packed chunk."""
    made = group.create_dataset(name, (64, 1 << 19), "f4", chunks=(1, 1 << 19), compression="gzip")
    chunk = zlib.compress(bytes(2 * MB), 9)
    for i in range(64):
        made.id.write_direct_chunk((i, 0), chunk)


def swollen(group: Any, name: str) -> None:
    """A chunk that unpacks to more than it has."""
    made = group.create_dataset(name, SHAPE, "f4", chunks=SHAPE, compression="gzip")
    made.id.write_direct_chunk((0, 0, 0, 0), zlib.compress(bytes(64 * MB), 9))


def aliased(group: Any, name: str) -> None:
    group[name] = np.zeros(SHAPE, np.float32)
    group["c/other:0"] = group[name]


PUTS: dict[str, tuple[Put, str]] = {
    "external storage": (
        lambda g, n: g.create_dataset(n, SHAPE, "f4", external=[(elsewhere(g), 0, 432)]),
        "keeps its numbers in another file",
    ),
    "external link": (
        lambda g, n: g.__setitem__(n, h5py.ExternalLink(elsewhere(g), "/kernel")),
        "is a link to another place",
    ),
    "soft link": (
        lambda g, n: g.__setitem__(n, h5py.SoftLink("/model_weights/d/d/kernel:0")),
        "is a link to another place",
    ),
    "virtual": (virtual, "keeps its numbers in another file"),
    "declared in chunks": (
        lambda g, n: g.create_dataset(n, (1 << 10,) * 3, "f4", chunks=(64, 64, 64)),
        "must have 4,294,967,296",
    ),
    "declared in one piece": (
        lambda g, n: g.create_dataset(n, (1 << 10,) * 3, "f4"),
        "must have 4,294,967,296 bytes",
    ),
    "declared and packed": (
        lambda g, n: g.create_dataset(n, (1 << 10,) * 3, "f4", chunks=(64,) * 3, compression="gzip"),
        "which its 0 packed bytes cannot hold",
    ),
    "packed zeros": (packed_zeros, "must have 134,217,728 bytes, which its .* packed bytes cannot hold"),
    "swollen": (swollen, "unpacks to more bytes than its shape needs"),
    "packed otherwise": (
        lambda g, n: g.create_dataset(n, data=np.zeros(SHAPE), compression="lzf"),
        "must be packed by gzip alone",
    ),
    "two names": (aliased, "found under two names"),
    "a circle": (lambda g, n: g.__setitem__(n, g.parent), "two names|a link"),
    "texts": (lambda g, n: g.create_dataset(n, (1 << 20,), h5py.string_dtype()), "not numbers of a network"),
    "nothing": (lambda g, n: g.create_dataset(n, data=h5py.Empty("f4")), "not numbers of a network"),
}


@pytest.mark.parametrize("kind", PUTS)
def test_datasets_that_are_not_in_the_file(kind: str, tmp_path: Path) -> None:
    put, said = PUTS[kind]
    refused(keras_h5(tmp_path / "m.h5", put), said)


@pytest.mark.parametrize("place", ["model_weights", "model_weights/c"])
def test_groups_that_are_not_in_the_file(place: str, tmp_path: Path) -> None:
    path, other = keras_h5(tmp_path / "m.h5"), keras_h5(tmp_path / "other.h5")
    with h5py.File(path, "r+") as file:
        del file[place]
        file[place] = h5py.ExternalLink(str(other), place)
    refused(path, "is a link to another place|no layer_names")
    with h5py.File(tmp_path / "m.weights.h5", "w") as file:
        file["layers/dense/vars"] = h5py.ExternalLink(str(other), "model_weights/d/d")
    refused(tmp_path / "m.weights.h5", "is a link to another place")


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "gzip"},
        {"compression": "gzip", "shuffle": True, "fletcher32": True},
        {"chunks": (2, 2, 2, 3)},
    ],
)
def test_what_is_packed_honestly_is_read(options: dict[str, Any], tmp_path: Path) -> None:
    kernel = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    path = keras_h5(tmp_path / "m.h5", lambda g, n: g.create_dataset(n, data=kernel, **options))
    np.testing.assert_array_equal(read_file(path).tensors["conv1/kernel"], kernel)


def test_too_many_groups_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5, "MOST", 50)
    path = keras_h5(tmp_path / "m.h5")
    with h5py.File(path, "r+") as file:
        for i in range(60):
            file["model_weights"].create_group(f"l{i}")
    refused(path, "more than 50 groups and arrays")


def test_a_heap_without_end_is_not_gone_through(tmp_path: Path) -> None:
    """HDF5 looks for its end for ever."""
    path = keras_h5(tmp_path / "m.h5")
    data = bytearray(path.read_bytes())
    place = data.index(b"GCOL")
    for length in (0, -1, 1 << 40):  # of an object that is free, or not
        for number in (0, 1):
            data[place + 16 : place + 32] = struct.pack("<H6xq", number, length)
            if (number, length) != (1, 0):
                refused(made(path, bytes(data)), "one of its heaps has no end: copy it again")


def test_a_description_that_is_no_text_is_not_read(tmp_path: Path) -> None:
    """HDF5 takes its bytes for places in memory, and the process ends."""
    path = keras_h5(tmp_path / "m.h5")
    data = bytearray(path.read_bytes())
    place = data.index(b"model_config") + 17
    assert data[place] == 1  # a text of any length
    data[place] = 0x8D
    refused(made(path, bytes(data)), "its model_config must be a text|damaged")
    for odd in ([b"{}", b"{}"], 7, h5py.Empty("f4")):
        with h5py.File(keras_h5(tmp_path / "m.h5"), "r+") as file:
            file.attrs["model_config"] = odd
        refused(path, "its model_config must be a text")


def described(folder: Path, entry: Any) -> Iterator[Path]:
    """Write a description into files of both kinds, without weights."""
    text = entry if isinstance(entry, bytes) else json.dumps(entry).encode()
    with h5py.File(folder / "m.h5", "w") as file:
        file.attrs["model_config"] = text.decode()
        file.create_group("model_weights").attrs["layer_names"] = [b"c"]
    yield folder / "m.h5"
    weights = io.BytesIO()
    with h5py.File(weights, "w") as file:
        file.create_group("layers")
    with zipfile.ZipFile(folder / "m.keras", "w") as archive:
        archive.writestr("config.json", text)
        archive.writestr("model.weights.h5", weights.getvalue())
    yield folder / "m.keras"


def chain(*, size: Any = 8, first: kf.Entry | None = None, **conv: Any) -> kf.Entry:
    layer = kf.conv("c", 4)
    layer["config"] |= conv
    return kf.model([first or kf.inputs(size), layer, kf.layer("Flatten", "f"), kf.dense("d", 2)])


def inside(times: int) -> kf.Entry:
    entry = chain()
    for i in range(times):
        entry = kf.model([entry], f"m{i}")
    return entry


def trunk(**odd: Any) -> kf.Entry:
    entry = kf.vgg_base((2, 2, 3, 3, 3), (3, 4, 5, 6, 7), 64)
    entry["config"]["layers"][1]["config"] |= odd
    return entry


ODD: dict[str, tuple[Any, str]] = {
    "20,000 layers": (
        kf.model([kf.inputs(8), *(kf.layer("ReLU", f"r{i}") for i in range(20_000)), kf.dense("d", 2)]),
        "more than 1000 layers",
    ),
    "20,000 layers that do nothing": (
        kf.model([kf.inputs(8), *(kf.layer("Dropout", f"r{i}") for i in range(20_000))]),
        "more than 1000 layers",
    ),
    "models in models": (inside(50), "more than 100 deep"),
    "lists in lists": (b"[" * 100_000, "more than 100 deep"),
    "no object": ([1, 2], "not have the layout of Keras"),
    "no layers": ({"config": {"layers": 7}}, "not have the layout of Keras"),
    "no configuration": (
        kf.model([{"class_name": "Conv2D", "config": {}}]),
        "must be Dense|the layout of Keras|without a name",
    ),
    "a number for a name": (chain(name=7), "layer without a name"),
    "a long name": (chain(name="n" * 10_000), "layer without a name"),
    "a fraction": (chain(filters=4.5), "features must be a whole number"),
    "a text": (chain(filters="4"), "features must be a whole number"),
    "nothing": (chain(filters=None), "features must be a whole number"),
    "none": (chain(filters=0), "features must be a whole number from 1"),
    "less than none": (chain(filters=-4), "features must be a whole number from 1"),
    "too many": (chain(filters=10**12), "features must be a whole number"),
    "no window": (chain(kernel_size=[]), "not have the layout of Keras"),
    "a window of none": (chain(kernel_size=[0, 0], padding="valid"), "window must be a whole number from 1"),
    "a stride of none": (chain(strides=[0, 0], padding="valid"), "stride must be a whole number from 1"),
    "a padding": (chain(padding="causal"), "is a convolution that cannot be read"),
    "channels first": (chain(data_format="channels_first"), "takes channels first"),
    "an activation": (chain(activation={"class_name": "x" * 1000}), "has the activation"),
    "large images": (chain(size=100_000), "at most 4096 pixels on a side"),
    "endless images": (
        b'{"config": {"layers": [{"class_name": "InputLayer", "config": {'
        b'"name": "i", "batch_shape": [null, 1e999, 2, 3]}}]}}',
        "the layout of Keras",
    ),
    "bands": (
        chain(first=kf.layer("InputLayer", "i", batch_shape=[None, 8, 8, "x" * 1000])),
        "only RGB can be read",
    ),
    "a trunk with tanh": (trunk(activation="tanh"), "has the activation 'tanh'"),
    "a trunk with steps": (trunk(strides=[2, 2], padding="valid"), "are not those of VGG16"),
    "a trunk of wide windows": (trunk(kernel_size=[5, 5]), "are not those of VGG16"),
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_descriptions(kind: str, tmp_path: Path) -> None:
    entry, said = ODD[kind]
    for path in described(tmp_path, entry):
        refused(path, said)


def test_a_bias_that_should_be_there_is_missed(tmp_path: Path) -> None:
    def no_bias(group: Any, name: str) -> None:
        group[name] = np.zeros(SHAPE, np.float32)
        del group["c/bias:0"]

    path = keras_h5(tmp_path / "m.h5", no_bias)
    with pytest.raises(WeightsError, match=r"missing: conv1\.bias"):
        load(path)


def test_archives_of_keras_that_unpack_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "FREE", MB)
    for bomb in ("model.weights.h5", "config.json"):
        path = tmp_path / f"{bomb}.keras"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in ("config.json", "model.weights.h5"):
                archive.writestr(name, bytes(20 * MB) if name == bomb else json.dumps(chain()))
        refused(path, "unpacks to 20,97.* bytes, more than weights can")


# Safetensors, and our records -------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_a_header_whose_length_begins_as_a_pickle_does(suffix: str, tmp_path: Path) -> None:
    raw = json.dumps({"conv1.bias": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    raw += b" " * (0x180 - len(raw))
    path = made(tmp_path / f"w.{suffix}", struct.pack("<Q", len(raw)) + raw + np.ones(2, "<f4").tobytes())
    assert path.read_bytes()[:1] == b"\x80"
    np.testing.assert_array_equal(read_file(path).tensors["conv1.bias"], [1, 1])


def header(tensors: dict[str, Any], body: bytes) -> bytes:
    raw = json.dumps(tensors).encode()
    return struct.pack("<Q", len(raw)) + raw + body


@pytest.mark.parametrize("code", ["F8_E4M3", "F8_E5M2", "F8_E8M0", "C64"])
def test_precisions_that_numpy_has_not(code: str, tmp_path: Path) -> None:
    entry = {"dtype": code, "shape": [8 // (8 if code == "C64" else 1)], "data_offsets": [0, 8]}
    path = made(tmp_path / "w.safetensors", header({"a": entry}, bytes(8)))
    refused(
        path,
        rf"a has the precision {code}, which cannot be read: save it as F32 or F16|damaged or is not safe",
    )
    with pytest.raises(WeightsError, match=r"precision|damaged"):
        load_stylizer(path)


def test_safetensors_that_say_what_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = {"dtype": "F32", "shape": [1 << 30], "data_offsets": [0, 1 << 32]}
    refused(made(tmp_path / "a.safetensors", header({"a": entry}, bytes(8))), "damaged or is not safetensors")
    refused(
        made(tmp_path / "b.safetensors", struct.pack("<Q", 1 << 40) + b"{}"), "damaged or is not safetensors"
    )
    save_file({"a" * 10_000: np.zeros(1)}, tmp_path / "c.safetensors")
    refused(tmp_path / "c.safetensors", "name has 10,000 characters")
    monkeypatch.setattr(stored, "MOST", 50)
    save_file({str(i): np.zeros(0) for i in range(51)}, tmp_path / "d.safetensors")
    refused(tmp_path / "d.safetensors", "holds 51 arrays, more than any network")


def recorded(path: Path, change: Callable[[dict[str, Any]], Any], **fields: Any) -> Path:
    record = Weights("squeezenet1_1", SqueezeNetConfig(2), *PIXELS["imagenet"], **fields)
    said = json.loads(to_json(record))
    text = change(said) or said
    path.write_bytes(
        save_tensors(
            {"conv1.bias": np.zeros(2)}, {FORMAT: text if isinstance(text, str) else json.dumps(text)}
        )
    )
    return path


def family(family: str, **fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda said: said.update(config={"family": family, **fields})


FLAT = [{"GlobalMean": []}, {"Dense": [2]}]
RECORDS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "10^7 layers": (family("vgg", depths=[1, 1, 10**7, 1, 1]), "10,000,004 layers, more than 1,000"),
    "10^7 blocks": (
        family("resnet", depths=[10**7, 1, 1, 1], bottleneck=True),
        "10,000,003 layers, more than 1,000",
    ),
    "10^5 layers": (
        family("sequential", stack=[{"ReLU": []}] * 10**5, input_shape=[8, 8, 3]),
        "100,000 layers, more",
    ),
    "a text for depths": (family("vgg", depths="many"), "depths must be a list of a whole number"),
    "many blocks": (family("vgg", depths=[1] * 100, widths=[1] * 100), "leave nothing of an image"),
    "lengths that differ": (family("vgg", depths=[1, 1]), "cannot be built"),
    "wide": (family("vgg", depths=[1, 1, 1, 1, 1], hidden=10**12), "hidden must be a whole number"),
    "no classes": (family("squeezenet", num_classes=0), "num_classes must be a whole number from 1"),
    "true classes": (family("squeezenet", num_classes=True), "num_classes must be a whole number"),
    "padding": (
        family("sequential", stack=[{"Conv": [1, 3, 1, 10**6, False]}, *FLAT], input_shape=[8, 8, 3]),
        "a padding of 1000000",
    ),
    "no stride": (
        family("sequential", stack=[{"MaxPool": [2, 0]}, *FLAT], input_shape=[8, 8, 3]),
        "stride must be",
    ),
    "a class for a layer": (
        family("sequential", stack=[7], input_shape=[8, 8, 3]),
        "stack must be a list of",
    ),
    "layers that do not fit": (
        family("sequential", stack=[{"Dense": [2]}, *FLAT], input_shape=[8, 8, 3]),
        "cannot be built",
    ),
    "large images": (lambda said: said.update(input_size=[10**6, 10**6]), "at most 4096 pixels"),
    "images within": (family("sequential", stack=FLAT, input_shape=[10**6, 10**6, 3]), "at most 4096 pixels"),
    "no deviation": (lambda said: said.update(std=[0.2, 0.0, 0.2]), "std must be above 0"),
    "endless": (
        lambda said: json.dumps(said).replace("0.485", "1e999"),
        "mean must be 3 of a number or nothing",
    ),
    "no mean": (lambda said: said.update(mean=[0.5]), "mean must be 3 of a number or nothing"),
    "a number for a label": (lambda said: said.update(labels=["a", 7]), "labels must be a list of a text"),
    "labels of others": (
        lambda said: said.update(labels=["a", "b", "c"]),
        "names 3 classes, but the network has 2",
    ),
    "a list": (lambda said: "[]", "record is damaged"),
    "lists in lists": (lambda said: "[" * 10**5, "more than 100 deep"),
    "long": (lambda said: " " * 9_000_000 + "{}", "9,000,002 characters, more than"),
    "a family that is none": (family("os.system"), "record is damaged"),
    "a family that is a list": (lambda said: said.update(config={"family": []}), "record is damaged"),
    "tensors that are not there": (lambda said: None, "these weights do not fit the network"),
}


@pytest.mark.parametrize("kind", RECORDS)
def test_records_of_what_is_not_in_the_file(kind: str, tmp_path: Path) -> None:
    change, said = RECORDS[kind]
    path = recorded(tmp_path / "w.safetensors", change)
    with pytest.raises(WeightsError, match=said) as caught:
        convert(path, tmp_path / "out.safetensors")
    assert kind.startswith("tensors") or "\n" not in str(caught.value)
    assert not (tmp_path / "out.safetensors").exists()


def test_nothing_is_read_before_it_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shapes are compared first: an array of the wrong shape is never made."""

    def read(array: stored.Stored) -> np.ndarray:
        raise AssertionError(f"an array of the shape {array.shape} is read")

    monkeypatch.setattr(stored.Stored, "read", property(lambda array: lambda: read(array)))
    save_file({"features.0.bias": np.zeros(7)}, tmp_path / "w.safetensors")
    for path in (
        tmp_path / "w.safetensors",
        tw.zipped(tmp_path / "w.pt", tw.dictionary({"features.0.bias": tw.tensor((4,), (1,))}), {"0": FOUR}),
    ):
        with pytest.raises(WeightsError, match=r"shape: conv1\.bias .* must be \(64,\), not \([47],\)"):
            load("squeezenet1_1", path)
    path = keras_h5(tmp_path / "m.h5", lambda group, name: group.__setitem__(name, np.zeros((3, 3, 3, 5))))
    with pytest.raises(WeightsError, match=r"shape: conv1\.kernel .* must be \(3, 3, 3, 4\)"):
        load(path)
    record = {"styles": ["a"], "widths": [3, 4, 5], "blocks": 1}
    said = json.dumps({"config": record, "pictures": [], "license": "", "origin": ""})
    made(tmp_path / "s.safetensors", save_tensors({"kernel": np.zeros(1)}, {STYLIZER: said}))
    with pytest.raises(WeightsError, match=r"shape: kernel must be \(9, 9, 3, 3\)"):
        load_stylizer(tmp_path / "s.safetensors")


STYLES: dict[str, tuple[dict[str, Any], str]] = {
    "blocks": ({"blocks": 10**7}, "10,000,000 blocks, more than 1,000"),
    "wide": ({"widths": [10**12, 1, 1]}, "widths must be a list of a whole number"),
    "texts": ({"widths": ["a", "b", "c"]}, "record is damaged"),
    "styles": ({"styles": [["a"], ["b"]]}, "record is damaged"),
    "a number for styles": ({"styles": 7}, "record is damaged"),
}


@pytest.mark.parametrize("kind", STYLES)
def test_stylizers_that_are_none(kind: str, tmp_path: Path) -> None:
    fields, said = STYLES[kind]
    config = {"styles": ["a"], "widths": [3, 4, 5], "blocks": 1} | fields
    record = {"config": config, "pictures": [], "license": "", "origin": ""}
    path = made(
        tmp_path / "w.safetensors", save_tensors({"kernel": np.zeros(1)}, {STYLIZER: json.dumps(record)})
    )
    with pytest.raises(WeightsError, match=said) as caught:
        load_stylizer(path)
    assert "\n" not in str(caught.value)


# What is no file of weights ---------------------------------------------------------------

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 102530333\n"


@pytest.mark.parametrize("suffix", ["pth", "safetensors", "h5", "keras", "onnx", "pkl"])
def test_what_stands_for_a_file_is_told(suffix: str, tmp_path: Path) -> None:
    path = made(tmp_path / f"w.{suffix}", POINTER)
    refused(path, "is a Git LFS pointer, not the file of 102,530,333 bytes .* run `git lfs pull`")
    with pytest.raises(WeightsError, match="is a Git LFS pointer"):
        load_stylizer(path)
    refused(made(path, b"\n<!DOCTYPE html>\n<html>"), "is a web page")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "w.safetensors")
    refused(tmp_path / "w.safetensors", "it is a pipe or a device, not a file")
    with pytest.raises(WeightsError, match="a pipe or a device"):
        load_stylizer(tmp_path / "w.safetensors")


def test_what_a_repository_says_of_itself_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading: Any = sys.modules["vizsynth.models.io.load"]
    path = tmp_path / "model.safetensors"
    save_file({"conv1.bias": np.zeros(2)}, path)
    for said in (
        {"architecture": ["squeezenet1_1"]},
        {"architecture": "squeezenet1_1", "pretrained_cfg": [1]},
        {"architecture": "squeezenet1_1", "pretrained_cfg": {"mean": 7, "std": 8}},
        {"architecture": "squeezenet1_1", "pretrained_cfg": {"mean": "abc", "std": "abc"}},
        {"architecture": "squeezenet1_1", "pretrained_cfg": {"input_size": [3, 10**6, 10**6]}},
        {"architecture": "squeezenet1_1", "label_names": 7},
    ):
        monkeypatch.setattr(loading, "download", lambda name, said=said: (path, said))
        with pytest.raises(
            ValueError, match=r"does not say which network|config.json|described as no network is"
        ):
            load("hf:owner/name")
    for text in (b"[]", b"{", b"[" * 10**5, b"\xff"):
        (tmp_path / "config.json").write_bytes(text)
        with pytest.raises(WeightsError, match=r"its config.json is damaged"):
            hub._said(tmp_path / "config.json", "hf:owner/name")


# ONNX -------------------------------------------------------------------------------------


def field(number: int, value: bytes) -> bytes:
    size, length = b"", len(value)
    while True:
        size += bytes([(length & 0x7F) | (0x80 if length > 0x7F else 0)])
        length >>= 7
        if not length:
            return bytes([number << 3 | 2]) + size + value


def test_onnx_of_what_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx = pytest.importorskip("onnx")
    good = onnx.numpy_helper.from_array(np.arange(4, dtype=np.float32), "w").SerializeToString()
    graph = field(5, good)
    path = tmp_path / "m.onnx"
    np.testing.assert_array_equal(read_file(made(path, field(7, graph))).tensors["w"], np.arange(4))
    for part, said in (
        (b"\x08\x80\x80\x80\x80\x04" + good, "says that it has the shape"),
        (good + field(13, b""), "keeps its weights in other files"),
        (good + field(6, b"text"), "holds texts among its weights"),
        (good + b"\x10\x11", "precision float8|damaged"),
        (b"\xff" * 20, "damaged"),
    ):
        refused(made(path, field(7, field(5, part))), said)
    refused(made(path, field(7, graph + graph)), "two arrays called w")
    # Nodes without anything: to ONNX's own reader each is an object.
    tensors = read_file(made(path, field(7, graph + field(1, b"\x2a\x00" * 1_000_000)))).tensors
    assert tensors.keys() == {"w"}
    monkeypatch.setattr(onnx_files, "MOST_FIELDS", 1000)
    refused(made(path, field(7, graph + b"\x0a\x00" * 2000)), "more than 1,000 fields")


# All of them, bent ------------------------------------------------------------------------


def bent(data: bytes, seed: int) -> bytes:
    random = np.random.default_rng(seed)
    found = bytearray(data)
    for place in random.integers(0, len(found), int(random.integers(1, 4))):
        found[place] = int(random.integers(0, 256))
    return bytes(found[: int(random.integers(1, len(found)))] if seed % 5 == 0 else found)


def samples(folder: Path) -> dict[str, bytes]:
    entry = chain()
    paths = [
        keras_h5(folder / "a.h5"),
        kf.archive(folder / "a.keras", entry, kf.random_arrays(entry, 8)),
        tw.zipped(folder / "a.pt", TREE, {"0": FOUR}),
        tw.in_row(folder / "a.pth", TREE, {"0": (4, FOUR)}),
        made(folder / "a.pkl", pickle.dumps({"a": {"b": np.arange(3.0)}}, 4)),
        made(folder / "b.pkl", pickle.dumps({"a": np.arange(3.0), "n": [1, 2]}, 2)),
        recorded(folder / "a.safetensors", lambda said: None),
    ]
    return {path.name: path.read_bytes() for path in paths}


def test_bent_files_are_read_or_refused(tmp_path: Path) -> None:
    count = int(os.environ.get("VIZSYNTH_BENT", "40"))
    for name, data in samples(tmp_path).items():
        for seed in range(count):
            path = made(tmp_path / f"bent-{name}", bent(data, seed))
            try:
                convert(path, tmp_path / "out.safetensors")
            except ValueError as error:  # WeightsError, or that no network is named
                assert len(str(error)) < 5000, f"{name}, seed {seed}"
