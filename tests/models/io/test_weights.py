import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from vizsynth.models import fold_batch_norm
from vizsynth.models.io.weights import (
    FORMAT,
    PIXELS,
    Config,
    Weights,
    WeightsError,
    fit,
    from_json,
    paths,
    read,
    save,
    skeleton,
    to_json,
    write,
)
from vizsynth.models.layers import Linear
from vizsynth.models.resnet import ResNetConfig
from vizsynth.models.sequential import (
    Conv,
    Dense,
    Flatten,
    GlobalMean,
    MaxPool,
    MeanPool,
    ReLU,
    SequentialConfig,
)
from vizsynth.models.squeezenet import SqueezeNetConfig
from vizsynth.models.vgg import VGGConfig

DEPTHS, WIDTHS = (1, 1, 1, 1, 1), (2, 3, 4, 5, 6)
HEAD = (Flatten(), Dense(7), ReLU(), Dense(1))
CONFIGS: dict[str, Config] = {
    "vgg": VGGConfig(DEPTHS, False, 5, WIDTHS, hidden=8),
    "vgg_bn": VGGConfig(DEPTHS, True, 5, WIDTHS, hidden=8),
    "trunk": VGGConfig(DEPTHS, False, None, WIDTHS),
    "head": VGGConfig(DEPTHS, False, 1, WIDTHS, head=HEAD, head_size=(2, 2)),
    "mean_head": VGGConfig(DEPTHS, False, 3, WIDTHS, head=(GlobalMean(), Dense(3))),
    "resnet": ResNetConfig((1, 1, 1, 1), False, 5, (2, 3, 4, 5)),
    "bottleneck": ResNetConfig((1, 2, 1, 1), True, 5, (2, 3, 4, 5)),
    "squeezenet": SqueezeNetConfig(3),
    "sequential": SequentialConfig(
        (Conv(4, 5, batch_norm=True), ReLU(), MaxPool(2), GlobalMean(), Dense(3)), (16, 16, 3)
    ),
}


def random_arrays(net: Any, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        name: rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        if name.endswith("variance")
        else rng.normal(0, 0.1, leaf.shape).astype(np.float32)
        for name, leaf in paths(net).items()
    }


def random_net(config: Config, seed: int = 0) -> Any:
    shapes = skeleton(config)
    return fit(shapes, random_arrays(shapes, seed))


def record_of(config: Config, **fields: Any) -> Weights:
    return Weights("vgg16", config, *PIXELS["imagenet"], **fields)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_what_is_saved_is_read_to_the_last_bit(config: Config, tmp_path: Path) -> None:
    net = random_net(config)
    record = record_of(config, labels=("α", "b"), license="CC0", origin="here", input_size=(32, 48))
    save(tmp_path / "net.safetensors", net, record)
    arrays, again = read(tmp_path / "net.safetensors")
    assert again == record and hash(again) == hash(record)
    for name, leaf in paths(net).items():
        np.testing.assert_array_equal(arrays[name], leaf, strict=True)
    copy = fit(skeleton(config), arrays)
    assert jax.tree.structure(copy) == jax.tree.structure(net)


@pytest.mark.parametrize("name", ["vgg_bn", "resnet", "sequential"])
def test_a_folded_network_is_saved_as_it_is(name: str, tmp_path: Path) -> None:
    net = random_net(CONFIGS[name])
    folded = fold_batch_norm(net)
    save(tmp_path / "net.safetensors", folded, record_of(CONFIGS[name]))
    arrays, record = read(tmp_path / "net.safetensors")
    copy = fit(skeleton(record.config, folded=True), arrays)
    images = jax.random.uniform(jax.random.key(1), (2, 33, 33, 3))
    if name == "sequential":
        images = images[:, :16, :16]
    np.testing.assert_array_equal(copy(images), folded(images))
    np.testing.assert_allclose(copy(images), net(images), atol=1e-5)


def test_a_skeleton_holds_shapes_only() -> None:
    leaves = jax.tree.leaves(skeleton(CONFIGS["vgg_bn"]))
    assert leaves and all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves)


def test_every_mismatch_is_listed_at_once() -> None:
    net = skeleton(CONFIGS["vgg"])
    arrays = random_arrays(net)
    del arrays["conv1_1.bias"], arrays["fc7.kernel"]
    arrays["conv2_1.kernel"] = np.zeros((3, 3, 2, 9), np.float32)
    arrays["surplus"] = np.zeros(4, np.float32)
    arrays["fc6.bias"] = np.zeros(8, np.int32)
    arrays["fc8.bias"][1] = np.nan
    with pytest.raises(WeightsError) as caught:
        fit(net, arrays, names={"conv2_1.kernel": "features.3.weight", "fc7.kernel": "classifier.3.weight"})
    message = str(caught.value)
    assert "in 6 places" in message
    for line in (
        "missing: conv1_1.bias (2,)",
        "missing: fc7.kernel (classifier.3.weight in the file) (8, 8)",
        "unexpected: surplus (4,)",
        "shape: conv2_1.kernel (features.3.weight in the file) must be (3, 3, 2, 3), not (3, 3, 2, 9)",
        "type: fc6.bias must be floating point, not int32",
        "values: fc8.bias holds NaN or infinity",
    ):
        assert line in message


@pytest.mark.parametrize("dtype", [np.float16, np.float64, jnp.bfloat16])
def test_weights_of_any_precision_become_float32(dtype: Any) -> None:
    net = skeleton(CONFIGS["trunk"])
    arrays = {name: array.astype(dtype) for name, array in random_arrays(net).items()}
    fitted = fit(net, arrays)
    assert {leaf.dtype for leaf in jax.tree.leaves(fitted)} == {np.dtype(np.float32)}
    np.testing.assert_allclose(
        np.asarray(fitted.conv1_1.kernel[...]), np.asarray(arrays["conv1_1.kernel"], np.float32), rtol=1e-6
    )


def test_fitted_weights_are_a_copy() -> None:
    net = skeleton(CONFIGS["trunk"])
    arrays = random_arrays(net)
    fitted = fit(net, arrays)
    before = np.array(fitted.conv1_1.bias[...])
    arrays["conv1_1.bias"][:] = 7
    np.testing.assert_array_equal(fitted.conv1_1.bias[...], before)


def test_another_record_of_equal_content_does_not_compile_anew() -> None:
    from vizsynth.models import with_attributes

    traces = []

    @jax.jit
    def run(net: Any, images: Any) -> Any:
        traces.append(1)
        return net(images)

    for seed in (0, 1):
        record = record_of(CONFIGS["trunk"], labels=tuple(f"{i}" for i in range(10)))
        run(with_attributes(random_net(CONFIGS["trunk"], seed), record=record), jnp.zeros((1, 32, 32, 3)))
    assert len(traces) == 1


def test_nothing_is_written_when_the_network_is_not_of_the_record(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"unexpected: fc8\.kernel"):
        save(tmp_path / "net.safetensors", random_net(CONFIGS["vgg"]), record_of(CONFIGS["trunk"]))
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_when_numbers_do_not_fit_the_precision(tmp_path: Path) -> None:
    arrays = random_arrays(skeleton(CONFIGS["trunk"]))
    arrays["conv1_1.bias"][0] = 1e6
    with pytest.raises(WeightsError, match=r"too large for float16 in conv1_1\.bias"):
        write(tmp_path / "net.safetensors", arrays, record_of(CONFIGS["trunk"]), dtype=np.float16)
    assert list(tmp_path.iterdir()) == []


def test_a_failing_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.safetensors"
    save(path, random_net(CONFIGS["trunk"]), record_of(CONFIGS["trunk"]))
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(WeightsError, match="No space left"):
        save(path, random_net(CONFIGS["trunk"], seed=1), record_of(CONFIGS["trunk"]))
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["net.safetensors"]


@pytest.mark.parametrize("keep", [0, 5, 100, -10])
def test_a_cut_file_is_refused_in_one_line(keep: int, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save(path, random_net(CONFIGS["trunk"]), record_of(CONFIGS["trunk"]))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(WeightsError, match=r"copy or download it again") as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_a_file_without_a_record_asks_for_the_network(tmp_path: Path) -> None:
    save_file({"x": np.zeros(1)}, tmp_path / "net.safetensors")
    with pytest.raises(WeightsError, match=r"name its network"):
        read(tmp_path / "net.safetensors")


def _drop_family(fields: dict[str, Any]) -> None:
    del fields["config"]["family"]


def _add_field(fields: dict[str, Any]) -> None:
    fields["colour"] = 1


def _unknown_layer(fields: dict[str, Any]) -> None:
    fields["config"]["stack"][0] = {"Lambda": ["import os"]}


@pytest.mark.parametrize("damage", [_drop_family, _add_field, _unknown_layer])
def test_a_damaged_record_is_refused_in_one_line(damage: Callable[[dict[str, Any]], None]) -> None:
    fields = json.loads(to_json(record_of(CONFIGS["sequential"])))
    damage(fields)
    with pytest.raises(WeightsError, match="record is damaged") as caught:
        from_json(json.dumps(fields), "net.safetensors")
    assert "\n" not in str(caught.value)


def test_a_record_says_how_pixels_are_standardized() -> None:
    record = record_of(CONFIGS["trunk"])
    assert record.standardize is not None and record.standardize.mean == (0.485, 0.456, 0.406)
    assert replace(record, **PIXELS["unit"]._asdict()).standardize is None
    x = jnp.full((1, 1, 1, 3), 0.5)
    caffe = replace(record, **PIXELS["caffe"]._asdict()).standardize
    assert caffe is not None
    np.testing.assert_allclose(caffe(x)[0, 0, 0], 127.5 - np.array([123.68, 116.779, 103.939]), rtol=1e-5)


def test_a_head_of_ones_own_runs_where_the_fully_connected_layers_were() -> None:
    net = random_net(CONFIGS["head"])
    assert net.layers[-5:] == ("pool5", "flatten0", "dense1", "relu1", "logits")
    assert net.num_classes == 1 and isinstance(net.head.dense1, Linear)
    assert net(jnp.zeros((2, 64, 64, 3))).shape == (2, 1)
    assert net(jnp.zeros((2, 97, 64, 3))).shape == (2, 1)  # averaged to the head's size
    with pytest.raises(ValueError, match=r"must end with Dense\(4\)"):
        skeleton(replace(CONFIGS["head"], num_classes=4))


def test_layers_of_equal_numbers_are_not_taken_for_each_other() -> None:
    kinds = [MaxPool(2), MeanPool(2), ReLU(), Flatten(), GlobalMean(), Dense(2)]
    assert len(set(kinds)) == len(kinds)
    x = jax.random.uniform(jax.random.key(0), (1, 8, 8, 3))
    run = jax.jit(lambda net, images: net(images))
    for pool, size in ((MaxPool(8), 0), (MeanPool(8), 1)):
        config = SequentialConfig((pool, Flatten(), Dense(3)), (8, 8, 3))
        net = fit(skeleton(config), {"logits.kernel": np.eye(3), "logits.bias": np.zeros(3)})
        np.testing.assert_allclose(run(net, x)[0], (x[0].max((0, 1)), x[0].mean((0, 1)))[size], rtol=1e-5)


def test_the_format_has_a_version() -> None:
    assert FORMAT.endswith("-1")
