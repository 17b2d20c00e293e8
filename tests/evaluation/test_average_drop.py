"""Average drop, increase and gain against their definitions."""

import jax.numpy as jnp
import numpy as np
import pytest
from evaluated import LABELS, SIZE, N, heatmaps, images, network, probability, upsampled

import vizsynth
from vizsynth.taps import passthrough


@pytest.mark.parametrize("size", [SIZE, (3, 4)])
def test_follow_the_papers(x64, size):
    net, x, maps = network(np.float64), images(np.float64), heatmaps(np.float64, size)
    f = probability(net)
    drop, gain, increase = [], [], []
    for image, heatmap, label in zip(np.asarray(x), np.asarray(maps), LABELS, strict=True):
        L = upsampled(heatmap, SIZE)
        L = (L - L.min()) / (L.max() - L.min())
        Y, O = f(image, label), f(image * L[..., None], label)
        drop.append(max(0, Y - O) / Y)
        gain.append(max(0, O - Y) / (1 - Y))
        increase.append(float(O > Y))
    for function, expected in (
        (vizsynth.average_drop, drop),
        (vizsynth.average_gain, gain),
        (vizsynth.increase_in_confidence, increase),
    ):
        found = function(net, x, LABELS, maps)
        np.testing.assert_allclose(found.values, expected, rtol=0, atol=1e-10)
        np.testing.assert_allclose(found.mean, np.mean(expected), rtol=0, atol=1e-10)


def test_the_scale_of_a_map_does_not_matter_and_a_constant_shows_nothing():
    net, x, maps = network(), images(), heatmaps()
    found = vizsynth.average_drop(net, x, LABELS, maps)
    again = vizsynth.average_drop(net, x, LABELS, 40 * maps - 3)
    np.testing.assert_allclose(found.explained, again.explained, atol=1e-5)
    black = vizsynth.average_drop(net, x, LABELS, jnp.ones_like(maps))
    p = probability(net)
    expected = [p(np.zeros((*SIZE, 3), np.float32), label) for label in LABELS]
    np.testing.assert_allclose(black.explained, expected, atol=1e-6)


def test_a_certain_class_has_nothing_to_gain():
    def certain(images, tap=passthrough, ops=None):
        return tap("logits", images.mean((1, 2)) * 0 + jnp.asarray([[500.0, 0, 0]]))

    x = images()
    found = vizsynth.average_gain(certain, x, 0, heatmaps())
    lost = vizsynth.average_drop(certain, x, 1, heatmaps())  # probability 0
    assert found.values.tolist() == lost.values.tolist() == [0.0] * N


def test_wrong_maps_are_refused():
    with pytest.raises(ValueError, match="3 images need 3 heatmaps"):
        vizsynth.average_gain(network(), images(), 0, heatmaps()[:1])
