"""Means and deviations handed on, against loops; the loss; the decoder and its sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import random_images, tiny

import vizsynth
from vizsynth.models import adain_decoder
from vizsynth.models.io.weights import paths
from vizsynth.taps import run

LAYERS = {"layer": "relu2_1", "style_layers": ("relu1_1", "relu2_1")}


@jax.jit
def read(net, pictures):
    """Return the features of the layers that are asked for, in one program a shape."""
    return run(net, pictures, LAYERS["style_layers"])[1]


def encoder():
    return jax.tree.map(lambda leaf: leaf.astype(np.float64), tiny("vgg").net)


def looped_moments(F):
    """Return mean and deviation of each channel of one image's features."""
    h, w, c = F.shape
    mean, std = np.zeros(c), np.zeros(c)
    for k in range(c):
        values = [F[y, x, k] for y in range(h) for x in range(w)]
        mean[k] = sum(values) / len(values)
        std[k] = (sum((v - mean[k]) ** 2 for v in values) / (len(values) - 1) + 1e-5) ** 0.5
    return mean, std


def looped_adain(x, y, alpha):
    (m, s), (n, t) = looped_moments(x), looped_moments(y)
    found = np.zeros_like(x)
    for k in range(x.shape[2]):
        found[..., k] = alpha * (t[k] * (x[..., k] - m[k]) / s[k] + n[k]) + (1 - alpha) * x[..., k]
    return found


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("styles", [1, 2])
def test_adain_is_what_the_paper_says(alpha, styles):
    rng = np.random.default_rng(0)
    x, y = rng.normal(1, 2, (2, 3, 4, 5)), rng.normal(-1, 3, (styles, 6, 2, 5))
    found = vizsynth.adain(jnp.asarray(x), jnp.asarray(y), alpha=alpha)
    for i in range(2):
        np.testing.assert_allclose(found[i], looped_adain(x[i], y[i % styles], alpha), atol=1e-10)


def test_a_photo_in_its_own_style_is_itself():
    x = random_images(2, 5, 6)
    np.testing.assert_allclose(vizsynth.adain(x, x), x, atol=1e-6)
    np.testing.assert_array_equal(vizsynth.adain(x, 7 * x, alpha=0.0), x)


def test_flat_maps_take_the_mean_and_have_a_gradient():
    x, y = jnp.full((1, 3, 3, 2), 0.5), random_images(1, 4, 4)[..., :2]
    np.testing.assert_allclose(vizsynth.adain(x, y)[0, 1, 1], y.mean(axis=(0, 1, 2)), atol=1e-6)
    slope = jax.jit(jax.grad(lambda x: (vizsynth.adain(x, y) ** 2).sum()))(x)
    assert np.isfinite(slope).all()


def test_another_alpha_does_not_compile_anew():
    x = random_images(1, 5, 6)
    vizsynth.adain(x, x, alpha=0.5)
    before = vizsynth.adain.compiled._cache_size()
    vizsynth.adain(x, x, alpha=0.7)
    assert vizsynth.adain.compiled._cache_size() == before


@pytest.mark.parametrize(
    ("x", "y", "alpha", "message"),
    [
        ((3, 4, 5), (1, 3, 4, 5), 1.0, r"content_features must be \[n, h, w, c\], not \(3, 4, 5\)"),
        ((2, 3, 4, 5), (1, 1, 1, 5), 1.0, "style_features of 1x1 positions have no deviation"),
        ((2, 3, 4, 5), (1, 3, 4, 6), 1.0, "equally many channels, not 5 and 6"),
        ((2, 3, 4, 5), (3, 3, 4, 5), 1.0, "2 photos take one style or 2, not 3"),
        ((2, 3, 4, 5), (1, 3, 4, 5), 1.5, r"alpha must lie in \[0, 1\], not 1.5"),
    ],
)
def test_features_that_do_not_fit_are_refused(x, y, alpha, message):
    with pytest.raises(ValueError, match=message):
        vizsynth.adain(jnp.ones(x), jnp.ones(y), alpha=alpha)


# The loss ---------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
def test_the_loss_is_what_the_paper_says():
    net = encoder()
    x, p = (random_images(2, 14, 13, seed=s, dtype=np.float64) for s in (0, 1))
    s = random_images(1, 16, 15, seed=2, dtype=np.float64)
    found = vizsynth.adain_loss(net, x, p, s, style_weight=7.0, **LAYERS)
    of_x, of_p, of_s = (
        {layer: np.asarray(F) for layer, F in read(net, pictures).items()} for pictures in (x, p, s)
    )

    for i in range(2):
        t = looped_adain(of_p["relu2_1"][i], of_s["relu2_1"][0], 1.0)
        content = ((of_x["relu2_1"][i] - t) ** 2).mean()
        style = 0.0
        for layer in LAYERS["style_layers"]:
            (m, d), (n, e) = looped_moments(of_x[layer][i]), looped_moments(of_s[layer][0])
            style += ((m - n) ** 2).mean() + ((d - e) ** 2).mean()
        np.testing.assert_allclose(found.content[i], content, rtol=1e-10)
        np.testing.assert_allclose(found.style[i], style, rtol=1e-10)
        np.testing.assert_allclose(found.total[i], content + 7.0 * style, rtol=1e-10)


@pytest.mark.parametrize(
    ("changed", "kind", "message"),
    [
        ({"content": random_images(2, 13, 14)}, ValueError, "a photo for each picture"),
        ({"styles": random_images(3, 14, 13)}, ValueError, "one style or 2, not 3"),
        ({"layer": "relu9"}, ValueError, "no layer 'relu9'"),
        ({"layer": ("relu1_1",)}, TypeError, "must be the name of a layer"),
        ({"style_weight": -1.0}, ValueError, "style_weight must be at least 0"),
        ({"alpha": -0.5}, ValueError, "alpha must lie"),
    ],
)
def test_a_loss_that_cannot_be_says_so(changed, kind, message):
    x = random_images(2, 14, 13)
    given = {"images": x, "content": x, "styles": x[:1], **LAYERS} | changed
    with pytest.raises(kind, match=message):
        vizsynth.adain_loss(tiny("vgg").net, **given)


# One pass ---------------------------------------------------------------------------


def decoder(dtype=np.float32):
    made = adain_decoder("relu2_1", widths=(4, 8), key=jax.random.key(0))
    return jax.tree.map(lambda leaf: leaf.astype(dtype), made)


def looped_decoder(arrays, F):
    """Return the picture of one image's features, for a decoder of relu2_1."""

    def conv(name, x):
        h, w, _ = x.shape
        kernel, y = arrays[f"{name}.kernel"], np.zeros((h, w, arrays[f"{name}.bias"].size))
        for r in range(h):
            for c in range(w):
                for i in (-1, 0, 1):
                    for j in (-1, 0, 1):
                        row, column = (
                            abs(at) if at < size else 2 * size - 2 - at
                            for at, size in ((r + i, h), (c + j, w))
                        )
                        y[r, c] += x[row, column] @ kernel[i + 1, j + 1]
        return y + arrays[f"{name}.bias"]

    x = np.maximum(conv("conv1_1", F), 0)
    x = np.kron(x, np.ones((2, 2, 1)))
    x = np.maximum(conv("conv1_2", x), 0)
    return 1 / (1 + np.exp(-conv("last", x)))


@pytest.mark.usefixtures("x64")
def test_a_transfer_is_encode_shift_decode():
    net, g = encoder(), decoder(np.float64)
    p = random_images(2, 14, 12, dtype=np.float64)
    s = random_images(1, 16, 15, seed=2, dtype=np.float64)
    found = vizsynth.transfer_adain(net, g, p, s, layer="relu2_1", alpha=0.6)
    theirs, ours = (np.asarray(read(net, x)["relu2_1"]) for x in (s, p))
    arrays = {name: np.asarray(leaf) for name, leaf in paths(g).items()}
    for i in range(2):
        expected = looped_decoder(arrays, looped_adain(ours[i], theirs[0], 0.6))
        np.testing.assert_allclose(found[i], expected, atol=1e-10)


@pytest.mark.parametrize("size", [(13, 10), (12, 12)])
def test_the_size_stays_what_it_was(size):
    photos, styles = random_images(1, *size), random_images(1, 11, 14, seed=1)
    found = vizsynth.transfer_adain(tiny("vgg").net, decoder(), photos, styles, layer="relu2_1")
    assert found.shape == photos.shape and 0 <= found.min() <= found.max() <= 1


def test_a_decoder_of_another_layer_is_refused():
    photos = random_images(1, 16, 16)
    with pytest.raises(ValueError, match=r"32x32 pixels of layer 'relu1_1' .* belongs to another layer"):
        g = adain_decoder("relu2_1", widths=(4, 6), key=jax.random.key(0))
        vizsynth.transfer_adain(tiny("vgg").net, g, photos, photos, layer="relu1_1")
    with pytest.raises(TypeError, match="adain_decoder"):
        vizsynth.transfer_adain(tiny("vgg").net, tiny("vgg").net, photos, photos, layer="relu1_1")


def test_the_published_decoder_is_had_by_default():
    net = jax.eval_shape(lambda: adain_decoder(key=jax.random.key(0)))
    shapes = [leaf.shape[2:] for name, leaf in paths(net).items() if name.endswith("kernel")]
    published = [(512, 256), *3 * [(256, 256)], (256, 128), (128, 128), (128, 64), (64, 64), (64, 3)]
    assert sorted(shapes) == sorted(published)
    assert net.scale == 8


@pytest.mark.parametrize(
    ("layer", "widths", "message"),
    [("relu5_1", (4, 6, 8, 8), "up to relu2_1, relu3_1, relu4_1"), ("relu3_1", (4, 6), "takes 3 widths")],
)
def test_a_decoder_that_cannot_be_is_refused(layer, widths, message):
    with pytest.raises(ValueError, match=message):
        adain_decoder(layer, widths=widths, key=jax.random.key(0))
