"""An image over several devices gives what it gives on one, and no activations are gathered.

What needs several devices runs in a process of its own, which has as many virtual ones as it is told.
"""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, Mesh
from tiny import random_images, tiny, tiny_resnet, tiny_vgg

import vizsynth
from vizsynth import ops
from vizsynth.devices import rows
from vizsynth.models import alexnet, sequential, squeezenet1_1
from vizsynth.models.sequential import Conv, ReLU
from vizsynth.parametrizations import Fourier, Pixels
from vizsynth.rules import guided
from vizsynth.taps import run

HERE = Path(__file__).parent
KEY = jax.random.key(0)
STYLE: dict[str, Any] = {
    "key": KEY,
    "steps": 3,
    "content_layers": ("relu2_1",),
    "style_layers": ("relu1_1", "relu2_1"),
    "tv_weight": 0.3,
    "parametrization": Pixels(),
    "optimizer": optax.adam,
    "learning_rate": 0.05,
}
DREAM: dict[str, Any] = {"key": KEY, "layer": "relu2_2", "steps": 2, "jitter": 20}


def devices(n: int | None = None) -> Mesh:
    return jax.make_mesh((n or jax.device_count(),), ("rows",), axis_types=(AxisType.Auto,))


def double(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float64), tree)


def assert_close(found: Any, wanted: Any, tolerance: float) -> None:
    """Hold what lies on several devices against what lies on one, relative to the largest number."""
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())


def sent(function: Any, *args: Any, **kwargs: Any) -> dict[str, list[list[int]]]:
    """Return the shapes of all that the devices send, by what they send it."""
    text = getattr(function, "compiled", function).lower(*args, **kwargs).compile().as_text()
    found: dict[str, list[list[int]]] = {}
    kinds = "all-gather|all-reduce|all-to-all|reduce-scatter|collective-permute|collective-broadcast"
    for result, kind in re.findall(rf"^.*? = (.*?) ({kinds})(?:-start)?\(", text, re.M):
        shapes = re.findall(r"\w\d*\[([\d,]*)\]", result)
        found.setdefault(kind, []).extend([[int(n) for n in shape.split(",") if n] for shape in shapes])
    return found


# On several devices ---------------------------------------------------------------

WINDOWS = (  # window, stride, padding, rows a device
    (3, 1, (1, 1), 2),
    (5, 1, (2, 2), 3),
    (7, 2, (3, 3), 4),
    (3, 2, (0, 1), 2),
    (4, 1, (1, 2), 2),
    (2, 2, (0, 0), 2),
    (1, 1, (0, 0), 1),
    (1, 2, (0, 0), 4),
    (9, 1, (4, 4), 2),  # rows of the neighbours' neighbours
    (11, 1, (5, 5), 2),
    (5, 1, (0, 4), 3),
    (3, 1, (0, 0), 3),  # outputs that do not lie where inputs do
    (3, 2, (0, 0), 3),
    (2, 2, (0, 0), 3),
    (9, 1, (0, 0), 5),  # which divide over the devices all the same
)
ALIGNED = 11  # of them, the first
SOME = (0, 2, 5, 8, 10, 12)  # odd and even, near and far, with and without gaps; the others take minutes


def windows_are_taken_over_the_border() -> None:
    compare_windows(lambda number: number in SOME)


def other_windows_are_taken_over_the_border() -> None:
    compare_windows(lambda number: number not in SOME)


def compare_windows(which: Callable[[int], bool]) -> None:
    """Hold convolutions, pools and their gradients against those on one device."""
    mesh, d = devices(), jax.device_count()
    rng = np.random.default_rng(0)
    for number, (window, stride, padding, each) in enumerate(WINDOWS):
        if not which(number):
            continue
        x = jnp.asarray(rng.normal(size=(2, d * each, 7, 3)))
        kernel, bias = jnp.asarray(rng.normal(size=(window, 2, 3, 4))), jnp.asarray(rng.normal(size=4))
        how: dict[str, Any] = {"strides": (stride, 1), "padding": (padding, (1, 0))}
        pool = {"window": (window, 2), **how}

        def values(table: Any, x: Any, kernel: Any, bias: Any, how: Any = how, pool: Any = pool) -> Any:
            found = [table.conv(x, kernel, bias, **how), table.mean_pool(x, **pool)]
            if max(pool["padding"][0]) < pool["window"][0]:  # otherwise a window lies in the padding alone
                found.append(table.max_pool(x, **pool))
            return found

        def gradients(table: Any, gs: Any, *args: Any, values: Any = values) -> Any:
            y, pull = jax.vjp(lambda *args: values(table, *args), *args)
            one_by_one = [[g if i == j else 0 * g for j, g in enumerate(gs)] for i in range(len(gs))]
            return y, [pull(g) for g in one_by_one]

        table = ops.plain if number % 3 == 0 else ops.fast
        shapes = jax.eval_shape(lambda *args, f=values, table=table: f(table, *args), x, kernel, bias)
        gs = [jnp.asarray(rng.normal(size=shape.shape)) for shape in shapes]
        single = jax.jit(lambda *args, f=gradients, table=table: f(table, *args))
        spread = jax.jit(lambda *args, f=gradients, table=table: f(rows._table(table, mesh), *args))
        found, wanted = spread(gs, x, kernel, bias), single(gs, x, kernel, bias)
        assert_close(found, wanted, 1e-12)
        for maximum in range(2, len(gs)):
            np.testing.assert_array_equal(found[0][maximum], wanted[0][maximum])
            if window <= stride:  # no gradients are added in another order
                np.testing.assert_array_equal(found[1][maximum][0], wanted[1][maximum][0])
        if number < ALIGNED:
            lying = jax.device_put((gs, x), rows.OverRows(None, mesh).batch_sharding)
            moved = sent(spread, *lying, kernel, bias)
            assert set(moved) <= {"collective-permute", "all-reduce"}, (window, stride, padding, moved)


def rolls_go_around() -> None:
    from hypothesis import given, settings
    from hypothesis import strategies as st

    mesh = devices()
    shapes = [(jax.device_count() * each, 3, 2) for each in (1, 3, 5)]
    rolled = jax.jit(lambda x, down, right: rows.roll(x, (down, right), mesh=mesh))
    many = jax.jit(jax.vmap(lambda x, s: rows.roll(x, (s[0], s[1]), mesh=mesh)))

    @settings(max_examples=60, deadline=None, derandomize=True, database=None)
    @given(st.sampled_from(shapes), st.integers(-99, 99), st.integers(-9, 9))
    def check(shape: tuple[int, ...], down: int, right: int) -> None:
        x = jnp.arange(np.prod(shape)).reshape(shape)
        np.testing.assert_array_equal(rolled(x, down, right), np.roll(x, (down, right), (0, 1)))
        shifts = jnp.asarray([[down, right], [right, down]])
        both = many(jnp.stack([x, -x]), shifts)
        np.testing.assert_array_equal(both[1], np.roll(-x, (right, down), (0, 1)))

    check()
    odd = jnp.arange(7.0).reshape(7, 1, 1)
    np.testing.assert_array_equal(rolled(odd, 3, 0), np.roll(odd, 3, 0))
    x = jax.device_put(jnp.zeros(shapes[1]), rows.OverRows(None, mesh).sharding)
    assert set(sent(rolled, x, 1, 1)) <= {"collective-permute"}


def networks_give_what_they_give() -> None:
    compare_networks(
        ("vgg", tiny_vgg(), 64, "relu2_2", True),
        ("resnet", tiny_resnet(bottleneck=True, num_classes=None, depths=(1, 1)), 128, "layer2.0", True),
        ("vgg, rows left over", tiny_vgg(), 45, "relu2_2", False),
    )
    net = double(tiny_vgg())
    images = random_images(1, 32, 24, dtype=np.float64)
    spread = vizsynth.over_rows(net, devices())
    assert_close(vizsynth.lrp(spread, images, 1), vizsynth.lrp(net, images, 1), 1e-10)
    by_weights = jax.jit(jax.grad(lambda net, images: (net(images) ** 2).sum()))
    assert_close(by_weights(spread, images), by_weights(net, images), 1e-12)


def other_networks_give_what_they_give() -> None:
    compare_networks(
        ("vgg_bn", tiny_vgg(batch_norm=True, num_classes=None), 64, "pool2", True),
        ("resnet, classes", tiny_resnet(bottleneck=False), 64, "logits", False),
        ("vgg, odd", tiny_vgg(), 42, "logits", False),
        ("squeezenet", squeezenet1_1(5, key=KEY), 88, "fire5", False),
        ("alexnet", alexnet(num_classes=None, key=KEY), 96, "relu3", False),
    )


def compare_networks(*subjects: tuple[str, Any, int, str, bool]) -> None:
    """Hold networks' features and gradients against those on one device; told which keep rows aligned."""
    mesh = devices()

    def total(net: Any, images: Any, layer: str, table: Any) -> Any:
        seen = run(net, images, (layer,), ops=table)[1][layer]
        return (seen * seen).sum() / seen.size, seen

    gradient = jax.jit(jax.value_and_grad(total, 1, has_aux=True), static_argnums=(2, 3))
    alone = jax.jit(jax.grad(lambda *args: total(*args)[0], 1), static_argnums=(2, 3))
    for name, net, height, layer, aligned in subjects:
        images = random_images(1, height, 72 if name == "alexnet" else 40, dtype=np.float64)
        net = ops.accelerated(double(net))  # as public functions do
        spread = vizsynth.over_rows(net, mesh)
        fits = height % jax.device_count() == 0
        lying = jax.device_put(images, spread.batch_sharding) if fits else images
        tables = (
            (None, guided) if name == "vgg" else (ops.average_pooling, None) if name == "vgg_bn" else (None,)
        )
        for table in tables:
            found = gradient(spread, lying, layer, table)
            assert_close(found, gradient(net, images, layer, table), 1e-12)
        moved = sent(alone, spread, lying, layer, None)
        assert "collective-permute" in moved, (name, moved)  # each device has some rows, not all of them
        if aligned:
            assert set(moved) <= {"collective-permute", "all-reduce"}, (name, moved)
            assert len(found[0][1].sharding.device_set) == jax.device_count()
            assert not found[0][1].sharding.is_fully_replicated
            assert not found[1].sharding.is_fully_replicated
        # What is not placed by rows is at most the image: `[n, h, w, 3]`.
        assert all(shape[-1:] == [3] for shape in moved.get("all-gather", ())), (name, moved)


def prepared_kernels_are_used() -> None:
    mesh = devices()
    net = sequential((Conv(64), ReLU(), Conv(64)), (64, 64, 3), key=KEY)

    def total(net: Any, images: Any) -> Any:
        return (net(images) ** 2).sum()

    gradient = jax.jit(jax.value_and_grad(total, 1))
    for each in (16, 17):  # with a row too many for the tiles
        images = random_images(1, jax.device_count() * each, 48)
        spread = vizsynth.over_rows(net, mesh)
        wanted = gradient(net, images)
        exact, fast = gradient(spread, images), gradient(vizsynth.prepare(spread), images)
        assert_close(exact, wanted, 2e-6)
        assert_close(fast, wanted, 1e-5)
        assert np.any(np.asarray(exact[1]) != np.asarray(fast[1])), "no kernel was transformed"
    odd = random_images(1, 43, 48)
    assert_close(gradient(vizsynth.prepare(spread), odd), gradient(net, odd), 2e-6)


def made(net: Any, a: Any, b: Any) -> Iterator[tuple[str, Any, tuple[Any, ...], dict[str, Any], bool]]:
    """Give syntheses: what is called and how; and whether all of it keeps the rows where they are."""
    lbfgs = {"optimizer": optax.lbfgs, "learning_rate": 1.0}
    texture = {key: STYLE[key] for key in ("key", "steps", "optimizer", "learning_rate")}
    texture |= {"parametrization": Pixels(std=0.2)}
    layers = {"layers": ("relu1_1", "relu2_2")}
    mask = jnp.asarray(np.linspace(0, 1, a.shape[0] * a.shape[1]).reshape(a.shape[:2]), a.dtype)
    masks = {"masks": [mask, 1 - mask], "mixture": (0.3, 0.7)}
    yield "style", vizsynth.transfer_style, (net, a, (b,)), STYLE, True
    keys = jax.random.split(KEY, 2)
    yield "styles", vizsynth.transfer_style, (net, a, (b,)), STYLE | {"key": keys, "noise": 0.5}, True
    yield "lbfgs", vizsynth.transfer_style, (net, a, (b,)), STYLE | lbfgs, True
    yield "cuts", vizsynth.transfer_style, (net, a, (b,)), STYLE | {"cuts": ("relu1_1", "pool1")}, True
    yield "masks", vizsynth.transfer_style, (net, a, (b, b[:, ::-1])), STYLE | masks, False
    yield "texture", vizsynth.synthesize_texture, (net, b), texture | layers, True
    smaller = {"size": (48, 24)}
    yield "small texture", vizsynth.synthesize_texture, (net, b), texture | layers | smaller, True
    yield "invert", vizsynth.invert, (net, a[None], "relu2_2"), texture, True
    fourier = {"key": KEY, "steps": 2, "parametrization": Fourier()}
    yield "spectrum", vizsynth.invert, (net, a[None], "relu2_2"), fourier, False
    yield "dream", vizsynth.deepdream, (net, a[None]), DREAM | {"octaves": 1}, True
    yield "octaves", vizsynth.deepdream, (net, jnp.stack([a, b])), DREAM | {"octaves": 2}, False


FIRST = ("cuts", "dream", "invert")


def syntheses_are_the_same() -> None:
    compare_syntheses(lambda name: name in FIRST)


def other_syntheses_are_the_same() -> None:
    compare_syntheses(lambda name: name not in FIRST)


def compare_syntheses(which: Callable[[str], bool]) -> None:
    """Hold syntheses against those on one device, and look at what their programs send."""
    net = double(tiny_vgg(num_classes=None))
    spread = vizsynth.over_rows(net, devices())
    a, b = random_images(2, 64, 24, dtype=np.float64)
    lying = [jax.device_put(image, spread.sharding) for image in (a, b)]
    for here, there in zip(made(net, a, b), made(spread, *lying), strict=True):
        name, function, args, settings, stays = there
        if not which(name):
            continue
        found, wanted = function(*args, **settings), function(*here[2], **here[3])
        assert_close(found[:2], wanted[:2], 1e-9)
        assert np.isfinite(np.asarray(found.trace)).all()
        moved = sent(function, *args, **settings)
        largest = max((int(np.prod(s)) for s in moved.get("all-reduce", ()) if s[-1:] != [3]), default=0)
        if stays:
            assert set(moved) == {"collective-permute", "all-reduce"}, (name, moved)
            assert largest <= 2 * 8 * 8, (name, moved)  # a Gram matrix for each picture
            assert found.images.sharding.shard_shape(found.images.shape)[1] < found.images.shape[1], name
        for shape in moved.get("all-gather", ()):  # pixels, or masks; no activations, of 6 or 8 channels
            assert np.prod(shape) <= 2 * a.size and shape[-1] not in (6, 8), (name, moved)
        assert "all-to-all" not in moved, (name, moved)


def runs_go_on() -> None:
    net = tiny_vgg(num_classes=None)
    spread = vizsynth.over_rows(net, devices())
    a, b = (jax.device_put(image, spread.sharding) for image in random_images(2, 32, 24))
    whole = vizsynth.transfer_style(spread, a, [b], **STYLE)
    state = vizsynth.transfer_style(spread, a, [b], **STYLE | {"steps": 1}).state
    parts = vizsynth.transfer_style(spread, a, [b], **STYLE | {"steps": 2}, state=state)
    np.testing.assert_array_equal(parts.images, whole.images)
    dream = DREAM | {"octaves": 1}
    whole = vizsynth.deepdream(spread, a[None], **dream)
    state = vizsynth.deepdream(spread, a[None], **dream, take=1).state
    np.testing.assert_array_equal(
        vizsynth.deepdream(spread, a[None], **dream, state=state).images, whole.images
    )
    programs = vizsynth.deepdream.compiled._cache_size()
    vizsynth.deepdream(spread, a[None], **dream | {"jitter": 3, "step_size": 0.01})
    assert vizsynth.deepdream.compiled._cache_size() == programs


CHECKS: tuple[tuple[int, tuple[Callable[[], None], ...]], ...] = (
    (4, (networks_give_what_they_give, syntheses_are_the_same, windows_are_taken_over_the_border)),
    (3, (rolls_go_around,)),
    (2, (runs_go_on, prepared_kernels_are_used)),
)
SLOW = (
    (8, (windows_are_taken_over_the_border, rolls_go_around, other_syntheses_are_the_same)),
    (4, (other_windows_are_taken_over_the_border,)),
    (8, (other_networks_give_what_they_give, prepared_kernels_are_used, runs_go_on)),
    (4, (syntheses_are_the_same, other_syntheses_are_the_same)),
    (2, (windows_are_taken_over_the_border, networks_give_what_they_give, syntheses_are_the_same)),
    (2, (other_windows_are_taken_over_the_border,)),
)


def check(*names: str) -> None:
    """Run checks in this process, with the devices that it has."""
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_numpy_rank_promotion", "raise")
    jax.config.update("jax_disable_most_optimizations", True)
    for name in names:
        double_precision = name not in ("prepared_kernels_are_used", "runs_go_on")
        with jax.enable_x64(double_precision):
            globals()[name]()
        print(name, flush=True)


def environment(count: int) -> dict[str, str]:
    return os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={count}",
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(HERE.parents[1] / ".jax_cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent), str(HERE.parents[1])]),
    }


def pass_over_devices(count: int, checks: tuple[Callable[[], None], ...]) -> None:
    """Run checks in a process of its own, with so many devices."""
    names = [f.__name__ for f in checks]
    program = f"import test_rows; test_rows.check(*{names!r})"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env=environment(count),
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.split() == names


@pytest.mark.parametrize(("count", "checks"), CHECKS)
def test_over_devices(count: int, checks: tuple[Callable[[], None], ...]) -> None:
    pass_over_devices(count, checks)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "checks"), SLOW)
def test_more_over_devices(count: int, checks: tuple[Callable[[], None], ...]) -> None:
    pass_over_devices(count, checks)


# On one -----------------------------------------------------------------------------


def test_a_network_over_rows_is_what_it_was() -> None:
    subject = tiny("vgg")
    spread = vizsynth.over_rows(subject.net, devices(1))
    assert spread.layers == subject.net.layers
    assert spread.num_classes == subject.net.num_classes
    assert spread.labels == subject.net.labels
    assert spread.standardize == subject.net.standardize
    assert_close(spread(subject.images()), subject.net(subject.images()), 1e-5)
    assert vizsynth.receptive_field(spread, subject.middle, (0, 0), subject.size) == vizsynth.receptive_field(
        subject.net, subject.middle, (0, 0), subject.size
    )


def test_a_function_is_a_network_as_well() -> None:
    def net(images: Any, *, tap: Any = None, ops: Any = ops.plain) -> Any:
        kernel = jnp.ones((3, 3, 3, 2), images.dtype)
        return tap("sum", ops.conv(images, kernel, None, padding=((1, 1), (1, 1))))

    spread = vizsynth.over_rows(net, devices(1))
    images = random_images(1, 6, 5)
    assert not hasattr(spread, "num_classes")
    np.testing.assert_array_equal(
        vizsynth.features(spread, images, ["sum"])["sum"], vizsynth.features(net, images, ["sum"])["sum"]
    )


def test_shapes_alone_are_not_placed() -> None:
    net = jax.eval_shape(lambda: tiny_vgg())
    assert jax.tree.leaves(vizsynth.over_rows(net, devices(1))) == jax.tree.leaves(net)


def test_meshes_that_cannot_be_taken_are_refused() -> None:
    net = tiny("vgg").net
    with pytest.raises(ValueError, match=r"must have one axis, that of the rows, not \('images', 'rows'\)"):
        vizsynth.over_rows(net, jax.make_mesh((1, 1), ("images", "rows"), axis_types=(AxisType.Auto,) * 2))
    with pytest.raises(ValueError, match="must be partitioned automatically"):
        vizsynth.over_rows(net, jax.make_mesh((1,), ("rows",), axis_types=(AxisType.Explicit,)))


# Over processes ---------------------------------------------------------------------


PROCESS = """
import jax
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize("localhost:{port}", num_processes={count}, process_id={process})
import test_rows
test_rows.one_of_several_processes({process}, {count})
"""


def one_of_several_processes(process: int, count: int) -> None:
    """Make one picture together with other processes; each holds its share of the rows of four devices."""
    own = 4 // count
    assert (jax.process_count(), jax.local_device_count(), jax.device_count()) == (count, own, 4)
    net = tiny_vgg(num_classes=None)
    spread = vizsynth.over_rows(net, devices())
    images = [np.asarray(image) for image in random_images(2, 64, 24)]
    a, b = (jax.make_array_from_callback(x.shape, spread.sharding, lambda part, x=x: x[part]) for x in images)
    lbfgs = {"optimizer": optax.lbfgs, "learning_rate": 1.0}
    dream = DREAM | {"octaves": 1}
    together = (
        vizsynth.transfer_style(spread, a, [b], **STYLE | lbfgs),
        vizsynth.deepdream(spread, a[None], **dream),
    )
    alone = (
        vizsynth.transfer_style(net, images[0], [images[1]], **STYLE | lbfgs),
        vizsynth.deepdream(net, images[0][None], **dream),
    )
    for found, wanted in zip(together, alone, strict=True):
        assert_close(found.trace, wanted.trace, 1e-5)
        height = found.images.shape[1] // 4
        parts = found.images.addressable_shards
        assert [part.index[1].start // height for part in parts] == [own * process + i for i in range(own)]
        for part in parts:
            assert_close(part.data, wanted.images[part.index], 1e-5)
    print("equal", flush=True)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_processes_share_an_image(count: int) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    programs = [PROCESS.format(port=port, process=process, count=count) for process in range(count)]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            env=environment(4 // count),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for program in programs
    ]
    try:
        done = [process.communicate(timeout=300) for process in running]
    finally:
        for process in running:
            process.kill()
    for process, (out, err) in zip(running, done, strict=True):
        assert process.returncode == 0, err[-4000:]
        assert out.split()[-1] == "equal"  # Gloo tells whom it has met
