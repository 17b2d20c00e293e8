"""Auto-PGD: algorithm 1 in NumPy, image by image; its checkpoints, its losses, its restarts."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attacked import (
    CLASSES,
    affine,
    assert_equal,
    cross_entropy,
    jacobian,
    loss_gradient,
    network,
    norms,
    onto_l2,
    onto_linf,
    pictures,
    subject,
)

import vizsynth
from vizsynth.synthesis.attacks.apgd import checkpoints

x64 = pytest.mark.usefixtures("x64")
KEY = jax.random.key(4)


def test_the_checkpoints_are_the_papers() -> None:
    assert checkpoints(100) == (22, 41, 57, 70, 80, 87, 93, 99)
    assert checkpoints(10) == (2, 3, 4, 5, 6, 7, 8, 9, 10)
    assert checkpoints(1) == (1,)
    # p_0 = 0, p_1 = 0.22, p_{j+1} = p_j + max(p_j − p_{j−1} − 0.03, 0.06); w_j = ⌈p_j N⌉.
    p = [0.0, 0.22]
    while p[-1] <= 1:
        p.append(p[-1] + max(p[-1] - p[-2] - 0.03, 0.06))
    assert checkpoints(1000) == tuple(round(q * 1000) for q in p[1:] if q <= 1)


def cross_entropy_and_gradient(hand: Any, x: np.ndarray, y: int, sign: float) -> tuple[float, np.ndarray]:
    labels = np.array([y])
    return sign * cross_entropy(hand, x[None], labels)[0], sign * loss_gradient(hand, x[None], labels)[0]


def ratio_and_gradient(hand: Any, x: np.ndarray, y: int, sign: float) -> tuple[float, np.ndarray]:
    z, J = hand.logits(x[None])[0], jacobian(hand, x[None])[:, 0]
    order = np.argsort(-z)
    other = next(k for k in order if k != y)
    above, below = z[y] - z[other], z[order[0]] - z[order[2]]
    d_above, d_below = J[y] - J[other], J[order[0]] - J[order[2]]
    return -above / below, -(d_above * below - above * d_below) / below**2


def by_hand(
    hand: Any,
    x: np.ndarray,
    y: int,
    start: np.ndarray,
    *,
    look: Callable[..., tuple[float, np.ndarray]],
    l2: bool,
    epsilon: float,
    N: int,
    targeted: bool,
) -> tuple[np.ndarray, list[float]]:
    """Return what one image becomes, and its step sizes."""
    sign = -1.0 if targeted else 1.0

    def P(z: np.ndarray) -> np.ndarray:
        return onto_l2(z[None], x[None], epsilon)[0] if l2 else onto_linf(z, x, epsilon)

    def done(z: np.ndarray) -> bool:
        predicted = hand.logits(z[None])[0].argmax()
        return bool(predicted == y if targeted else predicted != y)

    def d(g: np.ndarray) -> np.ndarray:
        return g / np.sqrt(np.square(g).sum()) if l2 else np.sign(g)

    if done(x):
        return x, []
    W = [0, *checkpoints(N)]
    eta, eta_at_check = 2 * epsilon, np.nan
    points, losses = [start], [look(hand, start, y, sign)[0]]
    f_max, x_max, f_max_at_check = losses[0], start, losses[0]
    etas, since = [eta], []
    k = 0
    while k < N:
        if done(points[k]):
            return points[k], etas
        g = look(hand, points[k], y, sign)[1]
        z = P(points[k] + eta * d(g))
        new = z if k == 0 else P(points[k] + 0.75 * (z - points[k]) + 0.25 * (points[k] - points[k - 1]))
        loss = look(hand, new, y, sign)[0]
        since.append(loss > losses[k])
        if loss > f_max:
            x_max, f_max = new, loss
        k += 1
        points.append(new)
        losses.append(loss)
        if done(new):
            return new, etas
        if k in W:
            period = k - W[W.index(k) - 1]
            few = sum(since) <= 0.75 * period
            same = eta == eta_at_check and f_max_at_check >= f_max
            eta_at_check, f_max_at_check, since = eta, f_max, []
            if few or same:
                eta /= 2
                points[k], losses[k] = x_max, f_max
            etas.append(eta)
    return x_max, etas


CASES = [
    ("apgd_ce", False, False, 0.02),
    ("apgd_ce", False, True, 0.05),
    ("apgd_ce", True, False, 0.12),
    ("apgd_dlr", False, False, 0.02),
    ("apgd_dlr", True, False, 0.12),
]


@x64
@pytest.mark.parametrize(("name", "l2", "targeted", "epsilon"), CASES)
def test_algorithm_1(name: str, l2: bool, targeted: bool, epsilon: float) -> None:
    net, hand, images, x, y = subject(6)
    y = (y + 1) % CLASSES if targeted else y
    shift = np.random.default_rng(1).uniform(-1, 1, x.shape) * epsilon / (5 if l2 else 1)
    start = onto_l2(x + shift, x, epsilon) if l2 else onto_linf(x + shift, x, epsilon)
    look = cross_entropy_and_gradient if name == "apgd_ce" else ratio_and_gradient
    expected, etas = [], []
    for n in range(len(x)):
        found, eta = by_hand(
            hand, x[n], int(y[n]), start[n], look=look, l2=l2, epsilon=epsilon, N=30, targeted=targeted
        )
        expected.append(found)
        etas.append(tuple(eta))
    assert len(set(etas)) > 1 and min(e[-1] for e in etas) < epsilon, "steps are halved, each image's own"
    ball = vizsynth.l2_ball if l2 else vizsynth.linf_ball
    options: dict[str, Any] = {"epsilon": epsilon, "ball": ball, "steps": 30, "start": jnp.asarray(start)}
    if targeted:
        options["targeted"] = True
    found = getattr(vizsynth, name)(net, images, y, **options)
    assert_equal(found, np.stack(expected), 1e-9)
    assert 0 < (np.asarray(net(found)).argmax(axis=1) == y).sum() < len(x), "some are fooled and some not"


@pytest.mark.parametrize("ball", [vizsynth.linf_ball, vizsynth.l2_ball], ids=["linf", "l2"])
@pytest.mark.parametrize("attack", [vizsynth.apgd_ce, vizsynth.apgd_dlr])
def test_it_stays_in_the_ball_and_starts_on_its_border(attack: Any, ball: Any) -> None:
    images = pictures(6) * 0.6 + 0.2
    y = network()(images).argmax(axis=-1)
    for epsilon in (0.005, 0.1):
        found = attack(network(), images, y, epsilon=epsilon, ball=ball, steps=12, key=KEY, restarts=2)
        assert found.min() >= 0 and found.max() <= 1
        delta = np.asarray(found, float) - np.asarray(images, float)
        assert (np.abs(delta).max() if ball is vizsynth.linf_ball else norms(delta).max()) <= epsilon
    # The labels change as soon as the start is seen, so what is returned is the start.
    weak = jnp.full_like(images, 0.5)
    flat = lambda x, tap=lambda name, value: value, ops=None: tap(  # noqa: E731
        "logits",
        jnp.abs(x - 0.5).sum((1, 2, 3))[:, None] * jnp.array([[0.0, 1.0, -1.0]]) + jnp.array([[1e-9, 0, 0]]),
    )
    start = attack(flat, weak, 0, epsilon=0.1, ball=ball, key=KEY)
    np.testing.assert_allclose(jax.vmap(ball.norm)(start - weak), 0.1, rtol=1e-5)


def test_a_restart_takes_on_what_the_one_before_has_left() -> None:
    images = pictures(12, seed=3)
    y = network()(images).argmax(axis=-1)
    fooled, losses = [], []
    for restarts in (1, 2, 4):
        found = vizsynth.apgd_ce(network(), images, y, epsilon=0.012, steps=6, key=KEY, restarts=restarts)
        logits = network()(found)
        fooled.append(np.asarray(logits.argmax(axis=-1) != y))
        losses.append(-np.asarray(jax.nn.log_softmax(logits))[np.arange(12), np.asarray(y)])
    assert (fooled[1] >= fooled[0]).all() and (fooled[2] >= fooled[1]).all()
    for few, more in ((0, 1), (1, 2)):
        left = ~fooled[more]
        assert (losses[more][left] >= losses[few][left] - 1e-6).all()
    assert (losses[2] - losses[0])[~fooled[2]].max() > 0 or fooled[2].sum() > fooled[0].sum()


def test_it_finds_as_large_a_loss_as_pgd_without_a_step_size() -> None:
    images = pictures(8, seed=1)
    y = np.asarray(network()(images).argmax(axis=-1))

    def loss(x: Any) -> np.ndarray:
        return -np.asarray(jax.nn.log_softmax(network()(x)))[np.arange(8), y]

    auto = vizsynth.apgd_ce(network(), images, y, epsilon=0.004, steps=50, start=images)
    fixed = vizsynth.pgd(network(), images, y, epsilon=0.004, step_size=0.001, steps=50)
    assert loss(auto).mean() >= loss(fixed).mean() - 1e-3
    few = vizsynth.pgd(network(), images, y, epsilon=0.004, step_size=0.001, steps=2)
    assert loss(auto).mean() > loss(few).mean()


@x64
def test_the_ratio_sees_through_large_logits() -> None:
    """Logits times 1e6: the cross entropy's gradient vanishes, the ratio's does not."""
    net, _, images, _, y = subject(6, net=affine(), low=0.5)
    loud = lambda x, tap=lambda name, value: value, ops=None: tap("logits", 1e6 * net(x))  # noqa: E731
    options = {"epsilon": 0.1, "steps": 10, "start": images}
    assert (np.asarray(net(vizsynth.apgd_dlr(loud, images, y, **options))).argmax(axis=1) != y).all()
    assert_equal(vizsynth.apgd_ce(loud, images, y, **options), np.asarray(images))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"steps": 0}, ValueError, "steps must be a positive integer"),
        ({"restarts": 0}, ValueError, "restarts must be a positive integer"),
        ({"restarts": 2}, ValueError, "give key=jax.random.key"),
        ({"epsilon": -0.1}, ValueError, "epsilon must be at least 0"),
        ({"epsilon": 4}, ValueError, "give 4 / 255"),
        ({"ball": "l2"}, TypeError, "ball must be vizsynth.linf_ball or vizsynth.l2_ball"),
        ({"labels": 9}, ValueError, "outside the network's 5 classes"),
        ({"start": pictures(1)}, ValueError, "start must have the shape"),
    ],
)
@pytest.mark.parametrize("attack", [vizsynth.apgd_ce, vizsynth.apgd_dlr])
def test_says_what_is_wrong(attack: Any, options: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        attack(network(), pictures(), **({"labels": 0, "epsilon": 0.1} | options))


def test_the_ratio_wants_three_classes() -> None:
    two = lambda x, tap=lambda name, value: value, ops=None: tap("logits", x.sum((1, 2))[:, :2])  # noqa: E731
    with pytest.raises(ValueError, match="compares 3 classes, and the network has 2; use apgd_ce"):
        vizsynth.apgd_dlr(two, pictures(), 0, epsilon=0.1)


def test_norms_agree() -> None:
    delta = pictures(3)
    np.testing.assert_allclose(jax.vmap(vizsynth.l2_ball.norm)(delta), norms(delta), rtol=1e-6)
