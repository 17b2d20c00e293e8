"""DeepDream by hand in NumPy and SciPy: steps, octaves, guides, the zoom; taken up again; what is refused."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from convolved import activations, convolved, identity, pulled_back
from tiny import random_images, tiny

from vizsynth import ascent
from vizsynth.core.entry import as_network
from vizsynth.scores import Channel, LayerNorm
from vizsynth.synthesis.features.deepdream import (
    Guided,
    deepdream,
    deepdream_zoom,
    interpolate,
    octave_sizes,
    zoomed,
)
from vizsynth.taps import evaluate

x64 = pytest.mark.usefixtures("x64")
KEY = jax.random.key(5)
SHORT = {"octaves": 2, "octave_scale": 1.3, "steps": 3, "step_size": 0.01, "jitter": 6}


def pictures(n: int = 2, h: int = 22, w: int = 18, dtype: Any = np.float32) -> jax.Array:
    return random_images(n, h, w, seed=3, dtype=dtype)


# By hand ------------------------------------------------------------------------


def shift(key: Any, t: int, jitter: int) -> np.ndarray:
    return np.asarray(jax.random.randint(jax.random.fold_in(key, t), (2,), -jitter, jitter + 1))


def one_step(x: np.ndarray, moved: np.ndarray, step: float, gradient: Any) -> np.ndarray:
    x = np.roll(np.roll(x, moved[0], 0), moved[1], 1)
    g = gradient(x)
    x = x + step / np.abs(g).mean() * g
    x = np.roll(np.roll(x, -moved[0], 0), -moved[1], 1)
    return np.clip(x, 0, 1)


def stretched(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return scipy.ndimage.zoom(x, (size[0] / x.shape[0], size[1] / x.shape[1], 1), order=1)


def dream_by_hand(photo: np.ndarray, key: Any, gradient: Any, settings: dict[str, Any]) -> np.ndarray:
    scale = settings["octave_scale"]
    bases = [photo]
    for _ in range(settings["octaves"] - 1):
        h, w, _ = bases[-1].shape
        bases.append(stretched(bases[-1], (round(h / scale), round(w / scale))))
    detail = np.zeros_like(bases[-1])
    t = 0
    x = photo
    for base in bases[::-1]:
        detail = stretched(detail, base.shape[:2])
        x = base + detail
        for _ in range(settings["steps"]):
            x = one_step(x, shift(key, t, settings["jitter"]), settings["step_size"], gradient)
            t += 1
        detail = x - base
    return x


def norm_gradient(x: np.ndarray) -> np.ndarray:
    return pulled_back(x, activations(x))


@x64
def test_a_step_on_the_identity_stretches_the_picture() -> None:
    images = pictures(dtype=np.float64) * 0.9
    found = deepdream(identity, images, layer="pixels", key=KEY, octaves=1, steps=1)
    mean = np.abs(np.asarray(images)).mean(axis=(1, 2, 3), keepdims=True)
    np.testing.assert_allclose(found.images, images * (1 + 1.5 / 255 / mean), rtol=0, atol=1e-10)
    half = (np.asarray(images) ** 2).sum(axis=(1, 2, 3)) / 2
    np.testing.assert_allclose(found.trace[:, 0], half, rtol=1e-12)


@x64
def test_a_dream_is_that_of_the_published_code() -> None:
    images = pictures(dtype=np.float64)
    settings = SHORT | {"octaves": 3, "steps": 2}
    keys = jax.random.split(KEY, 2)
    found = deepdream(convolved, images, LayerNorm("relu"), key=keys, **settings)
    for i in range(2):
        expected = dream_by_hand(np.asarray(images[i]), keys[i], norm_gradient, settings)
        np.testing.assert_allclose(found.images[i], expected, rtol=0, atol=1e-10)
    assert found.trace.shape == (2, 6)
    assert np.all(np.asarray(found.images) <= 1)
    assert np.all(np.asarray(found.images) >= 0)


@x64
def test_octaves_are_scaled_as_scipy_does() -> None:
    x = pictures(1, dtype=np.float64)
    sizes = ((16, 13), (31, 26), (16, 40), (22, 2))
    corners = (slice(None), [0, 0, -1], [0, -1, -1])
    scaled = jax.jit(lambda x: [interpolate(x, size) for size in sizes])(x)
    for size, found in zip(sizes, scaled, strict=True):
        np.testing.assert_allclose(found[0], stretched(np.asarray(x[0]), size), rtol=0, atol=1e-12)
        np.testing.assert_allclose(np.asarray(found)[corners], np.asarray(x)[corners], atol=1e-12)


def test_the_sizes_of_the_octaves() -> None:
    assert octave_sizes((224, 320), 4, 1.4) == ((81, 117), (114, 164), (160, 229), (224, 320))
    assert octave_sizes((10, 20), 1, 1.4) == ((10, 20),)


# Guides ---------------------------------------------------------------------------


def guided_by_hand(x: np.ndarray, guide: np.ndarray) -> np.ndarray:
    A, Y = activations(x), activations(guide).reshape(-1, 5)
    upstream = np.zeros_like(A)
    for i in range(A.shape[0]):
        for j in range(A.shape[1]):
            upstream[i, j] = Y[np.argmax(Y @ A[i, j])]
    return pulled_back(x, upstream)


@x64
def test_the_gradient_of_a_guide_is_its_nearest_vector() -> None:
    images, guide = pictures(dtype=np.float64), random_images(1, 9, 11, seed=4, dtype=np.float64)
    score = Guided("relu", activations(np.asarray(guide[0])))
    net = as_network(convolved)
    value_of = jax.jit(lambda x: jax.vjp(lambda x: evaluate(net, x, score), x))
    values, back = value_of(images)
    (found,) = back(jnp.ones(2))
    expected = [guided_by_hand(np.asarray(x), np.asarray(guide[0])) for x in images]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)
    largest = [
        np.einsum("pc,qc->pq", activations(np.asarray(x)).reshape(-1, 5), score.features.reshape(-1, 5))
        for x in images
    ]
    expected_values = [products.max(axis=1).sum() for products in largest]
    np.testing.assert_allclose(values, expected_values, rtol=1e-12)


@x64
def test_a_guided_dream_is_that_of_the_published_code() -> None:
    images, guide = pictures(1, dtype=np.float64), random_images(1, 9, 11, seed=4, dtype=np.float64)
    found = deepdream(convolved, images, layer="relu", guide=guide, key=KEY, **SHORT)
    gradient = partial(guided_by_hand, guide=np.asarray(guide[0]))
    expected = dream_by_hand(np.asarray(images[0]), KEY, gradient, SHORT)
    np.testing.assert_allclose(found.images[0], expected, rtol=0, atol=1e-10)


def test_a_guide_of_other_channels_is_refused() -> None:
    with pytest.raises(ValueError, match="5 channels, and its guide 4"):
        deepdream(convolved, pictures(), Guided("relu", np.ones((3, 4), np.float32)), key=KEY, **SHORT)


# What it is made of -----------------------------------------------------------------


def test_an_image_does_not_depend_on_its_batch_and_keys_count() -> None:
    images = pictures()
    found = deepdream(convolved, images, layer="relu", key=KEY, **SHORT)
    together = found.images
    assert together.dtype == found.trace.dtype == jnp.float32
    alone = deepdream(convolved, images[1:], layer="relu", key=KEY, **SHORT).images
    np.testing.assert_allclose(together[1:], alone, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(
        together, deepdream(convolved, images, layer="relu", key=KEY, **SHORT).images
    )
    other = deepdream(convolved, images, layer="relu", key=jax.random.key(6), **SHORT).images
    assert float(jnp.abs(together - other).max()) > 1e-3
    swapped = deepdream(convolved, images, layer="relu", key=jnp.stack([jax.random.key(6), KEY]), **SHORT)
    np.testing.assert_allclose(swapped.images, jnp.stack([other[0], together[1]]), rtol=0, atol=1e-6)


def test_other_numbers_do_not_compile_anew() -> None:
    images, options = pictures(1), {"octaves": 1, "steps": 1}
    deepdream(convolved, images, Channel("relu", 1), key=KEY, **options)
    programs = deepdream.compiled._cache_size()
    again = {"step_size": 0.02, "jitter": 3, "key": jax.random.key(9)}
    deepdream(convolved, images * 0.5, Channel("relu", 2), **options, **again)
    assert deepdream.compiled._cache_size() == programs


def test_sums_of_scores_are_dreamt_of_too() -> None:
    score = LayerNorm("relu") + 0.5 * LayerNorm("conv")
    found = deepdream(convolved, pictures(), score, key=KEY, **SHORT | {"octaves": 1})
    trace = np.asarray(found.trace)
    assert np.isfinite(trace).all()
    assert (trace[:, -1] > trace[:, 0]).all()


def test_under_jit_and_vmap_over_images() -> None:
    whole = deepdream(convolved, pictures(), layer="relu", key=KEY, **SHORT).images

    def one(image: jax.Array, key: jax.Array) -> jax.Array:
        return deepdream(convolved, image[None], layer="relu", key=key, **SHORT).images[0]

    mapped = jax.jit(jax.vmap(one, (0, None)))(pictures(), KEY)
    np.testing.assert_allclose(mapped, whole, rtol=0, atol=1e-6)


def test_the_precision_is_that_of_the_images() -> None:
    images = pictures(1).astype(jnp.bfloat16)
    found = deepdream(convolved, images, layer="relu", key=KEY, octaves=2, steps=1)
    assert found.images.dtype == found.trace.dtype == jnp.bfloat16
    assert bool(jnp.isfinite(found.images).all())


def test_a_gradient_of_zeros_is_no_step() -> None:
    dark = jnp.zeros((1, 8, 8, 3))
    found = deepdream(identity, dark, layer="pixels", key=KEY, octaves=1, steps=2)
    np.testing.assert_array_equal(found.images, dark)
    np.testing.assert_array_equal(found.trace, np.zeros((1, 2)))


# Taken up again -----------------------------------------------------------------------


@pytest.mark.parametrize("every", [2, 3])
def test_a_dream_in_parts_is_one_at_once(every: int, tmp_path: Path) -> None:
    """By octaves, and not by octaves; interrupted, saved and taken up again."""
    images = pictures(1)
    whole = deepdream(convolved, images, layer="relu", key=KEY, **SHORT)

    def take(state: Any, take: int) -> Any:
        return deepdream(convolved, images, layer="relu", key=KEY, state=state, take=take, **SHORT)

    run = partial(ascent.chunks, take, steps=6, every=every, folder=tmp_path, origin={"seed": 5})
    first = next(run())
    assert int(first.state.octave[0]) == 0
    parts = [first, *run()]
    assert int(parts[1].state.octave[0]) == 1
    np.testing.assert_array_equal(parts[-1].images, whole.images)
    np.testing.assert_array_equal(np.concatenate([part.trace for part in parts], axis=1), whole.trace)
    np.testing.assert_array_equal(parts[-1].state.canvas, whole.state.canvas)
    assert parts[-1].state.step.tolist() == [6]
    (finished,) = run()
    np.testing.assert_array_equal(finished.images, whole.images)


def test_between_octaves_the_picture_is_the_image_with_the_detail_so_far() -> None:
    images = pictures(1)
    part = deepdream(convolved, images, layer="relu", key=KEY, take=3, **SHORT)
    h, w = octave_sizes((22, 18), 2, 1.3)[0]
    canvas = np.asarray(part.state.canvas)
    detail = jax.jit(lambda images, seen: interpolate(seen - interpolate(images, (h, w)), (22, 18)))(
        images, canvas[:, :h, :w]
    )
    expected = np.clip(np.asarray(images) + np.asarray(detail), 0, 1)
    np.testing.assert_allclose(part.images, expected, rtol=0, atol=1e-6)
    assert not canvas[:, h:].any()
    nothing = deepdream(convolved, images, layer="relu", key=KEY, take=0, **SHORT)
    np.testing.assert_array_equal(nothing.images, images)
    assert nothing.trace.shape == (1, 0)


def fragile(images: Any, *, tap: Any, ops: Any = None) -> Any:
    """Breaks where a picture grows bright."""
    del ops
    bright = images.mean(axis=(1, 2, 3), keepdims=True) > 0.6
    return tap("pixels", jnp.where(bright, jnp.full_like(images, jnp.nan), images))


def test_an_image_that_breaks_stands_still_and_the_others_go_on() -> None:
    images = jnp.stack([jnp.full((12, 12, 3), 0.55), jnp.full((12, 12, 3), 0.1)])
    options = {"octaves": 1, "steps": 6, "step_size": 0.02}
    found = deepdream(fragile, images, layer="pixels", key=KEY, **options)
    broken = np.isnan(np.asarray(found.trace[0]))
    assert list(broken) == [False] * 3 + [True] * 3
    np.testing.assert_allclose(found.images[0], 0.61, atol=1e-5)
    np.testing.assert_allclose(found.images[1], 0.22, atol=1e-5)
    assert found.state.step.tolist() == [3, 6]

    def take(state: Any, take: int) -> Any:
        return deepdream(fragile, images, layer="pixels", key=KEY, state=state, take=take, **options)

    with pytest.raises(ascent.Diverged) as raised:
        list(ascent.chunks(take, steps=6, every=2))
    np.testing.assert_allclose(raised.value.last.images[0], 0.61, atol=1e-5)


# The zoom -------------------------------------------------------------------------------


@x64
def test_zooming_is_that_of_the_published_code() -> None:
    x = np.asarray(pictures(1, 15, 12, np.float64)[0])
    s = 0.05
    moved = (15 * s / 2, 12 * s / 2, 0)
    expected = scipy.ndimage.affine_transform(x, [1 - s, 1 - s, 1], moved, order=1)
    np.testing.assert_allclose(zoomed(jnp.asarray(x)[None], s)[0], expected, rtol=0, atol=1e-10)


def test_each_frame_is_the_dream_of_the_one_before_enlarged() -> None:
    images = pictures(1)
    options = {"layer": "relu", **SHORT}
    frames = list(deepdream_zoom(convolved, images, key=KEY, frames=3, **options))
    assert len(frames) == 3
    x = images
    for i, frame in enumerate(frames):
        x = zoomed(x, 0.05) if i else x
        x = deepdream(convolved, x, key=jax.random.fold_in(KEY, i), **options).images
        np.testing.assert_array_equal(frame, x)
    (last,) = deepdream_zoom(convolved, frames[1], key=KEY, frames=3, done=2, **options)
    np.testing.assert_array_equal(last, frames[2])


# Errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"octave_scale": 1.0}, ValueError, "octave_scale must be above 1"),
        ({"octaves": 0}, ValueError, "octaves must be a positive integer"),
        ({"steps": 0}, ValueError, "steps must be a positive integer"),
        ({"step_size": 0.0}, ValueError, "step_size must be above 0"),
        ({"jitter": -1}, ValueError, "jitter must be a whole number"),
        ({"jitter": 1.5}, ValueError, "jitter must be a whole number"),
        ({"take": -1}, ValueError, "take must be"),
        ({"layer": None}, TypeError, "neither came"),
        ({"target": 3}, TypeError, "both came"),
        ({"layer": None, "target": 3, "guide": np.zeros((1, 9, 9, 3), np.float32)}, TypeError, "guide needs"),
        ({"layer": "relu7_1"}, ValueError, "no layer 'relu7_1'; its layers are: conv1_1"),
        ({"guide": np.zeros((9, 9, 3), np.float32)}, ValueError, r"guide must be \[n, h, w, 3\]"),
        ({"key": None}, TypeError, "needs a key"),
        ({"key": jax.random.split(KEY, 3)}, ValueError, "2 images take one key or 2 keys"),
        ({"octaves": 9}, ValueError, "too small .* 5 octaves would fit: give octaves=5"),
        ({"state": (1, 2)}, ValueError, "state must be of a dream of these images"),
    ],
)
def test_what_cannot_be_dreamt_is_said_before_anything_is_compiled(
    options: dict[str, Any], error: type[Exception], says: str
) -> None:
    subject = tiny("vgg")
    programs = deepdream.compiled._cache_size()
    with pytest.raises(error, match=says):
        deepdream(subject.net, subject.images(), **{"key": KEY, "layer": "relu2_1", **options})
    assert deepdream.compiled._cache_size() == programs


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"frames": 0}, "frames must be a positive integer"),
        ({"zoom": 1.0}, "zoom must be a share"),
        ({"done": -1}, "done must be"),
    ],
)
def test_a_zoom_that_cannot_be_is_refused_at_once(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        deepdream_zoom(convolved, pictures(), key=KEY, layer="relu", **options)


def test_under_shard_map() -> None:
    """Its checks are made while a program is traced: what each device computes varies over the devices."""
    mesh = jax.make_mesh((1,), ("images",), axis_types=(jax.sharding.AxisType.Auto,))

    def local(net: Any, images: jax.Array) -> jax.Array:
        return deepdream(net, images, layer="relu2_1", key=KEY, **SHORT).images

    specs = jax.P(), jax.P("images")
    mapped = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=jax.P("images"))
    assert jax.eval_shape(mapped, tiny("vgg").net, pictures()).shape == (2, 22, 18, 3)
