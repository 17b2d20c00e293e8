"""Reading and holding layers, and what the compiled programs compute."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import Subject, random_images, tiny

import vizsynth
from vizsynth import ops
from vizsynth.models import with_precision
from vizsynth.scores import Class
from vizsynth.taps import evaluate, passthrough, record, replace, run, shapes, shift


def in_float64(subject: Subject) -> tuple[Any, Any]:
    return with_precision(subject.net, jnp.float64), subject.images(dtype=np.float64)


def assert_close(a: Any, b: Any, tolerance: float = 1e-12) -> None:
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * float(jnp.abs(b).max()))


# Reading ---------------------------------------------------------------------


def test_every_layer_is_seen_once_and_listed_in_order(subject: Subject) -> None:
    names: list[str] = []

    def listed(name: str, value: Any) -> Any:
        names.append(name)
        return value

    jax.eval_shape(lambda net, images: net(images, tap=listed), subject.net, subject.images())
    assert tuple(names) == subject.net.layers
    assert len(set(names)) == len(names)
    assert names[-1] == "logits"


def test_features_are_what_the_network_computes(subject: Subject) -> None:
    net, images = subject.net, subject.images()

    def recorded(net: Any, images: Any) -> Any:
        seen: dict[str, Any] = {}
        return net(images, tap=record(net.layers, seen)), seen

    logits, seen = jax.jit(recorded)(net, images)
    found = vizsynth.features(net, images, net.layers)
    assert set(found) == set(seen) == set(net.layers)
    for name, values in found.items():
        assert values.shape == seen[name].shape
        assert values.shape[0] == len(images)
        assert_close(values, seen[name], 1e-5)
    assert_close(found["logits"], logits, 1e-5)


def test_shapes_are_those_of_the_features() -> None:
    net = tiny("vgg").net
    images = jnp.zeros((2, 48, 48, 3))
    found = shapes(net, images, ["relu1_1", "logits"])
    wanted = vizsynth.features(net, images, ["relu1_1", "logits"])
    assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in wanted.items()}
    with pytest.raises(ValueError, match="no layer 'relu9_9'; its layers are: conv1_1"):
        shapes(net, images, ["relu9_9"])


def test_relu_layers_are_rectified_and_pools_shrink(subject: Subject) -> None:
    found = vizsynth.features(subject.net, subject.images(), subject.net.layers)
    for name, values in found.items():
        if "relu" in name or name == "stem" or re.fullmatch(r"layer\d\.\d+|fire\d", name):
            assert float(values.min()) == 0
    assert found[subject.middle].ndim == 4


def test_layers_may_be_any_sequence(subject: Subject) -> None:
    images = subject.images()
    listed = vizsynth.features(subject.net, images, [subject.middle])
    same = vizsynth.features(subject.net, images, (subject.middle,))
    np.testing.assert_array_equal(listed[subject.middle], same[subject.middle])


@pytest.mark.parametrize(
    "call",
    [
        lambda net, images: vizsynth.features(net, images, ["relu9_9"]),
        lambda net, images: vizsynth.grad_cam(net, images, 1, layer="relu9_9"),
        lambda net, images: vizsynth.gradient(net, images, vizsynth.scores.Channel("relu9_9", 0)),
        lambda net, images: run(net, images, ["relu9_9"]),
    ],
)
def test_an_unknown_layer_lists_the_legal_ones(call: Callable[..., Any]) -> None:
    subject = tiny("vgg")
    with pytest.raises(ValueError, match=r"no layer 'relu9_9'") as error:
        call(subject.net, subject.images())
    for name in subject.net.layers:
        assert name in str(error.value)


def test_a_trunk_has_no_classes_to_explain() -> None:
    net = vizsynth.models.squeezenet1_1(None, key=jax.random.key(0))
    with pytest.raises(ValueError, match="trunk without a classifier"):
        vizsynth.gradient(net, random_images(1, 40, 40), 0)


# Holding and shifting --------------------------------------------------------


def test_holding_a_layer_at_its_own_value_changes_nothing(subject: Subject) -> None:
    net, images = subject.net, subject.images()
    logits, seen = run(net, images, net.layers)  # operation by operation: equal to the last bit
    for name in net.layers:
        held = net(images, tap=replace({name: seen[name]}))
        np.testing.assert_array_equal(held, logits)
    np.testing.assert_array_equal(net(images, tap=replace(seen)), logits)


def test_what_lies_before_a_held_layer_no_longer_matters(subject: Subject) -> None:
    net, images = subject.net, subject.images()
    held = replace(vizsynth.features(net, images, [subject.middle]))
    score = lambda images: evaluate(net, images, Class(1), tap=held).sum()  # noqa: E731
    np.testing.assert_array_equal(jax.jit(jax.grad(score))(images), jnp.zeros_like(images))


@pytest.mark.usefixtures("x64")
def test_replaced_and_shifted_layers_have_the_same_gradient(subject: Subject) -> None:
    net, images = in_float64(subject)
    layers = list(net.layers)
    values = vizsynth.features(net, images, layers)

    def score(tap: Any) -> Any:
        return evaluate(net, images, Class(2), tap=tap).sum()

    zeros = jax.tree.map(jnp.zeros_like, values)
    shifted = jax.jit(jax.grad(lambda deltas: score(shift(deltas))))(zeros)
    name = subject.middle
    replaced = jax.jit(jax.grad(lambda a: score(replace({name: a}))))(values[name])
    assert float(jnp.abs(replaced).max()) > 0
    assert_close(shifted[name], replaced)


@pytest.mark.usefixtures("x64")
def test_a_shift_is_added(subject: Subject) -> None:
    net, images = in_float64(subject)
    values = vizsynth.features(net, images, [subject.middle])
    delta = jax.tree.map(jnp.cos, values)
    moved = jax.tree.map(jnp.add, values, delta)
    taps = shift(delta), replace(moved), passthrough
    shifted, held, alone = jax.jit(lambda net, images: [net(images, tap=tap) for tap in taps])(net, images)
    assert_close(shifted, held)
    assert float(jnp.abs(shifted - alone).max()) > 1e-3


def test_taps_are_applied_within_one_another() -> None:
    def double(name: str, value: Any) -> Any:
        return 2 * value

    ones = jnp.ones(2)
    held = replace({"a": jnp.zeros(2)}, tap=double)
    assert held("a", ones).tolist() == [0, 0]
    assert held("b", ones).tolist() == [2, 2]
    moved = shift({"a": jnp.ones(2)}, tap=double)
    assert moved("a", ones).tolist() == [3, 3]
    assert moved("b", ones).tolist() == [2, 2]
    seen: dict[str, Any] = {}
    recorded = record(["a"], seen, tap=double)
    assert recorded("a", ones).tolist() == recorded("b", ones).tolist() == [2, 2]
    assert list(seen) == ["a"]
    assert seen["a"].tolist() == [2, 2]
    assert passthrough("a", ones) is ones


# What is computed ------------------------------------------------------------


def work(net: Any, images: Any) -> list[tuple[str, str]]:
    """Return the convolutions, matrix products and taps of one forward pass, in order."""
    done: list[tuple[str, str]] = []

    def conv(x: Any, kernel: Any, bias: Any, **options: Any) -> Any:
        done.append(("dot" if kernel.shape[:2] == (1, 1) else "conv", options["name"]))
        return ops.fast.conv(x, kernel, bias, **options)

    def linear(x: Any, kernel: Any, bias: Any, **options: Any) -> Any:
        done.append(("dot", options["name"]))
        return ops.linear(x, kernel, bias, **options)

    def listed(name: str, value: Any) -> Any:
        done.append(("tap", name))
        return value

    table = ops.fast._replace(conv=conv, linear=linear)
    jax.eval_shape(lambda net, images: net(images, tap=listed, ops=table), net, images)
    return done


def counted(done: list[tuple[str, str]]) -> tuple[int, int]:
    kinds = [kind for kind, _ in done]
    return kinds.count("conv"), kinds.count("dot")


def in_program(text: str) -> tuple[int, int]:
    return text.count("stablehlo.convolution"), text.count("stablehlo.dot_general")


PROGRAMS = [
    ("vgg", ["conv1_1", "pool1", "relu2_2", "logits"]),
    ("resnet_basic", ["stem", "layer1.1"]),
    ("resnet_bottleneck", ["layer1.0", "layer2.0"]),
    ("squeezenet", ["relu1", "fire9", "relu10"]),
]
CASES = [(name, layer) for name, layers in PROGRAMS for layer in layers]
MAPS = [(name, layer) for name, layer in CASES if layer not in ("fc6", "logits")]


def program(name: str) -> tuple[Any, Any]:
    """Return a network, and images large enough for all of its windows, and its dense layers."""
    sides = {"vgg": 28, "squeezenet": 65}
    images = random_images(2, sides[name], sides[name]) if name in sides else tiny(name).images()
    return tiny(name).net, images


@pytest.mark.parametrize(("name", "layer"), CASES)
def test_features_compute_nothing_past_their_layer(name: str, layer: str) -> None:
    net, images = program(name)
    done = work(net, images)
    text = vizsynth.features.compiled.lower(net, images, (layer,)).as_text()
    assert in_program(text) == counted(done[: done.index(("tap", layer))])


@pytest.mark.parametrize(("name", "layer"), MAPS)
def test_grad_cam_runs_the_head_once_and_the_tail_forward_and_backward(name: str, layer: str) -> None:
    net, images = program(name)
    done = work(net, images)
    at = done.index(("tap", layer))
    (head, head_dots), (tail, tail_dots) = counted(done[:at]), counted(done[at:])
    text = vizsynth.grad_cam.compiled.lower(net, images, Class(1), layer=layer).as_text()
    # The logit's own value is not needed where nothing but a product follows its last nonlinearity.
    last = 0 if name == "squeezenet" else 1
    weighted_sum = 1
    assert in_program(text) == (head + 2 * tail, head_dots + 2 * tail_dots - last + weighted_sum)


@pytest.mark.parametrize("name", [name for name, _ in PROGRAMS])
def test_maps_of_many_classes_share_one_forward_pass(name: str) -> None:
    net, images = program(name)
    labels = jnp.arange(3)
    convs, _ = counted(work(net, images))
    many = jax.jit(jax.vmap(vizsynth.gradient, (None, None, 0)))
    outputs = re.findall(
        r"stablehlo\.convolution.*-> tensor<(\d+)x", many.lower(net, images, labels).as_text()
    )
    assert sorted(outputs) == ["2"] * convs + ["6"] * convs
    maps = many(net, images, labels)
    for label in range(3):
        assert_close(maps[label], vizsynth.gradient(net, images, label), 1e-4)


def test_vmapped_grad_cam_shares_its_head() -> None:
    net, images = program("vgg")
    call = lambda label: vizsynth.grad_cam(net, images, label, layer="relu1_1")  # noqa: E731
    text = jax.jit(jax.vmap(call)).lower(jnp.arange(3)).as_text()
    outputs = re.findall(r"stablehlo\.convolution.*-> tensor<(\d+)x", text)
    assert sorted(outputs) == ["2"] * 3 + ["6"] * 2  # conv1_1; conv2_1, conv2_2 there and back


# Purity ----------------------------------------------------------------------


def marks(net: Any) -> Any:
    leaves, structure = jax.tree.flatten(net)
    return [id(leaf) for leaf in leaves], structure, sorted(vars(net))


def test_networks_in_closures_are_never_changed() -> None:
    net, images = tiny("vgg_bn").net, tiny("vgg_bn").images()
    before = marks(net)
    mean = lambda images: net(images).mean()  # noqa: E731

    def step(images: Any, _: Any) -> Any:
        return images - jax.grad(mean)(images), None

    scanned, _ = jax.jit(lambda images: jax.lax.scan(step, images, length=2))(images)
    once = images - jax.jit(jax.grad(mean))(images)
    expected = once - jax.jit(jax.grad(mean))(once)
    assert_close(scanned, expected, 1e-3)
    jax.jit(jax.vmap(lambda image: net(image[None])))(images)
    jax.grad(lambda images: vizsynth.features(net, images, ("logits",))["logits"].sum())(images)
    jax.jit(vizsynth.gradient)(net, images, 1)
    with pytest.raises(ValueError, match="no layer"):
        vizsynth.features(net, images, ["nowhere"])
    with pytest.raises(ZeroDivisionError):
        jax.grad(lambda images: net(images, tap=lambda name, value: value / (1 // 0)).sum())(images)
    assert marks(net) == before
