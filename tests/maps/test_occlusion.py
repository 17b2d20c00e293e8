"""Incremental occlusion gives what running the whole network for every window gives."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from tiny import tiny

import vizsynth
from vizsynth import ops
from vizsynth.cpu import winograd
from vizsynth.maps.occlusion import window_starts
from vizsynth.models import sequential
from vizsynth.models.resnet import ResNet, ResNetConfig
from vizsynth.models.sequential import Conv, Dense, Flatten, GlobalMean, MaxPool, MeanPool, ReLU
from vizsynth.models.squeezenet import SqueezeNet, SqueezeNetConfig
from vizsynth.models.vgg import VGG, VGGConfig
from vizsynth.replay import incremental
from vizsynth.scores import Channel, Class

KEY = jax.random.key(0)


def brute_force(net, images, score, window, stride, fill):
    """Run the whole network for every window, one by one."""
    (wh, ww), (sh, sw) = window, stride
    n, h, w, _ = images.shape
    of = jax.jit(lambda net, images: score(vizsynth.taps.run(net, images, score.layers)[1]))
    net = net if jax.tree.leaves(net) != [net] else jax.tree_util.Partial(net)
    clean = np.asarray(of(net, images))
    drops, cover = np.zeros((n, h, w)), np.zeros((h, w))
    for top in range(0, -(-(h - wh) // sh) * sh + 1, sh):
        for left in range(0, -(-(w - ww) // sw) * sw + 1, sw):
            occluded = np.array(images)
            occluded[:, top : top + wh, left : left + ww] = fill
            drop = clean - np.asarray(of(net, jnp.asarray(occluded)))
            drops[:, top : top + wh, left : left + ww] += drop[:, None, None]
            cover[top : top + wh, left : left + ww] += 1
    return drops / cover


NETWORKS = {
    "vgg": lambda: VGG(VGGConfig((1, 2, 1, 1, 1), widths=(4, 5, 6, 7, 8), num_classes=6), key=KEY),
    "bottleneck": lambda: ResNet(ResNetConfig((1, 2, 1, 1), True, 6, widths=(4, 6, 8, 8)), key=KEY),
    "squeezenet": lambda: SqueezeNet(SqueezeNetConfig(6), key=KEY),
}


def float64(net):
    """Take the weights to float64, and the biases away from 0."""
    return jax.tree.map(lambda a: a.astype(jnp.float64) + 0.01, net)


GEOMETRIES = [((64, 71), (24, 16), (12, 16)), ((67, 64), (21, 64), (21, 5))]


@pytest.mark.parametrize(("name", "geometry"), [("vgg", 1), ("bottleneck", 1), ("squeezenet", 0)])
def test_equals_brute_force(name, geometry):
    size, window, stride = GEOMETRIES[geometry]
    with jax.enable_x64(True):
        net = float64(NETWORKS[name]())
        images = jax.random.uniform(jax.random.key(3), (2, *size, 3), jnp.float64)
        got = vizsynth.occlusion(net, images, Class(2), window=window, stride=stride, batch_size=7)
        want = brute_force(net, images, Class(2), window, stride, 0.5)
    assert np.abs(want).max() > 1e-6
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-10 * np.abs(want).max())


@settings(max_examples=12)
@given(
    window=st.integers(1, 5),
    stride=st.integers(1, 4),
    padding=st.integers(0, 2),
    pool=st.sampled_from([MaxPool(2), MaxPool(3, 2), MeanPool(2, 3), MeanPool(3, 1)]),
    patch=st.integers(1, 12),
)
def test_any_geometry(window, stride, padding, pool, patch):
    """Windows, strides with gaps, padding and pooling that leaves a rest, all against brute force."""
    stack = [Conv(3, window, stride, padding), ReLU(), pool, Conv(4, 1), GlobalMean(), Dense(3)]
    with jax.enable_x64(True):
        net = float64(sequential(stack, (26, 23, 3), key=KEY))
        images = jax.random.uniform(jax.random.key(4), (1, 26, 23, 3), jnp.float64)
        size, step = (patch, patch), (max(1, patch - 1),) * 2
        got = vizsynth.occlusion(net, images, Class(1), window=size, stride=step, fill=0.0)
        want = brute_force(net, images, Class(1), size, step, 0.0)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-11)


def test_a_layer_inside_and_a_label():
    net = sequential([Conv(4), ReLU(), MaxPool(), Flatten(), Dense(3)], (16, 16, 3), key=KEY)
    images = jax.random.uniform(KEY, (1, 16, 16, 3))
    got = vizsynth.occlusion(net, images, Channel("relu1", 2), window=6, stride=5)
    want = brute_force(net, images, Channel("relu1", 2), (6, 6), (5, 5), 0.5)
    np.testing.assert_allclose(got, want, atol=1e-6)
    by_label = vizsynth.occlusion(net, images, 1, window=6, stride=5)
    by_score = vizsynth.occlusion(net, images, vizsynth.scores.Probability(1), window=6, stride=5)
    np.testing.assert_array_equal(by_label, by_score)


def test_winograd_path_in_float32():
    """Wide 3x3 convolutions take Winograd's form; scores stay within 1e-5, drops within 1e-3."""
    stack = [
        Conv(64),
        ReLU(),
        MaxPool(),
        Conv(64),
        ReLU(),
        MaxPool(),
        Conv(64),
        ReLU(),
        GlobalMean(),
        Dense(5),
    ]
    net = sequential(stack, (40, 44, 3), key=KEY)
    images = jax.random.uniform(jax.random.key(5), (1, 40, 44, 3))
    got = vizsynth.occlusion(net, images, Class(2), window=12, stride=8)
    with jax.enable_x64(True):
        exact = jax.tree.map(lambda a: a.astype(jnp.float64), net)
        want = brute_force(exact, jnp.asarray(images, jnp.float64), Class(2), (12, 12), (8, 8), 0.5)
    assert np.abs(got - want).max() < 1e-3 * np.abs(want).max()


@settings(max_examples=4)
@given(h=st.integers(3, 21), w=st.integers(3, 21), n=st.integers(1, 2))
def test_winograd_is_the_convolution(h, w, n):
    rng = np.random.default_rng([h, w, n])
    with jax.enable_x64(True):
        x, kernel = jnp.asarray(rng.normal(size=(n, h, w, 4))), jnp.asarray(rng.normal(size=(3, 3, 4, 5)))
        got = winograd.conv(x, winograd.transform(kernel))
        want = ops.plain.conv(x, kernel, None)
    np.testing.assert_allclose(got, want, atol=1e-11)


def test_a_network_that_works_outside_of_ops():
    """What is not done through `ops` is done on whole layers, so the result stays exact."""
    inner = sequential([Conv(4), ReLU(), MaxPool(), Flatten(), Dense(3)], (16, 16, 3), key=KEY)

    def net(images, *, tap=vizsynth.taps.passthrough, ops=ops.plain):
        h = ops.conv(images, inner.conv1.kernel[...], inner.conv1.bias[...], name="conv1")
        h = jnp.tanh(h)
        h = ops.conv(h, jnp.ones((3, 3, 4, 2)) / 9, None, name="conv2")
        return tap("logits", h.mean(axis=(1, 2)))

    images = jax.random.uniform(KEY, (1, 16, 16, 3))
    got = vizsynth.occlusion(net, images, Class(1), window=6, stride=5)
    np.testing.assert_allclose(got, brute_force(net, images, Class(1), (6, 6), (5, 5), 0.5), atol=1e-6)


def test_a_network_that_mixes_pixels_before_its_first_op_is_not_silently_wrong():
    def net(images, *, tap=vizsynth.taps.passthrough, ops=ops.plain):
        h = ops.conv(images[:, ::-1], jnp.ones((3, 3, 3, 2)), None, name="conv1")
        return tap("logits", ops.adaptive_mean_pool(h, size=(1, 1)).reshape(1, 2))

    images = jax.random.uniform(KEY, (1, 16, 16, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.isnan(vizsynth.occlusion(net, images, Class(1), window=6, stride=5)).any()


@pytest.mark.parametrize("adapted", [False, True])
def test_two_heads_are_both_computed_again(adapted):
    """The mean and the maximum of a map, each to a dense layer of its own."""
    weights = [jax.random.normal(key, shape) for key, shape in zip(
        jax.random.split(KEY, 3), [(3, 3, 3, 4), (4, 3), (4, 3)], strict=True
    )]  # fmt: skip

    def tapped(images, *, tap=vizsynth.taps.passthrough, ops=ops.plain):
        kernel, first, second = weights
        h = ops.relu(ops.conv(images, kernel, None, padding=((1, 1), (1, 1)), name="conv1"))
        mean = ops.adaptive_mean_pool(h, size=(1, 1)).reshape(len(images), -1)
        largest = ops.max_pool(h, window=(16, 16), strides=(1, 1)).reshape(len(images), -1)
        return tap("logits", ops.linear(mean, first, None) + ops.linear(largest, second, None))

    def function(weights, images):
        kernel, first, second = weights
        numbers = ("NHWC", "HWIO", "NHWC")
        h = jax.nn.relu(lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=numbers))
        return h.mean((1, 2)) @ first + h.max((1, 2)) @ second

    images = jax.random.uniform(KEY, (1, 16, 16, 3))
    net = vizsynth.adapt(function, weights, example=images) if adapted else tapped
    got = vizsynth.occlusion(net, images, Class(1), window=6, stride=5)
    want = brute_force(net, images, Class(1), (6, 6), (5, 5), 0.5)
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_batch_size_and_batch_do_not_matter():
    net = NETWORKS["vgg"]()
    images = jax.random.uniform(KEY, (3, 64, 64, 3))
    whole = vizsynth.occlusion(net, images, Class(1), window=16, stride=16, batch_size=16)
    one = vizsynth.occlusion(net, images[1:2], Class(1), window=16, stride=16, batch_size=5)
    np.testing.assert_allclose(whole[1:2], one, atol=1e-5)


def test_windows_reach_the_end():
    for size, window, stride in [(10, 4, 4), (10, 3, 2), (7, 7, 3), (9, 2, 2)]:
        starts = window_starts(size, window, stride)
        assert starts[-1] + window >= size > starts[-1]
        assert len(starts) == 1 or starts[-2] + window < size


def test_span_covers_what_a_window_reaches():
    span = incremental.Span(np.array([0, 3, 8]), 2, 10).reached(3, 2, (1, 1))
    for start, first in zip([0, 3, 8], span.starts, strict=True):
        reached = [o for o in range(5) if not (2 * o + 1 < start or 2 * o - 1 > start + 1)]
        assert set(reached) <= set(range(first, first + span.length))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 65}, "larger than the images"),
        ({"window": 8, "stride": 0}, "stride must be a positive integer"),
        ({"window": 8, "stride": 9}, "leaves pixels"),
        ({"window": 0}, "window must be a positive integer"),
        ({"window": 8, "stride": 8, "fill": np.zeros((4, 4, 3), np.float32)}, "fill must be"),
        ({"window": 8, "stride": 8, "batch_size": 0}, "batch_size must be"),
    ],
)
def test_bad_input(options, message):
    net = tiny("vgg").net
    with pytest.raises(ValueError, match=message):
        vizsynth.occlusion(net, jnp.zeros((1, 64, 64, 3)), 1, **options)
