"""Streams of images: in order, whatever the batch; over eight devices, the numbers of one."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import AxisType, Mesh
from tiny import tiny

import vizsynth
from vizsynth.streams import check_mesh, device_mesh, replicate, stream

ROOT = Path(__file__).parents[1]
CACHE = ROOT / ".jax_cache"


def numbered(count: int) -> list[np.ndarray]:
    return [np.full((2, 3, 3), i, np.float32) for i in range(count)]


@given(count=st.integers(0, 9), batch=st.integers(1, 5))
def test_each_image_gives_one_result_in_order(count: int, batch: int) -> None:
    seen: list[int] = []

    def function(images: Any) -> dict[str, Any]:
        seen.append(len(images))
        return {"mean": images.mean(axis=(1, 2, 3)), "pair": (images[:, 0, 0], 2 * images)}

    found = list(stream(function, iter(numbered(count)), batch_size=batch))
    assert [float(one["mean"]) for one in found] == list(range(count))
    assert all((one["pair"][1] == 2 * i).all() for i, one in enumerate(found))
    assert set(seen) <= {batch}, "one program"
    assert len(seen) == -(-count // batch)


def test_images_with_their_labels() -> None:
    net = tiny("sequential_mean").net
    images = np.asarray(tiny("sequential_mean").images(5))
    labels = np.asarray([0, 1, 2, 3, 4], np.int32)
    pairs = zip(images, labels, strict=True)
    maps = stream(lambda pair: vizsynth.gradient(net, *pair), pairs, batch_size=3)
    expected = [vizsynth.gradient(net, images[i : i + 1], int(labels[i]))[0] for i in range(5)]
    np.testing.assert_allclose(np.stack(list(maps)), np.stack(expected), rtol=1e-5, atol=1e-6)


def test_the_next_batch_is_read_while_one_is_computed() -> None:
    read: list[int] = []
    enough = threading.Event()

    def images() -> Iterator[np.ndarray]:
        for i, image in enumerate(numbered(8)):
            read.append(i)
            if i == 3:  # the second batch is whole
                enough.set()
            yield image

    def function(batch: Any) -> Any:
        assert enough.wait(20), "the second batch is not read while the first is computed"
        return batch

    assert len(list(stream(function, images(), batch_size=2))) == 8


def test_a_batch_is_dispatched_before_the_one_before_is_fetched() -> None:
    begun: list[int] = []
    results = stream(lambda x: begun.append(len(x)) or x, iter(numbered(9)), batch_size=3)
    next(results)
    assert len(begun) == 2


def test_few_images_are_held_whatever_the_length() -> None:
    read = 0

    def images() -> Iterator[np.ndarray]:
        nonlocal read
        for image in numbered(100):
            read += 1
            yield image

    results = stream(lambda x: x, images(), batch_size=4)
    next(results)
    assert read <= 12
    results.close()
    assert read <= 12


def test_what_was_computed_before_a_failure_is_given() -> None:
    def images() -> Iterator[np.ndarray]:
        yield from numbered(5)
        raise OSError("the disk is gone")

    results = stream(lambda x: x, images(), batch_size=2)
    found = []
    with pytest.raises(OSError, match="disk is gone"):
        for one in results:
            found.append(float(one[0, 0, 0]))
    assert found == [0, 1, 2, 3]

    def function(x: Any) -> Any:
        if float(x.max()) > 4:
            raise ValueError("too much")
        return x

    found = []
    with pytest.raises(ValueError, match="too much"):
        for one in stream(function, numbered(9), batch_size=2):
            found.append(float(one[0, 0, 0]))
    assert found == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size must be a positive integer, not 0"),
        ({"batch_size": True}, "batch_size"),
    ],
)
def test_bad_batches_are_refused_at_once(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stream(lambda x: x, iter(()), **arguments)


def test_bad_images_and_functions_are_refused() -> None:
    mixed = [np.zeros((2, 3, 3)), np.zeros((3, 3, 3))]
    with pytest.raises(ValueError, match=r"alike, not of the shapes \(2, 3, 3\), \(3, 3, 3\)"):
        list(stream(lambda x: x, mixed, batch_size=2))
    with pytest.raises(ValueError, match=r"each of the 2 images .* array \(\)"):
        list(stream(lambda x: x.mean(), numbered(4), batch_size=2))


def test_explicit_axes_are_refused() -> None:
    mesh = Mesh(np.asarray(jax.devices()[:1]), ("images",), axis_types=(AxisType.Explicit,))
    with pytest.raises(ValueError, match=r"must be AxisType\.Auto"):
        check_mesh(2, mesh)
    check_mesh(2, device_mesh())
    assert replicate(mesh.devices, None) is mesh.devices


def test_over_a_mesh_of_one() -> None:
    subject = tiny("resnet_bottleneck")
    images = np.asarray(subject.images(3))
    mesh = device_mesh(jax.devices()[:1])
    net = replicate(subject.net, mesh)
    found = list(stream(jax.jit(lambda x: net(x)), images, batch_size=2, mesh=mesh))
    expected = jax.jit(lambda net, x: net(x))(subject.net, images)
    np.testing.assert_allclose(np.stack(found), expected, rtol=1e-4, atol=1e-5)


# Over eight devices ------------------------------------------------------------------

EIGHT = """
import json
import sys
sys.path.insert(0, "tests")
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
import vizsynth
from tiny import tiny
from vizsynth.streams import check_mesh, device_mesh, replicate, stream

jax.config.update("jax_disable_most_optimizations", True)
assert len(jax.devices()) == 8
mesh = device_mesh()
subject = tiny("sequential_mean")
net, images = subject.net, np.asarray(subject.images(16))
labels = jnp.arange(16) % 5
lying = NamedSharding(mesh, PartitionSpec("images"))
there, everywhere = jax.device_put(images, lying), replicate(net, mesh)
heat = jax.random.uniform(jax.random.key(0), (16, 15, 19))
layer = subject.middle


def patches(net, x):
    found = vizsynth.no_patches(net, layer, (15, 19), k=3)
    for i in (0, 8):
        places = np.arange(i, i + 8, dtype=np.int32)
        found = vizsynth.update_patches(net, x[i : i + 8], patches=found, layer=layer, indices=places)
    return found


# One result an image: labels and maps are those of the images given.
EACH = {
    "gradient": lambda net, x, y, h: vizsynth.gradient(net, x, y),
    "grad_cam": lambda net, x, y, h: vizsynth.grad_cam(net, x, y, layer=layer),
    "features": lambda net, x, y, h: vizsynth.features(net, x, [layer, net.layers[-1]]),
    "lrp": lambda net, x, y, h: vizsynth.lrp(net, x, y),
    "occlusion": lambda net, x, y, h: vizsynth.occlusion(net, x, y, window=5, stride=5),
    "descriptors": lambda net, x, y, h: vizsynth.descriptors(net, x, layer=layer),
    "deletion": lambda net, x, y, h: vizsynth.deletion(net, x, y, h, steps=3, baseline=0 * x)[:2],
    "insertion": lambda net, x, y, h: vizsynth.insertion(net, x, y, h, steps=3)[:2],
    "both": lambda net, x, y, h: vizsynth.deletion_and_insertion(net, x, y, h, steps=3, start=0 * x)[1][:2],
}
vectors = np.asarray(vizsynth.descriptors(net, jnp.asarray(images), layer=layer))
ALL = {
    "update_patches": lambda net, x: patches(net, x),
    "top_patches": lambda net, x: vizsynth.top_patches(net, [(range(16), x)], layer=layer, k=3),
    "nearest_neighbors": lambda net, x: vizsynth.nearest_neighbors(jax.device_put(vectors, x.sharding), k=2),
}


def apart(a, b):
    return max(
        float(np.abs(x - y).max() / max(np.abs(x).max(), 1e-30))
        for x, y in zip(jax.tree.map(np.asarray, a), jax.tree.map(np.asarray, b), strict=True)
    )


told = {}
for name, function in EACH.items():
    one = jax.tree.leaves(function(net, jnp.asarray(images), labels, heat))
    many = jax.tree.leaves(function(everywhere, there, labels, heat))
    pairs = [
        jax.tree.leaves(function(net, jnp.asarray(images[i : i + 2]), labels[i : i + 2], heat[i : i + 2]))
        for i in range(0, 16, 2)
    ]
    pairs = [np.concatenate(p) if p[0].shape[:1] == (2,) else p[0] for p in zip(*pairs, strict=True)]
    told[name] = {
        "one": apart(one, many),
        "pairs": apart(pairs, many),
        "devices": max(len(leaf.sharding.device_set) for leaf in many),
    }
for name, function in ALL.items():
    one = jax.tree.leaves(function(net, jnp.asarray(images)))
    told[name] = {"one": apart(one, jax.tree.leaves(function(everywhere, there)))}
streams = [
    np.stack(list(stream(lambda x: vizsynth.gradient(n, x, 1), images[:13], batch_size=8, mesh=m)))
    for n, m in ((net, None), (everywhere, mesh))
]
told["stream"] = float(np.abs(streams[0] - streams[1]).max() / np.abs(streams[0]).max())
told["refused"] = []
for batch, given in ((12, mesh), (4, mesh)):
    try:
        stream(None, (), batch_size=batch, mesh=given)
    except ValueError as error:
        told["refused"].append(str(error))
grid = Mesh(np.asarray(jax.devices()).reshape(4, 2), ("rows", "other"), axis_types=(AxisType.Auto,) * 2)
first = list(stream(lambda x: x * 2, images[:5], batch_size=4, mesh=grid))
told["first_axis"] = bool((np.stack(first) == 2 * images[:5]).all())
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def eight() -> dict[str, Any]:
    """What a process with eight devices finds."""
    given = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(CACHE),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    ran = subprocess.run([sys.executable, "-c", EIGHT], cwd=ROOT, env=given, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return json.loads(ran.stdout)


# How far a device that has 2 of 16 images is from one that has all is rounding. A map by occlusion
# is a difference of scores, so it shows there more.
@pytest.mark.parametrize(
    ("name", "most"),
    [
        *((name, 1e-6) for name in ("gradient", "grad_cam", "features", "lrp", "descriptors")),
        ("occlusion", 1e-5),
    ],
)
def test_eight_devices_give_the_bits_of_one_that_has_as_many_images(
    eight: dict[str, Any], name: str, most: float
) -> None:
    assert eight[name]["pairs"] == 0
    assert eight[name]["one"] <= most
    assert eight[name]["devices"] == 8


@pytest.mark.parametrize("name", ["deletion", "insertion", "both"])
def test_eight_devices_give_the_measures_of_one(eight: dict[str, Any], name: str) -> None:
    assert eight[name]["pairs"] <= 1e-6
    assert eight[name]["one"] <= 1e-6


@pytest.mark.parametrize("name", ["update_patches", "top_patches", "nearest_neighbors"])
def test_eight_devices_find_what_one_finds(eight: dict[str, Any], name: str) -> None:
    assert eight[name]["one"] <= 1e-6


def test_a_stream_over_eight_devices(eight: dict[str, Any]) -> None:
    assert eight["stream"] <= 1e-6
    assert eight["first_axis"]
    assert "multiple of the 8 devices" in eight["refused"][0] and "give 8 or 16" in eight["refused"][0]
    assert eight["refused"][1].endswith("not 4; give 8")
