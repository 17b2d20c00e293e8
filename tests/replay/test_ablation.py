"""What follows of one channel that has changed, beside the whole network run again."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import tiny

import vizsynth
from vizsynth import ops
from vizsynth.replay import ablation, incremental
from vizsynth.replay.ablation import Ablated
from vizsynth.scores import Class, LayerNorm
from vizsynth.taps import evaluate, features, replace, run

CASES = [
    *[("vgg", "relu2_2"), ("vgg", "pool1"), ("vgg_bn", "relu2_1")],
    *[("resnet_bottleneck", "layer1.1"), ("resnet_bottleneck", "stem"), ("squeezenet", "fire9")],
    *[("sequential", "relu1"), ("sequential_mean", "relu1")],
]


def by_whole_networks(net: Any, images: Any, target: Any, layer: str) -> np.ndarray:
    """Return Ablation-CAM by its definition, a channel after the other."""
    A = features(net, images, (layer,))[layer]
    score = jax.jit(lambda A: evaluate(net, images, target, tap=replace({layer: A})))
    y = score(A)
    w = np.stack([(y - score(A.at[..., k].set(0))) / y for k in range(A.shape[-1])])
    return np.maximum(np.einsum("kn,nijk->nij", w, A), 0)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("name", "layer"), CASES)
def test_is_the_whole_network_run_again(name: str, layer: str) -> None:
    subject = tiny(name)
    net = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), subject.net)
    images = jnp.asarray(subject.images(2), jnp.float64)
    target = Class(net(images).argmax(axis=-1))
    got = vizsynth.ablation_cam(net, images, target, layer=layer, batch_size=5)
    want = by_whole_networks(net, images, target, layer)
    np.testing.assert_allclose(got, want, atol=1e-10 * max(np.abs(want).max(), 1e-3), rtol=1e-9)


@pytest.mark.usefixtures("x64")
def test_a_layer_that_normalization_follows() -> None:
    """The channel that is held at 0 is normalized by its own statistics."""
    rng = np.random.default_rng(0)
    first, second = (jnp.asarray(rng.normal(size=(3, 3, *channels))) for channels in ((3, 4), (4, 3)))
    scale, bias, mean, variance = (jnp.asarray(rng.uniform(0.5, 1.5, 4)) for _ in range(4))

    def net(images: Any, *, tap: Any = vizsynth.taps.passthrough, ops: Any = ops.plain) -> Any:
        h = tap("conv1", ops.conv(images, first, None, name="conv1"))
        h = ops.relu(ops.batch_norm(h, scale, bias, mean, variance, eps=1e-5, name="norm1"))
        h = ops.relu(ops.conv(h, second, None, name="conv2"))
        return tap("logits", ops.adaptive_mean_pool(h, size=(1, 1)).reshape(len(images), 3))

    images = jnp.asarray(tiny("sequential").images(2), jnp.float64)
    got = vizsynth.ablation_cam(net, images, 1, layer="conv1")
    np.testing.assert_allclose(got, by_whole_networks(net, images, Class(1), "conv1"), rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_a_score_of_layers_on_the_way() -> None:
    """A layer that holds one changed channel is seen whole by the score."""
    subject = tiny("vgg")
    net = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), subject.net)
    images = jnp.asarray(subject.images(1), jnp.float64)
    target = LayerNorm("pool2") + LayerNorm("fc6")
    got = vizsynth.ablation_cam(net, images, target, layer="relu2_2")
    np.testing.assert_allclose(got, by_whole_networks(net, images, target, "relu2_2"), rtol=1e-9, atol=1e-12)


def test_the_first_product_takes_the_weights_of_one_channel() -> None:
    """In the program, what multiplies is [window, outputs], not [window, channels, outputs]."""
    subject = tiny("sequential_mean")
    images, layer = subject.images(1), "relu1"
    A = features(subject.net, images, (layer,))[layer]
    clean: list[Any] = []
    evaluate(
        subject.net, images, Class(0), tap=replace({layer: A}), ops=incremental.recording(ops.fast, clean)
    )

    def without(channel: Any) -> Any:
        changed = Ablated(A, jnp.zeros_like(A[..., :1]), channel)
        hold: Any = lambda name, value: changed if name == layer else value  # noqa: E731
        return run(subject.net, images, ("logits",), tap=hold, ops=ablation.table(clean))[1]["logits"]

    text = jax.jit(jax.vmap(without)).lower(jnp.arange(3)).as_text()
    assert "stablehlo.convolution" not in text.split("dot_general", 1)[1]
    assert "x9x7xf32>" in text  # 3x3 taps of one channel to 7 outputs


def test_a_network_that_works_outside_of_ops() -> None:
    """It is run whole, channel by channel."""
    inner: Any = tiny("sequential").net

    def net(images: Any, *, tap: Any = vizsynth.taps.passthrough, ops: Any = ops.plain) -> Any:
        h = tap(
            "conv1", ops.conv(images, inner.conv1.kernel[...], None, padding=((1, 1), (1, 1)), name="conv1")
        )
        return tap("logits", (h * h).mean(axis=(1, 2)))

    images = tiny("sequential").images(1)
    got = vizsynth.ablation_cam(net, images, 2, layer="conv1")
    A = np.asarray(features(net, images, ("conv1",))["conv1"])
    np.testing.assert_allclose(got, np.maximum(A[..., 2], 0), atol=1e-5)  # only its own channel counts
