"""RISE: the weighted sum of masks in NumPy, the masks themselves, and what is refused."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_network import upsample
from subjects import LABELS, assert_equal, by_hand
from test_integrated_gradients import temporary_bytes
from tiny import random_images, tiny

import vizsynth
from vizsynth.maps.rise import random_mask
from vizsynth.models import sequential
from vizsynth.models.sequential import Conv, Dense, GlobalMean, ReLU
from vizsynth.scores import Class, Probability

x64 = pytest.mark.usefixtures("x64")
KEY = jax.random.key(11)


def masks(key: Any, samples: int, size: tuple[int, int], **options: Any) -> np.ndarray:
    draw = partial(random_mask, size=size, dtype=jnp.float64, **options)
    return np.stack([draw(jax.random.fold_in(key, i)) for i in range(samples)])


@x64
@pytest.mark.parametrize("batch_size", [3, 16])
def test_it_is_the_mean_of_the_masks_by_their_scores(batch_size: int) -> None:
    net, hand, images, pixels, _ = by_hand("sequential")
    expected = np.zeros(pixels.shape[:3])
    for mask in masks(KEY, 8, pixels.shape[1:3], cells=4, keep=0.4):
        S = hand.logits(pixels * mask[None, :, :, None])
        p = np.exp(S) / np.exp(S).sum(axis=1, keepdims=True)
        expected += p[np.arange(3), LABELS][:, None, None] * mask
    options = {"key": KEY, "samples": 8, "cells": 4, "keep": 0.4, "batch_size": batch_size}
    assert_equal(vizsynth.rise(net, images, LABELS, **options), expected / (0.4 * 8))
    score = Probability(jnp.asarray(LABELS))
    assert_equal(vizsynth.rise(net, images, score, **options), expected / (0.4 * 8))


@x64
def test_a_mask_is_a_piece_of_an_upsampled_grid() -> None:
    """Of 3 x 3 cells for 12 x 15 pixels: 4 x 4 are upsampled to 16 x 20, and 5 pixels at most cut off."""
    for seed in range(5):
        key = jax.random.key(seed)
        mask = np.asarray(random_mask(key, (12, 15), cells=3, keep=0.5, dtype=jnp.float64))
        grid_key, _ = jax.random.split(key)
        grid = np.asarray(jax.random.bernoulli(grid_key, 0.5, (4, 4)), np.float64)
        whole = upsample(grid, (16, 20))
        offsets = [(i, j) for i in range(4) for j in range(5)]
        assert any(np.allclose(whole[i : i + 12, j : j + 15], mask, atol=1e-6) for i, j in offsets)


@x64
def test_masks_differ_in_grid_and_offset_and_keep_their_share() -> None:
    drawn = masks(KEY, 200, (20, 20), cells=5, keep=0.3)
    assert len(np.unique(drawn.reshape(200, -1), axis=0)) == 200
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    np.testing.assert_allclose(drawn.mean(axis=0), 0.3, atol=0.12)
    assert drawn.mean() == pytest.approx(0.3, abs=0.02)


@x64
def test_a_score_that_sees_nothing_gives_an_even_map() -> None:
    """E[M f] / E[M] = f: where f is the same for every mask, the map is f everywhere."""

    def blind(images: Any, *, tap: Any = lambda name, value: value, ops: Any = None) -> Any:
        return tap("logits", 0 * images.mean(axis=(1, 2)) + 2.0)

    images = random_images(1, 16, 16, dtype=np.float64)
    maps = vizsynth.rise(blind, images, Class(1), key=KEY, samples=3000, batch_size=500, cells=4)
    np.testing.assert_allclose(maps, 2.0, rtol=0.06)


@x64
def test_each_image_may_have_a_key_of_its_own() -> None:
    net, _, images, _, _ = by_hand("sequential_mean")
    keys = jax.random.split(KEY, 3)
    together = vizsynth.rise(net, images, LABELS, key=keys, samples=4, cells=3)
    for i in range(3):
        alone = vizsynth.rise(net, images[i : i + 1], int(LABELS[i]), key=keys[i], samples=4, cells=3)
        assert_equal(together[i], np.asarray(alone[0]), 1e-12)


def test_memory_does_not_grow_with_the_masks() -> None:
    stack = (Conv(16), ReLU(), GlobalMean(), Dense(5))
    net, images = sequential(stack, (64, 64, 3), key=jax.random.key(0)), random_images(2, 64, 64)
    few, many = (
        temporary_bytes(vizsynth.rise, net, images, Class(1), key=KEY, samples=samples)
        for samples in (32, 3200)
    )
    assert many <= 1.2 * few


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "samples must be a positive integer"),
        ({"cells": 0}, "cells must be a positive integer"),
        ({"cells": 16}, r"a grid of 16 cells does not fit in images \(15, 19\)"),
        ({"keep": 0.0}, "keep must be a probability"),
        ({"keep": 1.5}, "keep must be a probability"),
        ({"key": jax.random.split(KEY, 3)}, "2 images take one key or 2 keys, not 3"),
    ],
)
def test_impossible_masks_are_refused(options: dict[str, Any], message: str) -> None:
    subject = tiny("sequential_mean")
    with pytest.raises(ValueError, match=message):
        vizsynth.rise(subject.net, subject.images(2), 1, **{"key": KEY, "samples": 4, **options})
