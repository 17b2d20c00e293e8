"""The stylizer, against loops over pixels; its sizes, its styles, and its files."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file
from tiny import random_images

from vizsynth.models import Picture, WeightsError, find_style, load_stylizer, save_stylizer, stylizer
from vizsynth.models.io.weights import paths
from vizsynth.models.stylizers import FORMAT, StylizerRecord, instance_norm

made = partial(stylizer, widths=(3, 4, 5), blocks=2)


def subject(styles=("a", "b"), dtype=np.float32, skips=True):
    """Return a small stylizer with nothing left at its initial zero or one."""
    rng = np.random.default_rng(0)

    def fresh(leaf):
        return jnp.asarray((0.3 * rng.normal(size=leaf.shape)).astype(np.float32).astype(dtype))

    return jax.tree.map(fresh, made(styles, skips=skips, key=jax.random.key(0)))


@jax.jit
def passed(net, images, style):
    return net(images, style)


# An independent forward pass in NumPy ---------------------------------------------------


def mirrored(i, size):
    """Return which pixel lies at i, the borders being mirrors that are not doubled."""
    while not 0 <= i < size:
        i = -i if i < 0 else 2 * (size - 1) - i
    return i


def looped_conv(x, kernel, stride):
    h, w, _ = x.shape
    k = len(kernel)
    half = k // 2
    y = np.zeros((-(-h // stride), -(-w // stride), kernel.shape[3]))
    for r in range(y.shape[0]):
        for c in range(y.shape[1]):
            for i in range(k):
                for j in range(k):
                    pixel = x[mirrored(r * stride + i - half, h), mirrored(c * stride + j - half, w)]
                    y[r, c] += pixel @ kernel[i, j]
    return y


def looped_norm(x, scale, shift):
    y = np.zeros_like(x)
    for c in range(x.shape[2]):
        mean = x[..., c].sum() / x[..., c].size
        variance = ((x[..., c] - mean) ** 2).sum() / x[..., c].size
        y[..., c] = scale[c] * (x[..., c] - mean) / np.sqrt(variance + 1e-5) + shift[c]
    return y


def looped_stylizer(arrays, image, style, blocks, skips):
    def layer(name, x, stride=1):
        scale = sum(w * g for w, g in zip(style, arrays[f"{name}.scale"], strict=True))
        shift = sum(w * b for w, b in zip(style, arrays[f"{name}.shift"], strict=True))
        return looped_norm(looped_conv(x, arrays[f"{name}.kernel"], stride), scale, shift)

    def twice(x, like):
        y = np.zeros((*like.shape[:2], x.shape[2]))
        for r in range(y.shape[0]):
            for c in range(y.shape[1]):
                y[r, c] = x[r // 2, c // 2]
        return y

    full = np.maximum(layer("in1", image), 0)
    half = np.maximum(layer("in2", full, 2), 0)
    x = np.maximum(layer("in3", half, 2), 0)
    for i in range(1, blocks + 1):
        x = x + layer(f"block{i}.conv2", np.maximum(layer(f"block{i}.conv1", x), 0))
    for name, like in (("out1", half), ("out2", full)):
        x = np.concatenate([twice(x, like), like], axis=2) if skips else twice(x, like)
        x = np.maximum(layer(name, x), 0)
    return 1 / (1 + np.exp(-(looped_conv(x, arrays["kernel"], 1) + arrays["bias"])))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("size", "skips"), [((9, 14), False), ((12, 8), False), ((9, 14), True)])
def test_the_whole_network_is_what_the_papers_say(size, skips):
    net = subject(dtype=np.float64, skips=skips)
    images = random_images(2, *size, dtype=np.float64)
    style = np.array([[1.0, 0.0], [0.3, 0.8]])
    arrays = {name: np.asarray(leaf) for name, leaf in paths(net).items()}
    found = passed(net, images, jnp.asarray(style))
    assert found.dtype == jnp.float64
    for image, weights, picture in zip(np.asarray(images), style, found, strict=True):
        np.testing.assert_allclose(picture, looped_stylizer(arrays, image, weights, 2, skips), atol=1e-10)


@pytest.mark.usefixtures("x64")
def test_instance_norm_is_of_each_map_alone():
    x = np.random.default_rng(0).normal(3, 2, (2, 4, 5, 3))
    found = instance_norm(jnp.asarray(x))
    for image, normalized in zip(x, found, strict=True):
        np.testing.assert_allclose(normalized, looped_norm(image, np.ones(3), np.zeros(3)), atol=1e-10)


def test_instance_norm_does_not_see_contrast_or_brightness():
    x = random_images(1, 8, 9)
    np.testing.assert_allclose(instance_norm(x), instance_norm(x * 7 + 3), atol=2e-3)
    assert np.isfinite(instance_norm(jnp.full((1, 4, 4, 2), 0.7))).all()


def test_styles_share_all_but_scales_and_shifts():
    one, three = (paths(made(names, key=jax.random.key(0))) for names in ("a", "abc"))
    for name, leaf in three.items():
        if name.endswith((".scale", ".shift")):
            assert leaf.shape == (3, one[name].shape[1])
        else:
            np.testing.assert_array_equal(leaf, one[name])


def test_johnsons_network_is_had_by_argument():
    net = jax.eval_shape(lambda: stylizer(widths=(32, 64, 128), skips=False, key=jax.random.key(0)))
    shapes = {name: leaf.shape for name, leaf in paths(net).items() if name.endswith("kernel")}
    assert shapes["in1.kernel"] == (9, 9, 3, 32) and shapes["in3.kernel"] == (3, 3, 64, 128)
    assert shapes["block5.conv2.kernel"] == (3, 3, 128, 128) and "block6.conv1.kernel" not in shapes
    assert shapes["out1.kernel"] == (3, 3, 128, 64) and shapes["kernel"] == (9, 9, 32, 3)


@pytest.mark.parametrize("size", [(5, 5), (7, 10), (16, 17)])
def test_the_size_stays_what_it_was(size):
    found = passed(subject(), random_images(1, *size), jnp.eye(2)[:1])
    assert found.shape == (1, *size, 3)
    assert 0 <= found.min() <= found.max() <= 1


def test_an_image_does_not_depend_on_its_batch():
    net, images = subject(), random_images(3, 9, 10)
    style = jnp.asarray([[1.0, 0.0], [0.2, 0.8], [0.0, 1.0]])
    together = passed(net, images, style)
    alone = jax.jit(jax.vmap(lambda x, w: net(x[None], w[None])[0]))(images, style)
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_images_too_small_are_refused():
    with pytest.raises(ValueError, match="4x9 pixels are too small for a stylizer: give at least 5x5"):
        subject()(random_images(1, 4, 9), jnp.eye(2)[:1])


@pytest.mark.parametrize(
    ("styles", "options", "message"),
    [
        ((), {}, "at least one"),
        (("a", "a"), {}, "different names"),
        (("a",), {"blocks": 0}, "at least 1"),
        (("a",), {"widths": (3, 4)}, "widths must be three"),
    ],
)
def test_a_network_that_cannot_be_is_refused(styles, options, message):
    with pytest.raises(ValueError, match=message):
        stylizer(styles, key=jax.random.key(0), **options)


def test_a_style_is_found_by_name():
    net = subject()
    assert find_style(net, "b") == 1
    with pytest.raises(ValueError, match=r"there is no style 'waves'; the styles are: a, b"):
        find_style(net, "waves")


# Files ------------------------------------------------------------------------------


def test_what_is_saved_is_loaded(tmp_path):
    net = subject()
    pictures = (Picture("a", "CC0", "painted by me"), Picture("b", "public domain", "found"))
    path = tmp_path / "mine.safetensors"
    record = save_stylizer(path, net, pictures=pictures, license="Apache-2.0", origin="trained here")
    again = load_stylizer(path)
    assert again.record == record == StylizerRecord(net.config, pictures, "Apache-2.0", "trained here")
    for name, leaf in paths(net).items():
        np.testing.assert_array_equal(paths(again)[name], leaf)
    images = random_images(1, 8, 8)
    np.testing.assert_array_equal(passed(again, images, jnp.eye(2)[:1]), passed(net, images, jnp.eye(2)[:1]))
    save_stylizer(path, net, dtype="float16")
    assert paths(load_stylizer(path))["in1.kernel"].dtype == jnp.float32


def test_a_picture_of_no_style_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="there is no style 'c'"):
        save_stylizer(tmp_path / "mine.safetensors", subject(), pictures=[Picture("c", "CC0", "")])
    assert not list(tmp_path.iterdir())


def test_bad_files_say_what_is_wrong(tmp_path):
    path = tmp_path / "mine.safetensors"
    with pytest.raises(WeightsError, match="mine"):
        load_stylizer(path)
    path.write_bytes(b"no weights at all")
    with pytest.raises(WeightsError, match="damaged"):
        load_stylizer(path)
    save_file({"x": np.zeros(1)}, path, {"format": "pt"})
    with pytest.raises(WeightsError, match="is no stylizer"):
        load_stylizer(path)
    save_file({"x": np.zeros(1)}, path, {FORMAT: "{}"})
    with pytest.raises(WeightsError, match="its record is damaged, or of a newer vizsynth"):
        load_stylizer(path)
    config = {"styles": ["a", "b"], "widths": [3, 4, 5], "blocks": 1}
    record = {"config": config, "pictures": [], "license": "", "origin": ""}
    arrays = {name: np.asarray(leaf) for name, leaf in paths(subject()).items()}
    save_file(arrays, path, {FORMAT: json.dumps(record)})
    with pytest.raises(WeightsError, match=r"unexpected: block2\.conv1\.kernel"):
        load_stylizer(path)
    record["config"]["blocks"] = 0
    save_file(arrays, path, {FORMAT: json.dumps(record)})
    with pytest.raises(WeightsError, match="at least 1"):
        load_stylizer(path)


@pytest.mark.parametrize("skips", [False, True])
def test_files_tell_whether_there_are_skips(skips, tmp_path):
    path = tmp_path / "mine.safetensors"
    record = save_stylizer(path, subject(skips=skips))
    assert load_stylizer(path).config.skips is skips is record.config.skips


def test_files_written_before_there_were_skips_have_none(tmp_path):
    path = tmp_path / "mine.safetensors"
    net = subject(skips=False)
    config = {"styles": ["a", "b"], "widths": [3, 4, 5], "blocks": 2}
    record = {"config": config, "pictures": [], "license": "", "origin": ""}
    save_file({k: np.asarray(v) for k, v in paths(net).items()}, path, {FORMAT: json.dumps(record)})
    images, style = random_images(1, 9, 8), jnp.eye(2)[:1]
    np.testing.assert_array_equal(passed(load_stylizer(path), images, style), passed(net, images, style))


def test_the_one_in_the_package_has_free_styles():
    net = load_stylizer()
    assert net.styles == ("glass", "strokes", "woodcut")
    assert [picture.style for picture in net.record.pictures] == list(net.styles)
    assert net.record.license == "Apache-2.0"
    images = random_images(1, 21, 18)
    found = [np.asarray(passed(net, images, w[None])) for w in jnp.eye(3)]
    for i in range(3):
        assert np.abs(found[i] - found[i - 1]).mean() > 0.05
