"""Randomization against a loop that changes the layers one by one, and SciPy's correlation."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from evaluated import LABELS, N, images, network
from jax.tree_util import keystr, tree_flatten_with_path
from scipy.stats import spearmanr
from tiny import tiny

import vizsynth
from vizsynth.evaluation.randomization import average_ranks, reinitialize, spearman

KEY = jax.random.key(8)
LAYERS = ("logits", "conv2", "conv1")


def _replaced(net, layers):
    leaves, structure = tree_flatten_with_path(net)
    changed = []
    for i, (path, leaf) in enumerate(leaves):
        name = keystr(path, simple=True, separator=".").removesuffix(".value")
        gone = name.split(".")[0] in layers
        changed.append(reinitialize(jax.random.fold_in(KEY, i), name, leaf) if gone else leaf)
    return jax.tree.unflatten(structure, changed)


@pytest.mark.parametrize("of", [vizsynth.gradient, partial(vizsynth.grad_cam, layer="relu1")])
@pytest.mark.filterwarnings("ignore:An input array is constant")
def test_follows_the_paper(of):
    net, x = network(), images()
    assert vizsynth.parameter_layers(net, x) == LAYERS
    cascade = vizsynth.cascading_randomization(net, x, LABELS, of=of, key=KEY)
    alone = vizsynth.independent_randomization(net, x, LABELS, of=of, key=KEY)
    trained = np.asarray(of(net, x, LABELS)).reshape(N, -1)
    for k in range(len(LAYERS)):
        for found, gone in ((cascade, LAYERS[: k + 1]), (alone, LAYERS[k : k + 1])):
            maps = np.asarray(of(_replaced(net, gone), x, LABELS)).reshape(N, -1)
            for i in range(N):
                signed = spearmanr(trained[i], maps[i]).statistic
                absolute = spearmanr(abs(trained[i]), abs(maps[i])).statistic
                np.testing.assert_allclose(found.signed[k, i], np.nan_to_num(signed), atol=1e-3)
                np.testing.assert_allclose(found.absolute[k, i], np.nan_to_num(absolute), atol=1e-3)
    np.testing.assert_allclose(cascade.signed[0], alone.signed[0], atol=1e-5)


def test_ranks_are_scipys(x64):
    rng = np.random.default_rng(0)
    x = np.maximum(rng.normal(size=(4, 7, 9)), 0)  # half of them equal
    y = np.round(rng.normal(size=(4, 7, 9)) + x, 1)
    expected = [spearmanr(a.reshape(-1), b.reshape(-1)).statistic for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(spearman(jnp.asarray(x), jnp.asarray(y)), expected, atol=1e-12)
    assert spearman(jnp.zeros((1, 5)), jnp.arange(5.0)[None]).tolist() == [0.0]
    assert average_ranks(jnp.asarray([3.0, 1.0, 3.0, -2.0])).tolist() == [3.5, 2.0, 3.5, 1.0]


def test_large_maps_keep_their_precision():
    x = np.random.default_rng(0).normal(size=(1, 300, 300, 3)).astype(np.float32)
    y = x + np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
    expected = spearmanr(x.reshape(-1), y.reshape(-1)).statistic
    np.testing.assert_allclose(spearman(jnp.asarray(x), jnp.asarray(y)), expected, atol=1e-4)


def test_a_map_that_ignores_the_network_does_not_change():
    def edges(net, images, target):
        return jnp.abs(images[:, 1:] - images[:, :-1]).max(-1)

    found = vizsynth.cascading_randomization(network(), images(), LABELS, of=edges, key=KEY)
    np.testing.assert_allclose(found.signed, 1, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("vgg", ("fc8", "fc7", "fc6", "conv2_2"), "conv1_1"),
        ("squeezenet", ("conv10", "fire9.expand3x3", "fire9.expand1x1", "fire9.squeeze"), "conv1"),
        ("resnet_basic", ("fc",), "conv1"),
        ("sequential", ("logits", "dense3"), "conv1"),
    ],
)
def test_layers_come_from_the_logits_down(name, first, last):
    subject = tiny(name)
    layers = vizsynth.parameter_layers(subject.net, subject.images())
    assert layers[: len(first)] == first
    assert layers[-1].startswith(last)
    parameters = {
        keystr(path, simple=True, separator=".").removesuffix(".value").rpartition(".")[0]
        for path, _ in tree_flatten_with_path(subject.net)[0]
    }
    assert set(layers) == parameters and len(layers) == len(parameters)


def test_the_order_is_found_inside_a_jitted_network():
    parameters = {"a": {"w": jnp.ones((3, 4))}, "b": {"w": jnp.ones((4, 4))}, "z": {"w": jnp.ones((4, 4))}}

    @jax.jit
    def apply(parameters, x):
        x = jax.jit(lambda w, x: x @ w)(parameters["a"]["w"], x)
        return x @ parameters["z"]["w"] @ parameters["b"]["w"]

    def forward(parameters, images, tap=lambda name, value: value, ops=None):
        return tap("logits", apply(parameters, images.mean((1, 2))))

    net = jax.tree_util.Partial(forward, parameters)
    assert [name.rpartition("w")[0] or name for name in vizsynth.parameter_layers(net, images())]
    order = [
        name[-3] if name.endswith("w") else name[-1] for name in vizsynth.parameter_layers(net, images())
    ]
    assert order == ["b", "z", "a"]


def test_layers_can_be_chosen_by_the_beginning_of_their_paths():
    subject = tiny("resnet_basic")
    net, x = subject.net, subject.images()
    layers = ("fc", "layer2", "layer1", "conv1")
    found = vizsynth.cascading_randomization(net, x, 0, of=vizsynth.gradient, key=KEY, layers=layers)
    assert found.signed.shape == (4, 2)
    with pytest.raises(ValueError, match=r"no parameters lie under 'layer9'.*fc"):
        vizsynth.cascading_randomization(net, x, 0, of=vizsynth.gradient, key=KEY, layers=["layer9"])


def test_one_program_serves_other_weights_and_labels():
    x = images()
    before = vizsynth.cascading_randomization.compiled._cache_size()
    for label in (0, 1):
        net = jax.tree.map(lambda leaf, label=label: leaf * (1 + label), network())
        vizsynth.cascading_randomization(net, x, label, of=vizsynth.saliency, key=KEY)
    assert vizsynth.cascading_randomization.compiled._cache_size() - before == 1


def test_does_not_depend_on_the_batch():
    net, x = network(), images()
    whole = vizsynth.cascading_randomization(net, x, LABELS, of=vizsynth.saliency, key=KEY)
    one = vizsynth.cascading_randomization(net, x[1:2], LABELS[1:2], of=vizsynth.saliency, key=KEY)
    np.testing.assert_allclose(whole.signed[:, 1:2], one.signed, atol=1e-3)


def test_a_function_has_no_parameters():
    def plain(images, tap=lambda name, value: value, ops=None):
        return tap("logits", images.mean((1, 2)))

    with pytest.raises(ValueError, match="no parameters"):
        vizsynth.cascading_randomization(plain, images(), 0, of=vizsynth.gradient, key=KEY)
