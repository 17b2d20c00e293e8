"""The perceptual loss, by loops over layers, channels and pixels."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import random_images, tiny

import vizsynth
from vizsynth.synthesis.style import perceptual
from vizsynth.taps import run

CONTENT, STYLE = ("relu2_1",), ("relu1_1", "relu2_2")
LAYERS = {"content_layers": CONTENT, "style_layers": STYLE}


@jax.jit
def read(net, pictures):
    """Return the features of all layers that are asked for, in one program a shape."""
    return run(net, pictures, (*CONTENT, *STYLE))[1]


def looped_loss(net, image, photo, style, relative):
    """Return the three terms for one picture, with loops over layers, channels and pixels."""
    seen_image, seen_photo, seen_style = (
        {layer: np.asarray(F[0]) for layer, F in read(net, picture[None]).items()}
        for picture in (image, photo, style)
    )

    def correlations(F):
        h, w, c = F.shape
        G = np.zeros((c, c))
        for i in range(c):
            for j in range(c):
                G[i, j] = sum(F[y, x, i] * F[y, x, j] for y in range(h) for x in range(w)) / (h * w)
        return G

    content = 0.0
    for F, P in ((seen_image[layer], seen_photo[layer]) for layer in CONTENT):
        content += ((F - P) ** 2).sum() / ((P**2).sum() if relative else P.size)
    styled = 0.0
    for F, S in ((seen_image[layer], seen_style[layer]) for layer in STYLE):
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
        F = np.asarray(read(net, picture)[STYLE[0]][0])
        c = F.shape[2]
        return np.einsum("hwi,hwj->ij", F, F) / F.size, c

    (G, c), (A, _) = theirs(x), theirs(s)
    np.testing.assert_allclose(((G - A) ** 2).sum(), 4 * ours, rtol=1e-10)
    np.testing.assert_allclose(((G - A) ** 2).mean(), 4 * ours / c**2, rtol=1e-10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("parts", [1, 3])
def test_the_style_of_parts_is_the_mean_of_theirs(parts):
    net = jax.tree.map(lambda leaf: leaf.astype(np.float64), tiny("vgg").net)
    images, style = (random_images(2, 16, 13, seed=seed, dtype=np.float64) for seed in (0, 2))
    wanted = jax.jit(perceptual.style_statistics, static_argnums=2)(net, style, STYLE)
    weighting = perceptual.Weighting(0.0, 1.0, 0.0)
    options = {"content_layers": CONTENT, "weighting": weighting, "parts": parts}
    found = jax.jit(partial(perceptual.perceptual_terms, **options))(net, images, images, wanted)
    seen = read(net, images)
    for i in range(2):
        E = []
        for layer in STYLE:
            F, G = np.asarray(seen[layer][i]), np.asarray(wanted[layer][i])
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
