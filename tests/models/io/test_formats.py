import collections
import marshal
import os
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import jax.numpy as jnp
import keras_files as kf
import numpy as np
import pytest
from safetensors.numpy import save_file

from vizsynth.models import load
from vizsynth.models.io.formats import read_file
from vizsynth.models.io.names import layer_name, translate
from vizsynth.models.io.weights import PIXELS, WeightsError, fit, paths, skeleton
from vizsynth.models.vgg import VGGConfig
from vizsynth.taps import run

DEPTHS, WIDTHS = (2, 2, 3, 3, 3), (3, 4, 5, 6, 7)
SIZE = 64

Writer = Callable[[Path, kf.Entry, kf.Arrays], Path]
WHOLE: dict[str, Writer] = {
    "h5": lambda folder, entry, arrays: kf.legacy(folder / "m.h5", entry, arrays),
    "keras": lambda folder, entry, arrays: kf.archive(folder / "m.keras", entry, arrays),
}


def nested(kind: str = "Model") -> kf.Entry:
    """Make the model of a VGG16 base with a small head, that tells cats from dogs."""
    base = kf.vgg_base(DEPTHS, WIDTHS, SIZE, kind=kind)
    head = [
        kf.layer("Flatten", "flatten_1"),
        kf.dense("dense_1", 9, "relu"),
        kf.layer("Dropout", "dropout_1", rate=0.5),
        kf.dense("dense_2", 1, "sigmoid"),
    ]
    return kf.model([base, *head])


def images(n: int = 2, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(5).uniform(size=(n, size, size, 3)).astype(np.float32)


def refused(path: Path, match: str) -> None:
    with pytest.raises(WeightsError, match=match) as caught:
        read_file(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["Model", "Functional"])
@pytest.mark.parametrize("write", WHOLE.values(), ids=WHOLE)
def test_a_nested_model_predicts_what_keras_does_layer_by_layer(
    kind: str, write: Writer, tmp_path: Path
) -> None:
    entry = nested(kind)
    arrays = kf.random_arrays(entry, SIZE)
    net = load(write(tmp_path, entry, arrays))
    x = images()
    wanted = kf.predict(entry, arrays, x)
    pairs = {
        f"conv{b}_{i}": f"block{b}_conv{i}:linear" for b, d in enumerate(DEPTHS, 1) for i in range(1, d + 1)
    }
    pairs |= {name.replace("conv", "relu"): theirs[:-7] for name, theirs in pairs.items()}
    pairs |= {f"pool{b}": f"block{b}_pool" for b in range(1, 6)}
    pairs |= {
        "flatten0": "flatten_1",
        "dense1": "dense_1:linear",
        "relu1": "dense_1",
        "logits": "dense_2:linear",
    }
    assert pairs.keys() == set(net.layers)
    _, found = run(net, jnp.asarray(x), tuple(pairs))
    for ours, theirs in pairs.items():
        np.testing.assert_allclose(found[ours], wanted[theirs], rtol=2e-4, atol=2e-5, err_msg=ours)
    sigmoid = 1 / (1 + np.exp(-np.asarray(found["logits"])))
    np.testing.assert_allclose(sigmoid, wanted["dense_2"], atol=1e-5)
    assert net.num_classes == 1 and net.standardize is None
    assert net.record.network == "vgg16" and net.record.input_size == (SIZE, SIZE)
    assert layer_name(net, "vgg16/block5_conv3") == "conv5_3"


@pytest.mark.parametrize("write", WHOLE.values(), ids=WHOLE)
def test_a_model_whose_base_is_not_nested_is_the_same(write: Writer, tmp_path: Path) -> None:
    layers = [
        kf.inputs(SIZE),
        *kf.vgg_blocks((2, 2, 4, 4, 4), WIDTHS),
        kf.layer("GlobalAveragePooling2D", "gap"),
        kf.dense("out", 3, "softmax"),
    ]
    entry = kf.model(layers, kind="Functional")
    arrays = kf.random_arrays(entry, SIZE)
    net = load(write(tmp_path, entry, arrays))
    assert net.record.network == "vgg19" and net.layers[-2:] == ("mean0", "logits")
    for size in (SIZE, 96):  # a mean takes any size
        x = images(size=size)
        wanted = kf.predict(entry, arrays, x)["out:linear"]
        np.testing.assert_allclose(net(jnp.asarray(x)), wanted, rtol=2e-4, atol=2e-5)


def with_top(size: int = SIZE) -> kf.Entry:
    layers = [
        kf.inputs(size),
        *kf.vgg_blocks(DEPTHS, WIDTHS),
        kf.layer("Flatten", "flatten"),
        kf.dense("fc1", 8, "relu"),
        kf.dense("fc2", 8, "relu"),
        kf.dense("predictions", 11, "softmax"),
    ]
    return kf.model(layers, "vgg16", "Functional")


@pytest.mark.parametrize("write", WHOLE.values(), ids=WHOLE)
def test_keras_own_vgg16_takes_bgr_without_its_mean(write: Writer, tmp_path: Path) -> None:
    entry = with_top()
    arrays = kf.random_arrays(entry, SIZE)
    net = load("vgg16", weights=write(tmp_path, entry, arrays))
    x = images()
    prepared = x[..., ::-1] * 255 - np.array([103.939, 116.779, 123.68])
    wanted = kf.predict(entry, arrays, prepared)
    _, found = run(net, jnp.asarray(x), ("conv1_1", "relu5_3", "relu6", "relu7", "logits"))
    theirs = ("block1_conv1:linear", "block5_conv3", "fc1", "fc2", "predictions:linear")
    for ours, name in zip(found, theirs, strict=True):
        scale = np.abs(wanted[name]).max()
        np.testing.assert_allclose(found[ours] / scale, wanted[name] / scale, atol=2e-5, err_msg=ours)
    assert net.record.channel_order == "BGR" and net.record.pixel_range == (0, 255)


def test_the_preprocessing_can_be_said(tmp_path: Path) -> None:
    entry = nested()
    arrays = kf.random_arrays(entry, SIZE)
    path = kf.legacy(tmp_path / "m.h5", entry, arrays)
    x = images()
    for name, prepared in (
        ("unit", x),
        ("symmetric", 2 * x - 1),
        ("caffe", x[..., ::-1] * 255 - np.array([103.939, 116.779, 123.68])),
        ("imagenet", (x - np.array(PIXELS["imagenet"].mean)) / np.array(PIXELS["imagenet"].std)),
    ):
        net = load(path, preprocessing=name)
        wanted = kf.predict(entry, arrays, prepared)["dense_2:linear"]
        np.testing.assert_allclose(net(jnp.asarray(x)), wanted, rtol=1e-3, atol=1e-4, err_msg=name)
    with pytest.raises(ValueError, match="preprocessing must be one of imagenet, caffe, unit, symmetric"):
        load(path, preprocessing="tf")


def test_a_rescaling_layer_says_the_preprocessing(tmp_path: Path) -> None:
    rescaling = kf.layer("Rescaling", "rescaling", scale=1 / 127.5, offset=-1)
    layers = [kf.inputs(16), rescaling, kf.conv("c", 4), kf.layer("Flatten", "f"), kf.dense("d", 2)]
    entry = kf.model(layers)
    arrays = kf.random_arrays(entry, 16)
    net = load(kf.archive(tmp_path / "m.keras", entry, arrays))
    x = images(size=16)
    np.testing.assert_allclose(net(jnp.asarray(x)), kf.predict(entry, arrays, 2 * x - 1)["d"], atol=1e-4)


@pytest.mark.parametrize("write", WHOLE.values(), ids=WHOLE)
def test_any_chain_of_layers_becomes_a_sequential(write: Writer, tmp_path: Path) -> None:
    layers = [
        kf.conv("conv2d", 4, 5, padding="valid", batch_input_shape=[None, 32, 32, 3]),
        kf.pool("max_pooling2d"),
        kf.conv("conv2d_1", 6, 3, activation="linear"),
        kf.layer("ReLU", "re_lu"),
        kf.pool("average_pooling2d", "AveragePooling2D"),
        kf.layer("Flatten", "flatten"),
        kf.dense("dense", 8, "relu"),
        kf.dense("dense_1", 3, "softmax"),
    ]
    entry = kf.model(layers)
    arrays = kf.random_arrays(entry, 32)
    net = load(write(tmp_path, entry, arrays))
    x = images(size=32)
    wanted = kf.predict(entry, arrays, x)
    relu = np.maximum(wanted["conv2d_1"], 0)
    n, h, w, c = relu.shape
    pooled = relu.reshape(n, h // 2, 2, w // 2, 2, c).mean((2, 4)).reshape(n, -1)
    hidden = np.maximum(pooled @ arrays["dense"][0] + arrays["dense"][1], 0)
    logits = hidden @ arrays["dense_1"][0] + arrays["dense_1"][1]
    np.testing.assert_allclose(net(jnp.asarray(x)), logits, rtol=1e-4, atol=1e-5)
    assert net.layers == (
        "conv1", "relu1", "pool1", "conv2", "relu2", "pool2", "flatten2", "dense3", "relu3", "logits",
    )  # fmt: skip


def test_convolutions_without_bias_are_known(tmp_path: Path) -> None:
    layers = [kf.inputs(16), kf.conv("c", 4, use_bias=False), kf.layer("Flatten", "f"), kf.dense("d", 2)]
    entry = kf.model(layers)
    arrays = kf.random_arrays(entry, 16)
    zero = np.zeros(4, np.float32)
    path = kf.legacy(tmp_path / "m.h5", entry, arrays | {"c": arrays["c"][:1]})
    x = images(size=16)
    wanted = kf.predict(entry, arrays | {"c": [arrays["c"][0], zero]}, x)["d"]
    np.testing.assert_allclose(load(path)(jnp.asarray(x)), wanted, atol=1e-4)


def weights_only(tmp_path: Path, suffix: str = "") -> dict[str, Path]:
    entry = with_top()
    arrays = kf.random_arrays(entry, SIZE)
    kf.numbered(tmp_path / "m.weights.h5", entry, arrays)
    return {
        "legacy": kf.legacy(tmp_path / "m.h5", entry, arrays, weights_only=True, suffix=suffix),
        "numbered": tmp_path / "m.weights.h5",
    }


@pytest.mark.parametrize("suffix", ["", "_1"])  # a second model in one session numbers its variables
@pytest.mark.parametrize("kind", ["legacy", "numbered"])
def test_weights_without_their_model_are_read_by_name_or_number(
    kind: str, suffix: str, tmp_path: Path
) -> None:
    config = VGGConfig(DEPTHS, False, 1000, WIDTHS, hidden=8, head_size=(2, 2))
    arrays = kf.random_arrays(with_top(), SIZE)
    contents = read_file(weights_only(tmp_path, suffix)[kind])
    assert contents.model is None
    found = translate(contents.tensors, config)
    assert found.config.num_classes == 11 and found.dialect.preprocessing == "caffe"
    net = fit(skeleton(found.config), found.arrays)
    np.testing.assert_array_equal(net.conv5_3.kernel[...], arrays["block5_conv3"][0])
    np.testing.assert_array_equal(net.fc8.bias[...], arrays["predictions"][1])
    assert found.arrays.keys() == paths(net).keys()


def test_the_oldest_names_of_keras_are_known(tmp_path: Path) -> None:
    kernel, bias = np.ones((3, 3, 3, 2), np.float32), np.zeros(2, np.float32)
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file.attrs["layer_names"] = [b"input_1", b"block1_conv1"]
        file.create_group("input_1").attrs["weight_names"] = []
        group = file.create_group("block1_conv1")
        group.attrs["weight_names"] = [b"block1_conv1_W_1:0", b"block1_conv1_b_1:0"]
        group["block1_conv1_W_1:0"], group["block1_conv1_b_1:0"] = kernel, bias
    tensors = read_file(tmp_path / "old.h5").tensors
    assert {name: x.shape for name, x in tensors.items()} == {
        "block1_conv1/kernel": kernel.shape,
        "block1_conv1/bias": bias.shape,
    }


def test_names_that_are_split_over_attributes_are_joined(tmp_path: Path) -> None:
    entry = with_top()
    path = kf.legacy(tmp_path / "m.h5", entry, kf.random_arrays(entry, SIZE), weights_only=True)
    before = read_file(path).tensors.keys()
    with h5py.File(path, "r+") as file:
        names = list(file.attrs["layer_names"])
        del file.attrs["layer_names"]
        file.attrs["layer_names0"], file.attrs["layer_names1"] = names[:7], names[7:]
    assert read_file(path).tensors.keys() == before


def branching() -> kf.Entry:
    layers = [kf.inputs(16), kf.conv("a", 4), kf.conv("b", 4), kf.layer("Flatten", "f"), kf.dense("d", 2)]
    entry = kf.model(layers, kind="Functional")
    entry["config"]["layers"][3]["inbound_nodes"] = [[["a", 0, 0, {}], ["b", 0, 0, {}]]]
    return entry


def changed(layer: kf.Entry) -> kf.Entry:
    return kf.model([kf.inputs(16), layer, kf.layer("Flatten", "f"), kf.dense("d", 2)])


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (branching(), "'f' does not follow 'b' alone"),
        (changed(kf.conv("c", 4, activation="tanh")), "'c' has the activation 'tanh'"),
        (changed(kf.conv("c", 4, strides=[2, 2])), "'c' is a convolution that cannot be read"),
        (changed(kf.conv("c", 4, dilation_rate=[2, 2])), "'c' is a convolution that cannot be read"),
        (changed(kf.layer("BatchNormalization", "bn")), "'bn' is a BatchNormalization, which cannot be read"),
        (kf.model([kf.inputs(16), kf.conv("c", 4)]), "last layer must be Dense"),
        (kf.model([kf.inputs(None), kf.conv("c", 4), kf.dense("d", 2)]), "the size of its images"),
    ],
)
def test_models_that_cannot_be_had_are_refused(entry: kf.Entry, said: str, tmp_path: Path) -> None:
    for path in (kf.legacy(tmp_path / "m.h5", entry, {}), kf.archive(tmp_path / "m.keras", entry, {})):
        refused(path, said)


def test_code_in_a_keras_model_is_refused_and_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    code = marshal.dumps(compile(f"open({str(marker)!r}, 'w')", "<lambda>", "eval"))
    entry = changed(kf.layer("Lambda", "l", function=[code.hex(), None, None]))
    refused(kf.legacy(tmp_path / "m.h5", entry, {}), "'l' is a Lambda, which cannot be read")
    assert not marker.exists()


def cut(path: Path, keep: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    return path


@pytest.mark.parametrize("keep", [0.02, 0.5, 0.95])
def test_cut_files_are_refused_in_one_line(keep: float, tmp_path: Path) -> None:
    entry = nested()
    arrays = kf.random_arrays(entry, SIZE)
    refused(cut(kf.legacy(tmp_path / "m.h5", entry, arrays), keep), "damaged|cut off")
    refused(cut(kf.archive(tmp_path / "m.keras", entry, arrays), keep), "damaged|cut off")
    save_file({"a": np.zeros(1000)}, tmp_path / "m.safetensors")
    refused(cut(tmp_path / "m.safetensors", keep), "damaged")
    (tmp_path / "m.pkl").write_bytes(pickle.dumps({"a": np.zeros(1000)}, protocol=3))
    refused(cut(tmp_path / "m.pkl", keep), "damaged")


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("config.json", "{")
        file.writestr("model.weights.h5", b"no hdf5")
    refused(path, "not have the layout of Keras")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "this file is empty"),
        (b"hello world, these are no weights", "holds no weights"),
        (b"\x80", "damaged"),
    ],
)
def test_other_files_are_refused(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "m.pth").write_bytes(content)
    refused(tmp_path / "m.pth", said)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    refused(tmp_path / "none.h5", "No such file")
    refused(tmp_path, "Is a directory")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as file:
        file.writestr("a.txt", "a")
    refused(tmp_path / "photos.zip", "an archive without weights")


class Payload:
    """Runs a command when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any):
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("how", ["system", "eval", "getattr", "nested"])
def test_a_pickle_that_would_run_code_is_refused_and_not_run(how: str, protocol: int, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    command = f"touch {marker}"
    payload: Any = {
        "system": Payload(os.system, command),
        "eval": Payload(eval, f"__import__('os').mkdir({str(marker)!r})"),
        "getattr": Payload(getattr, Payload(__import__, "os"), "system"),
        "nested": {"weights": np.zeros(3), "meta": [Payload(os.system, command)]},
    }[how]
    data = pickle.dumps(payload, protocol=protocol)
    path = tmp_path / "weights.pkl"
    path.write_bytes(data)
    refused(path, r"could run code \(it asks for .*\): save the weights as \.safetensors")
    assert not marker.exists()
    if how != "getattr":
        pickle.loads(data)
        assert marker.exists()  # so the payload was one


def test_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps({"a": np.array([1, "x"], dtype=object)}, protocol=3))
    refused(path, "could run code|damaged")


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_pickled_arrays_are_read(protocol: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tree = {
        "VGG16_0": {"Conv_0": {"kernel": rng.normal(size=(3, 3, 3, 2)).astype(np.float32)}},
        "fortran": np.asfortranarray(rng.normal(size=(4, 5))),
        "big": np.arange(3, dtype=">i4"),
        "half": np.ones((), np.float16),
    }
    (tmp_path / "w.ckpt").write_bytes(pickle.dumps(tree, protocol=protocol))
    found = read_file(tmp_path / "w.ckpt").tensors
    assert found.keys() == {"VGG16_0/Conv_0/kernel", "fortran", "big", "half"}
    np.testing.assert_array_equal(found["VGG16_0/Conv_0/kernel"], tree["VGG16_0"]["Conv_0"]["kernel"])
    for name in ("fortran", "big", "half"):
        np.testing.assert_array_equal(found[name], tree[name])


def test_an_ordered_dict_is_a_dict(tmp_path: Path) -> None:
    tree = collections.OrderedDict(a=np.ones(2))
    (tmp_path / "w.ckpt").write_bytes(pickle.dumps(tree, protocol=4))
    np.testing.assert_array_equal(read_file(tmp_path / "w.ckpt").tensors["a"], np.ones(2))


def test_onnx_holds_the_trunk_of_keras_vgg(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    config = VGGConfig(DEPTHS, False, 1000, WIDTHS)
    entry = kf.vgg_base(DEPTHS, WIDTHS, SIZE)
    arrays = kf.random_arrays(entry, SIZE)
    tensors = {"functional_1/dense_1/Cast/ReadVariableOp:0": np.zeros((2, 2), np.float32)}
    for name, (kernel, bias) in arrays.items():
        tensors[f"functional_1/{name}_1/convolution/ReadVariableOp:0"] = kernel.transpose(3, 2, 0, 1)
        tensors[f"functional_1/{name}_1/Squeeze:0"] = bias
    initializers = [onnx.numpy_helper.from_array(x.copy(), name) for name, x in tensors.items()]
    model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], initializers))
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    found = translate(read_file(path).tensors, config)
    assert found.config.num_classes is None and found.dialect.preprocessing == "caffe"
    net = fit(skeleton(found.config), found.arrays)
    np.testing.assert_array_equal(net.conv3_2.kernel[...], arrays["block3_conv2"][0])
    refused(cut(path, 0.5), "damaged")


def test_weights_beside_an_onnx_file_are_not_opened(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    tensor = onnx.numpy_helper.from_array(np.zeros(4, np.float32), "w")
    onnx.external_data_helper.set_external_data(tensor, "/etc/hostname")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], [tensor]))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    refused(tmp_path / "m.onnx", "in other files")


@pytest.mark.parametrize(
    ("module", "make", "said"),
    [
        ("h5py", lambda p: kf.legacy(p / "m.h5", nested(), {}), r"vizsynth\[keras\]"),
        ("onnx", lambda p: _bytes(p / "m.onnx", b"\x08\x07"), r"vizsynth\[onnx\]"),
    ],
)
def test_a_missing_package_is_named(
    module: str, make: Callable[[Path], Path], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    refused(path, said)


def _bytes(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path
