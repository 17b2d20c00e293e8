"""`vizsynth networks` and `vizsynth convert`."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from command_line import Run, complaint, tree

import vizsynth
from vizsynth.models.io.load import BUNDLED, NETWORKS


def test_networks_lists_all_of_them(run: Run) -> None:
    table = run("networks")
    listed = json.loads(run("networks", "--json").out)
    assert [row["network"] for row in listed] == list(NETWORKS)
    assert {row["network"]: row["parameters"] for row in listed}["vgg16"] == 138_357_544
    assert table.code == 0
    for name in NETWORKS:
        assert any(line.startswith(f"{name} ") for line in table.out.splitlines())
    assert max(map(len, table.out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("name", "layer", "shape"),
    [
        ("squeezenet1_1", "fire9", [13, 13, 512]),
        ("vgg16", "conv5_3", [14, 14, 512]),
        ("resnet50", "layer4.2", [7, 7, 2048]),
        ("alexnet", "relu5", [13, 13, 256]),
    ],
)
def test_networks_lists_layers_and_their_shapes(run: Run, name: str, layer: str, shape: list[int]) -> None:
    described = json.loads(run("networks", name, "--json").out)
    assert described["layers"][layer] == shape
    assert described["layers"]["logits"] == [1000]
    row = next(line for line in run("networks", name).out.splitlines() if line.startswith(f"{layer} "))
    assert row.split()[1:] == [str(shape[0]), "x", str(shape[1]), "x", str(shape[2])]


def test_networks_knows_the_network_of_a_file(run: Run) -> None:
    assert json.loads(run("networks", BUNDLED, "--json").out)["num_classes"] == 1000
    assert "vgg16" in complaint(run("networks", "vgg61"))


def test_converted_weights_are_the_same_network(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    ran = run("convert", "bundled", path)
    assert ran.code == 0
    assert ran.out.startswith(f"wrote {path}: squeezenet1_1, 1000 classes")
    images = jnp.linspace(0, 1, 64 * 64 * 3).reshape(1, 64, 64, 3)
    ours, theirs = vizsynth.load(path), vizsynth.load("squeezenet1_1")
    np.testing.assert_array_equal(ours(images), theirs(images))


def test_convert_replaces_nothing_unasked(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_text("mine")
    assert "--overwrite" in complaint(run("convert", "bundled", path))
    assert path.read_text() == "mine"
    told = json.loads(run("convert", "bundled", path, "--overwrite", "--half", "--json").out)
    size = path.stat().st_size
    assert told == {"network": "squeezenet1_1", "num_classes": 1000, "out": str(path), "bytes": size}
    assert size < 3e6


def test_convert_writes_nothing_that_does_not_fit(run: Run, tmp_path: Path) -> None:
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(BUNDLED.read_bytes()[:1000])
    for arguments in ((BUNDLED, "-n", "alexnet"), (cut,), (tmp_path / "nowhere.pth", "-n", "vgg16")):
        complaint(run("convert", arguments[0], tmp_path / "out.safetensors", *arguments[1:]))
    complaint(run("convert", BUNDLED, tmp_path / "out.txt"))
    complaint(run("convert", BUNDLED, tmp_path / "no folder" / "out.safetensors"))
    assert tree(tmp_path) == ["cut.safetensors"]
