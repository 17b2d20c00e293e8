"""What all attacks promise: precision, batches, `jit`, `vmap`, programs, devices."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attacked import CLASSES, network, norms, pictures
from jax.sharding import PartitionSpec as P

import vizsynth
from vizsynth.models import with_precision

KEY = jax.random.key(7)


class Row(NamedTuple):
    """An attack `(net, images, labels, **extra)`."""

    name: str
    attack: Callable[..., Any]
    extra: Mapping[str, Any] = {}
    numbers: Mapping[str, Any] = {}
    """Arguments that are traced, with other values."""
    keyed: bool = False
    smooth: bool = True
    """Whether what is returned follows small changes of the network: a sign does not."""


def bright(key: Any, image: Any) -> Any:
    return image + 0.1 * jax.random.uniform(key, (), image.dtype)


EPSILON = {"epsilon": 0.05}
OTHER = {"epsilon": 0.07}
ROWS = [
    Row("fgsm", vizsynth.fgsm, EPSILON, OTHER, smooth=False),
    Row("bim", vizsynth.bim, EPSILON | {"steps": 3}, OTHER | {"step_size": 0.01}, smooth=False),
    Row("pgd", vizsynth.pgd, EPSILON | {"steps": 3}, OTHER | {"step_size": 0.01}, True, smooth=False),
    Row("pgd_l2", vizsynth.pgd_l2, {"epsilon": 0.4, "steps": 3}, {"epsilon": 0.3}, True),
    Row(
        "pgd_l2 of a transform",
        vizsynth.pgd_l2,
        {"epsilon": 0.4, "steps": 3, "transform": bright, "samples": 3, "batch_size": 2},
        {"epsilon": 0.3},
        True,
    ),
    Row("mi_fgsm", vizsynth.mi_fgsm, EPSILON | {"steps": 3}, OTHER | {"decay": 0.5}, smooth=False),
    Row("deepfool", vizsynth.deepfool, {"candidates": CLASSES, "steps": 9}, {"overshoot": 0.1}),
    Row(
        "carlini_wagner",
        vizsynth.carlini_wagner,
        {"searches": 3, "steps": 20},
        {"c": 0.1, "learning_rate": 0.02, "confidence": 0.1},
    ),
    Row("apgd_ce", vizsynth.apgd_ce, EPSILON | {"steps": 8, "restarts": 2}, OTHER, True, smooth=False),
    Row("apgd_dlr", vizsynth.apgd_dlr, {"epsilon": 0.3, "steps": 8, "ball": vizsynth.l2_ball}, OTHER, True),
]
TABLE = [pytest.param(row, id=row.name.replace(" ", "-")) for row in ROWS]


def call(row: Row, images: Any, labels: Any, *, net: Any = None, **numbers: Any) -> Any:
    key = {"key": KEY} if row.keyed else {}
    net = network() if net is None else net
    return row.attack(net, images, labels, **(dict(row.extra) | key | numbers))


def labels(images: Any) -> Any:
    return network()(images).argmax(axis=-1)


def assert_in_the_ball(row: Row, images: Any, labels: Any, net: Any) -> None:
    """Look at what is returned as one who has no more than it and the images, in the widest precision."""
    if "epsilon" not in row.extra:
        return
    for epsilon in (row.extra["epsilon"], 8 / 255):
        found = call(row, images, labels, net=net, epsilon=epsilon)
        delta = np.asarray(found, np.float64) - np.asarray(images, np.float64)
        l2 = "l2" in row.name or row.extra.get("ball") is vizsynth.l2_ball
        assert 0 < (norms(delta).max() if l2 else np.abs(delta).max()) <= epsilon
    np.testing.assert_array_equal(call(row, images, labels, net=net, epsilon=0), images)


def assert_close(a: Any, b: Any, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(np.asarray(a, np.float64), np.asarray(b, np.float64), rtol=0, atol=tolerance)


@pytest.mark.parametrize("row", TABLE)
def test_in_its_range_and_the_same_from_numpy(row: Row) -> None:
    images = pictures()
    y = labels(images)
    found = call(row, images, y)
    assert found.shape == images.shape and found.dtype == images.dtype
    assert found.min() >= 0 and found.max() <= 1
    assert float(jnp.abs(found - images).max()) > 1e-3
    assert_in_the_ball(row, images, y, network())
    np.testing.assert_array_equal(found, call(row, np.asarray(images), list(np.asarray(y))))
    one = call(row, images, 2)
    assert_close(one, call(row, images, [2] * len(images)))


@pytest.mark.parametrize("row", TABLE)
def test_a_label_that_no_check_sees_gives_nan(row: Row) -> None:
    images = pictures()
    for wrong in (CLASSES, -1):
        found = call(row, images, labels(images).at[0].set(wrong))
        assert jnp.isnan(found[0]).all()
        assert jnp.isfinite(found[1:]).all()


@pytest.mark.parametrize("row", TABLE)
def test_an_image_does_not_depend_on_its_batch(row: Row) -> None:
    images = pictures(5)
    y = labels(images)
    together = call(row, images, y)
    assert_close(together[3:], call(row, images[3:], y[3:]))
    assert_close(together[::-1], call(row, images[::-1], y[::-1]))


@pytest.mark.parametrize("row", TABLE)
def test_under_jit_and_vmap(row: Row) -> None:
    images = pictures()
    y = labels(images)
    expected = call(row, images, y)
    one = lambda image, label: call(row, image[None], label[None])[0]  # noqa: E731
    assert_close(jax.jit(jax.vmap(one))(images, y), expected)


@pytest.mark.parametrize("row", TABLE)
def test_bfloat16_is_kept(row: Row) -> None:
    images = pictures(dtype=jnp.bfloat16)
    y, net = labels(pictures()), with_precision(network(), jnp.bfloat16)
    found = call(row, images, y, net=net)
    assert found.dtype == jnp.bfloat16
    assert found.min() >= 0 and found.max() <= 1
    assert float(jnp.abs(found - images).max()) > 1e-3
    assert_in_the_ball(row, images, y, net)


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row.name in ("fgsm", "pgd_l2")], ids=lambda row: row.name
)
def test_float16_is_kept(row: Row) -> None:
    images = pictures(dtype=np.float16)
    net = with_precision(network(), jnp.float16)
    y = labels(pictures())
    assert call(row, images, y, net=net).dtype == jnp.float16
    assert_in_the_ball(row, images, y, net)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("row", TABLE)
def test_float64_is_kept_and_really_is(row: Row) -> None:
    images = pictures(dtype=np.float64)
    net = with_precision(network(), jnp.float64)
    y = net(images).argmax(axis=-1)
    exact = call(row, images, y, net=net)
    assert exact.dtype == jnp.float64
    assert_in_the_ball(row, images, y, net)
    if row.smooth:
        moved = call(row, images, y, net=jax.tree.map(lambda leaf: leaf * (1 + 1e-10), net))
        assert 0 < float(jnp.abs(moved - exact).max()) < 1e-6
    else:
        single = call(row, pictures(), y, net=with_precision(net, jnp.float32))
        apart = np.abs(np.asarray(single, np.float64) - np.asarray(exact))
        # Where a gradient is nearly 0 its sign turns.
        assert np.quantile(apart, 0.99) < 1e-5


@pytest.mark.parametrize("row", TABLE)
def test_other_numbers_do_not_compile_anew(row: Row) -> None:
    images = pictures()
    call(row, images, labels(images))
    programs = row.attack.compiled._cache_size()  # type: ignore[attr-defined]
    call(row, pictures(seed=1) * 0.5, 1, **row.numbers)
    call(row, images, labels(images), net=jax.tree.map(lambda leaf: leaf * 0.9, network()))
    assert row.attack.compiled._cache_size() == programs  # type: ignore[attr-defined]


def one_class(images: Any, tap: Any = lambda name, value: value, ops: Any = None) -> Any:
    return tap("logits", images.sum(axis=(1, 2))[:, :1])


FOOL = Row("fool", vizsynth.fool, {"steps": 2})


@pytest.mark.parametrize("row", [*TABLE, pytest.param(FOOL, id="fool")])
def test_a_network_of_one_class_is_not_attacked(row: Row) -> None:
    with pytest.raises(ValueError, match="this network has only one"):
        call(row, pictures(), 0, net=one_class)


# Many devices -----------------------------------------------------------------


@pytest.mark.parametrize("row", [*TABLE, pytest.param(FOOL, id="fool")])
def test_under_shard_map(row: Row) -> None:
    """Its checks are made while a program is traced: what each device computes varies over the devices."""
    mesh = jax.make_mesh((1,), ("images",), axis_types=(jax.sharding.AxisType.Auto,))

    def local(net: Any, images: Any, labels: Any) -> Any:
        return call(row, images, labels, net=net)

    specs = P(), P("images"), P("images")
    mapped = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=P("images"))
    images = pictures()
    jax.eval_shape(mapped, network(), images, jnp.zeros(len(images), int))


DEVICES = 2
SPREAD = [row for row in ROWS if row.name in ("pgd", "deepfool", "carlini_wagner", "apgd_ce")]


def spread_over_devices() -> None:
    """Compare each attack on images that lie on several devices with that on one."""
    from jax.sharding import Mesh, NamedSharding

    assert jax.device_count() == DEVICES
    mesh = Mesh(np.asarray(jax.devices()), ("images",))
    lying = NamedSharding(mesh, P("images"))
    images = pictures(2 * DEVICES)
    y = labels(images)
    spread = jax.device_put(images, lying), jax.device_put(y, lying)
    net = jax.device_put(network(), NamedSharding(mesh, P()))
    for row in SPREAD:
        assert_close(call(row, *spread, net=net), call(row, images, y), 1e-4)
        print(row.name)


@pytest.mark.slow
def test_images_spread_over_devices() -> None:
    tests = Path(__file__).parents[2]
    program = "import test_attacks_common; test_attacks_common.spread_over_devices()"
    environment = os.environ | {
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={DEVICES}",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(tests.parent / ".jax_cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONPATH": os.pathsep.join(
            str(path) for path in (Path(__file__).parent, tests, tests / "maps", tests.parent)
        ),
    }
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines() == [row.name for row in SPREAD]
