"""Relevance propagation: every rule written out in NumPy, conservation, and what it refuses."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from numpy_network import conv, conv_backward, max_pool_backward, mean_pool, mean_pool_backward
from subjects import BY_HAND, LABELS, ByHand, assert_equal, by_hand
from tiny import tiny

import vizsynth
from vizsynth import rules
from vizsynth.models import fold_batch_norm, with_precision
from vizsynth.models.sequential import Conv, Dense, Flatten, GlobalMean, MaxPool, MeanPool
from vizsynth.rules import Composite
from vizsynth.scores import Channel, Class

x64 = pytest.mark.usefixtures("x64")


def stable(z: np.ndarray, epsilon: float = 1e-6) -> np.ndarray:
    return z + np.where(z >= 0, epsilon, -epsilon)


def up(a: Any) -> np.ndarray:
    return np.maximum(a, 0)


def down(a: Any) -> np.ndarray:
    return np.minimum(a, 0)


class Layer:
    """A convolution or a matrix product, for any weights and inputs."""

    def __init__(self, stride: int, pad: int) -> None:
        self.stride, self.pad = stride, pad

    def forward(self, x: np.ndarray, w: np.ndarray) -> np.ndarray:
        return x @ w if w.ndim == 2 else conv(x, w, np.zeros(w.shape[-1]), self.stride, self.pad)

    def back(self, x: np.ndarray, w: np.ndarray, R: np.ndarray) -> np.ndarray:
        return R @ w.T if w.ndim == 2 else conv_backward(x, w, self.stride, self.pad, R)

    def share(self, pairs: Any, b: Any, R: np.ndarray) -> np.ndarray:
        """Return Σ_i a_i ⊙ W_iᵀ (R / s(Σ_i W_i a_i + b))."""
        ratio = R / stable(sum(self.forward(a, w) for a, w in pairs) + b)
        return sum(a * self.back(a, w, ratio) for a, w in pairs)


def epsilon(layer: Layer, x: Any, w: Any, b: Any, R: Any) -> np.ndarray:
    return layer.share([(x, w)], b, R)


def z_plus(layer: Layer, x: Any, w: Any, b: Any, R: Any) -> np.ndarray:
    return layer.share([(up(x), up(w)), (down(x), down(w))], up(b), R)


def alpha2_beta1(layer: Layer, x: Any, w: Any, b: Any, R: Any) -> np.ndarray:
    against = layer.share([(up(x), down(w)), (down(x), up(w))], down(b), R)
    return 2 * z_plus(layer, x, w, b, R) - against


def gamma(layer: Layer, x: Any, w: Any, b: Any, R: Any, c: float = 0.25) -> np.ndarray:
    z = layer.forward(x, w) + b
    more, less = w + c * up(w), w + c * down(w)
    raised = layer.share([(up(x), more), (down(x), less)], b + c * up(b), R * (z > 0))
    return raised + layer.share([(up(x), less), (down(x), more)], b + c * down(b), R * (z < 0))


def flat(layer: Layer, x: Any, w: Any, b: Any, R: Any) -> np.ndarray:
    return layer.share([(np.ones_like(x), np.ones_like(w))], 0, R)


def w_square(layer: Layer, x: Any, w: Any, b: Any, R: Any) -> np.ndarray:
    return layer.share([(np.ones_like(x), w**2)], b**2, R)


def z_box(hand: Any) -> Any:
    """Return the rule for pixels in [0, 1], as they are after they have been standardized."""

    def rule(layer: Layer, x: Any, w: Any, b: Any, R: Any) -> np.ndarray:
        low = np.broadcast_to((0 - hand.mean) / hand.std, x.shape)
        high = np.broadcast_to((1 - hand.mean) / hand.std, x.shape)
        z = layer.forward(x, w) - layer.forward(low, up(w)) - layer.forward(high, down(w))
        ratio = R / stable(z)
        given = x * layer.back(x, w, ratio)
        return given - low * layer.back(x, up(w), ratio) - high * layer.back(x, down(w), ratio)

    return rule


def by_rules(subject: ByHand, first: Any, of_conv: Any, of_dense: Any) -> np.ndarray:
    """Hand the score down, layer by layer."""
    hand = subject.hand
    values = hand.forward(subject.pixels)
    R = np.zeros_like(values["logits"])
    R[np.arange(3), LABELS] = values["logits"][np.arange(3), LABELS]
    for i in reversed(range(len(hand.names))):
        name, kind = hand.names[i], hand.layers[i]
        x = values["input" if i == 0 else hand.names[i - 1]]
        match kind:
            case Conv():
                pad = kind.window // 2 if kind.padding is None else kind.padding
                R = (first if i == 0 else of_conv)(Layer(kind.stride, pad), x, *hand.weights[name], R)
            case Dense():
                R = of_dense(Layer(1, 0), x, *hand.weights[name], R)
            case MaxPool():
                R = max_pool_backward(x, kind.window, kind.stride or kind.window, R)
            case MeanPool():
                stride = kind.stride or kind.window
                ratio = R / stable(mean_pool(x, kind.window, stride))
                R = x * mean_pool_backward(x, kind.window, stride, ratio)
            case GlobalMean():
                z = x.mean(axis=(1, 2))
                R = x * (R / stable(z) / (x.shape[1] * x.shape[2]))[:, None, None]
            case Flatten():
                R = R.reshape(x.shape)
    return R


RULES = {
    "epsilon": (rules.Epsilon(), epsilon),
    "z_plus": (rules.ZPlus(), z_plus),
    "alpha_beta": (rules.AlphaBeta(), alpha2_beta1),
    "gamma": (rules.Gamma(), gamma),
}
FIRST = {"flat": (rules.Flat(), flat), "w_square": (rules.WSquare(), w_square)}


def folded(name: str) -> tuple[ByHand, Any]:
    subject = by_hand(name)
    return subject, fold_batch_norm(subject.net)


@x64
@pytest.mark.parametrize("name", BY_HAND)
@pytest.mark.parametrize("which", RULES)
def test_each_rule_is_the_one_by_hand(name: str, which: str) -> None:
    subject, net = folded(name)
    ours, theirs = RULES[which]
    found = vizsynth.lrp(net, subject.images, LABELS, composite=Composite(ours, rules.Epsilon()))
    assert_equal(found, by_rules(subject, theirs, theirs, epsilon), 1e-8)


@x64
@pytest.mark.parametrize("which", [*FIRST, "z_box"])
def test_each_rule_of_the_pixels_is_the_one_by_hand(which: str) -> None:
    subject, net = folded("sequential")
    ours, theirs = FIRST.get(which, (rules.ZBox(), z_box(subject.hand)))
    composite = Composite(rules.ZPlus(), rules.Epsilon(), ours)
    found = vizsynth.lrp(net, subject.images, LABELS, composite=composite)
    assert_equal(found, by_rules(subject, theirs, z_plus, epsilon), 1e-8)


COMPOSITES = [
    rules.EPSILON_PLUS,
    rules.EPSILON_PLUS_FLAT,
    rules.EPSILON_GAMMA_BOX,
    rules.EPSILON_ALPHA2_BETA1_FLAT,
]


@x64
@pytest.mark.parametrize(
    ("name", "composite"),
    [*zip(["vgg", "resnet_bottleneck", "resnet_bottleneck", "sequential"], COMPOSITES, strict=True)],
    ids=["plus", "plus_flat", "gamma_box", "alpha_beta"],
)
def test_what_is_not_lost_reaches_the_pixels(name: str, composite: Composite) -> None:
    net = fold_batch_norm(with_precision(tiny(name).net, jnp.float64))
    images = tiny(name).images(dtype=np.float64)
    score = 2.0 * Class(1) + Channel("logits", 3) * 0.5
    found = vizsynth.relevance(net, images, score, composite=composite, layers=[tiny(name).middle])
    S = score({"logits": net(images)})
    lost = sum(found.lost.values())
    assert set(found.layers) == {tiny(name).middle}
    assert float(jnp.abs(lost).max()) > 0  # biases
    assert_equal(found.images.sum(axis=(1, 2, 3)) + lost, np.asarray(S), 1e-9)


@x64
def test_relevance_grows_with_the_score() -> None:
    subject, net = folded("sequential")
    once = np.asarray(vizsynth.lrp(net, subject.images, Class(1)))
    assert_equal(vizsynth.lrp(net, subject.images, 3.0 * Class(1)), 3 * once, 1e-9)
    assert_equal(vizsynth.lrp(net, subject.images, -Class(1)), -once, 1e-9)


def test_one_program_serves_every_gamma() -> None:
    net, images = tiny("vgg").net, tiny("vgg").images()
    before = vizsynth.lrp.compiled._cache_size()
    for c in (0.0, 0.1, 0.5):
        vizsynth.lrp(net, images, 1, composite=Composite(rules.Gamma(c), rules.Epsilon()))
    assert vizsynth.lrp.compiled._cache_size() - before == 1


def test_batch_normalization_must_be_folded() -> None:
    subject = tiny("vgg_bn")
    with pytest.raises(ValueError, match=r"fold it into the convolution first.*fold_batch_norm"):
        vizsynth.lrp(subject.net, subject.images(), 1)
