"""oneDNN: the definition's numbers, in every transformation, or not called at all."""

import itertools
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.experimental.compilation_cache import compilation_cache

import vizsynth
from vizsynth import onednn, ops
from vizsynth.linearity import is_affine
from vizsynth.models.sequential import Conv, Dense, GlobalMean, MaxPool, ReLU, sequential
from vizsynth.products import _product, gram, product

pytestmark = pytest.mark.usefixtures("programs_not_kept")
needed = pytest.mark.usefixtures("at_hand")


@pytest.fixture(scope="module")
def at_hand(programs_not_kept: None) -> None:
    if not onednn.at_hand():
        pytest.skip("oneDNN is not at hand")


def close(got: Any, want: Any, tolerance: float = 2e-6) -> None:
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape
    assert np.linalg.norm(got - want) <= tolerance * np.linalg.norm(want)


def drawn(seed: int, *shape: int) -> Any:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def looped(x: Any, kernel: Any, strides: Any, padding: Any) -> np.ndarray:
    """Return the convolution by its definition, in float64; negative padding cuts."""
    x, kernel = np.asarray(x, np.float64), np.asarray(kernel, np.float64)
    x = np.pad(x, ((0, 0), *[(max(0, low), max(0, high)) for low, high in padding], (0, 0)))
    cut = [
        slice(max(0, -low), size - max(0, -high))
        for (low, high), size in zip(padding, x.shape[1:3], strict=True)
    ]
    x = x[:, cut[0], cut[1]]
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], (1, 2))
    return np.einsum("nhwcij,ijck->nhwk", windows[:, :: strides[0], :: strides[1]], kernel)


@needed
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_every_convolution_is_the_definitions(data: Any) -> None:
    window = data.draw(st.tuples(*[st.integers(1, 7)] * 2))
    strides = data.draw(st.tuples(*[st.integers(1, 3)] * 2))
    padding = tuple(data.draw(st.tuples(*[st.integers(-1, k - 1)] * 2)) for k in window)
    size = tuple(
        data.draw(st.integers(k - min(0, *p) * 2, k + 9)) for k, p in zip(window, padding, strict=True)
    )
    channels, outputs = data.draw(st.tuples(*[st.sampled_from([1, 2, 3, 8, 17, 33])] * 2))
    x, kernel = drawn(0, data.draw(st.integers(1, 3)), *size, channels), drawn(1, *window, channels, outputs)
    assert onednn.convolves(x, kernel, padding)
    close(onednn.conv(x, kernel, strides=strides, padding=padding), looped(x, kernel, strides, padding))


@needed
@settings(max_examples=20, deadline=None)
@given(*[st.integers(1, 40)] * 3, st.integers(1, 5))
def test_every_product_is_the_definitions(m: int, k: int, n: int, batch: int) -> None:
    a, b = drawn(0, batch, m, k), drawn(1, batch, k, n)
    wanted = np.asarray(a, np.float64) @ np.asarray(b, np.float64)
    for turned in ((False, False), (False, True), (True, False), (True, True)):
        given = a.mT if turned[0] else a, b.mT if turned[1] else b
        times = partial(onednn.matmul, transposed=turned)
        close(times(*given), wanted)
        close(times(given[0][0], given[1][0]), wanted[0])
        close(jax.vmap(times)(*given), wanted)
        close(jax.vmap(times, (0, None))(given[0], given[1][0]), np.asarray(a, np.float64) @ np.asarray(b[0]))
        close(jax.vmap(times, (None, 0))(given[0][0], given[1]), np.asarray(a[0], np.float64) @ np.asarray(b))


@needed
@pytest.mark.parametrize("terms", [25088, 1024, 33, 1])
def test_a_row_of_many_terms_is_as_exact_as_rows(terms: int) -> None:
    row, weights = jax.nn.relu(drawn(0, 1, terms)), drawn(1, terms, 48)
    wanted = np.asarray(row, np.float64) @ np.asarray(weights, np.float64)
    close(jax.jit(product)(row, weights), wanted, 9e-7)  # in one sum, 25,088 terms are 2e-6 off


@needed
@pytest.mark.parametrize("turned", [*itertools.product((False, True), repeat=2)])
def test_gradients_of_products_that_are_turned_over(turned: Any) -> None:
    a, b = drawn(0, 5, 3), drawn(1, 3, 4)
    given = a.T if turned[0] else a, b.T if turned[1] else b

    def plain(a: Any, b: Any) -> Any:
        return (a.T if turned[0] else a) @ (b.T if turned[1] else b)

    def twice(times: Any) -> Any:
        first = jax.grad(lambda a, b: jnp.tanh(times(a, b)).sum(), (0, 1))
        return first(*given), jax.grad(lambda *args: sum((g**2).sum() for g in first(*args)), (0, 1))(*given)

    jax.tree.map(partial(close, tolerance=1e-5), twice(lambda a, b: _product(a, b, *turned)), twice(plain))


@needed
def test_gram_matrices_to_second_order_and_of_many() -> None:
    F = drawn(0, 2, 30, 5)

    def twice(gram: Any) -> Any:
        first = jax.grad(lambda F: jnp.sin(gram(F)).sum())
        return gram(F[0]), first(F[0]), jax.grad(lambda F: (first(F) ** 2).sum())(F[0]), jax.vmap(first)(F)

    found = jax.jit(lambda: twice(lambda F: gram(F, jnp.float32)))
    assert "__onednn$matmul" in found.lower().as_text()
    jax.tree.map(partial(close, tolerance=2e-5), found(), twice(lambda F: F.T @ F))


@needed
@pytest.mark.parametrize(
    "how", ["grad", "second order", "vmap", "vmap over weights", "vmap over both", "scan"]
)
def test_products_with_weights_in_every_transformation(how: str) -> None:
    x, weights = drawn(0, 3, 4, 5), drawn(1, 3, 5, 6)

    def run(times: Any, x: Any, weights: Any) -> Any:
        def score(x: Any, weights: Any) -> Any:
            return (jnp.tanh(times(x, weights)) ** 2).sum()

        gradient = jax.grad(score, (0, 1))
        if how == "grad":
            return gradient(x, weights[0])
        if how == "second order":
            return jax.grad(lambda *args: sum((g**2).sum() for g in gradient(*args)), (0, 1))(x, weights[0])
        if how == "scan":
            return jax.lax.scan(lambda x, _: (gradient(x, weights[0])[0], None), x, length=2)[0]
        axes = {"vmap": (0, None), "vmap over weights": (None, 0), "vmap over both": (0, 0)}[how]
        given = x if axes[0] == 0 else x[0], weights if axes[1] == 0 else weights[0]
        return jax.vmap(times, axes)(*given), jax.vmap(gradient, axes)(*given)

    fast = jax.jit(run, static_argnums=0).lower(product, x, weights).compile()
    assert "__onednn$matmul" in str(fast.as_text())
    tolerance = 1e-4 if how == "scan" else 5e-6
    jax.tree.map(partial(close, tolerance=tolerance), fast(x, weights), run(jnp.matmul, x, weights))


KEY = jax.random.key(0)
GIVEN = {"strides": (2, 1), "padding": ((1, 0), (1, 2))}


@needed
@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0)])
def test_mapped_over_images_kernels_or_both(axes: Any) -> None:
    x, kernel = drawn(0, 4, 2, 6, 7, 3), drawn(1, 4, 3, 3, 3, 5)
    a, b = drawn(2, 4, 3, 5, 6), drawn(3, 4, 3, 6, 2)

    def of(values: Any, axis: Any) -> Any:
        return values if axis == 0 else values[0]

    def conv(x: Any, kernel: Any) -> Any:
        return onednn.conv(x, kernel, **GIVEN)

    for function, first, second in ((conv, x, kernel), (onednn.matmul, a, b)):
        one, other = of(first, axes[0]), of(second, axes[1])
        got = jax.jit(jax.vmap(function, axes))(one, other)
        for i in range(4):
            close(
                got[i],
                function(*(v if axis is None else v[i] for v, axis in ((one, axes[0]), (other, axes[1])))),
            )
        twice = jax.vmap(jax.vmap(function, axes), (0, None))(jnp.stack([one, one]), other)
        close(twice[1], got)


@needed
@pytest.mark.parametrize("how", ["grad", "second order", "vmap", "scan", "remat", "of the kernel"])
def test_networks_convolve_by_it_in_every_transformation(how: str) -> None:
    x, kernel = drawn(0, 2, 9, 10, 5), drawn(1, 3, 3, 5, 6)

    def score(table: Any, x: Any, kernel: Any) -> Any:
        return (jnp.tanh(table.conv(x, kernel, None, **GIVEN)) ** 2).sum()

    def run(table: Any, x: Any) -> Any:
        gradient = jax.grad(lambda x: score(table, x, kernel))
        if how == "grad":
            return gradient(x)
        if how == "second order":
            return jax.grad(lambda x: (gradient(x) ** 2).sum())(x)
        if how == "vmap":
            return jax.vmap(lambda one: gradient(one[None])[0])(x)
        if how == "scan":
            return jax.lax.scan(lambda x, _: (gradient(x), None), x, length=2)[0]
        if how == "remat":
            return jax.grad(jax.checkpoint(lambda x: score(table, x, kernel)))(x)
        return jax.grad(lambda kernel: score(table, x, kernel))(kernel)

    fast = jax.jit(run, static_argnums=0).lower(ops.default, x).compile()
    assert "__onednn" in str(fast.as_text())
    close(fast(x), jax.jit(run, static_argnums=0)(ops.plain, x), 1e-4 if how == "scan" else 1e-5)


@needed
def test_plain_arithmetic_has_forward_mode_and_does_not_call_it() -> None:
    net = sequential([Conv(4), ReLU(), MaxPool(), Conv(5, 1), GlobalMean(), Dense(3)], (9, 9, 3), key=KEY)
    x = drawn(0, 2, 9, 9, 3)
    program = jax.jit(lambda x, v: jax.jvp(lambda x: net(x, ops=ops.plain), (x,), (v,)))
    assert "__onednn" not in str(program.lower(x, x).compile().as_text())
    assert "__onednn" in str(jax.jit(lambda x: net(x)).lower(x).compile().as_text())
    close(program(x, x)[0], net(x), 1e-5)


@needed
def test_who_reads_what_is_traced_finds_the_compilers_operations() -> None:
    x, weights = drawn(0, 2, 9, 9, 3), drawn(1, 3, 4)

    def logits(weights: Any, x: Any) -> Any:
        return product(x.mean(axis=(1, 2)), weights)

    assert is_affine(partial(logits, weights), x)
    wanted = vizsynth.adapt(lambda w, x: x.mean(axis=(1, 2)) @ w, weights, example=x[:1])
    adapted = vizsynth.adapt(logits, weights, example=x[:1])
    assert adapted.layers == wanted.layers
    close(adapted(x), logits(weights, x), 1e-5)


def test_what_it_does_not_take() -> None:
    x, kernel = jnp.ones((1, 5, 5, 2)), jnp.ones((3, 3, 2, 2))
    narrow, wide = ((1, 1), (1, 1)), ((1, 1), (3, 1))
    assert onednn.convolves(x, kernel, narrow) == onednn.at_hand()
    assert not onednn.convolves(x, kernel, wide)
    assert not onednn.convolves(x[:0], kernel, narrow)
    halves = x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    assert not onednn.convolves(*halves, narrow)
    assert onednn.takes(x[0], kernel[0, :, :, :2]) == onednn.at_hand()
    assert not onednn.takes(halves[0][0], halves[1][0])
    with pytest.raises(TypeError, match="float32 alone"):
        onednn.conv(*halves, **GIVEN)


def both(x: Any, kernel: Any) -> Any:
    """Return a convolution, and a product that is one of its batch."""
    product = onednn.matmul if onednn.takes(x[0], kernel[0]) else jnp.matmul
    return ops.conv(x, kernel, None, **GIVEN), product(x[:, 0], kernel[:1, 0])


OPERANDS = drawn(0, 1, 9, 9, 4), drawn(1, 3, 3, 4, 8)


@needed
def test_programs_for_other_platforms_do_not_call_it() -> None:
    traced = jax.jit(both).trace(*OPERANDS)
    assert traced.lower().as_text().count("@__onednn$") == 2
    assert "@__onednn" not in traced.lower(lowering_platforms=("cuda",)).as_text()


@needed
def test_programs_that_are_exported_do_not_call_it() -> None:
    exported = jax.export.export(jax.jit(both))(*OPERANDS)
    assert "@__onednn" not in exported.mlir_module()
    jax.tree.map(close, exported.call(*OPERANDS), both(*OPERANDS))


@needed
def test_programs_that_are_kept_on_disk_do_not_call_it(tmp_path: Path, recwarn: Any) -> None:
    """XLA would write what is no part of them, or fail at it, or end the process."""
    traced = jax.jit(lambda x, kernel: both(x, kernel)).trace(*OPERANDS)  # JAX lowers the same one once
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    try:
        assert not onednn.at_hand()
        assert "@__onednn" not in traced.lower().as_text()
        found = jax.jit(lambda x, kernel: both(x, kernel))(*OPERANDS)
        jax.config.update("jax_compilation_cache_dir", None)
        assert not onednn.at_hand()  # JAX goes on writing there
    finally:
        jax.config.update("jax_compilation_cache_dir", None)
        compilation_cache.reset_cache()
    assert any(tmp_path.glob("jit__lambda-*-cache"))
    jax.tree.map(close, found, both(*OPERANDS))
    assert not recwarn.list


@pytest.mark.parametrize("reason", ["another version", "another machine", "several devices", "another build"])
def test_where_it_is_not_known_it_is_not_called(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    at, name, value = {
        "another version": (onednn, "TESTED", ()),
        "another machine": (onednn.platform, "machine", lambda: "arm64"),
        "several devices": (jax, "local_device_count", lambda: 2),
        "another build": (
            onednn,
            "_call_matmul",
            lambda a, b, *_: onednn._call("of_no_build", {}, (*a.shape[:-1], 3), a, b),
        ),
    }[reason]
    monkeypatch.setattr(at, name, value)
    onednn._is_known.cache_clear()
    try:
        assert not onednn.at_hand()
        x, kernel = drawn(0, 1, 9, 9, 4), drawn(1, 3, 3, 4, 8)
        program = jax.jit(lambda x, kernel: ops.conv(x, kernel, None, **GIVEN)).lower(x, kernel).compile()
        assert "__onednn" not in str(program.as_text())
    finally:
        onednn._is_known.cache_clear()
