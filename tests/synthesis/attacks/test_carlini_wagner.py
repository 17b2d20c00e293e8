"""Carlini & Wagner's attack: the whole search in NumPy, image by image; targets; what is kept."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from attacked import CLASSES, assert_equal, jacobian, network, norms, pictures, subject

import vizsynth

x64 = pytest.mark.usefixtures("x64")


def by_hand(
    hand: Any, x: np.ndarray, y: int, *, targeted: bool, kappa: float, searches: int, steps: int
) -> tuple[np.ndarray, list[float]]:
    """Return the nearest adversarial of one image, and the c that were tried."""
    rate, c, low, high = 0.01, 1e-3, 0.0, np.inf
    best, nearest, tried = x, np.inf, []
    w_image = np.arctanh((2 * x - 1) * 0.999999)
    for _ in range(searches):
        tried.append(c)
        w, m, v = w_image.copy(), np.zeros_like(x), np.zeros_like(x)
        success = False
        for t in range(1, steps + 1):
            moved = (np.tanh(w) + 1) / 2
            Z = hand.logits(moved[None])[0]
            J = jacobian(hand, moved[None])[:, 0]
            other = max((k for k in range(CLASSES) if k != y), key=lambda k: Z[k])
            up, down = (other, y) if targeted else (y, other)
            f = Z[up] - Z[down] + kappa
            squared = np.square(moved - x).sum()
            g = 2 * (moved - x) + (c * (J[up] - J[down]) if f > 0 else 0)
            g = g * (1 - np.tanh(w) ** 2) / 2
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            w = w - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
            if f < 0:
                success = True
                if squared < nearest:
                    best, nearest = moved, squared
        low, high = (low, c) if success else (c, high)
        c = 10 * c if np.isinf(high) else (low + high) / 2
    return best, tried


@x64
@pytest.mark.parametrize(("targeted", "kappa"), [(False, 0.0), (True, 0.0), (False, 0.05)])
def test_the_search_step_by_step(targeted: bool, kappa: float) -> None:
    net, hand, images, x, y = subject(3)
    y = (y + 2) % CLASSES if targeted else y
    expected, tried = [], []
    for n in range(3):
        best, c = by_hand(hand, x[n], int(y[n]), targeted=targeted, kappa=kappa, searches=6, steps=40)
        expected.append(best)
        tried.append(tuple(c))
    assert len(set(tried)) > 1, "every image has its own c"
    found = vizsynth.carlini_wagner(net, images, y, searches=6, steps=40, targeted=targeted, confidence=kappa)
    # Adam divides by the root of what it has seen: where that is nearly 0, roundings grow.
    assert_equal(found, np.stack(expected), 1e-8)
    predicted = np.asarray(net(found).argmax(axis=1))
    assert (predicted == y).all() if targeted else (predicted != y).all()


def test_it_is_nearer_than_deepfool() -> None:
    images = pictures(8)
    y = network()(images).argmax(axis=-1)
    found = vizsynth.carlini_wagner(network(), images, y, steps=500, learning_rate=1e-3)
    assert (network()(found).argmax(axis=-1) != y).all()
    assert found.min() >= 0 and found.max() <= 1
    theirs = vizsynth.deepfool(network(), images, y, candidates=5)
    assert (norms(found - images) <= norms(theirs - images) * 1.01).all()
    # It ends at the boundary: the margin is all but 0.
    top = np.sort(np.asarray(network()(found)), axis=1)
    before = np.sort(np.asarray(network()(images)), axis=1)
    assert ((top[:, -1] - top[:, -2]) < 0.1 * (before[:, -1] - before[:, -2])).mean() > 0.8


def test_an_image_that_is_not_fooled_or_is_already_stays_as_it_is() -> None:
    images = jnp.round(pictures(3))  # black and white, where tanh is flat
    y = network()(images).argmax(axis=-1)
    few = {"searches": 1, "steps": 2, "c": 1e-6}
    np.testing.assert_array_equal(vizsynth.carlini_wagner(network(), images, y, **few), images)
    other = vizsynth.carlini_wagner(network(), images, (y + 1) % 5, searches=2, steps=5)
    np.testing.assert_array_equal(other, images)


def test_confidence_is_exceeded() -> None:
    images = pictures(3)
    y = np.asarray(network()(images).argmax(axis=-1))
    found = vizsynth.carlini_wagner(network(), images, y, steps=100, confidence=0.1)
    Z = np.array(network()(found))
    mine = Z[np.arange(3), y]
    Z[np.arange(3), y] = -np.inf
    assert (Z.max(axis=1) - mine > 0.1).all()


@x64
def test_a_target_of_negative_logits_is_pulled_at() -> None:
    """A peer floors a target's logit at 0, and so gets no gradient of it where it is negative."""
    images = jnp.full((1, 2, 2, 3), 0.5)

    def net(images: Any, tap: Any = lambda name, value: value, ops: Any = None) -> Any:
        s = images.mean(axis=(1, 2, 3)) - 0.5
        return tap("logits", jnp.stack([-1 + 0 * s, -1.2 + s], axis=1))

    found = vizsynth.carlini_wagner(net, images, 1, targeted=True, steps=300)
    # The boundary is where the mean is 0.7.
    np.testing.assert_allclose(np.asarray(found), 0.7, atol=0.003)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"searches": 0}, "searches must be a positive integer"),
        ({"steps": 0}, "steps must be a positive integer"),
        ({"c": 0.0}, "c must be above 0"),
        ({"learning_rate": -1.0}, "learning_rate must be above 0"),
        ({"confidence": -1.0}, "confidence must not be negative"),
        ({"labels": -1}, "outside the network's 5 classes"),
    ],
)
def test_says_what_is_wrong(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vizsynth.carlini_wagner(network(), pictures(), **({"labels": 0} | options))
