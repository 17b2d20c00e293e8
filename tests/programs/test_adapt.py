"""Networks of others against the same networks written with taps; what cannot be adapted says so."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from jax import lax
from others import NNXCNN, PAIRS, LinenCNN, Pair, leniently
from tiny import random_images

import vizsynth
from vizsynth import rules
from vizsynth.models.network import with_precision

x64 = pytest.mark.usefixtures("x64")


@cache
def made(name: str) -> Pair:
    with jax.enable_x64(False):
        pair = PAIRS[name]()
        return pair._replace(called=leniently(pair.called))


@pytest.fixture(params=PAIRS)
def pair(request: pytest.FixtureRequest) -> Pair:
    return made(request.param)


def near(found: Any, wanted: Any, tolerance: float = 2e-6) -> None:
    found, wanted = np.asarray(found), np.asarray(wanted)
    np.testing.assert_allclose(found, wanted, atol=tolerance * float(np.abs(wanted).max()), rtol=0)


def test_it_computes_what_the_module_does(pair: Pair) -> None:
    near(pair.adapted(pair.images), pair.called(pair.images))
    assert pair.adapted.num_classes == 5


def test_maps_are_those_of_the_network_with_taps(pair: Pair) -> None:
    for method in (vizsynth.gradient, vizsynth.guided_backprop):
        near(method(pair.adapted, pair.images, 1), method(pair.tapped, pair.images, 1))


@pytest.mark.parametrize("name", ["linen_resnet", "nnx_cnn", "function"])
def test_relevance_is_that_of_the_network_with_taps(name: str) -> None:
    pair = made(name)
    gamma = rules.EPSILON_GAMMA_BOX
    of_adapted = vizsynth.relevance(pair.adapted, pair.images, 1, composite=gamma)
    of_tapped = vizsynth.relevance(pair.tapped, pair.images, 1, composite=gamma)
    near(of_adapted.images, of_tapped.images)
    scores = vizsynth.features(pair.adapted, pair.images, ("logits",))["logits"][:, 1]
    near(of_adapted.images.sum((1, 2, 3)) + sum(of_adapted.lost.values()), scores, 1e-4)


def test_layers_are_those_of_the_network_with_taps(pair: Pair) -> None:
    own = vizsynth.features(pair.adapted, pair.images, tuple(pair.layers))
    others = vizsynth.features(pair.tapped, pair.images, tuple(pair.layers.values()))
    for layer, other in pair.layers.items():
        near(own[layer], others[other])
    maps = [layer for layer in pair.layers if own[layer].ndim == 4]
    for layer in maps[:: max(1, len(maps) - 1)]:
        found = vizsynth.grad_cam(pair.adapted, pair.images, 1, layer=layer)
        near(found, vizsynth.grad_cam(pair.tapped, pair.images, 1, layer=pair.layers[layer]))


@x64
def test_it_is_really_double() -> None:
    pair = made("function")
    net = jax.tree.map(lambda leaf: leaf.astype(np.float64), pair.adapted)
    images = pair.images.astype(np.float64)
    assert net(images).dtype == np.float64
    assert vizsynth.lrp(net, images, 1).dtype == np.float64


def test_in_bfloat16_images_stay_float32() -> None:
    pair = made("linen_resnet")
    coarse = with_precision(pair.adapted, jnp.bfloat16)
    assert coarse(pair.images).dtype == jnp.bfloat16
    found = vizsynth.gradient(coarse, pair.images, 1)
    assert found.dtype == np.float32
    wanted = vizsynth.gradient(pair.adapted, pair.images, 1)
    assert float((found * wanted).sum() / jnp.linalg.norm(found) / jnp.linalg.norm(wanted)) > 0.98


def test_layer_names() -> None:
    assert made("nnx_cnn").adapted.layers == (
        *("trunk.norm", "trunk.relu1", "trunk.again", "trunk.relu2", "trunk.pool1", "trunk.again@2"),
        *("trunk", "mean1", "heads.0", "relu1", "heads.1", "logits"),
    )
    assert made("function").adapted.layers[:4] == ("conv1", "relu1", "pool1", "conv2")


def test_other_weights_and_sizes_are_the_same_network() -> None:
    pair = made("linen_cnn")
    before = vizsynth.gradient.compiled._cache_size()  # type: ignore[attr-defined]
    vizsynth.gradient(pair.adapted, pair.images, 1)
    doubled = jax.tree.map(lambda leaf: 2 * leaf, pair.adapted)
    assert not np.allclose(vizsynth.gradient(doubled, pair.images, 2), 0)
    assert vizsynth.gradient.compiled._cache_size() <= before + 1  # type: ignore[attr-defined]
    larger = made("linen_resnet")
    images = random_images(1, 40, 44)
    near(larger.adapted(images), larger.called(images))


def test_unfolded_normalization_is_a_layer_of_its_own() -> None:
    pair = made("linen_cnn")
    variables = pair.adapted.params
    net = vizsynth.adapt(LinenCNN(), variables, example=pair.images, fold=False)
    near(net(pair.images), pair.called(pair.images))
    assert [layer for layer in net.layers if layer in ("second", "norm")] == ["second", "norm"]
    near(vizsynth.gradient(net, pair.images, 1), vizsynth.gradient(pair.adapted, pair.images, 1))
    with pytest.raises(ValueError, match="fold"):
        vizsynth.lrp(net, pair.images, 1)


def test_the_callers_module_stays_as_it_is() -> None:
    net = NNXCNN(nnx.Rngs(0))
    kinds = [type(part) for _, part in nnx.iter_modules(net)]
    adapted = vizsynth.adapt(net, example=random_images(1, 14, 12))
    vizsynth.gradient(adapted, random_images(1, 14, 12), 0)
    assert not net.dropout.deterministic
    assert [type(part) for _, part in nnx.iter_modules(net)] == kinds


def test_whole_methods_take_it() -> None:
    pair = made("linen_cnn")
    net, tapped, images = pair.adapted, pair.tapped, pair.images
    for method in (vizsynth.deconvnet, vizsynth.lrp):
        near(method(net, images, 1), method(tapped, images, 1))
    near(
        vizsynth.occlusion(net, images, 1, window=6, stride=5),
        vizsynth.occlusion(tapped, images, 1, window=6, stride=5),
    )
    near(
        vizsynth.ablation_cam(net, images, 1, layer="relu1"),
        vizsynth.ablation_cam(tapped, images, 1, layer="relu1"),
    )
    near(
        vizsynth.integrated_gradients(net, images, 1, steps=3),
        vizsynth.integrated_gradients(tapped, images, 1, steps=3),
    )
    assert vizsynth.receptive_field(net, "relu2", (1, 1), (20, 18)) == vizsynth.receptive_field(
        tapped, "relu2", (1, 1), (20, 18)
    )
    near(vizsynth.filters(net, "first"), vizsynth.filters(tapped, "conv1"))
    near(vizsynth.filters(net, "norm"), vizsynth.filters(tapped, "conv2"))
    dream = vizsynth.deepdream(net, images, layer="relu1", key=jax.random.key(0), octaves=1, steps=2)
    near(
        dream.images,
        vizsynth.deepdream(tapped, images, layer="relu1", key=jax.random.key(0), octaves=1, steps=2).images,
    )
    layers: dict[str, Any] = {"content_layers": ("relu1",), "style_layers": ("relu1", "relu2"), "steps": 2}
    drawn = vizsynth.transfer_style(
        net, images[0], [images[1]], key=jax.random.key(1), optimizer=optax.adam, learning_rate=0.1, **layers
    )
    assert drawn.trace[0, 1] < drawn.trace[0, 0]
    attacked = vizsynth.fgsm(net, images, jnp.zeros(2, int), epsilon=0.1)
    near(attacked, vizsynth.fgsm(tapped, images, jnp.zeros(2, int), epsilon=0.1))


class Wide(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.first = nnx.Conv(3, 64, (3, 3), strides=(2, 2), rngs=rngs)
        self.norm = nnx.BatchNorm(64, rngs=rngs)
        self.second = nnx.Conv(64, 64, (3, 3), rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.norm(self.first(x)))
        return self.second(self.second(x)).mean((1, 2))


def test_kernels_are_transformed_once() -> None:
    images = random_images(1, 64, 64)
    net = vizsynth.adapt(Wide(nnx.Rngs(0)), example=images)
    assert net.layers == ("norm", "relu1", "second", "second@2", "mean1", "logits")
    fast = vizsynth.prepare(net)
    assert set(fast.transformed or {}) == {"norm", "second", "second@2"}
    forward = jax.jit(lambda net, x: net(x))
    products = [forward.lower(n, images).as_text().count("dot_general") for n in (net, fast)]
    assert products[0] < products[1]
    near(fast(images), net(images), 1e-5)
    near(vizsynth.gradient(fast, images, 1), vizsynth.gradient(net, images, 1), 1e-5)
    near(vizsynth.lrp(fast, images, 1), vizsynth.lrp(net, images, 1))
    exact = vizsynth.prepare(vizsynth.prepare(net, exact=True))
    assert exact.transformed is None
    assert with_precision(fast, jnp.bfloat16).transformed is None


class Odd(linen.Module):
    """Grouped, dilated and transposed convolutions, products over several axes, a gate, a softmax."""

    kind: str

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = linen.relu(linen.Conv(6, (3, 3))(x))
        match self.kind:
            case "grouped":
                x = linen.Conv(6, (3, 3), feature_group_count=3)(x)
            case "dilated":
                x = linen.Conv(4, (3, 3), kernel_dilation=(2, 1))(x)
            case "transposed":
                x = linen.ConvTranspose(4, (3, 3), strides=(2, 2))(x)
            case "pointwise":
                x = linen.Dense(4)(x)
            case "gelu":
                x = linen.gelu(x)
            case "difference":
                x = linen.relu(0.5 - linen.Conv(6, (3, 3))(x))
            case "sum":
                return linen.Dense(5)((x[:, ::2] * 0.5).sum((1, 2)))
            case "several axes":
                return linen.DenseGeneral(5, axis=(-2, -1, -3))(x)
            case "gate":
                x = x * linen.sigmoid(linen.Dense(6)(x.mean((1, 2), keepdims=True)))
        x = linen.Dense(5)(x.mean((1, 2)))
        return linen.softmax(x) if self.kind == "softmax" else x


ODD = (
    "grouped",
    "dilated",
    "transposed",
    "pointwise",
    "gelu",
    "difference",
    "sum",
    "several axes",
    "gate",
    "softmax",
)


@pytest.mark.parametrize("kind", ODD)
def test_other_arithmetic(kind: str) -> None:
    images = random_images(2, 10, 9)
    module = Odd(kind)
    variables = jax.tree.map(lambda leaf: leaf + 0.05, leniently(module.init)(jax.random.key(0), images))
    net = vizsynth.adapt(module, variables, example=images)
    apply = leniently(module.apply)
    near(net(images), apply(variables, images))
    wanted = jax.grad(lambda x: apply(variables, x)[:, 2].sum())(images)
    near(vizsynth.gradient(net, images, 2), wanted, 1e-5)
    if kind in ("gate", "softmax"):
        with pytest.raises(ValueError, match="LRP has no rule for"):
            vizsynth.lrp(net, images, 2)
        return
    found = vizsynth.relevance(net, images, 2, composite=rules.EPSILON_PLUS)
    if kind != "gelu":  # it hands on what it received, and that was less than it took
        near(found.images.sum((1, 2, 3)) + sum(found.lost.values()), net(images)[:, 2], 1e-3)


def test_a_product_in_a_loop_without_end_is_refused() -> None:
    def function(params: Any, images: jax.Array) -> jax.Array:
        x = lax.while_loop(lambda x: x.sum() < 100, lambda x: x @ params, images.mean((1, 2)))
        return x

    with pytest.raises(ValueError, match="'while'"):
        vizsynth.adapt(function, jnp.eye(3) * 2, example=random_images(1, 4, 4))


def test_what_is_refused() -> None:
    images = random_images(1, 20, 18)
    with pytest.raises(TypeError, match="variables"):
        vizsynth.adapt(LinenCNN(), example=images)
    with pytest.raises(TypeError, match="holds its parameters"):
        vizsynth.adapt(NNXCNN(nnx.Rngs(0)), {}, example=images)
    with pytest.raises(TypeError, match="its parameters"):
        vizsynth.adapt(lambda params, x: x, example=images)
    with pytest.raises(TypeError, match="not str"):
        vizsynth.adapt("resnet50", example=images)
    with pytest.raises(ValueError, match="one array"):
        vizsynth.adapt(lambda params, x: (x, x), jnp.ones(3), example=images)
    with pytest.raises(ValueError, match="3 labels for 5 classes"):
        vizsynth.adapt(NNXCNN(nnx.Rngs(0)), example=images, labels=["a", "b", "c"])
    net = made("linen_cnn").adapted
    with pytest.raises(ValueError, match="its layers are: first, relu1"):
        vizsynth.grad_cam(net, images, 1, layer="conv9")
    with pytest.raises(ValueError, match="5 classes"):
        vizsynth.gradient(net, images, 7)
