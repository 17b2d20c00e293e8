"""The planted digits: the same for a seed, at their boxes, and read by the network."""

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.planted_network import LABELS, LAST_MAPS, accuracy, trained
from vizsynth.planted import planted


def test_an_image_depends_on_its_number_and_not_on_how_many_there_are():
    many, few, late = planted(7, 6), planted(7, 3), planted(7, 2, start=4)
    for all_of_them, first, last in zip(many, few, late, strict=True):
        np.testing.assert_array_equal(all_of_them[:3], first)
        np.testing.assert_array_equal(all_of_them[4:], last)
    assert np.abs(many.images - planted(8, 6).images).max() > 0.1
    assert np.abs(many.images - planted(7, 6, split="test").images).max() > 0.1


def test_the_images_are_what_they_are_said_to_be():
    found = planted(0, 60, split="test", distractor=True)
    assert found.images.shape == (60, 64, 64, 3) and found.images.dtype == np.float32
    assert found.images.min() >= 0 and found.images.max() <= 1
    assert set(found.labels) == set(range(10))
    assert (found.labels != found.other_labels).all()
    for boxes in (found.boxes, found.other_boxes):
        top, left, bottom, right = boxes.T
        assert (top >= 0).all() and (left >= 0).all() and (bottom <= 64).all() and (right <= 64).all()
        assert (bottom - top >= 12).all() and (right - left >= 4).all()
    apart = (found.boxes[:, 3] <= found.other_boxes[:, 1]) | (found.other_boxes[:, 3] <= found.boxes[:, 1])
    assert apart.all()
    alone = planted(0, 3)
    assert alone.other_labels.tolist() == [-1] * 3 and not alone.other_boxes.any()


def test_the_digit_is_in_its_box_and_nowhere_else():
    # Inside its box the image differs in brightness from what is around it.
    found = planted(3, 40)
    stands_out = []
    for image, (top, left, bottom, right) in zip(found.images, found.boxes, strict=True):
        grey = image.mean(-1)
        around = np.ones(grey.shape, bool)
        around[top:bottom, left:right] = False
        inside = np.abs(grey[top:bottom, left:right] - np.median(grey[around]))
        stands_out.append(np.quantile(inside, 0.9) / np.quantile(np.abs(grey - np.median(grey))[around], 0.9))
    assert np.median(stands_out) > 2


def test_the_network_reads_held_out_digits():
    net = trained()
    assert net.labels == LABELS and LAST_MAPS in net.layers
    assert accuracy(net, n=400) >= 0.95
    assert net(jnp.zeros((1, 64, 64, 3))).shape == (1, 10)


@pytest.mark.parametrize("changes", [{"n": 0}, {"size": 8}, {"start": -1}])
def test_says_what_is_wrong(changes):
    with pytest.raises(ValueError, match="must be at least"):
        planted(0, **({"n": 1} | changes))
