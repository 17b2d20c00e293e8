"""DeepFool: an affine classifier's boundary, algorithm 2 in NumPy, the stop of each image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attacked import affine, assert_equal, jacobian, network, norms, pictures, subject

import vizsynth
from vizsynth.models import sequential
from vizsynth.models.sequential import Dense, Flatten
from vizsynth.synthesis.attacks.deepfool import nearest_fooling

x64 = pytest.mark.usefixtures("x64")


@x64
@pytest.mark.parametrize("margin", [0.0, 1e-4])
def test_an_affine_classifier_is_crossed_in_one_step(margin: float) -> None:
    """The nearest boundary l: r = |f_l − f_y| / ‖w_l − w_y‖² (w_l − w_y), the margin, and 2 % more."""
    net, hand, images, x, y = subject(6, net=affine(), low=0.5)
    W, b = hand.weights["logits"]
    expected = x.copy()
    for n in range(len(x)):
        f = x[n].reshape(-1) @ W + b
        steps = []
        for k in set(range(5)) - {int(y[n])}:
            w = W[:, k] - W[:, y[n]]
            steps.append(abs(f[k] - f[y[n]]) / (w @ w) * w)
        nearest = min(steps, key=np.linalg.norm)
        nearest *= 1 + margin / np.linalg.norm(nearest)
        expected[n] += 1.02 * nearest.reshape(x[n].shape)
    assert expected.min() >= 0 and expected.max() <= 1, "nothing is clipped"
    found = vizsynth.deepfool(net, images, y, candidates=5, margin=margin)
    assert_equal(found, expected)
    assert (np.asarray(net(found)).argmax(axis=1) != y).all()
    assert_equal(vizsynth.deepfool(net, images, y, candidates=5, margin=margin, steps=1), expected)


@x64
@pytest.mark.parametrize(
    ("candidates", "steps", "overshoot", "margin"),
    [(5, 50, 0.02, 0.0), (3, 50, 0.1, 0.01), (5, 2, 0.0, 0.0), (5, 50, 0.02, 1e-4)],
)
def test_algorithm_2(candidates: int, steps: int, overshoot: float, margin: float) -> None:
    net, hand, images, x0, y = subject(5)
    x, r = x0.copy(), np.zeros_like(x0)
    order = np.argsort(-hand.logits(x0), axis=1)
    taken = []
    for n in range(len(x0)):
        others = [k for k in order[n] if k != y[n]][: candidates - 1]
        i = 0
        while i < steps and hand.logits(x[n : n + 1])[0].argmax() == y[n]:
            f, J = hand.logits(x[n : n + 1])[0], jacobian(hand, x[n : n + 1])[:, 0]
            distances = [abs(f[k] - f[y[n]]) / np.linalg.norm(J[k] - J[y[n]]) for k in others]
            k = others[int(np.argmin(distances))]
            w = J[k] - J[y[n]]
            length = np.linalg.norm(w)
            r[n] += (abs(f[k] - f[y[n]]) / length + margin) * w / length
            x[n] = np.clip(x0[n] + (1 + overshoot) * r[n], 0, 1)
            i += 1
        taken.append(i)
    if overshoot == 0.02:
        assert len(set(taken)) > 1, "all images stop together: nothing is shown"
    options = {"candidates": candidates, "steps": steps, "overshoot": overshoot, "margin": margin}
    assert_equal(vizsynth.deepfool(net, images, y, batch_size=2, **options), x)


def test_an_image_stops_at_its_own_step_and_those_not_given_their_label_stay() -> None:
    images = pictures(6)
    y = network()(images).argmax(axis=-1)
    found = vizsynth.deepfool(network(), images, y, candidates=5)
    assert (network()(found).argmax(axis=-1) != y).all()
    for i in range(6):
        alone = vizsynth.deepfool(network(), images[i : i + 1], y[i : i + 1], candidates=5)
        np.testing.assert_allclose(found[i : i + 1], alone, atol=1e-5)
    np.testing.assert_array_equal(vizsynth.deepfool(network(), images, (y + 1) % 5, candidates=5), images)
    # No nearer in the same direction: a twentieth less does not fool.
    short = images + (found - images) * 0.95
    assert (network()(short).argmax(axis=-1) == y).mean() >= 0.8


def test_it_moves_less_than_fgsm() -> None:
    images = pictures(8, seed=2)
    y = network()(images).argmax(axis=-1)
    mine = norms(vizsynth.deepfool(network(), images, y, candidates=5) - images)
    for epsilon in np.geomspace(0.002, 0.5, 12):
        moved = vizsynth.fgsm(network(), images, y, epsilon=epsilon)
        fooled = np.asarray(network()(moved).argmax(axis=-1) != y)
        assert (mine[fooled] < norms(moved - images)[fooled]).all()


@x64
def test_classes_with_the_same_gradient_have_no_boundary() -> None:
    """Of a class whose weights are those of the label, nothing is to be learned: it is left out."""

    def net(images, tap=lambda name, value: value, ops=None):
        s = images.sum(axis=(1, 2, 3))
        return tap("logits", jnp.stack([s, s - 0.1, -s + 18], axis=1))

    images = jnp.full((1, 2, 2, 3), 0.8)
    found, fooled = nearest_fooling(
        net, images, jnp.array([0]), steps=20, candidates=3, overshoot=0.02, margin=0.0, batch_size=3
    )
    assert fooled.all() and jnp.isfinite(found).all()
    np.testing.assert_allclose(found, 0.8 - 1.02 * (2 * 9.6 - 18) / 24, atol=1e-12)
    stuck = vizsynth.deepfool(net, images, 0, candidates=2, steps=3)
    np.testing.assert_array_equal(stuck, images)


def test_all_classes_are_compared_where_there_are_fewer_than_ten() -> None:
    images = pictures()
    net = sequential((Flatten(), Dense(2)), images.shape[1:], key=jax.random.key(1))
    y = net(images).argmax(axis=-1)
    found = vizsynth.deepfool(net, images, y)
    assert (net(found).argmax(axis=-1) != y).all()
    np.testing.assert_array_equal(found, vizsynth.deepfool(net, images, y, candidates=2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"candidates": 6}, "at most the network's 5 classes, not 6; give candidates=5"),
        ({"candidates": 1}, "at least 2"),
        ({"candidates": 5, "steps": 0}, "steps must be a positive integer"),
        ({"candidates": 5, "overshoot": -0.1}, "overshoot must not be negative"),
        ({"candidates": 5, "margin": -1.0}, "margin must not be negative"),
        ({"candidates": 5, "labels": 7}, "outside the network's 5 classes"),
        ({"candidates": 5, "batch_size": 0}, "batch_size must be a positive integer"),
    ],
)
def test_says_what_is_wrong(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vizsynth.deepfool(network(), pictures(), **({"labels": 0} | options))
