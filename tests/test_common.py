"""What every public map promises, in one table: a new map is one more row."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from tiny import random_images, tiny_resnet

import vizsynth
from vizsynth.models import fold_batch_norm, sequential, with_precision
from vizsynth.models.sequential import Conv, Dense, Flatten, GlobalMean, ReLU


class Row(NamedTuple):
    """A public function `(net, images, target, **extra)`."""

    name: str
    function: Callable[..., Any]
    extra: Mapping[str, Any] = {}
    keyed: bool = False
    """Whether it takes a `key`."""
    value: Callable[[Any], Any] = lambda result: result
    """What of its result is looked at."""
    numbers: Mapping[str, Any] = {}
    """Arguments that are traced, with another value than their default."""
    tolerance: float = 1e-4
    program: Any = None
    """What is jitted, where it is not the function itself."""


LAYER = {"layer": "layer1.0"}


def of_folded(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function of a network whose batch normalization is folded first."""
    return lambda net, *args, **options: function(fold_batch_norm(net), *args, **options)


MAPS = [
    Row("gradient", vizsynth.gradient),
    Row("saliency", vizsynth.saliency),
    Row("input_x_gradient", vizsynth.input_x_gradient),
    Row(
        "integrated_gradients",
        vizsynth.integrated_gradients,
        {"steps": 3, "batch_size": 2},
        numbers={"baseline": 0.5},
    ),
    Row(
        "adaptive_integrated_gradients",
        vizsynth.adaptive_integrated_gradients,
        {"max_steps": 16},
        value=lambda found: found.attributions,
        numbers={"tolerance": 0.1, "baseline": 0.5},
    ),
    Row(
        "smooth_grad",
        vizsynth.smooth_grad,
        {"samples": 3, "batch_size": 2},
        keyed=True,
        numbers={"noise": 0.3},
    ),
    Row("smooth_grad_squared", vizsynth.smooth_grad_squared, {"samples": 3}, keyed=True),
    Row("var_grad", vizsynth.var_grad, {"samples": 3}, keyed=True, numbers={"noise": 0.3}, tolerance=1e-3),
    Row("guided_backprop", vizsynth.guided_backprop),
    Row("deconvnet", vizsynth.deconvnet),
    Row("cam", vizsynth.cam, {"layer": "layer2.0"}),
    Row("grad_cam", vizsynth.grad_cam, LAYER),
    Row("grad_cam_pp", vizsynth.grad_cam_pp, LAYER, numbers={"eps": 1e-6}),
    Row("xgrad_cam", vizsynth.xgrad_cam, LAYER, numbers={"eps": 1e-6}),
    Row("layer_cam", vizsynth.layer_cam, LAYER),
    Row("hires_cam", vizsynth.hires_cam, LAYER),
    Row("eigen_cam", vizsynth.eigen_cam, LAYER),
    Row("score_cam", vizsynth.score_cam, LAYER | {"batch_size": 5}),
    Row("ablation_cam", vizsynth.ablation_cam, LAYER | {"batch_size": 5}, tolerance=1e-3),
    Row("guided_grad_cam", vizsynth.guided_grad_cam, LAYER),
    Row("occlusion", vizsynth.occlusion, {"window": 9, "stride": 6}, numbers={"fill": 0.1}, tolerance=1e-3),
    Row(
        "rise", vizsynth.rise, {"samples": 6, "cells": 3, "batch_size": 4}, keyed=True, numbers={"keep": 0.3}
    ),
    Row("lrp", of_folded(vizsynth.lrp), program=vizsynth.lrp),
]

ALIKE = (  # each has the program of another, but for a line
    *("saliency", "input_x_gradient", "smooth_grad_squared", "var_grad", "deconvnet"),
    *("grad_cam_pp", "xgrad_cam", "layer_cam", "hires_cam", "guided_grad_cam"),
)
DISTINCT = [row for row in MAPS if row.name not in ALIKE]

TABLE = [pytest.param(row, id=row.name) for row in MAPS]
DISTINCT_TABLE = [pytest.param(row, id=row.name) for row in DISTINCT]
LABELS = (3, 1, 0, 2)
OTHER_LABELS = (0, 2, 4, 1)


@cache
def network() -> Any:
    """Return the network; whoever asks first may be tracing, or in float64."""
    with jax.ensure_compile_time_eval(), jax.enable_x64(False):
        return tiny_resnet(bottleneck=True, depths=(1, 1))


def pictures(n: int = 2, *, seed: int = 0, dtype: Any = np.float32) -> Any:
    return random_images(n, 20, 17, seed=seed, dtype=dtype)


def labels(n: int = 2) -> Any:
    return jnp.asarray(LABELS[:n])


def call(row: Row, images: Any, target: Any, *, net: Any = None, **numbers: Any) -> Any:
    key = {"key": jax.random.key(7)} if row.keyed else {}
    net = network() if net is None else net
    return row.value(row.function(net, images, target, **row.extra, **key, **numbers))


def assert_close(a: Any, b: Any, tolerance: float) -> None:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    assert a.shape == b.shape
    assert np.linalg.norm(a - b) <= tolerance * np.linalg.norm(b)


@pytest.mark.parametrize("row", TABLE)
def test_one_finite_map_an_image(row: Row) -> None:
    maps = call(row, pictures(), labels())
    assert len(maps) == 2
    assert maps.ndim in (3, 4)
    assert maps.dtype == jnp.float32
    assert jnp.isfinite(maps).all()
    assert float(jnp.abs(maps).max()) > 0
    np.testing.assert_array_equal(maps, call(row, np.asarray(pictures()), list(LABELS[:2])))


@pytest.mark.parametrize("row", TABLE)
def test_a_label_that_no_check_sees_gives_nan(row: Row) -> None:
    for wrong in (5, -1):
        maps = call(row, pictures(), jnp.asarray([wrong, LABELS[1]]))
        assert jnp.isnan(maps[0]).all()
        assert jnp.isfinite(maps[1]).all()


@pytest.mark.parametrize("row", TABLE)
def test_under_jit_and_vmap_over_images(row: Row) -> None:
    one = lambda image, label: call(row, image[None], label[None])[0]  # noqa: E731
    mapped = jax.jit(jax.vmap(one))(pictures(), labels())
    if row.keyed:  # the place in a batch is part of an image's randomness
        assert_close(mapped[0], call(row, pictures()[:1], labels(1))[0], row.tolerance)
    else:
        assert_close(mapped, call(row, pictures(), labels()), row.tolerance)


@pytest.mark.parametrize("row", DISTINCT_TABLE)
def test_under_jit_and_vmap_over_classes(row: Row) -> None:
    mapped = jax.jit(jax.vmap(lambda label: call(row, pictures(), label)))(jnp.arange(3))
    for label in range(3):
        alone = call(row, pictures(), jnp.full(2, label))
        if float(jnp.abs(alone).max()) > 0:
            assert_close(mapped[label], alone, row.tolerance)


@pytest.mark.parametrize("row", TABLE)
def test_bfloat16_is_kept(row: Row) -> None:
    half = pictures(dtype=jnp.bfloat16)
    maps = call(row, half, labels(), net=with_precision(network(), jnp.bfloat16))
    assert maps.dtype == jnp.bfloat16
    assert jnp.isfinite(maps).all()


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("row", TABLE)
def test_float64_is_kept_and_really_is(row: Row) -> None:
    net = with_precision(network(), jnp.float64)
    exact = call(row, pictures(dtype=np.float64), labels(), net=net)
    assert exact.dtype == jnp.float64
    # A change that float32 cannot hold: were any step in float32, nothing would change smoothly.
    moved = jax.tree.map(lambda leaf: leaf * (1 + 1e-10), net)
    apart = jnp.linalg.norm(call(row, pictures(dtype=np.float64), labels(), net=moved) - exact)
    assert 0 < float(apart / jnp.linalg.norm(exact)) < 1e-7


@pytest.mark.parametrize("row", TABLE)
def test_an_image_does_not_depend_on_its_batch(row: Row) -> None:
    together = call(row, pictures(), labels())
    assert_close(together[:1], call(row, pictures()[:1], labels(1)), row.tolerance)
    if not row.keyed:
        assert_close(together[1:], call(row, pictures()[1:], labels()[1:]), row.tolerance)


@pytest.mark.parametrize("row", TABLE)
def test_other_numbers_do_not_compile_anew(row: Row) -> None:
    call(row, pictures(), labels())
    program = row.program or row.function
    programs = program.compiled._cache_size()
    call(row, pictures(seed=1) * 0.5, jnp.asarray(OTHER_LABELS[:2]), **row.numbers)
    call(row, pictures(), labels(), net=jax.tree.map(lambda leaf: leaf * 0.9, network()))
    assert program.compiled._cache_size() == programs


# Many devices -----------------------------------------------------------------

DEVICES = 4


def spread_over_devices() -> None:
    """Compare maps of images that lie on several devices with those of `shard_map`, an image a device."""
    assert jax.device_count() == DEVICES
    mesh = Mesh(np.asarray(jax.devices()), ("images",))
    lying = NamedSharding(mesh, P("images"))
    images, target = pictures(DEVICES), labels(DEVICES)
    spread = jax.device_put(images, lying), jax.device_put(target, lying)
    assert len(spread[0].sharding.device_set) == DEVICES
    net = jax.device_put(network(), NamedSharding(mesh, P()))

    def local(net: Any, images: Any, target: Any) -> list[Any]:
        return [call(row, images, target, net=net) for row in DISTINCT]

    of_each = P(), P("images"), P("images")
    mapped = jax.jit(jax.shard_map(local, mesh=mesh, in_specs=of_each, out_specs=P("images")))
    for row, expected in zip(DISTINCT, mapped(network(), images, target), strict=True):
        assert_close(call(row, *spread, net=net), expected, row.tolerance)
        print(row.name)
    weights_gradient_over_devices(mesh)


def weights_gradient_over_devices(mesh: Mesh) -> None:
    """Compare the gradient of weights that every device has, summed over their images, with one device's."""
    net = sequential(
        (Conv(2, stride=2), ReLU(), Conv(3), Flatten(), Dense(2)), (6, 6, 3), key=jax.random.key(0)
    )
    images = random_images(DEVICES, 6, 6)

    def gradient(net: Any, images: Any) -> Any:
        return jax.grad(lambda net: jnp.square(net(images)).sum())(net)

    mapped = jax.jit(jax.shard_map(gradient, mesh=mesh, in_specs=(P(), P("images")), out_specs=P()))
    for found, expected in zip(
        jax.tree.leaves(mapped(net, images)), jax.tree.leaves(jax.jit(gradient)(net, images)), strict=True
    ):
        assert_close(found, expected, 1e-5)


def test_images_spread_over_devices_have_the_same_maps() -> None:
    here = Path(__file__).parent
    program = "import test_common; test_common.spread_over_devices()"
    environment = os.environ | {
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={DEVICES}",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(here.parent / ".jax_cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONPATH": os.pathsep.join([str(here), str(here.parent)]),
    }
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [row.name for row in DISTINCT]


def test_shard_map_takes_transformed_kernels() -> None:
    """One device is enough to see that what is computed with images varies over the devices as they do."""
    net = sequential((Conv(64), ReLU(), Conv(64), GlobalMean(), Dense(2)), (28, 28, 3), key=jax.random.key(0))
    mesh = jax.make_mesh((1,), ("images",), axis_types=(jax.sharding.AxisType.Auto,))

    def gradient(net: Any, images: Any) -> Any:
        return jax.grad(lambda images: vizsynth.prepare(net)(images).sum())(images)

    mapped = jax.shard_map(gradient, mesh=mesh, in_specs=(P(), P("images")), out_specs=P("images"))
    traced = jax.make_jaxpr(mapped)(net, random_images(1, 28, 28))
    assert "custom_vmap" in str(traced)
