"""Each class activation map: its equation written out in NumPy, its axioms, and what it refuses."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_network import guided_rule, upsample
from subjects import BY_HAND, LABELS, ByHand, assert_equal, by_hand
from tiny import random_images, tiny

import vizsynth
from vizsynth.models import fold_batch_norm, sequential, with_precision
from vizsynth.models.sequential import Conv, Dense, GlobalMean, ReLU
from vizsynth.scores import Class, LayerNorm

x64 = pytest.mark.usefixtures("x64")
ByLayer = Callable[[ByHand, str], np.ndarray]


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def convolved(text: str) -> list[int]:
    """Return how many images each convolution of a program takes."""
    return [int(n) for n in re.findall(r"stablehlo\.convolution.*-> tensor<(\d+)x", text)]


def products(text: str) -> list[int]:
    """Return the size of the first axis of each product of arrays whose second is of two."""
    return [int(n) for n in re.findall(r"stablehlo\.dot_general.*-> tensor<(\d+)x2x", text)]


def layer_by_hand(subject: ByHand, layer: str) -> tuple[np.ndarray, np.ndarray]:
    """Return A and ∂S/∂A."""
    values = subject.hand.forward(subject.pixels)
    return values[layer], subject.hand.backward(values, LABELS, to=layer)


def weighted(w: np.ndarray, A: np.ndarray) -> np.ndarray:
    L = np.zeros(A.shape[:3])
    for n in range(A.shape[0]):
        for k in range(A.shape[3]):
            L[n] += w[n, k] * A[n, :, :, k]
    return L


def grad_cam(subject: ByHand, layer: str) -> np.ndarray:
    A, g = layer_by_hand(subject, layer)
    return relu(weighted(g.mean(axis=(1, 2)), A))


def grad_cam_pp(subject: ByHand, layer: str, eps: float = 0.0) -> np.ndarray:
    """The paper's, of Y = exp(S), and then without the factor exp(S) that all weights share."""
    A, g = layer_by_hand(subject, layer)
    S = subject.hand.logits(subject.pixels)[np.arange(3), LABELS]
    dY = np.exp(S)[:, None, None, None] * g
    total = A.sum(axis=(1, 2), keepdims=True)
    bottom = 2 * g**2 + g**3 * total + eps
    alpha = np.divide(g**2, bottom, out=np.zeros_like(g), where=g != 0)
    w = (alpha * relu(dY)).sum(axis=(1, 2))
    return relu(weighted(w, A)) / np.exp(S)[:, None, None]


def xgrad_cam(subject: ByHand, layer: str) -> np.ndarray:
    A, g = layer_by_hand(subject, layer)
    return relu(weighted((A * g).sum(axis=(1, 2)) / (A.sum(axis=(1, 2)) + 1e-7), A))


def layer_cam(subject: ByHand, layer: str) -> np.ndarray:
    A, g = layer_by_hand(subject, layer)
    return relu((relu(g) * A).sum(axis=-1))


def hires_cam(subject: ByHand, layer: str) -> np.ndarray:
    A, g = layer_by_hand(subject, layer)
    return (g * A).sum(axis=-1)


def eigen_cam(subject: ByHand, layer: str, center: bool = False) -> np.ndarray:
    A, _ = layer_by_hand(subject, layer)
    maps = []
    for a in A:
        X = a.reshape(-1, a.shape[-1])
        mean = X.mean(axis=0)
        X = X - mean if center else X
        v = np.linalg.svd(X)[2][0]
        maps.append((X @ (v if v @ mean >= 0 else -v)).reshape(a.shape[:2]))
    return np.stack(maps)


def score_cam(subject: ByHand, layer: str) -> np.ndarray:
    A, _ = layer_by_hand(subject, layer)
    S = np.zeros((3, A.shape[-1]))
    for k in range(A.shape[-1]):
        mask = upsample(A[..., k], subject.pixels.shape[1:3])
        for n in range(3):
            spread = mask[n].max() - mask[n].min()
            mask[n] = (mask[n] - mask[n].min()) / spread if spread > 0 else 0
        masked = subject.pixels * mask[..., None]
        S[:, k] = subject.hand.logits(masked)[np.arange(3), LABELS]
    alpha = np.exp(S - S.max(axis=1, keepdims=True))
    return relu(weighted(alpha / alpha.sum(axis=1, keepdims=True), A))


def ablation_cam(subject: ByHand, layer: str) -> np.ndarray:
    A, _ = layer_by_hand(subject, layer)
    y = subject.hand.logits(subject.pixels)[np.arange(3), LABELS]
    w = np.zeros((3, A.shape[-1]))
    for k in range(A.shape[-1]):
        without = A.copy()
        without[..., k] = 0
        y_k = subject.hand.forward_from(layer, without)["logits"][np.arange(3), LABELS]
        w[:, k] = (y - y_k) / y
    return relu(weighted(w, A))


METHODS: dict[str, tuple[Any, ByLayer]] = {
    "grad_cam": (vizsynth.grad_cam, grad_cam),
    "grad_cam_pp": (vizsynth.grad_cam_pp, grad_cam_pp),
    "grad_cam_pp eps": (partial(vizsynth.grad_cam_pp, eps=1e-6), partial(grad_cam_pp, eps=1e-6)),
    "xgrad_cam": (vizsynth.xgrad_cam, xgrad_cam),
    "layer_cam": (vizsynth.layer_cam, layer_cam),
    "hires_cam": (vizsynth.hires_cam, hires_cam),
    "eigen_cam": (vizsynth.eigen_cam, eigen_cam),
    "eigen_cam centred": (partial(vizsynth.eigen_cam, center=True), partial(eigen_cam, center=True)),
    "score_cam": (vizsynth.score_cam, score_cam),
    "ablation_cam": (vizsynth.ablation_cam, ablation_cam),
}
CHUNKED = [vizsynth.score_cam, vizsynth.ablation_cam]
RECTIFIED = [
    vizsynth.grad_cam,
    vizsynth.grad_cam_pp,
    vizsynth.xgrad_cam,
    vizsynth.layer_cam,
    vizsynth.score_cam,
    vizsynth.ablation_cam,
]


@x64
@pytest.mark.parametrize("name", BY_HAND)
@pytest.mark.parametrize("layer", ["relu1", "conv2", "relu2"])
@pytest.mark.parametrize("method", METHODS)
def test_it_is_its_equation(name: str, layer: str, method: str) -> None:
    subject = by_hand(name)
    ours, theirs = METHODS[method]
    assert_equal(ours(subject.net, subject.images, LABELS, layer=layer), theirs(subject, layer))


@x64
@pytest.mark.parametrize("name", BY_HAND)
def test_guided_grad_cam_is_the_product_of_the_two(name: str) -> None:
    net, hand, images, pixels, _ = subject = by_hand(name)
    coarse = upsample(grad_cam(subject, "relu2"), pixels.shape[1:3])
    expected = hand.gradient(pixels, LABELS, guided_rule) * coarse[..., None]
    assert_equal(vizsynth.guided_grad_cam(net, images, LABELS, layer="relu2"), expected)


# Where global average pooling and a linear classifier follow ------------------


@x64
def test_cam_sums_the_maps_by_the_weights_of_the_class() -> None:
    net, hand, images, pixels, _ = by_hand("sequential_mean")
    A = hand.forward(pixels)["relu2"]
    kernel, bias = hand.weights["logits"]
    maps = vizsynth.cam(net, images, LABELS, layer="relu2")
    assert_equal(maps, weighted(kernel[:, LABELS].T, A))
    S = hand.logits(pixels)[np.arange(3), LABELS]
    assert_equal(maps.mean(axis=(1, 2)), S - bias[LABELS])


@x64
def test_cam_finds_the_weights_wherever_the_network_keeps_them() -> None:
    """SqueezeNet's classifier is a convolution before the pooling: the map is the class's channel."""
    net = with_precision(tiny("squeezenet").net, jnp.float64)
    images = tiny("squeezenet").images(2, dtype=np.float64)
    A = vizsynth.features(net, images, ["relu10"])["relu10"]
    labels = np.asarray(A.max(axis=(1, 2)).argmax(-1))
    maps = vizsynth.cam(net, images, labels, layer="relu10")
    assert_equal(maps, np.stack([A[i, :, :, label] for i, label in enumerate(labels)]))


@x64
def test_the_gradient_methods_generalize_cam() -> None:
    """There ∂S/∂A is w/Z at each position: Grad-CAM, XGrad-CAM and HiResCAM are CAM over Z."""
    net, _, images, _, _ = by_hand("sequential_mean")
    cam = np.asarray(vizsynth.cam(net, images, LABELS, layer="relu2"))
    scaled = cam / (cam.shape[1] * cam.shape[2])
    assert_equal(vizsynth.hires_cam(net, images, LABELS, layer="relu2"), scaled)
    assert_equal(vizsynth.grad_cam(net, images, LABELS, layer="relu2"), relu(scaled))
    assert_equal(vizsynth.xgrad_cam(net, images, LABELS, layer="relu2", eps=0.0), relu(scaled))


@x64
def test_ablation_there_has_a_closed_form() -> None:
    subject = by_hand("sequential_mean")
    A, _ = layer_by_hand(subject, "relu2")
    y = subject.hand.logits(subject.pixels)[np.arange(3), LABELS]
    w = subject.hand.weights["logits"][0][:, LABELS].T * A.mean(axis=(1, 2)) / y[:, None]
    ours = vizsynth.ablation_cam(subject.net, subject.images, LABELS, layer="relu2")
    assert_equal(ours, relu(weighted(w, A)))


@x64
def test_hires_cam_of_a_linear_tail_sums_to_the_score_less_its_bias() -> None:
    subject = by_hand("sequential_mean")
    maps = vizsynth.hires_cam(subject.net, subject.images, LABELS, layer="relu2")
    S = subject.hand.logits(subject.pixels)[np.arange(3), LABELS]
    assert_equal(maps.sum(axis=(1, 2)), S - subject.hand.weights["logits"][1][LABELS])


@pytest.mark.parametrize(
    ("name", "layer"), [("sequential", "relu2"), ("sequential_mean", "relu1"), ("squeezenet", "fire9")]
)
def test_cam_of_a_layer_that_is_not_pooled_at_once_is_nan(name: str, layer: str) -> None:
    subject = tiny(name)
    call = partial(vizsynth.cam, subject.net, layer=layer)
    for function in (call, jax.jit(call)):
        assert jnp.isnan(function(subject.images(), 1)).any()


# What changes nothing, and what only scales -----------------------------------


@x64
@pytest.mark.parametrize("method", ["grad_cam", "xgrad_cam", "ablation_cam"])
def test_folding_batch_norm_changes_no_map(method: str) -> None:
    net = with_precision(tiny("resnet_bottleneck").net, jnp.float64)
    images, function = tiny("resnet_bottleneck").images(dtype=np.float64), METHODS[method][0]
    folded = function(fold_batch_norm(net), images, 3, layer="layer1.1")
    # eps is an absolute number: with it alone rounding is not a matter of the last digits
    assert_equal(folded, np.asarray(function(net, images, 3, layer="layer1.1")), 1e-8)


@x64
@pytest.mark.parametrize(
    ("function", "power"),
    [
        (vizsynth.grad_cam, 1),
        (vizsynth.xgrad_cam, 1),
        (vizsynth.layer_cam, 1),
        (vizsynth.hires_cam, 1),
        (vizsynth.guided_grad_cam, 2),
        (vizsynth.ablation_cam, 0),
        (vizsynth.eigen_cam, 0),
    ],
)
def test_a_multiple_of_the_score_scales_the_map(function: Any, power: int) -> None:
    net, _, images, _, _ = by_hand("sequential")
    once = np.asarray(function(net, images, Class(1), layer="relu1"))
    assert_equal(function(net, images, 3.0 * Class(1), layer="relu1"), 3.0**power * once)


@x64
def test_hires_cam_is_linear_in_the_score() -> None:
    net, _, images, _, _ = by_hand("sequential")
    call = partial(vizsynth.hires_cam, net, images, layer="relu1")
    assert_equal(call(2.0 * Class(1) - 0.5 * Class(3)), np.asarray(2 * call(1) - 0.5 * call(3)))


@x64
def test_score_cam_sees_no_constant_of_the_score() -> None:
    """The baseline score that the paper subtracts falls out of the softmax; so does any other."""
    net, _, images, _, _ = by_hand("sequential")
    higher = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf + 5 if "logits" in str(path) and "bias" in str(path) else leaf, net
    )
    assert float(jnp.abs(higher(images) - net(images) - 5).max()) < 1e-12
    assert_equal(
        vizsynth.score_cam(higher, images, LABELS, layer="relu1"),
        np.asarray(vizsynth.score_cam(net, images, LABELS, layer="relu1")),
    )


@x64
@pytest.mark.parametrize("function", CHUNKED)
@pytest.mark.parametrize("batch_size", [1, 3, 4, 100])
def test_the_batch_size_does_not_matter(function: Any, batch_size: int) -> None:
    net, _, images, _, _ = by_hand("sequential")
    call = partial(function, net, images, LABELS, layer="relu1")
    assert_equal(call(batch_size=batch_size), np.asarray(call(batch_size=2)), 1e-12)


@pytest.mark.parametrize("function", CHUNKED)
def test_no_more_channels_are_run_at_once_than_the_batch_size(function: Any) -> None:
    subject = tiny("sequential")  # of two images, 6 channels in relu1
    for batch_size, at_once in [(1, 1), (2, 2), (3, 3), (5, 3), (6, 6), (50, 6)]:
        lowered = function.compiled.lower(
            subject.net, subject.images(2), Class(1), layer="relu1", batch_size=batch_size
        )
        if function is vizsynth.ablation_cam:  # what is after the layer is products: [channels, images, ...]
            assert max(products(lowered.as_text()), default=1) == at_once
        else:
            assert max(convolved(lowered.as_text())) == 2 * at_once


# EigenCAM's sign ---------------------------------------------------------------


@x64
@pytest.mark.parametrize("center", [False, True])
def test_eigen_cam_points_to_the_mean_activation_and_stays_there(center: bool) -> None:
    net, hand, _, _, _ = by_hand("sequential")
    for seed in range(8):
        images = random_images(2, 20, 18, seed=seed, dtype=np.float64)
        maps = vizsynth.eigen_cam(net, images, layer="relu2", center=center)
        moved = vizsynth.eigen_cam(net, images + 1e-9, layer="relu2", center=center)
        assert_equal(moved, np.asarray(maps), 1e-5)
        if not center:  # A v₁ summed over positions is v₁ · Ā times their number
            assert (maps.sum(axis=(1, 2)) >= 0).all()
        X = hand.forward(np.asarray(images))["relu2"]
        mean = X.mean(axis=(1, 2), keepdims=True)
        # The map is X v₁, so Xᵀ X v₁ = σ² v₁ and v₁ · Ā has the sign of (Xᵀ L) · Ā.
        X = X - mean if center else X
        along = np.einsum("nijk,nij->nk", X, np.asarray(maps))
        assert ((along * mean[:, 0, 0]).sum(axis=1) >= 0).all()


@x64
@pytest.mark.parametrize("layer", ["relu1", "relu2", "conv2"])
def test_eigen_cam_has_the_norm_of_the_first_singular_value(layer: str) -> None:
    net, hand, images, pixels, _ = by_hand("sequential")
    maps = np.asarray(vizsynth.eigen_cam(net, images, layer=layer))
    A = hand.forward(pixels)[layer]
    for a, found in zip(A, maps, strict=True):
        assert np.linalg.norm(found) == pytest.approx(
            np.linalg.norm(a.reshape(-1, a.shape[-1]), 2), rel=1e-10
        )


def test_eigen_cam_is_of_no_class() -> None:
    subject = tiny("sequential")
    images = subject.images()
    maps = [vizsynth.eigen_cam(subject.net, images, target, layer="relu2") for target in (None, 1, 4)]
    np.testing.assert_array_equal(maps[0], maps[1])
    np.testing.assert_array_equal(maps[0], maps[2])


# Degenerate layers ---------------------------------------------------------------


@x64
@pytest.mark.parametrize("method", METHODS)
def test_a_layer_of_zeros_gives_zeros_and_not_nan(method: str) -> None:
    net, _, images, _, _ = by_hand("sequential")
    dead = jax.tree_util.tree_map_with_path(
        lambda path, leaf: (
            jnp.full_like(leaf, -1e3) if "conv1" in str(path) and "bias" in str(path) else leaf
        ),
        net,
    )
    assert not vizsynth.features(dead, images, ["relu1"])["relu1"].any()
    maps = METHODS[method][0](dead, images, 1, layer="relu1")
    np.testing.assert_array_equal(maps, np.zeros_like(maps))


@x64
def test_score_cam_hides_the_image_behind_a_constant_map() -> None:
    """A constant channel says nothing about where: its mask is 0, as it is by hand."""
    net, hand, images, _, _ = subject = by_hand("sequential")
    for kernel in (hand.weights["conv1"][0], hand.weights["conv1"][1]):
        kernel[..., 2] = 0
    hand.weights["conv1"][1][2] = 0.7
    kernel, bias = (jnp.asarray(a) for a in hand.weights["conv1"])
    leaves = lambda path, leaf: (  # noqa: E731
        leaf if "conv1" not in str(path) else (kernel if "kernel" in str(path) else bias)
    )
    net = jax.tree_util.tree_map_with_path(leaves, net)
    assert float(jnp.ptp(vizsynth.features(net, images, ["relu1"])["relu1"][..., 2])) == 0
    ours = vizsynth.score_cam(net, images, LABELS, layer="relu1")
    assert_equal(ours, score_cam(subject._replace(net=net), "relu1"))


@x64
def test_a_negative_score_turns_the_weights_of_ablation() -> None:
    net, hand, images, pixels, _ = by_hand("sequential")
    signs = np.sign(hand.logits(pixels))
    assert (signs < 0).any()
    label = int(np.argwhere(signs[0] < 0)[0, 0])
    once = vizsynth.ablation_cam(net, images[:1], Class(label), layer="relu1")
    other = vizsynth.ablation_cam(net, images[:1], -Class(label), layer="relu1")
    assert_equal(once, np.asarray(other), 1e-12)  # (y − y_k) / y is the same for S and −S


# Many classes at once, and one program for many numbers -----------------------------


ONE_FORWARD = {
    # how many of the convolutions are done for each class: the backward ones
    "gradient": (vizsynth.gradient, {}, 2),
    "input_x_gradient": (vizsynth.input_x_gradient, {}, 2),
    "guided_backprop": (vizsynth.guided_backprop, {}, 2),
    "deconvnet": (vizsynth.deconvnet, {}, 2),
    "integrated_gradients": (vizsynth.integrated_gradients, {"steps": 12}, 2),
    "smooth_grad": (vizsynth.smooth_grad, {"key": jax.random.key(0), "samples": 12}, 2),
    "grad_cam_pp": (vizsynth.grad_cam_pp, {"layer": "relu1"}, 1),
    "xgrad_cam": (vizsynth.xgrad_cam, {"layer": "relu1"}, 1),
    "layer_cam": (vizsynth.layer_cam, {"layer": "relu1"}, 1),
    "hires_cam": (vizsynth.hires_cam, {"layer": "relu1"}, 1),
    "ablation_cam": (vizsynth.ablation_cam, {"layer": "relu1"}, 0),
    "score_cam": (vizsynth.score_cam, {"layer": "relu1"}, 0),
    "eigen_cam": (vizsynth.eigen_cam, {"layer": "relu1"}, 0),
}


@pytest.mark.parametrize("name", ONE_FORWARD)
def test_the_maps_of_several_classes_share_one_forward_pass(name: str) -> None:
    function, options, backward = ONE_FORWARD[name]
    subject = tiny("sequential")
    net, images, labels = subject.net, subject.images(), jnp.arange(3)
    one = jax.jit(partial(function, **options))
    many = jax.jit(jax.vmap(partial(function, **options), (None, None, 0)))
    single = convolved(one.lower(net, images, jnp.asarray(0)).as_text())
    shared = convolved(many.lower(net, images, labels).as_text())
    assert len(shared) == len(single)
    # The two further classes add their backward convolutions and nothing else.
    per_class = sum(sorted(single)[len(single) - backward :])
    assert sum(shared) == sum(single) + 2 * per_class


@pytest.mark.parametrize("function", [vizsynth.grad_cam_pp, vizsynth.xgrad_cam])
def test_one_program_serves_every_floor(function: Any) -> None:
    subject = tiny("sequential")
    images = subject.images(3)
    before = function.compiled._cache_size()
    for label, eps in [(0, 0.0), (1, 1e-6), (2, 1.0)]:
        function(subject.net, images, label, layer="relu2", eps=eps)
    assert function.compiled._cache_size() - before == 1


# What is refused, and what is told ------------------------------------------------------

EVERY = [
    vizsynth.cam,
    vizsynth.hires_cam,
    vizsynth.eigen_cam,
    vizsynth.guided_grad_cam,
    *RECTIFIED,
]


@pytest.mark.parametrize("function", EVERY)
def test_a_layer_without_positions_is_refused(function: Any) -> None:
    subject = tiny("sequential")
    with pytest.raises(ValueError, match=r"needs a layer of maps, but 'relu3' is a vector of 7"):
        function(subject.net, subject.images(), 1, layer="relu3")


@pytest.mark.parametrize("function", EVERY)
def test_an_unknown_layer_is_refused_with_the_list_of_all(function: Any) -> None:
    subject = tiny("sequential")
    with pytest.raises(ValueError, match=r"no layer 'relu7'; its layers are: conv1, relu1, pool1, "):
        function(subject.net, subject.images(), 1, layer="relu7")


@pytest.mark.parametrize("function", EVERY)
@pytest.mark.parametrize("label", [-1, 5])
def test_a_class_that_there_is_not_is_refused(function: Any, label: int) -> None:
    subject = tiny("sequential")
    with pytest.raises(ValueError, match=rf"label \[{label}\] is outside the network's 5 classes"):
        function(subject.net, subject.images(), label, layer="relu2")


@pytest.mark.parametrize("function", CHUNKED)
@pytest.mark.parametrize("batch_size", [0, -1, True])
def test_an_impossible_batch_size_is_refused(function: Any, batch_size: Any) -> None:
    subject = tiny("sequential")
    with pytest.raises(ValueError, match="batch_size must be a positive integer"):
        function(subject.net, subject.images(), 1, layer="relu2", batch_size=batch_size)


@pytest.mark.parametrize(
    "function", [vizsynth.grad_cam, vizsynth.grad_cam_pp, vizsynth.xgrad_cam, vizsynth.layer_cam]
)
def test_a_map_that_the_relu_empties_is_zero(function: Any) -> None:
    subject = tiny("sequential")
    against = -LayerNorm("relu1")  # ∂/∂A = −A: every position of every channel speaks against it
    assert not function(subject.net, subject.images(2), against, layer="relu1").any()


@pytest.mark.parametrize(
    "function",
    [
        vizsynth.grad_cam,
        vizsynth.grad_cam_pp,
        vizsynth.xgrad_cam,
        vizsynth.layer_cam,
        vizsynth.ablation_cam,
        vizsynth.cam,
    ],
)
def test_a_map_of_numbers_that_overflow_is_not_finite(function: Any) -> None:
    net = sequential((Conv(2), ReLU(), GlobalMean(), Dense(3)), (8, 8, 3), key=jax.random.key(0))
    net = jax.tree.map(lambda leaf: jnp.abs(leaf) * 3e37, net)
    images = random_images(1, 8, 8)
    assert not jnp.isfinite(function(net, images, 1, layer="relu1")).all()


# Several layers ------------------------------------------------------------------------


@x64
def test_fuse_is_the_mean_of_scaled_maps() -> None:
    rng = np.random.default_rng(0)
    maps = [rng.normal(size=(2, 4, 5)), rng.normal(size=(2, 9, 7)) * 100, -rng.random((2, 3, 3))]
    expected = np.zeros((2, 18, 20))
    for one in maps:
        top = relu(one).max(axis=(1, 2), keepdims=True)
        expected += upsample(relu(one) / np.where(top > 0, top, 1), (18, 20)) / 3
    assert_equal(vizsynth.fuse([jnp.asarray(m) for m in maps], (18, 20)), expected)


@x64
def test_fuse_is_blind_to_the_scale_of_each_layer() -> None:
    rng = np.random.default_rng(1)
    maps = [jnp.asarray(rng.normal(size=(2, 4, 5))), jnp.asarray(rng.normal(size=(2, 8, 9)))]
    fused = vizsynth.fuse(maps, (16, 18))
    assert_equal(vizsynth.fuse([1e3 * maps[0], 1e-3 * maps[1]], (16, 18)), np.asarray(fused))
    assert float(fused.min()) >= 0
    assert float(fused.max()) <= 1


@pytest.mark.parametrize("counts", [(), (2, 3)])
def test_fuse_wants_maps_of_the_same_images(counts: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="fuse takes maps of the same images"):
        vizsynth.fuse([jnp.zeros((n, 4, 4)) for n in counts], (8, 8))
