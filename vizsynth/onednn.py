"""The convolutions and products of oneDNN, which XLA holds on x86 but calls by no rule of its own.

XLA's CPU backend chooses between two libraries for convolutions, Eigen and YNNPACK. oneDNN, the third that it
is built with, takes down to half of their time for the first layers of a network, and four fifths for the
batches of small products that Winograd's tiles are. Here it is called by the names that XLA gives it. The
names and the format of what goes with them are the compiler's own business: `at_hand` is true for versions
that this was tested with, and what calls it has another way for all others.

A program that calls it cannot be written to a file: XLA takes these calls for others and writes what is no
part of them. So `conv` and `matmul` are primitives, which become oneDNN's where a program is lowered for this
process alone, and the compiler's own where it is exported, or kept in JAX's compilation cache.

They are parts of functions that have a rule for their gradient: they have none themselves.
"""

import importlib.metadata
import json
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir
from jaxtyping import Array, Float

from vizsynth import windows
from vizsynth.windows import Padding, Pair

TESTED = ("0.10.0", "0.10.1", "0.10.2")
"""The versions of jaxlib whose format is known: another's may mean something else by the same words."""

_left_alone = ContextVar("left_alone", default=False)


def at_hand() -> bool:
    """Tell whether a program of this process can call oneDNN now.

    It cannot while JAX keeps its programs on disk (`jax_compilation_cache_dir`).

    >>> at_hand() in (True, False)
    True
    """
    return not (_left_alone.get() or _programs_are_kept()) and _is_known()


@contextmanager
def left_alone() -> Iterator[None]:
    """Within this it is not called: for those who read the operations of what is traced."""
    token = _left_alone.set(True)
    try:
        yield
    finally:
        _left_alone.reset(token)


def _programs_are_kept() -> bool:
    """Tell whether JAX writes programs to disk: once it has opened its cache, it does so to the end."""
    opened = getattr(sys.modules.get("jax._src.compilation_cache"), "_cache", None) is not None
    return opened or jax.config.values["jax_compilation_cache_dir"] is not None


@cache
def _is_known() -> bool:
    """Tell whether jaxlib is one that was tested, on a single x86 CPU.

    Several devices (a CPU has as many as `jax_num_cpu_devices` says) share their work by XLA's partitioner,
    which would not cut a call that it does not know.
    """
    here = (
        sys.platform == "linux"
        and platform.machine() == "x86_64"
        and importlib.metadata.version("jaxlib") in TESTED
    )
    return here and jax.default_backend() == "cpu" and jax.local_device_count() == 1 and _is_built_in()


def _is_built_in() -> bool:
    """Tell whether this build of XLA has it, and means by the format what is meant here."""
    x = np.arange(2 * 4 * 5 * 3, dtype=np.float32).reshape(2, 4, 5, 3) % 7
    kernel = np.arange(2 * 3 * 3 * 2, dtype=np.float32).reshape(2, 3, 3, 2) % 5
    a, b, given = x[:, 0], x[:, 1, :3], ((2, 1), ((1, 0), (2, 1)))

    def found_and_wanted(x: Array, kernel: Array, a: Array, b: Array) -> Any:
        products = [
            _call_matmul(a.mT if first else a, b.mT if second else b, first, second)
            for first in (False, True)
            for second in (False, True)
        ]
        wanted = _compilers_matmul(a, b, False, False)
        return [_call_conv(x, kernel, *given), *products], [_compilers_conv(x, kernel, *given), *4 * [wanted]]

    try:
        found, wanted = jax.jit(found_and_wanted).lower(x, kernel, a, b).compile()(x, kernel, a, b)
    except RuntimeError:  # a jaxlib that others built
        return False
    return all(np.array_equal(*pair) for pair in zip(found, wanted, strict=True))


def takes(*operands: Array) -> bool:
    """Tell whether `matmul` takes these: float32, on no mesh of devices."""
    kinds = [jax.typeof(operand) for operand in operands]
    return at_hand() and all(
        kind.dtype == jnp.float32 and kind.size > 0 and kind.sharding.mesh.empty for kind in kinds
    )


def convolves(x: Array, kernel: Array, padding: Padding) -> bool:
    """Tell whether `conv` takes these: no window may lie within the padding alone."""
    inside = all(max(pads) < size for pads, size in zip(padding, kernel.shape, strict=False))
    return inside and takes(x, kernel)


def _primitive(
    name: str,
    shape: Callable[..., tuple[int, ...]],
    onednns: Callable[..., Array],
    compilers: Callable[..., Array],
) -> Primitive:
    """Return an operation on arrays of float32 and what is `given` with them.

    It is oneDNN's in a program for a CPU that no other process will run, and else the compiler's.
    """
    made = Primitive(f"onednn_{name}")

    def result(*operands: Any, given: tuple[Any, ...]) -> Any:
        if any(operand.dtype != jnp.float32 for operand in operands):  # the process would end in it
            raise TypeError(f"oneDNN takes float32 alone, not {[str(operand.dtype) for operand in operands]}")
        shapes = (operand.shape for operand in operands)
        return operands[0].update(shape=shape(*shapes, *given), weak_type=False)

    @cache
    def program(given: tuple[Any, ...]) -> Callable[..., Array]:
        return jax.jit(partial(made.bind, given=given))

    def lowered(function: Callable[..., Array]) -> Callable[..., Any]:
        return mlir.lower_fun(lambda *operands, given: function(*operands, *given), multiple_results=False)

    def lowered_for_cpu(context: Any, *operands: Any, given: tuple[Any, ...]) -> Any:
        alone = at_hand() and not context.module_context.lowering_parameters.for_export
        return lowered(onednns if alone else compilers)(context, *operands, given=given)

    made.def_abstract_eval(result)
    made.def_impl(lambda *operands, given: program(given)(*operands))
    mlir.register_lowering(made, lowered(compilers))
    mlir.register_lowering(made, lowered_for_cpu, platform="cpu")
    return made


# Convolution -----------------------------------------------------------------


def conv(
    x: Float[Array, "n h w c"], kernel: Float[Array, "kh kw c k"], *, strides: Pair, padding: Padding
) -> Float[Array, "n h2 w2 k"]:
    """Convolve; padding may be negative, which cuts."""
    return _conv_p.bind(x, kernel, given=(strides, padding))


def _conv_shape(
    x: tuple[int, ...], kernel: tuple[int, ...], strides: Pair, padding: Padding
) -> tuple[int, ...]:
    rows, cols = ((x[1 + d] + sum(padding[d]) - kernel[d]) // strides[d] + 1 for d in (0, 1))
    return x[0], rows, cols, kernel[3]


def _conv_of_many(
    operands: Sequence[Array], axes: Sequence[int | None], given: tuple[Pair, Padding]
) -> tuple[Array, int]:
    (x, kernel), (images, kernels) = operands, axes
    if images is None or kernels is not None:
        return jax.vmap(lambda x, kernel: _compilers_conv(x, kernel, *given), axes)(x, kernel), 0
    x = jnp.moveaxis(x, images, 0)
    y = _conv_p.bind(x.reshape(-1, *x.shape[2:]), kernel, given=given)
    return y.reshape(*x.shape[:2], *y.shape[1:]), 0


def _onednns_conv(x: Array, kernel: Array, strides: Pair, padding: Padding) -> Array:
    (top, bottom), (left, right) = padding
    cuts = (min(0, top), min(0, bottom)), (min(0, left), min(0, right))
    margins = (max(0, top), max(0, bottom)), (max(0, left), max(0, right))
    return _call_conv(windows.padded(x, cuts), kernel, strides, margins)


def _compilers_conv(x: Array, kernel: Array, strides: Pair, padding: Padding) -> Array:
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


# Products --------------------------------------------------------------------


def matmul(
    a: Float[Array, "*b _ _"], b: Float[Array, "*b _ _"], *, transposed: tuple[bool, bool] = (False, False)
) -> Float[Array, "*b m n"]:
    """Multiply two matrices, or those of two batches; `transposed` tells which are given turned over."""
    return _matmul_p.bind(a, b, given=transposed)


def _matmul_shape(a: tuple[int, ...], b: tuple[int, ...], a_turned: bool, b_turned: bool) -> tuple[int, ...]:
    return *a[:-2], a[-1 if a_turned else -2], b[-2 if b_turned else -1]


def _matmul_of_many(
    operands: Sequence[Array], axes: Sequence[int | None], given: tuple[bool, bool]
) -> tuple[Array, int]:
    (a, b), (first, second) = operands, axes
    if first is not None and second is None and b.ndim == 2 and not given[0]:  # more rows
        a = jnp.moveaxis(a, first, 0)
        return _matmul_p.bind(a.reshape(-1, a.shape[-1]), b, given=given).reshape(*a.shape[:-1], -1), 0
    pairs = list(zip(operands, axes, strict=True))
    size = next(operand.shape[axis] for operand, axis in pairs if axis is not None)
    a, b = (batching.bdim_at_front(operand, axis, size) for operand, axis in pairs)
    y = _matmul_p.bind(*(part.reshape(-1, *part.shape[-2:]) for part in (a, b)), given=given)
    return y.reshape(*a.shape[:-2], *y.shape[-2:]), 0


def _onednns_matmul(a: Array, b: Array, a_turned: bool, b_turned: bool) -> Array:
    shape = _matmul_shape(a.shape, b.shape, a_turned, b_turned)
    if 1 in (shape[-2], a.shape[-2 if a_turned else -1]):  # of vectors the compiler's takes half of the time
        a_row = a.shape[:-1] == (1,) and not (a_turned or b_turned)
        return _row_by_parts(a, b) if a_row else _compilers_matmul(a, b, a_turned, b_turned)
    return _call_matmul(a, b, a_turned, b_turned)


def _row_by_parts(a: Array, b: Array) -> Array:
    """Multiply a row and a matrix: the compiler adds all terms of an output one by one to the same sum.

    Sixteen sums are a quarter as far off for the 25,088 terms of VGG's first dense layer, and no slower.
    """
    parts = 16 if a.shape[1] % 16 == 0 else 1
    a, b = a.reshape(parts, 1, -1), b.reshape(parts, -1, b.shape[1])
    return _compilers_matmul(a, b, False, False).sum(axis=0)


def _compilers_matmul(a: Array, b: Array, a_turned: bool, b_turned: bool) -> Array:
    batch = tuple(range(a.ndim - 2))
    summed = (a.ndim - (2 if a_turned else 1),), (b.ndim - (1 if b_turned else 2),)
    return lax.dot_general(a, b, (summed, (batch, batch)))


# How XLA's own rules would call it -------------------------------------------


def _call(what: str, config: dict[str, Any], shape: Sequence[int], *args: Array) -> Array:
    call = jax.ffi.ffi_call(
        f"__onednn${what}",
        jax.ShapeDtypeStruct(tuple(shape), jnp.float32),
        custom_call_api_version=1,
        legacy_backend_config=json.dumps({"outer_dimension_partitions": [], **config}),
    )
    return call(*args)


def _call_matmul(a: Array, b: Array, a_turned: bool, b_turned: bool) -> Array:
    config = {"onednn_matmul_config": {"transpose_a": a_turned, "transpose_b": b_turned}}
    return _call("matmul", config, _matmul_shape(a.shape, b.shape, a_turned, b_turned), a, b)


def _call_conv(x: Array, kernel: Array, strides: Pair, padding: Padding) -> Array:
    size = kernel.shape[:2]
    maps = {"dims": 4, "data": {"batch_dim": 0, "feature_dim": 3, "spatial_dims": [1, 2]}}
    taps = {
        "input_feature_dim": 2,
        "output_feature_dim": 3,
        "spatial_dims": [0, 1],
        "shape": list(kernel.shape),
    }
    window = {
        "size": list(size),
        "pad_left": [low for low, _ in padding],
        "pad_right": [high for _, high in padding],
        "strides": list(strides),
        "window_dilations": [1, 1],
    }
    config = {
        "dims": 4,
        "input": maps,
        "kernel": {"dims": 4, "filter": taps},
        "output": maps,
        "window": window,
        "feature_groups": 1,
    }
    shape = _conv_shape(x.shape, kernel.shape, strides, padding)
    return _call("convolution", {"onednn_conv_config": config}, shape, x, kernel)


_conv_p = _primitive("conv", _conv_shape, _onednns_conv, _compilers_conv)
batching.primitive_batchers[_conv_p] = _conv_of_many

_matmul_p = _primitive("matmul", _matmul_shape, _onednns_matmul, _compilers_matmul)
batching.primitive_batchers[_matmul_p] = _matmul_of_many
