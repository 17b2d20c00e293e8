"""Networks described layer by layer."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import random_images

import vizsynth
from vizsynth.models import IMAGENET, sequential
from vizsynth.models.sequential import (
    Conv,
    Dense,
    Flatten,
    GlobalMean,
    MaxPool,
    MeanPool,
    ReLU,
    layer_names,
)
from vizsynth.taps import run

KEY = jax.random.key(0)


def test_a_network_of_four_convolutions_without_padding() -> None:
    stack: list[Any] = []
    for width in (32, 64, 64, 64):
        stack += [Conv(width, 5, padding=0), ReLU(), MaxPool(2)]
    stack.append(Flatten())
    for width in (128, 64, 32):
        stack += [Dense(width), ReLU()]
    net = sequential([*stack, Dense(2)], (100, 100, 3), key=KEY)
    images = jax.ShapeDtypeStruct((7, 100, 100, 3), jnp.float32)
    shapes = jax.eval_shape(lambda net, images: run(net, images, net.layers)[1], net, images)
    assert {name: found.shape[1:] for name, found in shapes.items()} == {
        "conv1": (96, 96, 32),
        "relu1": (96, 96, 32),
        "pool1": (48, 48, 32),
        "conv2": (44, 44, 64),
        "relu2": (44, 44, 64),
        "pool2": (22, 22, 64),
        "conv3": (18, 18, 64),
        "relu3": (18, 18, 64),
        "pool3": (9, 9, 64),
        "conv4": (5, 5, 64),
        "relu4": (5, 5, 64),
        "pool4": (2, 2, 64),
        "flatten4": (256,),
        "dense5": (128,),
        "relu5": (128,),
        "dense6": (64,),
        "relu6": (64,),
        "dense7": (32,),
        "relu7": (32,),
        "logits": (2,),
    }
    assert net.num_classes == 2
    pixels = random_images(1, 100, 100)
    assert vizsynth.grad_cam(net, pixels, net(pixels).argmax(-1), layer="pool4").shape == (1, 2, 2)


NAMES = {
    ("conv1", "relu1", "pool1", "mean1", "logits"): [Conv(4), ReLU(), MaxPool(), GlobalMean(), Dense(3)],
    ("conv1", "pool1", "pool1b", "flatten1", "logits"): [
        Conv(4),
        MaxPool(),
        MeanPool(),
        Flatten(),
        Dense(3),
    ],
    ("relu0", "conv1", "logits"): [ReLU(), Conv(4), Conv(3)],
    ("flatten0", "dense1", "dense2", "logits"): [Flatten(), Dense(2), Dense(2), Dense(2)],
}


@pytest.mark.parametrize("names", NAMES, ids=" ".join)
def test_names(names: tuple[str, ...]) -> None:
    assert layer_names(NAMES[names]) == names
    net = sequential(NAMES[names], (16, 16, 3), key=KEY)
    assert net.layers == names
    found = vizsynth.features(net, random_images(1, 16, 16), names)
    assert tuple(sorted(found)) == tuple(sorted(names))


ERRORS = {
    r"dense1 follows maps \(8, 8, 3\): put Flatten\(\) or GlobalMean\(\)": [Dense(4), Dense(2)],
    r"logits follows maps \(8, 8, 4\): put Flatten": [Conv(4), Dense(2)],
    r"conv1 needs maps, but a vector of 192 reaches it": [Flatten(), Conv(4), ReLU()],
    r"pool1 needs maps, but a vector of 4": [Conv(4), GlobalMean(), MaxPool(), Dense(2)],
    r"conv1: its 9x9 window does not fit in maps of 8x8": [Conv(4, 9, padding=0), ReLU()],
    r"pool1: its 5x5 window does not fit in maps of 4x4": [Conv(4, stride=2), MeanPool(5), ReLU()],
}


@pytest.mark.parametrize("message", ERRORS)
def test_layers_that_do_not_fit_on_each_other(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sequential(ERRORS[message], (8, 8, 3), key=KEY)


def test_each_layer_does_what_it_says() -> None:
    stack = [Conv(2, 1), ReLU(), MaxPool(2), MeanPool(2), Flatten(), Dense(3)]
    net = sequential(stack, (8, 8, 3), key=KEY)
    images = random_images(2, 8, 8)
    x = np.asarray(images) @ np.asarray(net.conv1.kernel[0, 0])
    x = np.maximum(x, 0)
    x = x.reshape(2, 4, 2, 4, 2, 2).max((2, 4))
    x = x.reshape(2, 2, 2, 2, 2, 2).mean((2, 4))
    x = x.reshape(2, -1) @ np.asarray(net.logits.kernel[...])
    np.testing.assert_allclose(net(images), x, rtol=1e-5, atol=1e-5)


def test_standardization_is_off_unless_asked_for() -> None:
    stack = [Conv(4), GlobalMean(), Dense(2)]
    assert sequential(stack, (8, 8, 3), key=KEY).standardize is None
    assert sequential(stack, (8, 8, 3), standardize=IMAGENET, key=KEY).standardize == IMAGENET


def test_images_of_another_size_are_taken_by_a_global_mean_and_refused_by_a_flattened_one() -> None:
    flexible = sequential([Conv(4), GlobalMean(), Dense(2)], (8, 8, 3), key=KEY)
    assert flexible(random_images(1, 13, 9)).shape == (1, 2)
    fixed = sequential([Conv(4), Flatten(), Dense(2)], (8, 8, 3), key=KEY)
    with pytest.raises(Exception, match=r"117|468|256"):
        fixed(random_images(1, 13, 9))
