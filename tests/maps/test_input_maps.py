"""Gradient, input x gradient, guided backpropagation and the deconvnet, derived by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_network import conv, conv_backward, deconvnet_rule, guided_rule, max_pool_backward, plain_rule
from subjects import BY_HAND, LABELS, assert_equal, by_hand
from tiny import random_images, tiny

import vizsynth
from vizsynth.models import fold_batch_norm, with_attributes, with_precision
from vizsynth.scores import Channel, Class, Neuron
from vizsynth.taps import passthrough

pytestmark = pytest.mark.usefixtures("x64")
NETWORKS = ["vgg_bn", "resnet_bottleneck"]  # batch normalization, dense layers, sums
RULES = [
    (vizsynth.gradient, plain_rule),
    (vizsynth.guided_backprop, guided_rule),
    (vizsynth.deconvnet, deconvnet_rule),
]


@pytest.mark.parametrize("name", BY_HAND)
def test_the_network_in_numpy_is_the_network(name: str) -> None:
    net, hand, images, pixels, _ = by_hand(name)
    ours, theirs = vizsynth.features(net, images, net.layers), hand.forward(pixels)
    for layer in net.layers:
        assert_equal(ours[layer], theirs[layer], 1e-12)


@pytest.mark.parametrize("name", BY_HAND)
def test_the_gradient_in_numpy_is_the_slope(name: str) -> None:
    _, hand, _, pixels, _ = by_hand(name)
    direction = np.random.default_rng(1).normal(size=pixels.shape)
    step = 1e-6
    up, down = hand.logits(pixels + step * direction), hand.logits(pixels - step * direction)
    slope = ((up - down) / (2 * step))[np.arange(3), LABELS]
    predicted = (hand.gradient(pixels, LABELS) * direction).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(predicted, slope, rtol=1e-5)


@pytest.mark.parametrize("name", BY_HAND)
@pytest.mark.parametrize(("method", "rule"), RULES)
def test_each_backward_rule_is_the_one_by_hand(name: str, method: Any, rule: Any) -> None:
    net, hand, images, pixels, _ = by_hand(name)
    assert_equal(method(net, images, LABELS), hand.gradient(pixels, LABELS, rule))


@pytest.mark.parametrize("name", BY_HAND)
def test_the_rules_differ(name: str) -> None:
    _, hand, _, pixels, _ = by_hand(name)
    plain, guided, deconvnet = (hand.gradient(pixels, LABELS, rule) for _, rule in RULES)
    for one, other in [(plain, guided), (plain, deconvnet), (guided, deconvnet)]:
        assert np.abs(one - other).max() > 0.01 * np.abs(one).max()


@pytest.mark.parametrize("name", BY_HAND)
def test_input_x_gradient_is_the_product(name: str) -> None:
    net, hand, images, pixels, _ = by_hand(name)
    ours = vizsynth.input_x_gradient(net, images, LABELS)
    assert_equal(ours, pixels * hand.gradient(pixels, LABELS))


@pytest.mark.parametrize("name", BY_HAND)
def test_saliency_is_the_largest_absolute_gradient(name: str) -> None:
    net, hand, images, pixels, _ = by_hand(name)
    expected = np.abs(hand.gradient(pixels, LABELS)).max(axis=-1)
    assert_equal(vizsynth.saliency(net, images, LABELS), expected)


def test_input_x_gradient_of_a_network_without_biases_sums_to_the_score() -> None:
    net = with_attributes(tiny("vgg").net, standardize=None)
    biasless = jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.zeros_like(leaf) if "bias" in jax.tree_util.keystr(path) else leaf, net
    )
    net, images = with_precision(biasless, jnp.float64), tiny("vgg").images(3, dtype=np.float64)
    ours = vizsynth.input_x_gradient(net, images, LABELS).sum(axis=(1, 2, 3))
    # Degree one in its input: Euler's identity.
    assert_equal(ours, net(images)[np.arange(3), LABELS])


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("method", [vizsynth.gradient, vizsynth.input_x_gradient])
def test_maps_of_the_chain_rule_are_linear_in_the_score(name: str, method: Any) -> None:
    net, images = with_precision(tiny(name).net, jnp.float64), tiny(name).images(dtype=np.float64)
    both = method(net, images, 2.0 * Class(1) - 0.5 * Class(3))
    assert_equal(both, 2 * method(net, images, 1) - 0.5 * method(net, images, 3))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("method", [vizsynth.guided_backprop, vizsynth.deconvnet])
def test_modified_maps_are_scaled_with_the_score(name: str, method: Any) -> None:
    net, images = with_precision(tiny(name).net, jnp.float64), tiny(name).images(dtype=np.float64)
    once = method(net, images, Class(1))
    assert_equal(method(net, images, 3.0 * Class(1)), 3 * once)
    # A rectifier is not odd: the map of −S is not minus the map of S.
    assert float(jnp.abs(method(net, images, -Class(1)) + once).max()) > 0.01 * float(jnp.abs(once).max())


@pytest.mark.parametrize(("method", "rule"), RULES)
def test_folding_batch_norm_changes_no_map(method: Any, rule: Any) -> None:
    name = "resnet_bottleneck"
    net, images = with_precision(tiny(name).net, jnp.float64), tiny(name).images(dtype=np.float64)
    assert_equal(method(fold_batch_norm(net), images, 1), method(net, images, 1))


# The rules sit on the arithmetic and not on modules --------------------------


def reused(images: Any, *, tap: Any = passthrough, ops: Any = vizsynth.ops.plain) -> Any:
    """One convolution and one ReLU, each used three times; there is no module at all."""
    kernel = jnp.asarray(np.random.default_rng(4).normal(size=(3, 3, 3, 3)) / 3)
    h = images
    for step in (1, 2, 3):
        h = tap(f"conv{step}", ops.conv(h, kernel, None, padding=((1, 1), (1, 1)), name="conv"))
        h = tap(f"relu{step}", ops.relu(h))
    return tap("logits", h.sum(axis=(1, 2)))


@pytest.mark.parametrize(("method", "rule"), RULES)
def test_a_reused_functional_relu_is_a_relu_at_every_use(method: Any, rule: Any) -> None:
    pixels = np.asarray(random_images(2, 9, 8, dtype=np.float64))
    kernel = np.random.default_rng(4).normal(size=(3, 3, 3, 3)) / 3
    inputs, before = [pixels], []
    for _ in range(3):
        before.append(conv(inputs[-1], kernel, np.zeros(3), 1, 1))
        inputs.append(np.maximum(before[-1], 0))
    R = np.zeros_like(inputs[-1])
    R[..., 1] = 1
    for x, z in zip(inputs[-2::-1], before[::-1], strict=True):
        R = conv_backward(x, kernel, 1, 1, rule(z, R))
    assert_equal(method(reused, jnp.asarray(pixels), 1), R)


@pytest.mark.parametrize(("method", "rule"), RULES)
def test_both_branches_of_a_sum_obey_the_rule(method: Any, rule: Any) -> None:
    """relu(relu(W x) + x): the rule acts on the sum, then on the branch; the shortcut passes all."""
    kernel = np.random.default_rng(5).normal(size=(3, 3, 3, 3)) / 2

    def residual(images: Any, *, tap: Any = passthrough, ops: Any = vizsynth.ops.plain) -> Any:
        branch = ops.conv(images, jnp.asarray(kernel), None, padding=((1, 1), (1, 1)), name="conv")
        h = ops.relu(ops.add(ops.relu(branch), images - 0.7))
        weights = jnp.asarray([[1.0, -2.0], [-1.0, 1.0], [0.5, 3.0]])
        return tap("logits", ops.linear(h.mean(axis=(1, 2)), weights, None))

    pixels = np.asarray(random_images(2, 7, 6, dtype=np.float64))
    z = conv(pixels, kernel, np.zeros(3), 1, 1)
    total = np.maximum(z, 0) + pixels - 0.7
    R = np.broadcast_to(np.array([1.0, -1.0, 0.5]) / 42, total.shape)
    R = rule(total, R)
    expected = R + conv_backward(pixels, kernel, 1, 1, rule(z, R))
    assert_equal(method(residual, jnp.asarray(pixels), 0), expected)


@pytest.mark.parametrize(("method", "rule"), RULES)
def test_maps_explain_units_inside_the_network_too(method: Any, rule: Any) -> None:
    net, hand, images, pixels, _ = by_hand("sequential")
    values = hand.forward(pixels)
    y, x = values["conv2"].shape[1] // 2, values["conv2"].shape[2] // 2
    R = np.zeros_like(values["conv2"])
    R[:, y, x, 5] = 1
    R = conv_backward(values["pool1"], hand.weights["conv2"][0], 2, 1, R)
    R = rule(values["conv1"], max_pool_backward(values["relu1"], 2, 2, R))
    R = conv_backward(values["input"], hand.weights["conv1"][0], 1, 0, R) / hand.std
    assert_equal(method(net, images, Neuron("conv2", 5)), R)


def test_only_what_is_positive_passes_a_relu() -> None:
    subject = tiny("sequential")
    net, images = subject.net, subject.images()

    def after(images: Any, *, tap: Any = passthrough, ops: Any = vizsynth.ops.plain) -> Any:
        return net(ops.relu(images), tap=tap, ops=ops)

    for method in (vizsynth.deconvnet, vizsynth.guided_backprop):
        assert float(method(after, images, Channel(subject.middle, 0)).min()) >= 0
