"""The convolutions and products of oneDNN, which XLA holds on x86 but calls by no rule of its own.

XLA's CPU backend chooses between two libraries for convolutions, Eigen and YNNPACK. oneDNN, the third that it
is built with, takes down to half of their time for the first layers of a network, and four fifths for the
batches of small products that Winograd's tiles are. Here it is called by the names that XLA gives it. The
names and the format of what goes with them are the compiler's own business: `at_hand` is true for versions
that this was tested with, and what calls it has another way for all others.

These functions are parts of those that have a rule for their gradient: they have none themselves.
"""

import importlib.metadata
import json
import platform
import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from vizsynth import windows
from vizsynth.windows import Padding, Pair

TESTED = ("0.10.0", "0.10.1", "0.10.2")
"""The versions of jaxlib whose format is known: another's may mean something else by the same words."""


@cache
def at_hand() -> bool:
    """Tell whether this process can call oneDNN: jaxlib is one that was tested, on a single x86 CPU.

    Several devices (a CPU has as many as `jax_num_cpu_devices` says) share their work by XLA's partitioner,
    which would not cut a call that it does not know.

    >>> at_hand() in (True, False)
    True
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
        return (_call_conv(x, kernel, *given), _call_matmul(a, b)), (_compilers(x, kernel, *given), a @ b)

    try:
        found, wanted = jax.jit(found_and_wanted).lower(x, kernel, a, b).compile()(x, kernel, a, b)
    except RuntimeError:  # a jaxlib that others built
        return False
    return all(np.array_equal(*pair) for pair in zip(found, wanted, strict=True))


def convolves(x: Array, kernel: Array, padding: Padding) -> bool:
    """Tell whether `conv` takes these: float32, and no window within the padding alone."""
    single = x.dtype == jnp.float32 and kernel.dtype == jnp.float32 and x.size > 0
    inside = all(max(pads) < size for pads, size in zip(padding, kernel.shape, strict=False))
    return single and inside and at_hand()


def conv(
    x: Float[Array, "n h w c"], kernel: Float[Array, "kh kw c k"], *, strides: Pair, padding: Padding
) -> Float[Array, "n h2 w2 k"]:
    """Convolve; padding may be negative, which cuts."""

    @jax.custom_batching.custom_vmap
    def convolved(x: Array, kernel: Array) -> Array:
        cuts, margins = (_each(f, padding) for f in (min, max))
        return _call_conv(windows.padded(x, cuts), kernel, strides, margins)

    @convolved.def_vmap
    def of_many(size: int, batched: Sequence[bool], x: Array, kernel: Array) -> tuple[Array, bool]:
        if batched[1]:
            axes = tuple(0 if mapped else None for mapped in batched)
            compilers = jax.vmap(lambda x, kernel: _compilers(x, kernel, strides, padding), axes)
            return compilers(x, kernel), True
        y = convolved(x.reshape(-1, *x.shape[2:]), kernel)
        return y.reshape(size, -1, *y.shape[1:]), True

    return convolved(x, kernel)


def _each(function: Callable[[int, int], int], padding: Padding) -> Padding:
    (top, bottom), (left, right) = padding
    return (function(0, top), function(0, bottom)), (function(0, left), function(0, right))


def _compilers(x: Array, kernel: Array, strides: Pair, padding: Padding) -> Array:
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def multiplies(a: Array, b: Array) -> bool:
    """Tell whether `matmul` takes these: float32."""
    return a.dtype == jnp.float32 and b.dtype == jnp.float32 and a.size > 0 and at_hand()


@jax.custom_batching.custom_vmap
def matmul(a: Float[Array, "b m k"], b: Float[Array, "b k n"]) -> Float[Array, "b m n"]:
    """Multiply the matrices of two batches."""
    return _call_matmul(a, b)


@matmul.def_vmap
def _matmul_of_many(size: int, batched: Sequence[bool], a: Array, b: Array) -> tuple[Array, bool]:
    whole = [
        part if mapped else jnp.broadcast_to(part, (size, *part.shape))
        for part, mapped in zip((a, b), batched, strict=True)
    ]
    y = matmul(*(part.reshape(-1, *part.shape[2:]) for part in whole))
    return y.reshape(size, -1, *y.shape[1:]), True


# How XLA's own rules would call it -------------------------------------------


def _call(what: str, config: dict[str, Any], shape: Sequence[int], *args: Array) -> Array:
    if any(arg.dtype != jnp.float32 for arg in args):  # the process would end in it
        raise TypeError(f"oneDNN is called with float32 alone, not {[str(arg.dtype) for arg in args]}")
    call = jax.ffi.ffi_call(
        f"__onednn${what}",
        jax.ShapeDtypeStruct(tuple(shape), jnp.float32),
        custom_call_api_version=1,
        legacy_backend_config=json.dumps({"outer_dimension_partitions": [], **config}),
    )
    return call(*args)


def _call_matmul(a: Array, b: Array) -> Array:
    return _call("matmul", {"onednn_matmul_config": {}}, (*a.shape[:-1], b.shape[-1]), a, b)


def _call_conv(x: Array, kernel: Array, strides: Pair, padding: Padding) -> Array:
    size = kernel.shape[:2]
    outputs = [(x.shape[1 + d] + sum(padding[d]) - size[d]) // strides[d] + 1 for d in (0, 1)]
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
    return _call(
        "convolution", {"onednn_conv_config": config}, (len(x), *outputs, kernel.shape[3]), x, kernel
    )
