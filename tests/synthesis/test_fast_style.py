"""Style in one pass: the loss, what the network is asked for, and its training."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import random_images, tiny

import vizsynth
from vizsynth import ascent
from vizsynth.models import stylizer
from vizsynth.synthesis import fast_style
from vizsynth.taps import run

CONTENT, STYLE = ("relu2_1",), ("relu1_1", "relu2_2")
LAYERS = {"content_layers": CONTENT, "style_layers": STYLE}


def small(names=("a", "b", "c"), dtype=np.float32):
    """Return a small stylizer, with other scales and shifts for each style."""
    rng = np.random.default_rng(1)
    net = stylizer(names, widths=(3, 4, 5), blocks=1, key=jax.random.key(0))
    return jax.tree.map(lambda leaf: jnp.asarray((0.5 * rng.normal(size=leaf.shape)).astype(dtype)), net)


# The loss ---------------------------------------------------------------------------


def looped_loss(net, image, photo, style, relative):
    """Return the three terms for one picture, with loops over layers, channels and pixels."""

    def read(picture, layers):
        seen = jax.jit(lambda net, x: run(net, x, layers)[1])(net, picture[None])
        return [np.asarray(seen[layer][0]) for layer in layers]

    def correlations(F):
        h, w, c = F.shape
        G = np.zeros((c, c))
        for i in range(c):
            for j in range(c):
                G[i, j] = sum(F[y, x, i] * F[y, x, j] for y in range(h) for x in range(w)) / (h * w)
        return G

    content = 0.0
    for F, P in zip(read(image, CONTENT), read(photo, CONTENT), strict=True):
        content += ((F - P) ** 2).sum() / ((P**2).sum() if relative else P.size)
    styled = 0.0
    for F, S in zip(read(image, STYLE), read(style, STYLE), strict=True):
        G, wanted = correlations(F), correlations(S)
        styled += ((G - wanted) ** 2).sum() / ((wanted**2).sum() if relative else 4 * len(G) ** 2)
    h, w, _ = image.shape
    variation = 0.0
    for y in range(h):
        for x in range(w):
            if x + 1 < w:
                variation += ((image[y, x + 1] - image[y, x]) ** 2).sum()
            if y + 1 < h:
                variation += ((image[y + 1, x] - image[y, x]) ** 2).sum()
    return content / len(CONTENT), styled / len(STYLE), variation / image.size


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("relative", [True, False])
def test_the_loss_is_what_the_paper_says(relative):
    net = jax.tree.map(lambda leaf: leaf.astype(np.float64), tiny("vgg").net)
    images, photos = (random_images(2, 16, 13, seed=s, dtype=np.float64) for s in (0, 1))
    styles = random_images(2, 18, 15, seed=2, dtype=np.float64)
    weights = {"content_weight": 1.5, "style_weight": 40.0, "tv_weight": 0.3}
    found = vizsynth.perceptual_loss(net, images, photos, styles, relative=relative, **LAYERS, **weights)
    for i in range(2):
        arguments = (np.asarray(x[i]) for x in (images, photos, styles))
        terms = looped_loss(net, *arguments, relative)
        np.testing.assert_allclose([part[i] for part in found[1:]], terms, rtol=1e-10)
        np.testing.assert_allclose(found.total[i], np.dot((1.5, 40.0, 0.3), terms), rtol=1e-10)


@pytest.mark.usefixtures("x64")
def test_the_norms_of_the_papers_are_had_by_a_factor():
    """Johnson's equation 4, and the mean of squares of PyTorch's examples, at one layer."""
    net = jax.tree.map(lambda leaf: leaf.astype(np.float64), tiny("vgg").net)
    x, s = (random_images(1, 16, 16, seed=seed, dtype=np.float64) for seed in (0, 2))
    options = {"content_layers": CONTENT, "style_layers": STYLE[:1], "relative": False}
    ours = float(vizsynth.perceptual_loss(net, x, x, s, **options).style[0])

    def theirs(picture):
        F = np.asarray(run(net, picture, STYLE[:1])[1][STYLE[0]][0])
        c = F.shape[2]
        return np.einsum("hwi,hwj->ij", F, F) / F.size, c

    (G, c), (A, _) = theirs(x), theirs(s)
    np.testing.assert_allclose(((G - A) ** 2).sum(), 4 * ours, rtol=1e-10)
    np.testing.assert_allclose(((G - A) ** 2).mean(), 4 * ours / c**2, rtol=1e-10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("parts", [1, 2, 3])
def test_the_style_of_parts_is_the_mean_of_theirs(parts):
    net = jax.tree.map(lambda leaf: leaf.astype(np.float64), tiny("vgg").net)
    images, style = (random_images(2, 16, 13, seed=seed, dtype=np.float64) for seed in (0, 2))
    wanted = fast_style.style_statistics(net, style, STYLE)
    weighting = fast_style.Weighting(0.0, 1.0, 0.0)
    options = {"content_layers": CONTENT, "weighting": weighting, "parts": parts}
    found = fast_style.perceptual_terms(net, images, images, wanted, **options)
    for i in range(2):
        E = []
        for layer in STYLE:
            F, G = (
                np.asarray(run(net, images[i : i + 1], (layer,))[1][layer][0]),
                np.asarray(wanted[layer][i]),
            )
            h, w = F.shape[0] // parts, F.shape[1] // parts
            for y in range(parts):
                for x in range(parts):
                    f = F[y * h : (y + 1) * h, x * w : (x + 1) * w].reshape(h * w, -1)
                    E.append(((f.T @ f / (h * w) - G) ** 2).sum() / (G**2).sum())
        np.testing.assert_allclose(found.style[i], np.mean(E), rtol=1e-10)
        np.testing.assert_allclose(found.total[i], np.mean(E), rtol=1e-10)


def test_one_style_for_all_is_that_style_for_each():
    net = tiny("vgg").net
    images, photos = random_images(2, 16, 13), random_images(2, 16, 13, seed=1)
    style = random_images(1, 18, 15, seed=2)
    both = jnp.concatenate([style, style])
    one = vizsynth.perceptual_loss(net, images, photos, style, **LAYERS)
    each = vizsynth.perceptual_loss(net, images, photos, both, **LAYERS)
    np.testing.assert_allclose(one.total, each.total, rtol=1e-5)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"content": random_images(1, 16, 13)}, "a photo for each picture, of its size"),
        ({"styles": random_images(3, 16, 13)}, "one style picture or 2, not 3"),
        ({"style_weight": -1.0}, "style_weight must be at least 0"),
        ({"content_layers": ("relu9",)}, "no layer 'relu9'"),
        ({"style_layers": ()}, "style_layers must be a sequence"),
    ],
)
def test_a_loss_that_cannot_be_says_so(changed, message):
    images = random_images(2, 16, 13)
    given = {"content": images, "styles": images[:1], **LAYERS} | changed
    with pytest.raises(ValueError, match=message):
        vizsynth.perceptual_loss(tiny("vgg").net, images, **given)


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


def test_what_cannot_be_stylized_is_refused():
    with pytest.raises(ValueError, match="at least 5x5 pixels"):
        vizsynth.stylize(small(), random_images(1, 4, 9))
    with pytest.raises(ValueError, match=r"look like 0\.\.255"):
        vizsynth.stylize(small(), random_images(1, 9, 9) * 255)
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

    value, gradient = jax.value_and_grad(loss)(made)
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


PROGRAM = """
    import sys, time
    import jax
    jax.config.update("jax_disable_most_optimizations", True)
    import numpy as np
    import test_fast_style
    from vizsynth import ascent
    folder, pause = sys.argv[1], float(sys.argv[2])
    for result in ascent.chunks(test_fast_style.take, steps=4, every=2, folder=folder, origin={"seed": 7}):
        print(int(result.state.step), flush=True)
        time.sleep(pause)
    np.savez(folder + "/end.npz", *jax.tree.leaves(result.state.params))
"""


@pytest.mark.slow
def test_a_training_that_was_killed_ends_bit_equal_to_one_that_was_not(tmp_path):
    here = Path(__file__).parent
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([str(here), str(here.parent), str(here.parent.parent)]),
    }

    def begin(pause):
        program = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(tmp_path), str(pause)]
        return subprocess.Popen(program, env=environment, stdout=subprocess.PIPE, text=True)

    victim = begin(60)
    assert victim.stdout.readline().strip() == "2"
    victim.send_signal(signal.SIGKILL)
    assert victim.wait(60) == -signal.SIGKILL
    victim.stdout.close()
    resumed = begin(0)
    assert resumed.communicate(timeout=240)[0].split() == ["4"]
    assert resumed.returncode == 0
    ends = np.load(tmp_path / "end.npz")
    for name, leaf in zip(ends.files, jax.tree.leaves(take(None, 4).state.params), strict=True):
        np.testing.assert_array_equal(ends[name], leaf)


def test_a_training_stands_still_where_it_diverges():
    net, made = tiny("vgg").net, stylizer("ab", widths=(3, 4, 5), blocks=1, key=jax.random.key(0))
    options = OPTIONS | {"learning_rate": float("inf"), "optimizer": optax.sgd}
    with pytest.warns(UserWarning, match="step 0 gave NaN or infinity"):
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
