"""Every transformation of JAX on every network, and where the fast table is chosen."""

import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jaxtyping import Array
from tiny import random_images, tiny

import vizsynth
from vizsynth import ops
from vizsynth.models import alexnet, fold_batch_norm, sequential, with_precision
from vizsynth.models.sequential import Conv, Dense, GlobalMean, MaxPool, ReLU
from vizsynth.scores import Class

STACK = [Conv(4, stride=2), ReLU(), MaxPool(2), GlobalMean(), Dense(3)]
ADAPTED = tiny("sequential_mean")


def adapted() -> Any:
    def call(net: Any, images: Array) -> Array:
        return net(images)

    return vizsynth.adapt(call, ADAPTED.net, example=ADAPTED.images(1))


def family(name: str) -> tuple[Any, tuple[int, int]]:
    """Return a network in float64, and the size of its images."""
    match name:
        case "alexnet":
            net, size = alexnet(num_classes=None, key=jax.random.key(0)), (64, 63)
        case "adapted":
            net, size = adapted(), ADAPTED.size
        case _:
            net, size = tiny(name).net, tiny(name).size
    return jax.tree.map(lambda leaf: leaf.astype(np.float64), net), size


@jax.jit
def derivatives(net: Any, image: Array, directions: Array) -> Any:
    """Return derivatives of logits and of a score along directions: in forward mode, and in reverse."""

    def logits(t: Array) -> Array:
        output = net((image + jnp.tensordot(t, directions, 1))[None])
        return output.reshape(-1, output.shape[-1]).mean(axis=0)[:3]

    def score(t: Array) -> Array:
        return jnp.sin(logits(t)).sum()

    t, v = jnp.zeros(len(directions)), jnp.arange(1.0, len(directions) + 1)
    backward = jax.jacrev(logits)(t)
    forward = jax.jacfwd(logits)(t)
    along = jax.jvp(logits, (t,), (v,))[1]
    linear = jax.linearize(logits, t)[1](v)
    second = jax.hessian(score)(t)
    return (forward, along, linear, second), (
        backward,
        backward @ v,
        backward @ v,
        jax.jacrev(jax.jacrev(score))(t),
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "name",
    ["vgg", "vgg_bn", "resnet_basic", "resnet_bottleneck", "alexnet", "squeezenet", "sequential", "adapted"],
)
def test_forward_mode_and_second_order_are_those_of_reverse_mode(name: str) -> None:
    net, size = family(name)
    image = random_images(1, *size, dtype=np.float64)[0]
    directions = jnp.asarray(np.random.default_rng(1).normal(size=(2, *image.shape)))
    for found, wanted in zip(*derivatives(net, image, directions), strict=True):
        assert float(jnp.abs(wanted).max()) > 1e-9
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-11 * float(jnp.abs(wanted).max()))


# Where the fast table is chosen -------------------------------------------------


@pytest.fixture(scope="module")
def net() -> Any:
    return sequential(STACK, (16, 16, 3), key=jax.random.key(0))


IMAGES = random_images(1, 16, 16)


def is_jaxs_own(function: Any, net: Any, platform: str = "cpu") -> bool:
    """Tell whether a gradient's program has the backward convolution and the backward pool of JAX."""
    lowered = function.trace(net, IMAGES, Class(jnp.asarray(1))).lower(lowering_platforms=(platform,))
    text = lowered.as_text()
    found = {"lhs_dilate = [2, 2]" in text, "select_and_scatter" in text}
    assert len(found) == 1
    return found.pop()


def gradient(net: Any, images: Array, target: Any) -> Array:
    return jax.grad(lambda images: target({"logits": net(images)}).sum())(images)


public: Any = vizsynth.gradient


def test_public_functions_alone_choose_the_fast_table(net: Any) -> None:
    assert not is_jaxs_own(public.compiled, net)
    assert is_jaxs_own(jax.jit(gradient), net)
    assert not is_jaxs_own(jax.jit(gradient), ops.accelerated(net))


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_programs_for_other_backends_have_none_of_it(net: Any, platform: str) -> None:
    assert is_jaxs_own(public.compiled, net, platform)
    assert is_jaxs_own(public.compiled, vizsynth.prepare(net), platform)


def test_prepared_networks_keep_the_fast_table_until_they_are_changed(net: Any) -> None:
    fast = vizsynth.prepare(net)
    assert not is_jaxs_own(jax.jit(gradient), fast)
    assert not is_jaxs_own(jax.jit(gradient), vizsynth.models.with_attributes(fast, labels=("a", "b", "c")))
    assert not is_jaxs_own(jax.jit(gradient), fold_batch_norm(fast))
    assert is_jaxs_own(jax.jit(gradient), ops.unprepared(fast))
    assert is_jaxs_own(jax.jit(gradient), with_precision(fast, jnp.float32))
    assert jax.tree.structure(ops.unprepared(ops.accelerated(net))) == jax.tree.structure(net)
    np.testing.assert_array_equal(public(fast, IMAGES, 1), public(net, IMAGES, 1))


def test_other_backends_choose_nothing(net: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert ops.accelerated(net) is net


def test_networks_within_networks_are_given_the_fast_table(net: Any) -> None:
    mesh = jax.make_mesh((1,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
    some = [vizsynth.over_rows(net, mesh), vizsynth.models.stylizer(key=jax.random.key(0)), adapted()]
    for fast, plain in zip(ops.accelerated(some), some, strict=True):
        assert (fast.arithmetic, plain.arithmetic) == (ops.fast, ops.plain)
        assert all(map(operator.is_, jax.tree.leaves(fast), jax.tree.leaves(plain)))


def own(table: Any) -> tuple[Callable[..., Any], list[Any]]:
    """Return a network as users write them, with a default of `ops`, and the tables that it was given."""
    given: list[Any] = []

    def mine(images: Any, *, tap: Any = vizsynth.taps.passthrough, ops: Any = table) -> Any:
        given.append(ops)
        return tap("logits", images.mean(axis=(1, 2)))

    return mine, given


def test_functions_are_given_the_fast_table_where_they_name_the_plain_one() -> None:
    for table, wanted in ((ops.plain, ops.fast), (ops.average_pooling, ops.average_pooling), (None, None)):
        mine, given = own(table)
        vizsynth.gradient(mine, IMAGES, 1)
        assert set(given) == {wanted} | ({table} if given[0] != wanted else set())
        assert given[-1] == wanted

    def without(images: Any, *, tap: Any = vizsynth.taps.passthrough) -> Any:
        return tap("logits", images.mean(axis=(1, 2)))

    assert vizsynth.gradient(without, IMAGES, 1).shape == IMAGES.shape


def test_a_prepared_network_has_forward_mode_by_the_plain_table() -> None:
    net = vizsynth.prepare(sequential([Conv(64), ReLU(), Conv(64)], (64, 64, 3), key=jax.random.key(0)))
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)

    def along(images: Array) -> Array:
        return jax.jvp(lambda images: net(images, ops=ops.plain), (images,), (images,))[1]

    assert "dot_general" not in jax.jit(along).lower(images).as_text()  # Winograd's are products


def test_modules_of_their_own_may_tell_their_table(net: Any) -> None:
    class Halved(nnx.Module):
        def __init__(self, inner: Any) -> None:
            self.inner = inner
            self.arithmetic = ops.plain

        def __call__(self, images: Any, *, tap: Any = vizsynth.taps.passthrough, ops: Any = None) -> Any:
            return self.inner(images / 2, tap=tap, ops=self.arithmetic if ops is None else ops)

    assert not is_jaxs_own(public.compiled, Halved(net))
    assert is_jaxs_own(jax.jit(gradient), Halved(net))
