"""Universal perturbations: algorithm 1 in NumPy around DeepFool, and the rate that is measured."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attacked import assert_equal, jacobian, network, pictures, subject

import vizsynth
from vizsynth.models import with_precision

x64 = pytest.mark.usefixtures("x64")
KEY = jax.random.key(8)


def smallest_step(hand: Any, x: np.ndarray, y: int, steps: int, candidates: int) -> np.ndarray | None:
    """Return (1 + 0.02) r̂ of DeepFool, clipped, or None where it does not fool."""
    f = hand.logits(x[None])[0]
    others = [k for k in np.argsort(-f) if k != y][: candidates - 1]
    at, r = x, np.zeros_like(x)
    for _ in range(steps):
        f, J = hand.logits(at[None])[0], jacobian(hand, at[None])[:, 0]
        if f.argmax() != y:
            break
        w = {k: J[k] - J[y] for k in others}
        k = min(others, key=lambda k: abs(f[k] - f[y]) / np.linalg.norm(w[k]))
        length = np.linalg.norm(w[k])
        r = r + (abs(f[k] - f[y]) / length + 1e-4) * w[k] / length
        at = np.clip(x + 1.02 * r, 0, 1)
    return at - x if hand.logits(at[None])[0].argmax() != y else None


@x64
@pytest.mark.parametrize("l2", [False, True])
@pytest.mark.parametrize("keyed", [False, True])
def test_algorithm_1(l2: bool, keyed: bool) -> None:
    net, hand, images, x, y = subject(6)
    xi, rate, epochs, steps, candidates = (0.3 if l2 else 0.03), 0.99, 3, 1, 4
    left_out = 0
    v = np.zeros_like(x[0])
    for epoch in range(epochs):
        order: Any = np.arange(6)
        if keyed:
            order = np.asarray(jax.random.permutation(jax.random.fold_in(KEY, epoch), 6))
        for i in order:
            seen = np.clip(x[i] + v, 0, 1)
            if hand.logits(seen[None])[0].argmax() != y[i]:
                continue
            step = smallest_step(hand, seen, y[i], steps, candidates)
            if step is None:
                left_out += 1
                continue
            v = v + step
            v = v * min(1, xi / np.linalg.norm(v)) if l2 else np.clip(v, -xi, xi)
        if (hand.logits(np.clip(x + v, 0, 1)).argmax(axis=1) != y).mean() >= rate:
            break
    found = vizsynth.universal_perturbation(
        net,
        images,
        epsilon=xi,
        ball=vizsynth.l2_ball if l2 else vizsynth.linf_ball,
        rate=rate,
        epochs=epochs,
        steps=steps,
        candidates=candidates,
        key=KEY if keyed else None,
        batch_size=4,
    )
    assert_equal(found, v)
    assert np.abs(v).max() > 0 and left_out > 0


def test_it_stops_when_enough_are_fooled_and_fools_others() -> None:
    images, others = pictures(40, seed=5), pictures(100, seed=6)
    options: dict[str, Any] = {"epsilon": 0.2}
    v = vizsynth.universal_perturbation(network(), images, rate=1.0, **options)
    assert v.shape == images.shape[1:] and 0 < np.abs(np.asarray(v, float)).max() <= 0.2
    still = vizsynth.universal_perturbation(network(), images, rate=1.0, **(options | {"epsilon": 0}))
    assert not np.asarray(still).any()
    rate = float(vizsynth.fooling_rate(network(), images, perturbation=v))
    assert rate >= 0.6
    signs = jnp.sign(jax.random.normal(KEY, v.shape)) * 0.2
    by_chance = float(vizsynth.fooling_rate(network(), others, perturbation=signs))
    generalizes = float(vizsynth.fooling_rate(network(), others, perturbation=v))
    assert generalizes > by_chance + 0.15
    once = vizsynth.universal_perturbation(network(), images, rate=0.01, **options)
    np.testing.assert_array_equal(
        once, vizsynth.universal_perturbation(network(), images, epochs=1, **options)
    )


@pytest.mark.parametrize("ball", [vizsynth.linf_ball, vizsynth.l2_ball], ids=["linf", "l2"])
def test_in_bfloat16_it_keeps_to_its_ball(ball: Any) -> None:
    images, net = pictures(6, dtype=jnp.bfloat16), with_precision(network(), jnp.bfloat16)
    v = vizsynth.universal_perturbation(net, images, epsilon=8 / 255, ball=ball, epochs=1, steps=2)
    assert v.dtype == jnp.bfloat16
    v = np.asarray(v, float)
    size = np.abs(v).max() if ball is vizsynth.linf_ball else np.linalg.norm(v)
    assert 0 < size <= 8 / 255


@pytest.mark.parametrize("batch_size", [3, 7, 32])
def test_the_rate_is_the_share_of_changed_predictions(batch_size: int) -> None:
    images, v = pictures(10), pictures(1, seed=9)[0] - 0.5
    before = network()(images).argmax(axis=-1)
    after = network()((images + v[None]).clip(0, 1)).argmax(axis=-1)
    rate = vizsynth.fooling_rate(network(), images, perturbation=v, batch_size=batch_size)
    assert rate.dtype == jnp.float32
    np.testing.assert_allclose(rate, (before != after).mean(), atol=1e-6)
    assert vizsynth.fooling_rate(network(), images, perturbation=0 * v, batch_size=batch_size) == 0


def test_other_numbers_are_the_same_program() -> None:
    options: dict[str, Any] = {"epochs": 1, "steps": 2, "candidates": 3}
    vizsynth.universal_perturbation(network(), pictures(), epsilon=0.1, **options)
    programs = vizsynth.universal_perturbation.compiled._cache_size()
    numbers = {"epsilon": 0.2, "rate": 0.5, "overshoot": 0.1}
    vizsynth.universal_perturbation(network(), pictures(seed=1), **numbers, **options)
    assert vizsynth.universal_perturbation.compiled._cache_size() == programs


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": -0.1}, "epsilon must be at least 0"),
        ({"epsilon": 10}, "give 10 / 255"),
        ({"epsilon": np.ones(4) / 9}, "one perturbation has one epsilon"),
        ({"rate": 1.5}, "rate must be a share"),
        ({"epochs": 0}, "epochs must be a positive integer"),
        ({"candidates": 8}, "give candidates=5"),
        ({"key": jax.random.split(KEY, 4)}, "key must be one key, not an array of keys"),
    ],
)
def test_says_what_is_wrong(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vizsynth.universal_perturbation(
            network(), pictures(), **({"epsilon": 0.1, "candidates": 5} | options)
        )
    with pytest.raises(ValueError, match="the shape of one image"):
        vizsynth.fooling_rate(network(), pictures(), perturbation=pictures())
