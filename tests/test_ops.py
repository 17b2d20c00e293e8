"""The arithmetic against `jax.lax` alone and against loops in NumPy."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vizsynth import ops
from vizsynth.cpu import convolution, thresholds

Pair = tuple[int, int]
NONE = ((0, 0), (0, 0))
ONE = ((1, 1), (1, 1))
APART = replace(thresholds.MEASURED, apart_pairs=1)  # the phases of every gradient have kernels of their own

CONVS = [  # window, strides, padding, height and width
    ((3, 3), (1, 1), ONE, (9, 8)),
    ((3, 3), (2, 2), ONE, (9, 8)),
    ((3, 3), (2, 2), NONE, (10, 13)),
    ((7, 7), (2, 2), ((3, 3), (3, 3)), (15, 16)),
    ((11, 11), (4, 4), ((2, 2), (2, 2)), (35, 38)),
    ((5, 5), (3, 3), ((2, 1), (0, 4)), (17, 19)),
    ((1, 1), (1, 1), NONE, (5, 6)),
    ((1, 1), (2, 2), NONE, (5, 6)),
    ((1, 1), (2, 3), NONE, (1, 7)),
    ((1, 1), (1, 1), ONE, (4, 3)),
    ((2, 2), (3, 3), ((0, 0), (1, 1)), (11, 12)),
    ((1, 4), (3, 1), ((0, 2), (1, 0)), (7, 6)),
    ((3, 3), (1, 1), ((5, 4), (0, 0)), (6, 7)),  # the backward pass crops: its padding is negative
    ((3, 2), (2, 1), ((4, 7), (6, 3)), (4, 3)),
    ((3, 3), (1, 1), ONE, (2, 2)),  # maps smaller than the window
    ((5, 3), (2, 1), ((2, 2), (1, 1)), (3, 4)),
    ((1, 3), (1, 1), ((0, 1), (0, 0)), (2, 3)),  # a gradient that is cropped and smaller than the window
    ((4, 4), (4, 4), NONE, (7, 11)),  # rows and columns that no window reaches
]


def arrays(*shapes: tuple[int, ...], seed: int = 0, dtype: Any = np.float64) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=shape).astype(dtype)) for shape in shapes]


def windows(x: np.ndarray, window: Pair, strides: Pair):
    """Yield the place of each window and its corner."""
    for i in range((x.shape[1] - window[0]) // strides[0] + 1):
        for j in range((x.shape[2] - window[1]) // strides[1] + 1):
            top, left = i * strides[0], j * strides[1]
            yield i, j, np.s_[:, top : top + window[0], left : left + window[1]]


def padded(x: Any, padding: Any, value: float = 0.0) -> np.ndarray:
    return np.pad(np.asarray(x), ((0, 0), *padding, (0, 0)), constant_values=value)


def looped_conv(x: Any, kernel: Any, strides: Pair, padding: Any, g: Any = None):
    """Return a convolution by its definition, and with `g` its two gradients."""
    full, kernel = padded(x, padding), np.asarray(kernel)
    kh, kw = kernel.shape[:2]
    oh, ow = ((full.shape[1 + d] - kernel.shape[d]) // strides[d] + 1 for d in (0, 1))
    y = np.zeros((full.shape[0], oh, ow, kernel.shape[3]))
    dfull, dkernel = np.zeros_like(full), np.zeros_like(kernel)
    for i, j, here in windows(full, (kh, kw), strides):
        y[:, i, j] = np.tensordot(full[here], kernel, 3)
        if g is not None:
            dfull[here] += np.einsum("nk,abck->nabc", np.asarray(g)[:, i, j], kernel)
            dkernel += np.einsum("nk,nabc->abck", np.asarray(g)[:, i, j], full[here])
    (top, _), (left, _) = padding
    h, w = x.shape[1:3]
    return y, dfull[:, top : top + h, left : left + w], dkernel


def close(a: Any, b: Any, tolerance: float = 1e-12) -> None:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    assert a.shape == b.shape
    assert np.isfinite(a).all()
    assert np.abs(a - b).max(initial=0) <= tolerance * max(1.0, np.abs(b).max(initial=0))


def check_conv(window: Pair, strides: Pair, padding: Any, size: Pair) -> None:
    x, kernel, bias = arrays((2, *size, 3), (*window, 3, 4), (4,))
    call = {"strides": strides, "padding": padding}

    @jax.jit
    def both(x: Any, kernel: Any, bias: Any, g: Any):
        def values(conv: Callable[..., Any]):
            y, pull = jax.vjp(lambda *args: conv(*args, **call), x, kernel, bias)
            return y, pull(g.reshape(y.shape))

        return values(ops.fast.conv), values(ops.plain.conv)

    y, _, _ = looped_conv(x, kernel, strides, padding)
    (g,) = arrays(y.shape, seed=1)
    y, dx, dkernel = looped_conv(x, kernel, strides, padding, g)
    y = y + np.asarray(bias)
    for value, gradients in both(x, kernel, bias, g.reshape(-1)):
        close(value, y)
        close(gradients[0], dx)
        close(gradients[1], dkernel)
        close(gradients[2], np.asarray(g).sum((0, 1, 2)))


def by_both(values: Callable[..., Any]) -> tuple[Any, Any]:
    """Return what a function makes of the fast convolution and of JAX's own."""
    return jax.jit(lambda: (values(ops.fast.conv), values(ops.plain.conv)))()


def in_both_ways(cases: list[Any]) -> list[Any]:
    """Return the cases, each with whether the sub-pixel phases of its gradient are computed one by one."""
    return [(case, apart) for case in cases for apart in ((False, True) if case[1] != (1, 1) else (False,))]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("case", "apart"), in_both_ways(CONVS), ids=str)
def test_convolution_and_its_gradients_are_the_loops(
    case: Any, apart: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if apart:  # as those of deep kernels are
        monkeypatch.setattr(thresholds, "MEASURED", APART)
    check_conv(*case)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_every_window_with_every_stride(stride: int) -> None:
    for window in range(stride, 12, 3):
        pad = window // 2
        size = (window + 6 - 2 * pad, window + 5 - pad)
        check_conv((window, window), (stride, stride), ((pad, pad), (pad, 0)), size)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("side", "channels", "images"),
    [
        (7, (3, 40), 2),
        (7, (40, 33), 2),
        (16, (40, 33), thresholds.MEASURED.single_images),
        (16, (40, 33), thresholds.MEASURED.single_images + 1),
        (16, (5, 3), 2),
        (16, (5, 3), thresholds.MEASURED.single_images + 1),
    ],
)
def test_kernels_for_several_images(side: int, channels: Pair, images: int) -> None:
    x, kernel = arrays((images, side, side + 1, channels[0]), (3, 3, *channels))
    (g,) = arrays((images, side, side + 1, channels[1]), seed=1)

    def gradient(conv: Callable[..., Any]) -> Any:
        return jax.vjp(lambda kernel: conv(x, kernel, None, padding=ONE), kernel)[1](g)[0]

    found, wanted = by_both(gradient)
    close(found, wanted)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("strides", [(1, 1), (2, 2)])
def test_small_maps_of_many_channels(strides: Pair) -> None:
    shape, window = (2, 7, 6, 130), (3, 3, 130, 128)
    assert convolution._positions_are_few(shape, window, strides, ONE)
    x, kernel = arrays(shape, window)

    def values(conv: Callable[..., Any]) -> Any:
        y, pull = jax.vjp(lambda x, kernel: conv(x, kernel, None, strides=strides, padding=ONE), x, kernel)
        return y, *pull(y)

    for found, wanted in zip(*by_both(values), strict=True):
        close(found, wanted)


@pytest.mark.parametrize("strides", [(1, 1), (2, 1)])
def test_large_maps_without_padding(strides: Pair) -> None:
    shape = (1, 260, 66, 32) if strides == (2, 1) else (1, 130, 66, 32)
    assert convolution._windows_are_many(shape, (3, 3, 32, 16), strides)
    x, kernel = arrays(shape, (3, 3, 32, 16), dtype=np.float32)

    def values(conv: Callable[..., Any]) -> Any:
        y, pull = jax.vjp(lambda x: conv(x, kernel, None, strides=strides), x)
        return y, *pull(y)

    for found, wanted in zip(*by_both(values), strict=True):
        np.testing.assert_allclose(found, wanted, atol=3e-6 * float(jnp.abs(wanted).max()))


@pytest.mark.parametrize("padding", [NONE, ((4, 4), (4, 4)), ((0, 8), (8, 0))], ids=str)
@pytest.mark.parametrize("channels", [12, 32])
def test_large_windows_of_few_outputs(channels: int, padding: Any) -> None:
    shape, window = (1, 72, 66, channels), (9, 9, channels, 3)
    assert convolution._windows_are_many(shape, window, (1, 1))
    x, kernel = arrays(shape, window, dtype=np.float32)

    def values(conv: Callable[..., Any]) -> Any:
        y, pull = jax.vjp(lambda x, kernel: conv(x, kernel, None, padding=padding), x, kernel)
        return y, *pull(y)

    for found, wanted in zip(*by_both(values), strict=True):
        np.testing.assert_allclose(found, wanted, atol=5e-6 * float(jnp.abs(wanted).max()))


@given(
    window=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    strides=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    padding=st.tuples(*[st.tuples(st.integers(0, 5), st.integers(0, 5))] * 2),
    extra=st.tuples(st.integers(0, 7), st.integers(0, 7)),
    at=st.sampled_from([APART, thresholds.MEASURED]),
)
def test_convolution_of_any_shape(window: Pair, strides: Pair, padding: Any, extra: Pair, at: Any) -> None:
    size = tuple(max(1, window[d] - sum(padding[d])) + extra[d] for d in (0, 1))
    with jax.enable_x64(True), mock.patch.object(thresholds, "MEASURED", at):
        check_conv(window, strides, padding, size)


@pytest.mark.parametrize("conv", [ops.fast.conv, ops.plain.conv])
def test_convolution_without_bias(conv: Any) -> None:
    x, kernel = arrays((1, 4, 5, 2), (3, 3, 2, 3), dtype=np.float32)
    with_zeros = conv(x, kernel, jnp.zeros(3), padding=ONE)
    np.testing.assert_array_equal(conv(x, kernel, None, padding=ONE), with_zeros)


def test_weight_gradients_are_not_dropped() -> None:
    x, kernel, bias = arrays((1, 6, 6, 2), (3, 3, 2, 3), (3,), dtype=np.float32)
    for window in (kernel, kernel[:1, :1]):
        gradients = jax.grad(lambda k, b: (ops.fast.conv(x, k, b) ** 2).sum(), (0, 1))(window, bias)
        for gradient in gradients:
            assert float(jnp.abs(gradient).min()) > 0


SECOND = [CONVS[i] for i in (1, 4, 5, 7, 12, 13)]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("case", "apart"), in_both_ways(SECOND), ids=str)
def test_second_order_of_convolution_in_reverse(
    case: Any, apart: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if apart:
        monkeypatch.setattr(thresholds, "MEASURED", APART)
    window, strides, padding, size = case
    x, kernel, v, u = arrays((2, *size, 2), (*window, 2, 3), (2, *size, 2), (*window, 2, 3))

    def gradients(conv: Any, x: Any, kernel: Any):
        score = lambda x, k: jnp.sin(conv(x, k, None, strides=strides, padding=padding)).sum()  # noqa: E731
        return jax.grad(score, (0, 1))(x, kernel)

    def reverse(x: Any, kernel: Any):
        def dotted(x: Any, kernel: Any) -> Any:
            dx, dkernel = gradients(ops.fast.conv, x, kernel)
            return (dx * v).sum() + (dkernel * u).sum()

        return jax.grad(dotted, (0, 1))(x, kernel)

    def forward(x: Any, kernel: Any):  # symmetric, so the same product by the other mode
        return jax.jvp(lambda x, k: gradients(ops.plain.conv, x, k), (x, kernel), (v, u))[1]

    ours, expected = jax.jit(lambda x, k: (reverse(x, k), forward(x, k)))(x, kernel)
    jax.tree.map(close, ours, expected)


@pytest.mark.usefixtures("x64")
def test_second_order_of_max_pooling_in_reverse() -> None:
    x, v = arrays((2, 7, 8, 3), (2, 7, 8, 3))

    @partial(jax.jit, static_argnums=0)
    def product(pool: Any, x: Any) -> Any:
        score = lambda x: jnp.sin(pool(x, window=(3, 3), strides=(2, 2), padding=ONE)).sum()  # noqa: E731
        return jax.grad(lambda x: (jax.grad(score)(x) * v).sum())(x)

    close(product(ops.fast.max_pool, x), product(ops.plain.max_pool, x))


TABLES = {
    "conv": (ops.fast.conv, ops.plain.conv),
    "max_pool": (
        lambda x, k: ops.fast.max_pool(x, window=k.shape[:2], strides=(2, 2), padding=ONE),
        lambda x, k: ops.plain.max_pool(x, window=k.shape[:2], strides=(2, 2), padding=ONE),
    ),
}
TABLES["conv"] = tuple(
    (lambda x, k, conv=conv: conv(x, k, None, strides=(2, 2), padding=ONE)) for conv in TABLES["conv"]
)


@partial(jax.jit, static_argnums=0)
def image_gradient(op: Any, x: Any, kernel: Any) -> Any:
    return jax.grad(lambda x: jnp.sin(op(x, kernel)).sum())(x)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", TABLES)
def test_gradients_under_vmap(name: str) -> None:
    own, plain = TABLES[name]
    x, kernels = arrays((3, 2, 7, 8, 2), (3, 3, 3, 2, 4))
    ours = jax.jit(jax.vmap(lambda x, k: image_gradient(own, x, k)))(x, kernels)
    for i in range(3):
        close(ours[i], image_gradient(plain, x[i], kernels[i]))
    shared = jax.vmap(lambda x: image_gradient(own, x, kernels[0]))(x)
    close(shared[1], image_gradient(plain, x[1], kernels[0]))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", TABLES)
def test_gradients_in_a_scan(name: str) -> None:
    own, plain = TABLES[name]
    x, kernel = arrays((2, 7, 8, 2), (3, 3, 2, 4))

    def step(x: Any, _: Any):
        return x + 0.1 * image_gradient(own, x, kernel), None

    ours = jax.jit(lambda x: jax.lax.scan(step, x, length=3)[0])(x)
    for _ in range(3):
        x = x + 0.1 * image_gradient(plain, x, kernel)
    close(ours, x)


@pytest.mark.parametrize("name", TABLES)
def test_bfloat16_stays_and_is_the_plain_tables(name: str) -> None:
    own, plain = TABLES[name]
    x, kernel = arrays((2, 9, 8, 4), (3, 3, 4, 4), dtype=np.float32)
    half = x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    assert own(*half).dtype == jnp.bfloat16
    np.testing.assert_array_equal(own(*half), plain(*half))
    gradient = image_gradient(own, *half)
    assert gradient.dtype == jnp.bfloat16
    exact = image_gradient(plain, half[0].astype(jnp.float32), half[1].astype(jnp.float32))
    difference = jnp.linalg.norm(gradient.astype(jnp.float32) - exact)
    assert float(difference / jnp.linalg.norm(exact)) < 2e-2


def test_kernels_take_the_precision_of_the_images() -> None:
    x, kernel, bias = arrays((1, 5, 5, 2), (3, 3, 2, 3), (3,), dtype=np.float32)
    x = x.astype(jnp.bfloat16)
    for conv in (ops.fast.conv, ops.plain.conv):
        assert conv(x, kernel, bias).dtype == jnp.bfloat16
    assert ops.linear(x[:, 0, 0], kernel[0, 0], bias).dtype == jnp.bfloat16


@pytest.mark.parametrize("name", TABLES)
def test_forward_mode_passes_the_plain_table_alone(name: str) -> None:
    own, plain = TABLES[name]
    x, v, kernel = arrays((1, 5, 5, 2), (1, 5, 5, 2), (3, 3, 2, 4), dtype=np.float32)
    _, tangent = jax.jvp(lambda x: plain(x, kernel), (x,), (v,))
    y, pull = jax.vjp(lambda x: plain(x, kernel), x)
    assert float(jnp.vdot(y, tangent)) == pytest.approx(float(jnp.vdot(pull(y)[0], v)), rel=1e-4)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda x: own(x, kernel), (x,), (v,))


def test_the_plain_table_differs_only_where_forward_mode_needs_it() -> None:
    differing = {name for name, own in ops.fast._asdict().items() if own != getattr(ops.plain, name)}
    assert differing == {"conv", "max_pool"}


# Pooling ---------------------------------------------------------------------

POOLS = [  # window, strides, padding, ceil, height and width
    ((2, 2), (2, 2), 0, False, (8, 9)),
    ((3, 3), (2, 2), 0, False, (9, 8)),
    ((3, 3), (2, 2), 0, True, (9, 8)),
    ((3, 3), (2, 2), 1, False, (9, 8)),
    ((3, 3), (3, 3), 1, True, (10, 11)),
    ((2, 2), (1, 1), 0, False, (5, 5)),
    ((3, 3), (2, 2), 1, True, (12, 12)),
    ((2, 2), (3, 3), 0, True, (12, 12)),  # windows that would begin past the edge
    ((2, 3), (3, 1), 1, False, (6, 5)),
    ((1, 1), (2, 2), 0, False, (5, 4)),
    ((7, 5), (7, 5), 0, False, (7, 5)),
    ((17, 16), (1, 1), 0, False, (17, 16)),  # more places in a window than a byte counts
]


def spans(size: int, window: int, stride: int, pad: int, ceil: bool) -> list[tuple[int, int]]:
    """Return where each window begins and ends in the image, by walking along it."""
    found = []
    start = -pad
    while True:
        whole = start + window <= size + pad
        # Ceiling takes one more window where the last has not reached the end of the padded
        # image, unless it would begin past the image itself.
        reached = bool(found) and found[-1][1] >= size + pad
        if not whole and not (ceil and not reached and start < size):
            return found
        if start >= size and ceil:
            return found
        found.append((start, start + window))
        start += stride


def looped_max_pool(x: Any, window: Pair, strides: Pair, pad: int, ceil: bool, g: Any = None):
    """Return the maxima and, with `g`, its gradient given to the first maximum of each window."""
    x = np.asarray(x)
    rows, cols = (spans(x.shape[1 + d], window[d], strides[d], pad, ceil) for d in (0, 1))
    y, dx = np.zeros((x.shape[0], len(rows), len(cols), x.shape[3])), np.zeros_like(x)
    for i, (top, bottom) in enumerate(rows):
        for j, (left, right) in enumerate(cols):
            top, left = max(top, 0), max(left, 0)
            part = x[:, top:bottom, left:right]
            y[:, i, j] = part.max((1, 2))
            for n, k in np.ndindex(x.shape[0], x.shape[3]) if g is not None else ():
                row, col = np.unravel_index(part[n, :, :, k].argmax(), part.shape[1:3])
                dx[n, top + row, left + col, k] += np.asarray(g)[n, i, j, k]
    return y, dx


def check_max_pool(window: Pair, strides: Pair, pad: int, ceil: bool, size: Pair, ties: bool) -> None:
    (x,) = arrays((2, *size, 3))
    if ties:
        x = jnp.maximum(jnp.round(x), 0.0)
    padding = tuple(ops.pool_padding(size[d], window[d], strides[d], pad, ceil=ceil) for d in (0, 1))
    y, _ = looped_max_pool(x, window, strides, pad, ceil)
    (g,) = arrays(y.shape, seed=1)
    y, dx = looped_max_pool(x, window, strides, pad, ceil, g)
    call = {"window": window, "strides": strides, "padding": padding}

    @jax.jit
    def both(x: Any, g: Any):
        def values(pool: Any):
            value, pull = jax.vjp(lambda x: pool(x, **call), x)
            return value, pull(g.reshape(value.shape))[0]

        return values(ops.fast.max_pool), values(ops.plain.max_pool)

    for value, gradient in both(x, g.reshape(-1)):
        np.testing.assert_array_equal(value, y)
        close(gradient, dx)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("case", POOLS, ids=str)
def test_max_pooling_and_its_gradient_are_the_loops(case: Any, ties: bool) -> None:
    check_max_pool(*case, ties)


@given(
    window=st.integers(1, 5),
    stride=st.integers(1, 4),
    pad=st.integers(0, 2),
    ceil=st.booleans(),
    extra=st.tuples(st.integers(0, 9), st.integers(0, 9)),
)
def test_max_pooling_of_any_shape(window: int, stride: int, pad: int, ceil: bool, extra: Pair) -> None:
    pad = min(pad, window // 2)
    size = tuple(max(window - 2 * pad, 1) + more for more in extra)
    with jax.enable_x64(True):
        check_max_pool((window, window), (stride, stride), pad, ceil, size, ties=True)


def test_a_tie_goes_to_the_first_maximum() -> None:
    x = jnp.zeros((1, 4, 4, 1))
    pool = lambda x: ops.fast.max_pool(x, window=(2, 2), strides=(2, 2)).sum()  # noqa: E731
    expected = np.zeros((4, 4))
    expected[::2, ::2] = 1
    np.testing.assert_array_equal(jax.grad(pool)(x)[0, :, :, 0], expected)


def test_pooling_keeps_negative_values_beside_its_padding() -> None:
    x = -jnp.ones((1, 3, 3, 1))
    for pool in (ops.fast.max_pool, ops.plain.max_pool):
        pooled = pool(x, window=(3, 3), strides=(2, 2), padding=ONE)
        np.testing.assert_array_equal(pooled, -np.ones((1, 2, 2, 1)))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("case", [case for case in POOLS if not case[3]], ids=str)
def test_mean_pooling_counts_its_padding_as_zeros(case: Any) -> None:
    window, strides, pad, _, size = case
    (x,) = arrays((2, *size, 3))
    full = padded(x, ((pad, pad), (pad, pad)))
    y = ops.mean_pool(x, window=window, strides=strides, padding=((pad, pad), (pad, pad)))
    seen = 0
    for i, j, here in windows(full, window, strides):
        close(y[:, i, j], full[here].mean((1, 2)))
        seen += 1
    assert y.shape[1] * y.shape[2] == seen


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("size", [(7, 7), (1, 1), (3, 5), (14, 2), (6, 6), (9, 10)])
@pytest.mark.parametrize("shape", [(7, 7), (9, 10), (1, 1), (15, 4)])
def test_adaptive_mean_pooling_averages_its_bins(size: Pair, shape: Pair) -> None:
    (x,) = arrays((2, *shape, 3))
    y = ops.adaptive_mean_pool(x, size=size)
    assert y.shape == (2, *size, 3)
    for i, j in np.ndindex(size):
        top, bottom = i * shape[0] // size[0], -((-(i + 1) * shape[0]) // size[0])
        left, right = j * shape[1] // size[1], -((-(j + 1) * shape[1]) // size[1])
        close(y[:, i, j], np.asarray(x)[:, top:bottom, left:right].mean((1, 2)))


# The rest --------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
def test_batch_norm_is_its_equation() -> None:
    x, scale, bias, mean, variance = arrays((2, 3, 4, 5), (5,), (5,), (5,), (5,))
    variance = variance**2
    y = ops.batch_norm(x, scale, bias, mean, variance, eps=1e-3)
    parts = [np.asarray(a) for a in (x, scale, bias, mean, variance)]
    expected = parts[1] * (parts[0] - parts[3]) / np.sqrt(parts[4] + 1e-3) + parts[2]
    close(y, expected)


def test_relu_passes_no_gradient_at_zero() -> None:
    x = jnp.asarray([-1.0, 0.0, 2.0])
    np.testing.assert_array_equal(ops.relu(x), [0, 0, 2])
    np.testing.assert_array_equal(jax.grad(lambda x: ops.relu(x).sum())(x), [0, 0, 1])


def test_sums_and_concatenations() -> None:
    x, y = arrays((1, 2, 2, 3), (1, 2, 2, 3), dtype=np.float32)
    np.testing.assert_array_equal(ops.add(x, y), np.asarray(x) + np.asarray(y))
    joined = ops.concatenate([x, y])
    np.testing.assert_array_equal(joined, np.concatenate([x, y], -1))


@pytest.mark.parametrize(
    "call",
    [
        lambda x: ops.fast.conv(x, jnp.zeros((5, 5, 1, 1)), None, name="conv4"),
        lambda x: ops.plain.conv(x, jnp.zeros((5, 5, 1, 1)), None, name="conv4"),
        lambda x: ops.fast.max_pool(x, window=(5, 5), strides=(1, 1)),
        lambda x: ops.plain.max_pool(x, window=(5, 5), strides=(1, 1)),
        lambda x: ops.mean_pool(x, window=(5, 5), strides=(1, 1)),
    ],
)
def test_a_map_smaller_than_its_window_is_too_small(call: Any) -> None:
    with pytest.raises(ValueError, match=r"too small .* 5x5 window .* map of 4x6; give larger"):
        call(jnp.zeros((1, 4, 6, 1)))


@pytest.mark.parametrize("padding", [((1, 1), (1, 1)), ((0, 2), (1, 0)), ((0, 0), (0, 0))])
def test_few_outputs_are_a_product_and_a_sum_of_shifted_maps(padding):
    x_key, kernel_key = jax.random.split(jax.random.key(3))
    x, kernel = jax.random.normal(x_key, (2, 9, 7, 16)), jax.random.normal(kernel_key, (3, 3, 16, 3))
    wanted = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"), precision="highest"
    )
    np.testing.assert_allclose(convolution.by_taps(x, kernel, padding), wanted, rtol=1e-4, atol=1e-4)
    assert convolution._outputs_are_few(x, kernel, (1, 1))
    assert not convolution._outputs_are_few(x.astype(jnp.bfloat16), kernel, (1, 1))
