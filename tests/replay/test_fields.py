"""What a neuron sees, against where its gradient is and against what changes when a pixel does."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import keystr
from tiny import Subject, tiny

import vizsynth
from vizsynth.models import alexnet, sequential
from vizsynth.models.sequential import Conv, Dense, Flatten, GlobalMean, MaxPool, MeanPool, ReLU
from vizsynth.ops import average_pooling
from vizsynth.replay.fields import field_size, fields, receptive_field
from vizsynth.taps import run


def positive(net: Any) -> Any:
    """Return the network with weights of [0.5, 1.5] and no mean to subtract: no ReLU shuts."""
    rng = np.random.default_rng(0)

    def fresh(path: Any, leaf: jax.Array) -> jax.Array:
        drawn = rng.uniform(0.5, 1.5, leaf.shape)
        return jnp.asarray(0 * drawn if "mean" in keystr(path) else drawn, jnp.float64)

    return jax.tree_util.tree_map_with_path(fresh, net)


def brute_force(net: Any, layers: tuple[str, ...], size: tuple[int, int]) -> dict[str, Any]:
    """Return, for each layer, which neurons change with each row and with each column of the image.

    All of a row's pixels are made a million times as bright; `[h, neurons]` and `[w, neurons]`.
    """
    net = positive(net)
    h, w = size
    images = np.full((1 + h + w, h, w, 3), 0.75)
    images[1 + np.arange(h), np.arange(h)] = 1e6
    images[1 + h + np.arange(w), :, np.arange(w)] = 1e6
    seen = jax.jit(lambda net, images: run(net, images, layers)[1])(net, jnp.asarray(images))
    changed = {name: np.asarray(v[1:] != v[:1]) for name, v in seen.items()}
    return {name: (c[:h], c[h:]) for name, c in changed.items()}


ODD = (
    Conv(4, 4, stride=3, padding=2),
    ReLU(),
    MaxPool(3, 2),
    Conv(5, 2, stride=1, padding=3),
    MeanPool(2, 3),
    Conv(3, 1, stride=2, padding=1),
    Flatten(),
    Dense(6),
)
SPARSE = (Conv(4, 2, stride=4), ReLU(), Conv(4, 3), GlobalMean(), Dense(3))


def network(name: str) -> tuple[Any, tuple[int, int]]:
    key = jax.random.key(0)
    match name:
        case "alexnet":
            return alexnet(None, key=key), (79, 66)
        case "odd":
            return sequential(ODD, (31, 37, 3), key=key), (31, 37)
        case "sparse":
            return sequential(SPARSE, (23, 30, 3), key=key), (23, 30)
        case _:
            return tiny(name).net, tiny(name).size


CASES = {
    "vgg": ("conv1_1", "relu2_1", "conv2_2", "pool2", "fc6", "logits"),
    "vgg_bn": ("relu1_1", "pool1", "relu2_2"),
    "resnet_basic": ("stem", "pool1", "layer1.0", "layer1.1.branch", "layer2.0.shortcut", "layer2.0"),
    "resnet_bottleneck": ("conv1", "layer1.0", "layer1.1.relu2", "layer2.0.branch", "layer2.0", "pool5"),
    "alexnet": ("conv1", "pool1", "relu3", "pool5"),
    "squeezenet": (
        "conv1",
        "pool1",
        "fire2",
        "fire3",
        "pool3",
        "fire5.expand1x1",
        "pool5",
        "fire7",
        "logits",
    ),
    "odd": ("conv1", "pool1", "conv2", "pool2", "conv3", "flatten3", "logits"),
    "sparse": ("conv1", "conv2", "mean2", "logits"),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_what_changes_a_neuron(name: str, x64: None) -> None:
    """Every neuron of the layers: borders, odd sizes, ceil pools, the channels of branches."""
    net, size = network(name)
    for layer, changed in brute_force(net, CASES[name], size).items():
        found = fields(net, layer, size)
        for span, change in zip((found.rows, found.columns), changed, strict=True):
            pixel = np.arange(len(change)).reshape(-1, *(1,) * (change.ndim - 1))
            low = np.where(change, pixel, len(change)).min(axis=0)
            high = np.where(change, pixel + 1, 0).max(axis=0)
            if change.ndim == 4:
                axis = 1 if span is found.rows else 0  # what the span does not have
                nothing = (low >= high).any(axis=2)  # a neuron of padding alone, as all of its row or column
                low, high = low.min(axis=axis), high.max(axis=axis)
                seeing = ~nothing.all(axis=axis)
                low, high = low[seeing], high[seeing]
                span = type(span)(span.low[seeing], span.high[seeing])
            span = type(span)(np.where(span.low < span.high, span.low, len(change)), span.high)
            np.testing.assert_array_equal(span.low, np.broadcast_to(low, span.low.shape), layer)
            np.testing.assert_array_equal(span.high, np.broadcast_to(high, span.high.shape), layer)


@pytest.mark.parametrize("name", ["resnet_basic", "squeezenet", "odd"])
def test_a_box_is_what_the_pixels_one_by_one_change(name: str, x64: None) -> None:
    """At a corner, in the middle and at the far corner: of all channels, and of the first and the last."""
    net, size = network(name)
    layer = {"resnet_basic": "layer1.0", "squeezenet": "fire2", "odd": "conv2"}[name]
    net_, (h, w) = positive(net), size
    images = np.full((h * w, h, w, 3), 0.75)
    images.reshape(h * w, h * w, 3)[np.arange(h * w), np.arange(h * w)] = 1e6
    feature = jax.jit(lambda net, images: run(net, images, [layer])[1][layer])
    seen = jax.lax.map(lambda image: feature(net_, image[None])[0], jnp.asarray(images), batch_size=64)
    changed = np.asarray(seen != feature(net_, jnp.full((1, h, w, 3), 0.75))).reshape(h, w, *seen.shape[1:])
    rows, columns, channels = seen.shape[1:]
    for y, x in ((0, 0), (rows // 2, columns // 2), (rows - 1, columns - 1), (rows // 2, 0)):
        for at in ((y, x), (y, x, 0), (y, x, channels - 1)):
            hit = changed[:, :, y, x] if len(at) == 2 else changed[:, :, y, x, at[2]][..., None]
            r, c = np.nonzero(hit.any(-1))
            box = (r.min(), c.min(), r.max() + 1, c.max() + 1) if len(r) else (0, 0, 0, 0)
            assert receptive_field(net, layer, at, size) == box, at


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("vgg16", ("relu2_2", "relu3_3", "relu5_3")),
        ("resnet50", ("layer1.1", "layer2.3", "layer4.2")),
        ("alexnet", ("relu2", "relu4", "pool5")),
        ("squeezenet1_1", ("fire2", "fire5", "fire9")),
    ],
)
def test_networks_of_their_real_size(name: str, layers: tuple[str, ...], x64: None) -> None:
    """The gradient's support, through means and no ReLU, in the corners and in the middle."""
    net = getattr(vizsynth.models, name)(num_classes=None, key=jax.random.key(0))
    linear = average_pooling._replace(relu=lambda x: x)
    size = (131, 150)
    for layer in layers:
        h, w = fields(net, layer, size).shape[1:3]
        ones = positive(net)

        def neuron(images: jax.Array, layer: str = layer, net: Any = ones) -> jax.Array:
            return run(net, images, [layer], ops=linear)[1][layer].sum(axis=-1)

        pull = jax.jit(lambda g, neuron=neuron: jax.vjp(neuron, jnp.ones((1, *size, 3)))[1](g)[0])
        for y, x in ((0, 0), (h // 2, w // 2), (h - 1, w - 1)):
            g = np.asarray(pull(jnp.zeros((1, h, w)).at[0, y, x].set(1.0)))[0]
            rows, columns = np.nonzero(np.abs(g).sum(-1))
            box = (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1)
            assert receptive_field(net, layer, (y, x), size) == box, (layer, y, x)


def test_the_size_is_where_the_gradient_is(subject: Subject) -> None:
    """Of positive weights, means for maxima and pixels of 1, the gradient has no zero inside a field."""
    net = jax.tree.map(lambda leaf: jnp.abs(leaf) + 0.01, subject.net)
    layer = subject.middle
    size = subject.size if subject.name == "sequential" else (96, 96)  # its head takes no other
    images = jnp.ones((1, *size, 3))

    def neuron(images: jax.Array) -> jax.Array:
        A = run(net, images, [layer], ops=average_pooling)[1][layer]
        return A[0, A.shape[1] // 2, A.shape[2] // 2].sum()

    g = np.asarray(jax.jit(jax.grad(neuron))(images))[0]
    rows, columns = np.nonzero(np.abs(g).sum(-1))
    assert field_size(net, layer) == (np.ptp(rows) + 1, np.ptp(columns) + 1)


def test_the_known_sizes_of_vgg16() -> None:
    net = vizsynth.models.vgg16(num_classes=None, key=jax.random.key(0))
    known = {"relu1_2": 5, "relu2_2": 14, "relu3_3": 40, "relu4_3": 92, "relu5_3": 196, "pool5": 212}
    for layer, side in known.items():
        assert field_size(net, layer) == (side, side)
        middle = fields(net, layer, (448, 448)).shape[1] // 2
        top, left, bottom, right = receptive_field(net, layer, (middle, middle), (448, 448))
        assert (bottom - top, right - left) == (side, side)


def test_an_unknown_layer_is_named(subject: Subject) -> None:
    with pytest.raises(ValueError, match="no layer 'no_such'"):
        field_size(subject.net, "no_such")
    with pytest.raises(ValueError, match=f"no layer 'no_such'; its layers are: .*{subject.middle}"):
        receptive_field(subject.net, "no_such", (0, 0), subject.size)


@pytest.mark.parametrize(
    ("layer", "position", "size", "message"),
    [
        ("relu2_1", (10, 0), (21, 18), "relu2_1 is 10x9x8 .* no position .10, 0."),
        ("relu2_1", (0, -1), (21, 18), "no position"),
        ("relu2_1", (0, 0, 8), (21, 18), "no position"),
        ("relu2_1", (1,), (21, 18), "row, column"),
        ("fc6", (0, 0), (21, 18), "channel"),
        ("relu2_1", (0, 0), (0, 18), "height, width"),
        ("relu2_1", (0, 0), (1, 18), "too small"),
    ],
)
def test_what_cannot_be_counted_is_said(layer: str, position: Any, size: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        receptive_field(tiny("vgg").net, layer, position, size)


def test_a_network_that_goes_past_the_table_is_told() -> None:
    def net(images: Any, *, tap: Any = lambda name, value: value, ops: Any = None) -> Any:
        return tap("sum", images + images)

    with pytest.raises(TypeError, match="past the table"):
        receptive_field(net, "sum", (0, 0), (4, 4))
