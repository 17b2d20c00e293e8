"""What all networks share: folding, precision, attributes, trunks, sizes."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny import (
    CLASSES,
    Subject,
    random_images,
    randomized,
    tiny,
    tiny_resnet,
    tiny_vgg,
)

import vizsynth
from vizsynth import models
from vizsynth.images import Standardize
from vizsynth.models import (
    alexnet,
    fold_batch_norm,
    parameter_count,
    squeezenet1_1,
    with_attributes,
    with_precision,
)
from vizsynth.models.io.load import NETWORKS
from vizsynth.models.io.weights import skeleton
from vizsynth.models.network import layer_names
from vizsynth.models.squeezenet import SqueezeNet, SqueezeNetConfig
from vizsynth.ops import pool_padding
from vizsynth.taps import run

NORMALIZED = ["vgg_bn", "resnet_bottleneck", "sequential"]
KEY = jax.random.key(0)


def structure(net: Any) -> Any:
    return jax.tree.structure(net)


# Names -----------------------------------------------------------------------


def test_layers_are_named_without_tracing_the_network_anew() -> None:
    calls: list[str] = []

    @jax.tree_util.register_dataclass
    @dataclass
    class Twice:
        """A network that uses a name twice, and counts how often it is run."""

        kernel: Any

        def __call__(self, images: Any, *, tap: Any, **_: Any) -> Any:
            calls.append("run")
            x = tap("first", images @ self.kernel)
            return tap("last", tap("first", x @ jnp.ones((4, 2))) @ jnp.ones((2, 5)))

    for kernel in (jnp.ones((3, 4)), jnp.zeros((3, 4))):
        assert layer_names(Twice(kernel)) == ("first", "last")
    assert calls == ["run"]


# Folding ---------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", NORMALIZED)
def test_folding_changes_no_layer(name: str) -> None:
    subject = tiny(name)
    net = with_precision(subject.net, jnp.float64)
    images = subject.images(dtype=np.float64)
    folded = fold_batch_norm(net)
    before = vizsynth.features(net, images, net.layers)
    after = vizsynth.features(folded, images, net.layers)
    assert folded.layers == net.layers
    for layer, values in before.items():
        assert after[layer].dtype == jnp.float64
        scale = float(jnp.abs(values).max())
        np.testing.assert_allclose(after[layer], values, rtol=0, atol=1e-10 * scale)
    gradients = [vizsynth.gradient(n, images, 1) for n in (net, folded)]
    np.testing.assert_allclose(*gradients, rtol=0, atol=1e-10 * float(jnp.abs(gradients[0]).max()))


@pytest.mark.parametrize("name", NORMALIZED)
def test_folding_leaves_no_statistics_and_the_original_as_it_was(name: str) -> None:
    net = tiny(name).net
    leaves = jax.tree.leaves(net)
    before = structure(net)
    folded = fold_batch_norm(net)
    assert structure(net) == before
    assert all(a is b for a, b in zip(jax.tree.leaves(net), leaves, strict=True))
    assert len(jax.tree.leaves(folded)) < len(leaves)
    assert not jax.tree.leaves(nnx.state(folded, nnx.BatchStat))
    assert structure(fold_batch_norm(folded)) == structure(folded)


@pytest.mark.parametrize("name", ["vgg", "squeezenet"])
def test_there_may_be_nothing_to_fold(name: str) -> None:
    net = tiny(name).net
    folded = fold_batch_norm(net)
    assert structure(folded) == structure(net)
    assert all(a is b for a, b in zip(*map(jax.tree.leaves, (folded, net)), strict=True))


# Precision and attributes ----------------------------------------------------


def precisions(net: Any, images: Any) -> set[Any]:
    seen: set[Any] = set()

    def note(name: str, value: Any) -> Any:
        seen.add(value.dtype)
        return value

    jax.eval_shape(lambda net, images: net(images, tap=note), net, images)
    return seen


def test_bfloat16_all_through(subject: Subject) -> None:
    half = with_precision(subject.net, jnp.bfloat16)
    assert precisions(half, subject.images()) == {jnp.dtype(jnp.bfloat16)}
    logits, expected = jax.jit(lambda *nets: [net(subject.images()) for net in nets])(half, subject.net)
    apart = jnp.linalg.norm(logits.astype(jnp.float32) - expected) / jnp.linalg.norm(expected)
    assert float(apart) < 0.1


def test_gradients_keep_the_precision_of_the_images() -> None:
    subject = tiny("vgg_bn")
    half = with_precision(subject.net, jnp.bfloat16)
    assert vizsynth.gradient(half, subject.images(), 1).dtype == jnp.float32


@pytest.mark.usefixtures("x64")
def test_float64_all_through(subject: Subject) -> None:
    net, images = with_precision(subject.net, jnp.float64), subject.images(dtype=np.float64)
    assert precisions(net, images) == {jnp.dtype(jnp.float64)}
    text = jax.jit(lambda net, images: net(images)).lower(net, images).as_text()
    assert "xf32>" not in text
    assert "tensor<f32>" not in text


def test_precision_leaves_the_original_as_it_was() -> None:
    net = tiny("vgg_bn").net
    half = with_precision(net, jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(net)} == {jnp.dtype(jnp.float32)}
    assert {leaf.dtype for leaf in jax.tree.leaves(half)} == {jnp.dtype(jnp.bfloat16)}
    assert not hasattr(net, "dtype")
    assert half.layers == net.layers


def test_other_attributes_share_the_weights() -> None:
    net = tiny("vgg").net
    labels = tuple("abcde")
    other = with_attributes(net, labels=labels, standardize=None)
    assert other.labels == labels
    assert other.standardize is None
    assert net.labels is None
    assert isinstance(net.standardize, Standardize)
    assert all(a is b for a, b in zip(*map(jax.tree.leaves, (other, net)), strict=True))


@pytest.mark.parametrize("name", ["vgg", "resnet_basic", "squeezenet"])
def test_standardization_is_inside(name: str) -> None:
    subject = tiny(name)
    images = subject.images()
    bare = with_attributes(subject.net, standardize=None)
    mean, std = models.IMAGENET
    pixels = (np.asarray(images) - np.float32(mean)) / np.float32(std)
    expected = bare(jnp.asarray(pixels))
    np.testing.assert_allclose(subject.net(images), expected, rtol=1e-4, atol=1e-5)


# Trunks and sizes ------------------------------------------------------------

TRUNKS = {
    "vgg": (lambda n: tiny_vgg(num_classes=n), "pool2", (20, 18)),
    "vgg_bn": (lambda n: tiny_vgg(batch_norm=True, num_classes=n), "pool2", (20, 18)),
    "resnet": (lambda n: tiny_resnet(bottleneck=True, num_classes=n), "layer2.0", (20, 18)),
    "squeezenet": (lambda n: squeezenet1_1(n, key=KEY), "fire9", (40, 36)),
    "alexnet": (lambda n: alexnet(n, key=KEY), "pool5", (64, 70)),
}


@pytest.mark.parametrize("name", TRUNKS)
def test_a_trunk_ends_with_its_last_features(name: str) -> None:
    make, last, size = TRUNKS[name]
    trunk = make(None)
    images = random_images(1, *size)
    assert trunk.num_classes is None
    assert trunk.layers[-1] == last
    output, seen = jax.jit(lambda net, images: run(net, images, [last]))(trunk, images)
    np.testing.assert_array_equal(output, seen[last])


@pytest.mark.parametrize("name", [name for name in TRUNKS if name != "alexnet"])
def test_a_trunk_is_the_network_without_its_head(name: str) -> None:
    make = TRUNKS[name][0]
    whole, trunk = make(CLASSES), make(None)
    assert whole.num_classes == CLASSES
    assert whole.layers[: len(trunk.layers)] == trunk.layers
    assert whole.layers[-1] == "logits"
    assert len(whole.layers) > len(trunk.layers)
    assert parameter_count(whole) > parameter_count(trunk)


@pytest.mark.parametrize("size", [(33, 33), (40, 53), (71, 37)])
@pytest.mark.parametrize("name", ["vgg", "resnet_basic", "resnet_bottleneck", "squeezenet"])
def test_any_size_has_logits(name: str, size: tuple[int, int]) -> None:
    net = tiny(name).net
    shapes = jax.eval_shape(lambda net, x: net(x), net, jax.ShapeDtypeStruct((3, *size, 3), "float32"))
    assert shapes.shape == (3, CLASSES)


SMALLEST = {"vgg16": 32, "alexnet": 63, "squeezenet1_1": 17, "resnet18": 1}


def output(name: str, size: int) -> Any:
    """Return the shape of what a network of that name gives for square images. Nothing is computed."""
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    return jax.eval_shape(lambda net, x: net(x), skeleton(NETWORKS[name]), image).shape


@pytest.mark.parametrize("name", SMALLEST)
def test_the_smallest_images_are_taken_and_smaller_ones_are_named(name: str) -> None:
    smallest = SMALLEST[name]
    assert output(name, smallest) == (1, 1000)
    if smallest > 1:
        with pytest.raises(ValueError, match=r"too small for this network.*give larger images"):
            output(name, smallest - 1)


PARAMETERS = {
    "vgg11": 132_863_336,
    "vgg13": 133_047_848,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "vgg11_bn": 132_868_840,
    "vgg13_bn": 133_053_736,
    "vgg16_bn": 138_365_992,
    "vgg19_bn": 143_678_248,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "alexnet": 61_100_840,
    "squeezenet1_1": 1_235_496,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_as_many_as_published(name: str) -> None:
    made = jax.eval_shape(lambda: getattr(models, name)(key=KEY))
    assert parameter_count(made) == PARAMETERS[name]
    assert made.num_classes == 1000
    assert made.labels is None


LAYERS = {
    "vgg16": ["conv1_1", "relu1_1", "conv1_2", "relu1_2", "pool1", "conv5_3", "relu5_3", "pool5", "fc6"],
    "resnet50": ["conv1", "stem", "pool1", "layer1.0.conv1", "layer4.2.branch", "layer4.2", "pool5"],
    "alexnet": ["conv1", "relu1", "pool1", "conv5", "relu5", "pool5", "fc6", "relu6", "fc7", "relu7"],
    "squeezenet1_1": ["conv1", "relu1", "pool1", "fire2.squeeze", "fire2", "fire9", "conv10", "relu10"],
}
COUNTS = {"vgg16": 13 * 2 + 5 + 5, "alexnet": 5 * 2 + 3 + 5, "squeezenet1_1": 2 + 3 + 8 * 5 + 3}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_have_the_papers_names(name: str) -> None:
    layers = skeleton(NETWORKS[name]).layers
    places = [layers.index(layer) for layer in LAYERS[name]]
    assert places == sorted(places)
    assert layers[-1] == "logits"
    assert len(layers) == COUNTS.get(name, len(layers))


def test_weights_are_drawn_by_the_key_and_the_fan_in() -> None:
    one, same = (squeezenet1_1(7, key=jax.random.key(4)) for _ in range(2))
    other = squeezenet1_1(7, key=jax.random.key(5))
    kernel = np.asarray(one.fire9.expand3x3.kernel[...])
    np.testing.assert_array_equal(kernel, same.fire9.expand3x3.kernel[...])
    assert not np.array_equal(kernel, other.fire9.expand3x3.kernel[...])
    assert kernel.std() == pytest.approx(np.sqrt(2 / (9 * 64)), rel=0.02)
    kernels = [k for k in jax.tree.leaves(nnx.state(one, nnx.Param)) if k.ndim == 4]
    assert len({float(k.ravel()[0]) for k in kernels}) == len(kernels)  # no two from the same key


@pytest.mark.parametrize("size", [37, 38, 39, 40])
def test_squeezenet_pools_as_its_weights_were_trained(size: int) -> None:
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    for ceil in (False, True):
        config = SqueezeNetConfig(CLASSES, ceil_pool=ceil)
        shapes = jax.eval_shape(
            lambda net, x: run(net, x, ("relu1", "pool1"))[1], SqueezeNet(config, key=KEY), images
        )
        before, after = (shapes[layer].shape[1] for layer in ("relu1", "pool1"))
        padded = before + sum(pool_padding(before, 3, 2, 0, ceil=ceil))
        assert after == (padded - 3) // 2 + 1 == (before - 3 + ceil) // 2 + 1


def test_networks_are_pytrees_that_vmap() -> None:
    nets = [randomized(tiny_vgg(), seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *nets)
    images = random_images(2, 20, 18)
    logits = jax.jit(jax.vmap(lambda net: net(images)))(stacked)
    for i, net in enumerate(nets):
        np.testing.assert_allclose(logits[i], net(images), rtol=1e-4, atol=1e-5)
