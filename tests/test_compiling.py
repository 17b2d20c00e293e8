"""Programs are compiled with options that are the compiler's own business: nothing else may tell."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vizsynth
from vizsynth import compiling


@pytest.fixture
def square() -> compiling.Program:
    return vizsynth.jit(lambda x: (x**2).sum())


X = jnp.arange(3.0)


@pytest.mark.parametrize(
    "called",
    [
        lambda f: f(X),
        lambda f: jax.grad(f)(X).sum() - 1,
        lambda f: jax.vmap(f)(X[None])[0],
        lambda f: jax.jit(lambda x: f(x))(X),
        lambda f: jax.jit(lambda _: f(X))(0),
        lambda f: jax.lax.scan(lambda c, _: (c + f(X), None), 0.0, length=1)[0],
        lambda f: jax.hessian(f)(X).sum() - 1,
        lambda f: jax.lax.map(f, X[None])[0],
        lambda f: jax.checkpoint(f)(X),
    ],
    ids=["alone", "grad", "vmap", "jit", "jit of a constant", "scan", "hessian", "map", "checkpoint"],
)
def test_it_is_a_part_of_every_transformation(square, called):
    assert called(square) == 5


def test_other_numbers_compile_nothing_and_other_shapes_do(square):
    square(X)
    before = square._cache_size()
    square(X + 1)
    assert square._cache_size() == before
    square(jnp.zeros(4))
    assert square._cache_size() == before + 1
    square.clear_cache()
    assert square._cache_size() == 0


def test_static_arguments_and_shapes_are_jaxs():
    power = vizsynth.jit(lambda x, n: x**n, static_argnames=["n"])
    assert power(2.0, n=3) == 8
    assert jax.eval_shape(lambda x: power(x, n=3), X).shape == (3,)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="of a CPU's compiler")
def test_convolutions_on_a_cpu_are_not_left_to_the_slower_library():
    def conv(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((1, 64, 64, 16), (3, 3, 16, 32))]
    slower, faster = (made(conv).lower(*shapes).compile().as_text() for made in (jax.jit, vizsynth.jit))
    assert ("ynn_fusion" in slower, "ynn_fusion" in faster) == (True, False)


def test_a_compiler_that_does_not_know_the_options_does_without(monkeypatch):
    monkeypatch.setattr(compiling, "_OPTIONS", {jax.default_backend(): {"xla_of_another_time": "1"}})
    compiling.compiler_options.cache_clear()
    try:
        assert compiling.compiler_options() == {}
        program = vizsynth.jit(lambda x: x + 1)
        np.testing.assert_array_equal(program(X), X + 1)
        assert program.compiled is program.traced
    finally:
        compiling.compiler_options.cache_clear()
