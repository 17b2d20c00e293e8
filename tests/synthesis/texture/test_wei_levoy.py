"""A texture made from coarse to fine, beside the same by hand in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vizsynth import wei_levoy
from vizsynth.synthesis.texture.wei_levoy import (
    coarser_radius,
    neighbourhoods,
    noise_like,
    pyramid,
    synthesized,
)

x64 = pytest.mark.usefixtures("x64")
KEY = jax.random.key(3)


def noise(*size, seed=0):
    return np.random.default_rng(seed).uniform(size=(*size, 3))


def smaller_by_hand(level):
    """Return every second pixel of the level, blurred with a Gaussian of 1 pixel; its edges repeat."""
    h, w = level.shape[:2]
    weights = np.exp(-(np.arange(-2, 3) ** 2) / 2)
    weights /= weights.sum()
    found = np.zeros((-(-h // 2), -(-w // 2), 3))
    for y, x in np.ndindex(found.shape[:2]):
        for i in range(-2, 3):
            for j in range(-2, 3):
                r, c = min(max(2 * y + i, 0), h - 1), min(max(2 * x + j, 0), w - 1)
                found[y, x] += weights[i + 2] * weights[j + 2] * level[r, c]
    return found


def neighbourhood_by_hand(level, coarse, y, x, r, *, torus):
    """Return the colours around a pixel, before it; None where there is none."""
    found = []

    def add(level, row, col):
        h, w = level.shape[:2]
        if torus:
            row, col = row % h, col % w
        elif not (0 <= row < h and 0 <= col < w):
            return False
        found.append(level[row, col])
        return True

    for i in range(-r, 1):
        for j in range(-r, r + 1):
            if (i < 0 or j < 0) and not add(level, y + i, x + j):
                return None
    if coarse is not None:
        reach = int(np.ceil(r / 2))
        for i in range(-reach, reach + 1):
            for j in range(-reach, reach + 1):
                if not add(coarse, y // 2 + i, x // 2 + j):
                    return None
    return np.concatenate(found)


def by_hand(texture, begun, r):
    """Return the picture; `begun` is the noise of each level, fine to coarse."""
    sources = [texture]
    while len(sources) < len(begun):
        sources.append(smaller_by_hand(sources[-1]))
    made = coarse = None
    for source, level in zip(reversed(sources), reversed(begun), strict=True):
        level = level.copy()
        places, vectors = [], []
        for y, x in np.ndindex(source.shape[:2]):
            vector = neighbourhood_by_hand(source, coarse, y, x, r, torus=False)
            if vector is not None:
                places.append((y, x))
                vectors.append(vector)
        for y, x in np.ndindex(level.shape[:2]):
            q = neighbourhood_by_hand(level, made, y, x, r, torus=True)
            distances = [((vector - q) ** 2).sum() for vector in vectors]
            level[y, x] = source[places[int(np.argmin(distances))]]
        made, coarse = level, source
    return made


@x64
@pytest.mark.parametrize(
    ("texture", "size", "window", "levels"),
    [
        (noise(9, 8), (6, 7), 3, 1),
        (noise(13, 12, seed=1), (11, 10), 5, 2),
        (noise(13, 14, seed=2), (12, 9), 3, 3),
    ],
)
def test_the_picture_by_hand(texture, size, window, levels):
    keys = jax.random.split(KEY, levels)
    begun, source = [], jnp.asarray(texture)
    for l, source in enumerate(pyramid(jnp.asarray(texture), levels)):
        shape = tuple(int(np.ceil(side / 2**l)) for side in size)
        begun.append(np.asarray(noise_like(keys[l], source, shape)))
    expected = by_hand(texture, begun, window // 2)
    made = wei_levoy(jnp.asarray(texture), key=KEY, size=size, window=window, levels=levels)
    np.testing.assert_array_equal(made, expected)


@x64
def test_the_pyramid_by_hand():
    texture = noise(9, 12)
    levels = pyramid(jnp.asarray(texture), 3)
    np.testing.assert_array_equal(levels[0], texture)
    np.testing.assert_allclose(levels[1], smaller_by_hand(texture), atol=1e-12)
    np.testing.assert_allclose(levels[2], smaller_by_hand(smaller_by_hand(texture)), atol=1e-12)


@pytest.mark.parametrize(("r", "size"), [(1, (17, 18)), (2, (18, 21)), (3, (18, 21)), (4, (17, 18))])
def test_all_neighbourhoods_that_lie_in_the_source(r, size):
    level, coarse = noise(*size), noise(*(-(-side // 2) for side in size), seed=1)
    for above in (None, coarse):
        expected = {}
        for y, x in np.ndindex(size):
            vector = neighbourhood_by_hand(level, above, y, x, r, torus=False)
            if vector is not None:
                expected[y * size[1] + x] = vector
        above = None if above is None else jnp.asarray(above, jnp.float32)
        found, places = neighbourhoods(jnp.asarray(level, jnp.float32), above, r)
        assert places.tolist() == list(expected)
        vectors = np.asarray(list(expected.values()), np.float32)
        np.testing.assert_array_equal(np.asarray(found).reshape(len(places), -1), vectors)
    assert [coarser_radius(r) for r in (1, 2, 3, 4)] == [1, 1, 2, 2]


@pytest.mark.parametrize("size", [(4, 5), (8, 10), (3, 3), (7, 9)])
def test_the_noise_has_the_histogram_of_the_source(size):
    texture = jnp.asarray(noise(4, 5), jnp.float32)
    made = np.asarray(noise_like(KEY, texture, size)).reshape(-1, 3)
    numbers = [int((made == pixel).all(axis=1).sum()) for pixel in np.asarray(texture).reshape(-1, 3)]
    assert sum(numbers) == size[0] * size[1]
    assert max(numbers) - min(numbers) <= 1
    other = np.asarray(noise_like(jax.random.key(4), texture, size)).reshape(-1, 3)
    assert (made != other).any()


def test_one_colour_stays_one_colour():
    texture = jnp.full((9, 9, 3), jnp.asarray([0.2, 0.4, 0.6]))
    made = wei_levoy(texture, key=KEY, size=8, window=3, levels=2)
    np.testing.assert_array_equal(made, jnp.broadcast_to(texture[0, 0], (8, 8, 3)))


@x64
def test_single_floats_find_the_same_neighbours():
    """Of a bright texture of hardly any contrast, too, for which the squares cancel all but wholly."""
    texture = (0.95 + 0.001 * noise(14, 14)).astype(np.float32)
    options = {"size": 10, "window": 5, "levels": 2}
    single = wei_levoy(jnp.asarray(texture), key=KEY, **options)
    assert single.dtype == jnp.float32
    exact = wei_levoy(jnp.asarray(texture, jnp.float64), key=KEY, **options)
    np.testing.assert_array_equal(np.asarray(single, np.float64), exact)


def stripes(side, period, axis):
    pattern = np.arange(side) // (period // 2) % 2
    pattern = pattern[:, None] if axis == 0 else pattern[None, :]
    return np.broadcast_to(pattern[..., None], (side, side, 3)).astype(np.float32)


@pytest.mark.parametrize("levels", [1, 2])
def test_what_the_source_has_goes_on_exactly(levels):
    """Where the noise happens to be the texture itself, nothing changes, though the squares nearly cancel."""
    tile = 0.05 * noise(3, 4).astype(np.float32)
    source, begun = (jnp.asarray(np.tile(tile, (n, m, 1))) for n, m in ((8, 6), (4, 4)))
    above = (None, None) if levels == 1 else (source[::2, ::2], begun[::2, ::2])
    found, places = neighbourhoods(source, above[0], 2)
    pixels = source.reshape(-1, 3)[places]
    chosen = synthesized(found, pixels, begun, above[1], 2)
    np.testing.assert_array_equal(pixels[chosen].reshape(12, 16, 3), begun)


def test_stripes_go_on_below_the_noise():
    """Of one level, the first rows see noise; below them each column goes on as it began."""
    made = np.asarray(wei_levoy(stripes(24, 4, 1), key=KEY, size=20, levels=1))
    assert (made[9:] == made[9]).all()
    assert (made[0] != made[9]).any()


@given(seed=st.integers(0, 2**20))
def test_every_pixel_is_one_of_the_source(seed):
    texture = noise(11, 10, seed=seed).astype(np.float32)
    made = wei_levoy(texture, key=jax.random.key(seed), size=(6, 7), window=3, levels=2)
    source = {tuple(pixel) for pixel in texture.reshape(-1, 3).tolist()}
    assert all(tuple(pixel) in source for pixel in np.asarray(made).reshape(-1, 3).tolist())


def test_what_the_key_decides_and_what_compiles():
    texture = jnp.asarray(noise(10, 10), jnp.float32)
    options = {"size": 8, "window": 3, "levels": 2}
    made = wei_levoy(texture, key=KEY, **options)
    programs = wei_levoy.compiled._cache_size()
    np.testing.assert_array_equal(made, wei_levoy(texture, key=KEY, **options))
    assert (made != wei_levoy(texture, key=jax.random.key(4), **options)).any()
    wei_levoy(texture * 0.5, key=KEY, **options)
    assert wei_levoy.compiled._cache_size() == programs


def test_under_vmap_over_keys_and_under_jit():
    texture = jnp.asarray(noise(10, 10), jnp.float32)
    keys = jax.random.split(KEY, 3)
    make = lambda key: wei_levoy(texture, key=key, size=8, window=3)  # noqa: E731
    together = jax.jit(jax.vmap(make))(keys)
    for key, made in zip(keys, together, strict=True):
        np.testing.assert_array_equal(made, make(key))


@pytest.mark.parametrize(
    ("changed", "error", "says"),
    [
        ({"texture": noise(4, 20)}, ValueError, "texture of 4x20 is smaller than the window, 5"),
        ({"texture": noise(16, 16)}, ValueError, "texture of 16x16 has 4 pixels .* fewer than the window, 5"),
        ({"size": (20, 16)}, ValueError, "size of 20x16 has 4 pixels .*; give fewer levels"),
        ({"texture": noise(20, 20)[..., :1]}, ValueError, r"texture must be \[h, w, 3\]"),
        ({"window": 4}, ValueError, "window must be odd.*give 5"),
        ({"window": 1}, ValueError, "at least 3"),
        ({"levels": 0}, ValueError, "levels must be a positive integer"),
        ({"key": jax.random.split(KEY)}, ValueError, "one key.*jax.vmap"),
    ],
)
def test_what_is_refused(changed, error, says):
    given = {"texture": noise(20, 20), "key": KEY, "size": 20, "window": 5, "levels": 3} | changed
    with pytest.raises(error, match=says):
        wei_levoy(given.pop("texture"), **given)
