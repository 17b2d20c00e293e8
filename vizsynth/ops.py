"""The arithmetic that networks are written in.

A network does all of it through a table `Ops`, so another table is another backward rule (guided
backpropagation, LRP) or another layer (average for max pooling) for every network at once.

A network computes with `plain`, JAX's own arithmetic, which every transformation of JAX takes. Public
functions and `prepare` choose `fast` on CPUs: its gradients take a third of the time there inside loops, but
it has no forward mode (`jax.jvp`, `jax.linearize`). A program for another backend has none of it.

Layouts: activations `[n, h, w, c]`, convolution kernels `[kh, kw, in, out]`, matrices `[in, out]`.
Padding is explicit: `((top, bottom), (left, right))`.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from vizsynth.cpu import pooling, windows
from vizsynth.cpu.convolution import fast_conv, plain_conv, with_bias
from vizsynth.cpu.windows import Maps, Padding, Pair

Net = TypeVar("Net")


def other(
    function: Callable[..., Any],
    *values: Any,
    name: str = "",
    linear: bool = False,
    elementwise: bool = False,
) -> Any:
    """Compute a function that the table has no word for."""
    del name, linear, elementwise
    return function(*values)


class Ops(NamedTuple):
    """One table of arithmetic. Every entry is a pure function.

    `name` is the layer that asks, for tables whose rule depends on it.
    """

    standardize: Callable[..., Any]
    """`standardize(images, how)`; `how` is a `vizsynth.images.Standardize`."""
    conv: Callable[..., Any]
    """`conv(x, kernel, bias, *, strides, padding, name)`; bias may be None."""
    linear: Callable[..., Any]
    """`linear(x, kernel, bias, *, name)`."""
    batch_norm: Callable[..., Any]
    """`batch_norm(x, scale, bias, mean, variance, *, eps, name)`."""
    relu: Callable[..., Any]
    """`relu(x)`."""
    max_pool: Callable[..., Any]
    """`max_pool(x, *, window, strides, padding)`."""
    mean_pool: Callable[..., Any]
    """`mean_pool(x, *, window, strides, padding)`; padding counts as zeros."""
    adaptive_mean_pool: Callable[..., Any]
    """`adaptive_mean_pool(x, *, size)`: the mean over `size` bins that cover the map."""
    add: Callable[..., Any]
    """`add(x, y)`: the sum of a residual block's two branches."""
    concatenate: Callable[..., Any]
    """`concatenate(xs)`, along the channels."""
    other: Callable[..., Any] = other
    """`other(function, *values, name, linear, elementwise)`: anything else, and what is known of it."""


def standardize(images: Maps, how: Callable[[Any], Any]) -> Maps:
    """Bring pixels to the mean and the deviation that the weights want."""
    return how(images)


# Pooling ---------------------------------------------------------------------


def pool_padding(size: int, window: int, stride: int, pad: int, *, ceil: bool) -> Pair:
    """Return the explicit padding of a pooling layer as PyTorch counts it, `ceil_mode` included."""
    if not ceil:
        return pad, pad
    steps = -(-(size + 2 * pad - window) // stride)
    if steps * stride >= size + pad:  # a last window that would begin in the padding is left out
        steps -= 1
    return pad, max(pad, steps * stride + window - size - pad)


def plain_max_pool(
    x: Maps, *, window: Pair, strides: Pair, padding: Padding = ((0, 0), (0, 0))
) -> Float[Array, "n h2 w2 c"]:
    """Take the maximum of each window; a tie sends its gradient to the first, as in PyTorch."""
    windows.check("max pooling", "", x, window, padding)
    return pooling.reduced(x, window, strides, padding)


def fast_max_pool(
    x: Maps, *, window: Pair, strides: Pair, padding: Padding = ((0, 0), (0, 0))
) -> Float[Array, "n h2 w2 c"]:
    """Take the maximum of each window, with a backward pass that is fast on CPU."""
    windows.check("max pooling", "", x, window, padding)
    return pooling.max_pool(x, window, strides, padding)


def mean_pool(
    x: Maps, *, window: Pair, strides: Pair, padding: Padding = ((0, 0), (0, 0))
) -> Float[Array, "n h2 w2 c"]:
    """Average each window; padding counts as zeros."""
    windows.check("mean pooling", "", x, window, padding)
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    total = sum(windows.slices(x, window, strides)[1:], windows.slices(x, window, strides)[0])
    return total / (window[0] * window[1])


def _bins(size: int, bins: int) -> np.ndarray:
    """Return the averaging matrix `[bins, size]`; bin i is ⌊i·size/bins⌋ .. ⌈(i+1)·size/bins⌉."""
    i, position = np.arange(bins)[:, None], np.arange(size)[None, :]
    inside = (position >= i * size // bins) & (position < -(-(i + 1) * size // bins))
    return inside / inside.sum(axis=1, keepdims=True)


def adaptive_mean_pool(x: Maps, *, size: Pair) -> Float[Array, "n h2 w2 c"]:
    """Average over `size` bins that cover the map, whatever its size."""
    if x.shape[1:3] == size:
        return x
    if size == (1, 1):
        return x.mean(axis=(1, 2), keepdims=True)
    rows = jnp.asarray(_bins(x.shape[1], size[0]), x.dtype)
    cols = jnp.asarray(_bins(x.shape[2], size[1]), x.dtype)
    return jnp.einsum("ih,jw,nhwc->nijc", rows, cols, x)


# The rest --------------------------------------------------------------------


def linear(
    x: Float[Array, "n c"], kernel: Float[Array, "c k"], bias: Float[Array, " k"] | None, *, name: str = ""
) -> Float[Array, "n k"]:
    """Multiply by a matrix and add the bias."""
    del name
    return with_bias(x @ kernel.astype(x.dtype), bias)


def batch_norm(
    x: Maps,
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    mean: Float[Array, " c"],
    variance: Float[Array, " c"],
    *,
    eps: float,
    name: str = "",
) -> Maps:
    """Normalize by the running statistics: γ (x − μ) / √(σ² + eps) + β."""
    del name
    factor = scale * lax.rsqrt(variance + eps)
    offset = bias - mean * factor
    return x * jnp.broadcast_to(factor.astype(x.dtype), x.shape) + jnp.broadcast_to(
        offset.astype(x.dtype), x.shape
    )


def relu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Keep what is positive; the gradient at 0 is 0."""
    return jax.nn.relu(x)


def add(x: Maps, y: Maps) -> Maps:
    """Add the two branches of a residual block."""
    return x + y


def concatenate(xs: Sequence[Float[Array, "n h w _"]]) -> Maps:
    """Put the channels of the branches one after another."""
    if len({x.shape for x in xs}) > 1:
        return jnp.concatenate(xs, axis=-1)
    # Along an axis of its own XLA joins them in the loop that computes them; else it copies, on one core.
    return jnp.stack(xs, axis=-2).reshape(*xs[0].shape[:-1], -1)


plain = Ops(
    standardize=standardize,
    conv=plain_conv,
    linear=linear,
    batch_norm=batch_norm,
    relu=relu,
    max_pool=plain_max_pool,
    mean_pool=mean_pool,
    adaptive_mean_pool=adaptive_mean_pool,
    add=add,
    concatenate=concatenate,
)
"""JAX's own arithmetic: what a network computes with."""

fast = plain._replace(conv=fast_conv, max_pool=fast_max_pool)
"""The same, written for CPUs and for gradients in reverse mode."""

average_pooling = fast._replace(max_pool=mean_pool)
"""Means in place of maxima: the gradient reaches every pixel (Gatys, Ecker & Bethge, 2015)."""


# Which table a network computes with ------------------------------------------


def accelerated(net: Net) -> Net:
    """Return the network, or each one of a pytree, to compute with `fast` on CPU where it would with `plain`.

    A network tells its table by a static attribute `arithmetic`. Weights are shared, not copied.

    >>> import jax, vizsynth
    >>> net = vizsynth.models.squeezenet1_1(key=jax.random.key(0))
    >>> net.arithmetic == plain, accelerated(net).arithmetic == fast
    (True, True)
    """
    return _with_table(net, plain, fast) if jax.default_backend() == "cpu" else net


def _with_table(net: Net, old: Ops, new: Ops) -> Net:
    def computing(node: Any) -> Any:
        if getattr(node, "arithmetic", None) != old:
            return node
        if dataclasses.is_dataclass(node):
            return dataclasses.replace(node, arithmetic=new)  # type: ignore[type-var]  # never a class
        leaves, structure = jax.tree.flatten(node)
        copy = jax.tree.unflatten(structure, leaves)
        copy.arithmetic = new
        return copy

    return jax.tree.map(computing, net, is_leaf=lambda node: hasattr(node, "arithmetic"))


def prepare(net: Net, *, exact: bool = False) -> Net:
    """Return the network with its kernels transformed, once, for fast convolution on CPU.

    3x3 convolutions that gain by it are then done by Winograd's minimal filtering F(4x4, 3x3), those of the
    gradient as well; features stay what they were to some 1e-6 of their norm. The kernels that all others'
    gradients are convolved with are made beforehand. 3x3 kernels take ten times the memory, and programs some
    seconds longer to compile: it pays from a few dozen gradients on. On other backends than the CPU, and in
    other precisions than float32, nothing changes.

    The network then computes with `vizsynth.ops.fast` also if you call it yourself. That has no forward mode;
    `net(images, ops=vizsynth.ops.plain)` still has one.

    Functions that take many gradients or passes of one network (`integrated_gradients`, `deepdream`,
    `transfer_style`) do it by themselves, at each call; of a network that is prepared already they take it.

    Args:
        net: a network.
        exact: rather mark the network as one that is never transformed, by no function.

    Returns:
        A network of the same layers and weights.

    Raises:
        ValueError: not here, but where the gradient of the prepared network's weights is asked, which the
            transforms would not follow: train the network as it was before.

    Example:
        >>> import jax, vizsynth
        >>> from vizsynth.models.sequential import Conv, ReLU
        >>> net = vizsynth.models.sequential((Conv(64), ReLU(), Conv(64)), (64, 64, 3), key=jax.random.key(0))
        >>> images = jax.random.uniform(jax.random.key(1), (1, 64, 64, 3))
        >>> fast, slow = vizsynth.prepare(net)(images), net(images)
        >>> bool(abs(fast - slow).max() < 1e-5 * slow.max())
        True
    """

    def prepared(node: Any) -> Any:
        return node.prepared(exact) if hasattr(node, "prepared") else node

    if not exact and jax.default_backend() != "cpu":
        return net
    net = net if exact else accelerated(net)
    return jax.tree.map(prepared, net, is_leaf=lambda node: hasattr(node, "prepared"))


def unprepared(net: Net) -> Net:
    """Return the network without what `prepare` added: for those who change its weights."""

    def bare(node: Any) -> Any:
        return node.unprepared() if hasattr(node, "unprepared") else node

    net = _with_table(net, fast, plain)
    return jax.tree.map(bare, net, is_leaf=lambda node: hasattr(node, "unprepared"))
