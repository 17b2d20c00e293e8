"""Fooling an affine classifier, where every step is known."""

import jax.numpy as jnp
import numpy as np
import pytest

import vizsynth
from vizsynth.models import sequential
from vizsynth.models.sequential import Dense, Flatten

SHAPE, CLASSES = (4, 5, 3), 4
WEIGHTS = np.random.default_rng(0).normal(size=(60, CLASSES))
BIAS = np.asarray([0.3, -0.2, 0.1, 0.0])
PHOTOS = np.random.default_rng(1).uniform(0.3, 0.7, (3, *SHAPE))


def affine(dtype=jnp.float64):
    import jax

    net = sequential((Flatten(), Dense(CLASSES)), SHAPE, key=jax.random.key(0))

    def fill(leaf):
        return jnp.asarray(WEIGHTS if leaf.ndim == 2 else BIAS, dtype)

    return jax.tree.map(fill, net)


def logits(x):
    return x.reshape(-1) @ WEIGHTS + BIAS


def by_hand(x, label, eta, margin, steps, rival):
    """Return the picture, the steps it took, and whether it is fooled."""
    taken = 0
    for _ in range(steps):
        scores = logits(x)
        if scores[label] > np.delete(scores, label).max() + margin:
            break
        first = int(np.where(np.arange(CLASSES) == label, -np.inf, scores).argmax())
        g = (WEIGHTS[:, label] - rival * WEIGHTS[:, first]).reshape(SHAPE)
        x = np.clip(x + eta * g / np.sqrt((g**2).sum()), 0, 1)
        taken += 1
    scores = logits(x)
    return x, taken, scores[label] > np.delete(scores, label).max() + margin


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("eta", "margin", "rival"), [(0.05, 0.0, 0.0), (0.2, 0.5, 0.0), (0.03, 0.5, 1.0)])
def test_the_recipe_step_by_step(eta, margin, rival):
    labels = np.asarray([1, 2, 3])
    options = {"step_size": eta, "margin": margin, "rival": rival}
    made = vizsynth.fool(affine(), jnp.asarray(PHOTOS), labels, steps=40, **options)
    for i, label in enumerate(labels):
        x, taken, fooled = by_hand(PHOTOS[i], label, eta, margin, 40, rival)
        np.testing.assert_allclose(made.images[i], x, atol=1e-10)
        assert int(made.state.step[i]) == taken
        assert bool(made.state.fooled[i]) == fooled
        z = logits(PHOTOS[i])
        np.testing.assert_allclose(made.trace[i, 0], z[label] - rival * np.delete(z, label).max(), atol=1e-10)


@pytest.mark.usefixtures("x64")
def test_it_goes_on_where_it_stopped():
    x, labels = jnp.asarray(PHOTOS), np.asarray([1, 2, 3])
    whole = vizsynth.fool(affine(), x, labels, steps=12, step_size=0.03)
    first = vizsynth.fool(affine(), x, labels, steps=6, step_size=0.03)
    again = vizsynth.fool(affine(), x, labels, steps=6, step_size=0.03, state=first.state)
    np.testing.assert_array_equal(again.images, whole.images)
    np.testing.assert_array_equal(again.state.step, whole.state.step)


@pytest.mark.usefixtures("x64")
def test_what_is_of_the_class_already_stays():
    label = int(logits(PHOTOS[0]).argmax())
    made = vizsynth.fool(affine(), jnp.asarray(PHOTOS[:1]), label, steps=5)
    np.testing.assert_array_equal(made.images, PHOTOS[:1])
    assert int(made.state.step[0]) == 0 and bool(made.state.fooled[0])


def test_an_image_does_not_depend_on_the_others():
    net, x = affine(jnp.float32), jnp.asarray(PHOTOS, jnp.float32)
    together = vizsynth.fool(net, x, [1, 2, 3], steps=10, step_size=0.05)
    for i, label in enumerate((1, 2, 3)):
        alone = vizsynth.fool(net, x[i : i + 1], label, steps=10, step_size=0.05)
        np.testing.assert_allclose(alone.images[0], together.images[i], atol=1e-6)
        assert int(alone.state.step[0]) == int(together.state.step[i])


def test_where_a_step_is_not_finite_the_image_stays():
    def net(images, *, tap=lambda name, value: value):
        x = images.mean(axis=(1, 2))
        return tap("logits", jnp.where(x > 0.5, jnp.nan, x))

    images = jnp.stack([jnp.full((4, 4, 3), 0.9), jnp.full((4, 4, 3), 0.2)])
    made = vizsynth.fool(net, images, 1, steps=2, step_size=0.1)
    np.testing.assert_array_equal(made.images[0], images[0])
    assert np.isnan(made.trace[0]).all() and np.isfinite(made.trace[1]).all()
    assert made.state.fooled.tolist() == [False, True]


def test_numbers_do_not_compile_anew():
    net, x = affine(jnp.float32), jnp.asarray(PHOTOS, jnp.float32)
    before = vizsynth.fool.compiled._cache_size()
    for label, eta in ((1, 0.1), (2, 0.2), (3, 0.3)):
        vizsynth.fool(net, x, label, steps=3, step_size=eta, margin=eta, rival=eta)
    assert vizsynth.fool.compiled._cache_size() - before == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [({"steps": 0}, "steps"), ({"step_size": 0.0}, "above 0"), ({"labels": 9}, r"label \[9\]")],
)
def test_what_cannot_be(options, message):
    given = {"labels": 1, "steps": 3} | options
    with pytest.raises(ValueError, match=message):
        vizsynth.fool(affine(jnp.float32), jnp.asarray(PHOTOS, jnp.float32), **given)


def test_magnified_is_grey_where_nothing_changed():
    before = jnp.full((1, 2, 2, 3), 0.5)
    after = before.at[0, 0, 0].add(0.01)
    shown = vizsynth.magnified(before, after, factor=20.0)
    np.testing.assert_allclose(shown[0, 0, 0], 0.7, atol=1e-5)
    np.testing.assert_allclose(shown[0, 1], 0.5)
