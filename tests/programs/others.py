"""Networks as their authors write them, each beside the same network written with taps."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen, nnx
from jax import lax
from jax.tree_util import register_dataclass
from tiny import random_images, tiny

import vizsynth
from vizsynth import ops as arithmetic
from vizsynth.models import fold_batch_norm
from vizsynth.models.network import IMAGENET
from vizsynth.taps import passthrough


class Pair(NamedTuple):
    """The same network twice."""

    adapted: Any
    tapped: Any
    images: jax.Array
    layers: dict[str, str]
    """What layers of the one are called in the other."""
    called: Callable[[jax.Array], jax.Array]
    """The network as its author calls it."""


def leniently(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function as its author runs it, without the strict arithmetic of these tests."""

    def call(*args: Any, **kwargs: Any) -> Any:
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            return function(*args, **kwargs)

    return call


def values(leaf: Any) -> jax.Array:
    return leaf[...]


def standardized(images: jax.Array) -> jax.Array:
    """As a user writes it into the network."""
    mean = jnp.asarray(IMAGENET.mean, images.dtype).reshape(1, 1, 1, 3)
    return (images - mean) / jnp.asarray(IMAGENET.std, images.dtype).reshape(1, 1, 1, 3)


# 1. A small Linen network, its normalization and its standardization inside --------------------


class LinenCNN(linen.Module):
    @linen.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = standardized(x)
        x = linen.relu(linen.Conv(6, (5, 5), padding="VALID", name="first")(x))
        x = linen.max_pool(x, (2, 2), (2, 2))
        x = linen.Conv(8, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)), name="second")(x)
        x = linen.BatchNorm(use_running_average=not train, name="norm")(x)
        x = linen.avg_pool(linen.relu(x), (2, 2), (2, 2))
        x = x.reshape(x.shape[0], -1)
        x = linen.relu(linen.Dense(7)(x))
        x = linen.Dropout(0.5, deterministic=not train)(x)
        return linen.Dense(5)(x)


def linen_cnn() -> Pair:
    subject = tiny("sequential")
    net, images = subject.net, subject.images()
    dense = {
        f"Dense_{i}": {"kernel": values(layer.kernel), "bias": values(layer.bias)}
        for i, layer in enumerate((net.dense3, net.logits))
    }
    conv = {
        name: {"kernel": values(layer.kernel), "bias": values(layer.bias)}
        for name, layer in (("first", net.conv1), ("second", net.conv2))
    }
    norm = net.conv2.norm
    variables = {
        "params": {**conv, **dense, "norm": {"scale": values(norm.scale), "bias": values(norm.bias)}},
        "batch_stats": {"norm": {"mean": values(norm.mean), "var": values(norm.variance)}},
    }
    module = LinenCNN()
    adapted = vizsynth.adapt(module, variables, example=images)
    layers = {"relu1": "relu1", "pool1": "pool1", "relu2": "relu2", "norm": "conv2", "logits": "logits"}
    return Pair(
        adapted, fold_batch_norm(net), images, layers, lambda x: module.apply(variables, x, train=False)
    )


# 2. A residual network as the examples of Flax write theirs --------------------------------------


class LinenBlock(linen.Module):
    width: int
    stride: int
    conv: Any
    norm: Any

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.conv(self.width, (1, 1))(x)
        y = linen.relu(self.norm()(y))
        y = self.conv(self.width, (3, 3), (self.stride, self.stride), padding=((1, 1), (1, 1)))(y)
        y = linen.relu(self.norm()(y))
        y = self.norm()(self.conv(4 * self.width, (1, 1))(y))
        residual = x
        if residual.shape != y.shape:
            stride = (self.stride, self.stride)
            residual = self.norm(name="norm_proj")(self.conv(4 * self.width, (1, 1), stride, name="proj")(x))
        return linen.relu(residual + y)


class LinenResNet(linen.Module):
    depths: tuple[int, ...] = (2, 1)
    widths: tuple[int, ...] = (4, 6)

    @linen.compact
    def __call__(self, x: jax.Array, train: bool = True) -> jax.Array:
        conv = partial(linen.Conv, use_bias=False, padding="VALID")
        norm = partial(linen.BatchNorm, use_running_average=not train)
        x = conv(self.widths[0], (7, 7), (2, 2), padding=((3, 3), (3, 3)), name="conv_init")(x)
        x = linen.relu(norm(name="bn_init")(x))
        x = linen.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        for stage, (depth, width) in enumerate(zip(self.depths, self.widths, strict=True)):
            for b in range(depth):
                stride = 2 if stage > 0 and b == 0 else 1
                block = linen.remat(LinenBlock) if stage == 1 else LinenBlock
                x = block(width, stride, conv, norm, name=f"block{stage}_{b}")(x)
        return linen.Dense(5, name="head")(jnp.mean(x, axis=(1, 2)))


def linen_resnet() -> Pair:
    subject = tiny("resnet_bottleneck")
    net, images = subject.net, subject.images()
    params: dict[str, Any] = {}
    statistics: dict[str, Any] = {}

    def put(into: tuple[dict, dict], conv: Any, conv_name: str, norm_name: str) -> None:
        norm = conv.norm
        into[0][conv_name] = {"kernel": values(conv.kernel)}
        into[0][norm_name] = {"scale": values(norm.scale), "bias": values(norm.bias)}
        into[1][norm_name] = {"mean": values(norm.mean), "var": values(norm.variance)}

    put((params, statistics), net.conv1, "conv_init", "bn_init")
    layers = {"bn_init": "conv1", "pool1": "pool1", "logits": "logits"}
    for stage, blocks in enumerate((net.layer1, net.layer2)):
        for b, block in enumerate(blocks):
            name = f"block{stage}_{b}"
            inner: tuple[dict, dict] = ({}, {})
            for i, conv in enumerate((block.conv1, block.conv2, block.conv3)):
                put(inner, conv, f"Conv_{i}", f"BatchNorm_{i}")
            if block.projection is not None:
                put(inner, block.projection, "proj", "norm_proj")
            params[name], statistics[name] = inner
            layers |= {name: f"layer{stage + 1}.{b}", f"{name}.relu1": f"layer{stage + 1}.{b}.relu1"}
    params["head"] = {"kernel": values(net.fc.kernel), "bias": values(net.fc.bias)}
    variables = {"params": params, "batch_stats": statistics}
    module = LinenResNet()
    adapted = vizsynth.adapt(module, variables, example=images, standardize=IMAGENET)
    return Pair(
        adapted,
        fold_batch_norm(net),
        images,
        layers,
        lambda x: module.apply(variables, standardized(x), train=False),
    )


# 3. An NNX network that uses a layer twice, and ReLUs that are no modules ------------------------


class Trunk(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.first = nnx.Conv(3, 6, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(6, rngs=rngs)
        self.again = nnx.Conv(6, 6, (3, 3), rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.norm(self.first(x)))
        x = jnp.maximum(self.again(x), 0)
        x = nnx.max_pool(x, (2, 2), (2, 2))
        return jnp.maximum(0, self.again(x))


class NNXCNN(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.trunk = Trunk(rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.heads = nnx.List([nnx.Linear(6, 7, rngs=rngs), nnx.Linear(7, 5, rngs=rngs)])

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.dropout(self.trunk(x).mean(axis=(1, 2)))
        hidden = self.heads[0](x)
        return self.heads[1](jnp.where(hidden > 0, hidden, 0))


@register_dataclass
@dataclass
class Tapped:
    """A network of parameters and a function of them that taps."""

    params: Any
    function: str = field(metadata={"static": True})

    def __call__(self, images: Any, *, tap: Any = passthrough, ops: Any = arithmetic.plain) -> Any:
        return WRITTEN[self.function](self.params, images, tap, ops)


def _nnx_tapped(net: NNXCNN, images: Any, tap: Any, ops: Any) -> Any:
    same = ((1, 1), (1, 1))
    trunk, norm = net.trunk, net.trunk.norm
    factor = values(norm.scale) / jnp.sqrt(values(norm.var) + 1e-5)
    kernel = values(trunk.first.kernel)
    kernel = kernel * jnp.broadcast_to(factor, kernel.shape)
    bias = (values(trunk.first.bias) - values(norm.mean)) * factor + values(norm.bias)
    again = values(trunk.again.kernel), values(trunk.again.bias)
    h = ops.conv(images, kernel, bias, strides=(1, 1), padding=same, name="conv1")
    h = tap("relu1", ops.relu(tap("conv1", h)))
    h = tap("relu2", ops.relu(tap("conv2", ops.conv(h, *again, strides=(1, 1), padding=same, name="conv2"))))
    h = tap("pool2", ops.max_pool(h, window=(2, 2), strides=(2, 2)))
    h = tap("relu3", ops.relu(tap("conv3", ops.conv(h, *again, strides=(1, 1), padding=same, name="conv3"))))
    h = tap("mean", ops.adaptive_mean_pool(h, size=(1, 1))).reshape(len(h), -1)
    first, last = net.heads
    h = tap("relu4", ops.relu(ops.linear(h, values(first.kernel), values(first.bias), name="dense4")))
    return tap("logits", ops.linear(h, values(last.kernel), values(last.bias), name="logits"))


def nnx_cnn() -> Pair:
    net = NNXCNN(nnx.Rngs(3))
    key = iter(jax.random.split(jax.random.key(8), 20))
    for part in (net.trunk.first, net.trunk.again, net.trunk.norm, *net.heads):
        part.bias.set_value(0.2 * jax.random.normal(next(key), part.bias.shape))
    net.trunk.norm.mean.set_value(0.2 * jax.random.normal(next(key), (6,)))
    net.trunk.norm.var.set_value(jax.random.uniform(next(key), (6,)) + 0.5)
    images = random_images(2, 14, 12)
    still = nnx.merge(*nnx.split(net))
    still.eval()
    layers = {
        "trunk.norm": "conv1",
        "trunk.relu1": "relu1",
        "trunk.again": "conv2",
        "trunk.pool1": "pool2",
        "trunk.again@2": "conv3",
        "trunk": "relu3",
        "relu1": "relu4",
        "logits": "logits",
    }
    return Pair(vizsynth.adapt(net, example=images), Tapped(still, "nnx"), images, layers, still)


# 4. Functions of parameters, channels second ------------------------------------------------------


def _plain(params: Any, images: jax.Array) -> jax.Array:
    x = images.transpose(0, 3, 1, 2)
    numbers = ("NCHW", "OIHW", "NCHW")
    for name in ("conv1", "conv2"):
        kernel, bias = params[name]["w"], params[name]["b"]
        x = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)
        x = jnp.maximum(x + bias.reshape(1, -1, 1, 1), 0.0)
        if name == "conv1":
            x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 3, 3), (1, 1, 2, 2), "VALID")
    return jnp.einsum("nc,kc->nk", x.mean((2, 3)), params["dense"]["w"]) + params["dense"]["b"]


def function() -> Pair:
    subject = tiny("sequential_mean")
    net, images = subject.net, subject.images()
    params = {
        name: {"w": values(layer.kernel).transpose(3, 2, 0, 1), "b": values(layer.bias)}
        for name, layer in (("conv1", net.conv1), ("conv2", net.conv2))
    }
    params["dense"] = {"w": values(net.logits.kernel).T, "b": values(net.logits.bias)}
    adapted = vizsynth.adapt(_plain, params, example=images)
    layers = {"logits": "logits"}  # maps lie otherwise: channels second
    return Pair(adapted, net, images, layers, partial(_plain, params))


# 5. A scan over blocks, within a custom derivative, within jit ----------------------------------------


NHWC = ("NHWC", "HWIO", "NHWC")


def _block(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.nn.relu(x + lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=NHWC))


_wrapped = jax.custom_vjp(_block)
_wrapped.defvjp(lambda x, kernel: jax.vjp(_block, x, kernel), lambda back, g: back(g))


@jax.jit
def _scanned(params: Any, images: jax.Array) -> jax.Array:
    x = lax.conv_general_dilated(images, params["stem"], (2, 2), "VALID", dimension_numbers=NHWC)

    def step(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, None]:
        return jax.checkpoint(_wrapped)(x, kernel), None

    x, _ = lax.scan(step, jax.nn.relu(x), params["blocks"])
    return jax.nn.relu(jnp.max(x, axis=(1, 2))) @ params["head"]


def _scanned_tapped(params: Any, images: Any, tap: Any, ops: Any) -> Any:
    x = ops.conv(images, params["stem"], None, strides=(2, 2), padding=((0, 0), (0, 0)), name="stem")
    x = tap("relu0", ops.relu(tap("stem", x)))
    for i in range(3):
        y = ops.conv(
            x, params["blocks"][i], None, strides=(1, 1), padding=((1, 1), (1, 1)), name=f"conv{i + 1}"
        )
        x = tap(f"block{i + 1}", ops.relu(ops.add(x, y)))
    x = ops.max_pool(x, window=x.shape[1:3], strides=x.shape[1:3]).reshape(len(x), -1)
    return tap("logits", ops.linear(ops.relu(x), params["head"], None, name="logits"))


def scanned() -> Pair:
    keys = jax.random.split(jax.random.key(4), 3)
    params = {
        "stem": jax.random.normal(keys[0], (3, 3, 3, 5)) / 5,
        "blocks": jax.random.normal(keys[1], (3, 3, 3, 5, 5)) / 7,
        "head": jax.random.normal(keys[2], (5, 5)),
    }
    images = random_images(2, 13, 15)
    adapted = vizsynth.adapt(_scanned, params, example=images)
    layers = {"relu1": "relu0", "scan[0]": "block1", "scan[2]": "block3", "logits": "logits"}
    return Pair(adapted, Tapped(params, "scanned"), images, layers, partial(_scanned, params))


WRITTEN = {"nnx": _nnx_tapped, "scanned": _scanned_tapped}
PAIRS = {
    "linen_cnn": linen_cnn,
    "linen_resnet": linen_resnet,
    "nnx_cnn": nnx_cnn,
    "function": function,
    "scanned": scanned,
}
