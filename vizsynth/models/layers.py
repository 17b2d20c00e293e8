"""Layers that hold weights and do their arithmetic through `ops`."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from vizsynth.core.entry import check_key
from vizsynth.cpu import convolution, winograd
from vizsynth.cpu.convolution import Convolution
from vizsynth.ops import Ops, Padding, Pair
from vizsynth.types import Key, Value

BATCH_NORM_EPS = 1e-5
Net = TypeVar("Net")


_undrawn = ContextVar("undrawn", default=False)


@contextmanager
def undrawn() -> Iterator[None]:
    """Within this, weights are zeros: for those who want shapes alone, as tracing a draw takes far longer."""
    token = _undrawn.set(True)
    try:
        yield
    finally:
        _undrawn.reset(token)


def keys_from(key: Key, count: int) -> Iterator[Key]:
    """Return so many keys, one after another, of the one that a network is drawn with."""
    check_key(key)
    return iter(jax.random.split(key, count))


def he_normal(key: Key, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Draw weights of variance 2 / fan-in (He et al., Delving Deep into Rectifiers, 2015, eq. 10)."""
    if _undrawn.get():
        return jnp.zeros(shape)
    return jax.random.normal(key, shape) * math.sqrt(2 / math.prod(shape[:-1]))


class Transformed(nnx.Variable):
    """What a kernel was transformed to: no weights, they follow from it."""


class BatchNorm(nnx.Module):
    """Normalization by running statistics; `fold_batch_norm` makes it part of the convolution."""

    def __init__(self, channels: int, *, name: str):
        self.name = name
        self.scale = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))
        self.mean = nnx.BatchStat(jnp.zeros(channels))
        self.variance = nnx.BatchStat(jnp.ones(channels))

    def __call__(self, x: Value, ops: Ops) -> Value:
        """Return the normalized activations."""
        return ops.batch_norm(
            x,
            self.scale[...],
            self.bias[...],
            self.mean[...],
            self.variance[...],
            eps=BATCH_NORM_EPS,
            name=self.name,
        )


class Conv(nnx.Module):
    """A convolution, and the batch normalization behind it if there is one."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        window: int,
        *,
        stride: int = 1,
        padding: int = 0,
        norm: bool = False,
        bias: bool = True,
        name: str,
        key: Key,
    ):
        self.name = name
        self.strides: Pair = (stride, stride)
        self.padding: Padding = ((padding, padding), (padding, padding))
        self.kernel = nnx.Param(he_normal(key, (window, window, inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs)) if bias else None
        self.norm = BatchNorm(outputs, name=f"{name}.norm") if norm else None
        self.transformed: Transformed | None = None
        self.exact = False

    def prepared(self, exact: bool) -> "Conv":
        """Return the layer with its kernel transformed, if it has a window; or, exact, never to be."""
        kernel = self.kernel[...]
        able = kernel.shape[:2] != (1, 1) and kernel.dtype == jnp.float32
        if self.exact or not able or (self.transformed is not None and not exact):
            return self
        copy = _copy(self)
        copy.transformed, copy.exact = None, exact
        if not exact:
            copy.transformed = nnx.data(
                Transformed(convolution.transforms(kernel, self.strides, self.padding))
            )
        return copy

    def unprepared(self) -> "Conv":
        """Return the layer without transforms."""
        if self.transformed is None:
            return self
        copy = _copy(self)
        copy.transformed = None
        return copy

    def __call__(self, x: Value, ops: Ops) -> Value:
        """Return the convolved, and normalized, activations."""
        kernel: Any = self.kernel[...]
        takes = isinstance(ops.conv, Convolution) and ops.conv.transforms  # no rule of another kind does
        if self.transformed is not None and takes:
            kernel = winograd.Kernel(kernel, *self.transformed.get_value())
        y = ops.conv(
            x,
            kernel,
            None if self.bias is None else self.bias[...],
            strides=self.strides,
            padding=self.padding,
            name=self.name,
        )
        return y if self.norm is None else self.norm(y, ops)


class Linear(nnx.Module):
    """A product with a matrix."""

    def __init__(self, inputs: int, outputs: int, *, name: str, key: Key):
        self.name = name
        self.kernel = nnx.Param(he_normal(key, (inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs))

    def __call__(self, x: Value, ops: Ops) -> Value:
        """Return x W + b."""
        return ops.linear(x, self.kernel[...], self.bias[...], name=self.name)


def _fold(conv: Conv) -> Conv:
    norm = conv.norm
    if norm is None:
        return conv
    conv = conv.unprepared()
    factor = norm.scale[...] * lax.rsqrt(norm.variance[...] + BATCH_NORM_EPS)
    bias = jnp.zeros_like(factor) if conv.bias is None else conv.bias[...]
    kernel = conv.kernel[...]
    folded = _copy(conv)
    folded.kernel = nnx.Param(kernel * jnp.broadcast_to(factor, kernel.shape))
    folded.bias = nnx.data(nnx.Param((bias - norm.mean[...]) * factor + norm.bias[...]))
    folded.norm = None
    return folded


def _copy(net: Net) -> Net:
    leaves, structure = jax.tree.flatten(net)
    return jax.tree.unflatten(structure, leaves)


def fold_batch_norm(net: Net) -> Net:
    """Return the same network with every batch normalization made part of its convolution.

    γ (W x + b − μ) / √(σ² + ε) + β = W' x + b', with W' = W γ / √(σ² + ε) for each output channel.
    The layers' names and values stay; the network has fewer operations and no statistics.
    """
    is_conv = lambda node: isinstance(node, Conv)  # noqa: E731
    return jax.tree.map(lambda node: _fold(node) if is_conv(node) else node, net, is_leaf=is_conv)
