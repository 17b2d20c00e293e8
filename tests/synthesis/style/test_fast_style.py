"""Style in one pass: what the network is asked for, and its training."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import random_images, tiny

import vizsynth
from vizsynth import ascent
from vizsynth.models import stylizer
from vizsynth.synthesis.style import fast_style

CONTENT, STYLE = ("relu2_1",), ("relu1_1", "relu2_2")
LAYERS = {"content_layers": CONTENT, "style_layers": STYLE}


def small(names=("a", "b", "c"), dtype=np.float32):
    """Return a small stylizer, with other scales and shifts for each style."""
    rng = np.random.default_rng(1)
    net = stylizer(names, widths=(3, 4, 5), blocks=1, key=jax.random.key(0))
    return jax.tree.map(lambda leaf: jnp.asarray((0.5 * rng.normal(size=leaf.shape)).astype(dtype)), net)


# One pass ---------------------------------------------------------------------------


def test_another_style_does_not_compile_anew():
    net, images = small(), random_images(2, 9, 11)
    vizsynth.stylize(net, images, 0)
    before = vizsynth.stylize.compiled._cache_size()
    found = [vizsynth.stylize(net, images, i) for i in range(3)]
    assert vizsynth.stylize.compiled._cache_size() == before
    assert np.abs(found[0] - found[1]).max() > 0.01
    vizsynth.stylize(net, images, jnp.asarray([1.0, 0.0, 0.0]))
    before = vizsynth.stylize.compiled._cache_size()
    vizsynth.stylize(net, images, jnp.asarray([0.1, 0.2, 0.7]))
    assert vizsynth.stylize.compiled._cache_size() == before


def test_weights_of_one_style_alone_are_that_style():
    net, images = small(), random_images(2, 9, 11)
    for i in range(3):
        np.testing.assert_array_equal(
            vizsynth.stylize(net, images, np.eye(3, dtype=np.float32)[i]), vizsynth.stylize(net, images, i)
        )


def test_each_image_may_have_its_style():
    net, images = small(), random_images(3, 9, 11)
    found = vizsynth.stylize(net, images, np.array([2, 0, 1]))
    weighed = vizsynth.stylize(net, images, np.eye(3, dtype=np.float32)[[2, 0, 1]])
    np.testing.assert_array_equal(found, weighed)
    for i, style in enumerate((2, 0, 1)):
        np.testing.assert_allclose(found[i], vizsynth.stylize(net, images, style)[i], atol=1e-6)


@pytest.mark.parametrize(
    ("style", "kind", "message"),
    [
        (3, ValueError, r"there is no style 3; the styles are 0: a, 1: b, 2: c"),
        (-1, ValueError, "there is no style -1"),
        ([0.5, 0.5], ValueError, r"weights of 3 styles \(0: a, 1: b, 2: c\) must be \[3\] or \[2, 3\]"),
        ([0.5, 0.5, np.nan], ValueError, "must be finite"),
        (np.array([0, 1, 2]), ValueError, "2 images take one style or 2"),
        ("a", TypeError, "find_style"),
        (True, TypeError, "an index or weights"),
    ],
)
def test_styles_that_do_not_exist_are_refused(style, kind, message):
    with pytest.raises(kind, match=message):
        vizsynth.stylize(small(), random_images(2, 9, 11), style)
    if isinstance(style, int) and kind is ValueError:
        assert np.isnan(vizsynth.stylize(small(), random_images(2, 9, 11), jnp.asarray(style))).all()


def test_what_cannot_be_stylized_is_refused():
    with pytest.raises(ValueError, match="at least 5x5 pixels"):
        vizsynth.stylize(small(), random_images(1, 4, 9))
    with pytest.raises(ValueError, match=r"look like 0\.\.255"):
        vizsynth.stylize(small(), np.asarray(random_images(1, 9, 9)) * 255)
    with pytest.raises(TypeError, match="must be a stylizer"):
        vizsynth.stylize(tiny("vgg").net, random_images(1, 9, 9))


# Training ---------------------------------------------------------------------------

PHOTOS, STYLES = random_images(3, 24, 27, seed=5), random_images(2, 20, 22, seed=6)
OPTIONS = {"size": 18, "batch_size": 3, "style_weight": 5.0, "tv_weight": 0.1, **LAYERS}


def take(state, steps, horizon=20.0):
    """Return a training as `chunks` asks for it."""
    net = tiny("vgg").net
    made = stylizer("ab", widths=(3, 4, 5), blocks=1, key=jax.random.key(0))
    key = jax.random.key(7)
    given = OPTIONS | {"key": key, "steps": steps, "state": state, "horizon": horizon}
    return vizsynth.train_style(net, made, PHOTOS, STYLES, **given)


def equal(one, other):
    for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(other.params), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_step_is_down_the_gradient_of_the_mean_loss():
    net, made = tiny("vgg").net, stylizer("ab", widths=(3, 4, 5), blocks=1, key=jax.random.key(0))
    options = OPTIONS | {"learning_rate": 0.01, "optimizer": optax.sgd}
    key = jax.random.key(7)
    result = vizsynth.train_style(net, made, PHOTOS, STYLES, key=key, steps=1, **options)
    crop_key, style_key = jax.random.split(jax.random.fold_in(key, 0))
    photos = fast_style.crops(crop_key, PHOTOS, 3, 18)
    which = fast_style.drawn_styles(style_key, 3, 2)

    def loss(made):
        pictures = vizsynth.stylize(made, photos, which)
        weights = {"style_weight": 5.0, "tv_weight": 0.1}
        return vizsynth.perceptual_loss(
            net, pictures, photos, STYLES[which], **weights, **LAYERS
        ).total.mean()

    value, gradient = jax.jit(jax.value_and_grad(loss))(made)
    np.testing.assert_allclose(result.trace[0, 0], value, rtol=1e-5)
    leaves = (jax.tree.leaves(tree) for tree in (made, gradient, result.state.params))
    for before, slope, after in zip(*leaves, strict=True):
        np.testing.assert_allclose(after, before - 0.01 * slope, atol=2e-6)
    shown = vizsynth.stylize(result.state.params, jnp.stack([PHOTOS[0, 3:21, 4:22]] * 2), np.arange(2))
    np.testing.assert_allclose(result.images, shown, atol=1e-6)


def test_it_learns():
    state, losses = None, []
    for _ in range(4):
        result = take(state, 3)
        state, losses = result.state, [*losses, float(result.trace.mean())]
    assert result.trace.shape == (1, 3) and losses[-1] < 0.95 * losses[0]


def test_past_its_horizon_nothing_moves():
    begun = take(None, 3).state
    equal(take(begun, 3, horizon=1e-3).state, begun)


def test_a_training_goes_on_where_it_was(tmp_path):
    whole = take(None, 6)
    begun = take(None, 3)
    equal(take(begun.state, 3).state, whole.state)
    origin = {"seed": 7}
    chunks = ascent.chunks(take, steps=6, every=3, folder=tmp_path / "run", origin=origin)
    next(chunks), chunks.close()
    again = list(ascent.chunks(take, steps=6, every=3, folder=tmp_path / "run", origin=origin))
    assert len(again) == 1
    equal(again[-1].state, whole.state)
    with pytest.raises(ValueError, match="another run"):
        next(ascent.chunks(take, steps=6, every=3, folder=tmp_path / "run", origin={"seed": 8}))


def test_a_training_stands_still_where_it_diverges():
    net, made = tiny("vgg").net, stylizer("ab", widths=(3, 4, 5), blocks=1, key=jax.random.key(0))
    options = OPTIONS | {"learning_rate": float("inf"), "optimizer": optax.sgd}
    result = vizsynth.train_style(net, made, PHOTOS, STYLES, key=jax.random.key(7), steps=1, **options)
    assert int(result.state.step) == 0 and np.isnan(result.trace).all()
    equal(result.state, ascent.init(made, optax.sgd(0.1), key=jax.random.key(7)))


def test_crops_come_from_everywhere_and_half_are_mirrored():
    images = jnp.arange(2 * 5 * 6 * 3, dtype=np.float32).reshape(2, 5, 6, 3)
    found = np.asarray(jax.jit(lambda key: fast_style.crops(key, images, 400, 4))(jax.random.key(0)))
    seen = set()
    for part in found:
        mirrored = part[0, 0, 0] > part[0, 1, 0]
        corner = int((part[:, ::-1] if mirrored else part)[0, 0, 0])
        which, row, column = corner // 90, corner % 90 // 18, corner % 18 // 3
        expected = images[which, row : row + 4, column : column + 4]
        np.testing.assert_array_equal(part, expected[:, ::-1] if mirrored else expected)
        seen.add((which, row, column, bool(mirrored)))
    assert len(seen) == 2 * 2 * 3 * 2


def test_styles_are_drawn_alike():
    keys = jax.random.split(jax.random.key(0), 300)
    drawn = np.asarray(jax.vmap(lambda key: fast_style.drawn_styles(key, 4, 3))(keys))
    assert (np.abs(np.bincount(drawn[:, 0], minlength=3) / 300 - 1 / 3) < 0.1).all()
    counts = [np.bincount(row, minlength=3) for row in drawn]
    assert all(count.max() == 2 and count.min() == 1 for count in counts)


@pytest.mark.parametrize(
    ("changed", "kind", "message"),
    [
        ({"styles": STYLES[:1]}, ValueError, r"2 styles \(a, b\), and takes as many pictures of them, not 1"),
        ({"size": 25}, ValueError, "size must lie between 5 and 24"),
        ({"batch_size": 0}, ValueError, "batch_size must be a positive integer"),
        ({"parts": 0}, ValueError, "parts must be a positive integer"),
        ({"parts": 10}, ValueError, "parts must be at most 9, the positions that crops of 18 px have"),
        ({"steps": -1}, ValueError, "steps must be an integer of at least 0"),
        ({"key": None}, TypeError, "needs a key"),
        ({"horizon": 0.0}, ValueError, "horizon must be above 0"),
        ({"content_weight": np.nan}, ValueError, "content_weight must be at least 0"),
        ({"style_layers": ("relu9",)}, ValueError, "no layer 'relu9'"),
        ({"stylizer": tiny("vgg").net}, TypeError, "must be a stylizer"),
    ],
)
def test_a_training_that_cannot_be_says_so(changed, kind, message):
    made = stylizer("ab", widths=(3, 4, 5), blocks=1, key=jax.random.key(0))
    given = {"stylizer": made, "images": PHOTOS, "styles": STYLES, "key": jax.random.key(0)}
    with pytest.raises(kind, match=message):
        vizsynth.train_style(tiny("vgg").net, **given | OPTIONS | changed)


def test_weights_may_be_a_list():
    net, images = small(), random_images(1, 9, 11)
    found = vizsynth.stylize(net, images, [0.25, 0.25, 0.5])
    np.testing.assert_allclose(
        found, vizsynth.stylize(net, images, jnp.asarray([0.25, 0.25, 0.5])), atol=1e-6
    )
