"""A picture grown pixel by pixel, beside the same by hand in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vizsynth import efros_leung
from vizsynth.synthesis.texture.efros_leung import SEED, gaussian, growth_order
from vizsynth.synthesis.texture.nonparametric import centred, draw, near_least, windows

x64 = pytest.mark.usefixtures("x64")
KEY = jax.random.key(3)


def noise(*size, seed=0, values=None):
    rng = np.random.default_rng(seed)
    if values is not None:
        return rng.choice(values, (*size, 3))
    return rng.uniform(size=(*size, 3))


def tiled(period, *size, seed=1, dtype=np.float32):
    repeats = [-(-side // p) for side, p in zip(size, period, strict=True)]
    return np.tile(noise(*period, seed=seed), (*repeats, 1))[: size[0], : size[1]].astype(dtype)


def candidates_by_hand(texture, template, known, window, tolerance):
    """Return the centres of the neighbourhoods that may be drawn from, in raster order."""
    h, w = texture.shape[:2]
    half, sigma = window // 2, window / 6.4
    found, errors = [], []
    for y in range(half, h - half):
        for x in range(half, w - half):
            ssd = total = 0.0
            for i in range(-half, half + 1):
                for j in range(-half, half + 1):
                    if known[half + i, half + j]:
                        weight = np.exp(-(i * i + j * j) / (2 * sigma**2))
                        difference = texture[y + i, x + j] - template[half + i, half + j]
                        ssd += weight * (difference**2).sum()
                        total += weight
            found.append((y, x))
            errors.append(ssd / total)
    least = min(errors)
    return [at for at, d in zip(found, errors, strict=True) if d <= (1 + tolerance) * least + 1e-13]


def by_hand(texture, key, size, window, tolerance, order):
    h, w = texture.shape[:2]
    half = window // 2
    seed_key, key = jax.random.split(key)
    at = int(jax.random.randint(seed_key, (), 0, (h - 2) * (w - 2), jnp.int32))
    y, x = divmod(at, w - 2)
    made, known = np.zeros((size[0], size[1], 3)), np.zeros(size, bool)
    top, left = (size[0] - 3) // 2, (size[1] - 3) // 2
    made[top : top + 3, left : left + 3] = texture[y : y + 3, x : x + 3]
    known[top : top + 3, left : left + 3] = True
    numbers = []
    for n, (row, col) in enumerate(order):
        template, seen = np.zeros((window, window, 3)), np.zeros((window, window), bool)
        for i in range(window):
            for j in range(window):
                r, c = row + i - half, col + j - half
                if 0 <= r < size[0] and 0 <= c < size[1] and known[r, c]:
                    template[i, j], seen[i, j] = made[r, c], True
        possible = candidates_by_hand(texture, template, seen, window, tolerance)
        chosen = int(jax.random.randint(jax.random.fold_in(key, n), (), 0, len(possible), jnp.int32))
        made[row, col], known[row, col] = texture[possible[chosen]], True
        numbers.append(len(possible))
    return made, numbers


@x64
@pytest.mark.parametrize(
    ("texture", "size", "window", "tolerance"),
    [
        (noise(9, 8), (8, 9), 5, 0.3),
        (noise(10, 10, seed=2), (7, 7), 7, 0.1),
        (noise(9, 9, seed=3, values=(0.0, 1.0)), (9, 6), 3, 0.0),
    ],
)
def test_the_picture_by_hand(texture, size, window, tolerance):
    expected, numbers = by_hand(texture, KEY, size, window, tolerance, growth_order(size))
    assert max(numbers) > 1
    made = efros_leung(jnp.asarray(texture), key=KEY, size=size, window=window, tolerance=tolerance)
    np.testing.assert_array_equal(made, expected)


@pytest.mark.parametrize("size", [(3, 3), (3, 8), (9, 9), (12, 7), (31, 30)])
def test_rings_grow_from_the_middle(size):
    """Each pixel touches what is known when its ring begins, and none of the ring is known better."""
    order = growth_order(size)
    assert len({tuple(at) for at in order.tolist()}) == len(order) == size[0] * size[1] - 9
    top, left = ((side - SEED) // 2 for side in size)
    ring = np.maximum(
        np.maximum(top - order[:, 0], order[:, 0] - top - 2),
        np.maximum(left - order[:, 1], order[:, 1] - left - 2),
    )
    assert (np.diff(ring) >= 0).all()
    known = np.zeros((size[0] + 2, size[1] + 2), int)
    known[top + 1 : top + 4, left + 1 : left + 4] = 1
    for r in range(1, int(ring.max(initial=0)) + 1):
        here = order[ring == r]
        numbers = [int(known[y : y + 3, x : x + 3].sum()) for y, x in here]
        assert min(numbers) > 0
        assert numbers == sorted(numbers, reverse=True)
        known[here[:, 0] + 1, here[:, 1] + 1] = 1


def test_rings_favour_no_side():
    """What is alike comes in no order of rows or columns."""
    order = growth_order((33, 33))
    last = order[-100:-4] - 16  # the sides of the last ring, without its corners
    sides = [last[:, 0] == 16, last[:, 0] == -16, last[:, 1] == 16, last[:, 1] == -16]
    for side in sides:
        places = np.flatnonzero(side)
        assert 35 < places.mean() < 60


def test_the_weights():
    w = gaussian(11).reshape(11, 11)
    assert w[5, 5] == 1
    np.testing.assert_allclose(w[5, 8], np.exp(-9 / (2 * (11 / 6.4) ** 2)))
    np.testing.assert_allclose(w[2, 8], w[5, 8] ** 2)


def test_the_windows_by_hand():
    texture = noise(6, 7)
    found = np.asarray(windows(jnp.asarray(texture, jnp.float32), 3))
    expected = [texture[y : y + 3, x : x + 3].reshape(9, 3) for y in range(4) for x in range(5)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_every_exact_match_may_be_drawn_in_float32():
    """Bright, and of small contrast: where the squares cancel most, all copies still match."""
    texture = 0.9 + 0.02 * tiled((3, 4), 24, 24)
    weights = np.repeat(gaussian(7), 3).astype(np.float32)
    patches = np.asarray(windows(centred(jnp.asarray(texture)), 7)).reshape(18 * 18, -1)
    for at in (0, 40, 323):
        t = jnp.asarray(patches[at])
        expanded = jnp.asarray(patches**2) @ weights - 2 * jnp.asarray(patches) @ (weights * t)
        scale = (weights * t * t).sum()
        possible = np.asarray(near_least(expanded + scale, 0.1, scale=scale)).reshape(18, 18)
        y, x = np.mgrid[:18, :18]
        np.testing.assert_array_equal(possible, ((y - at // 18) % 3 == 0) & ((x - at % 18) % 4 == 0))


@pytest.mark.parametrize(("offset", "contrast"), [(0.0, 1.0), (0.95, 0.001)])
def test_a_periodic_texture_goes_on(offset, contrast):
    """Also a bright one of hardly any contrast, for which the squares cancel all but wholly."""
    texture = offset + contrast * tiled((3, 4), 14, 15)
    made = np.asarray(efros_leung(texture.astype(np.float32), key=KEY, size=(17, 18), window=7))
    np.testing.assert_array_equal(made[3:], made[:-3])
    np.testing.assert_array_equal(made[:, 4:], made[:, :-4])


@pytest.mark.parametrize("kind", ["stripes", "checkerboard"])
def test_stripes_and_checkerboards_go_on(kind):
    y, x = np.mgrid[:14, :14]
    pattern = (x // 2) % 2 if kind == "stripes" else (x // 2 + y // 2) % 2
    texture = np.repeat(pattern[..., None], 3, axis=-1).astype(np.float32)
    made = np.asarray(efros_leung(texture, key=KEY, size=(16, 19), window=7))
    np.testing.assert_array_equal(made[:, 4:], made[:, :-4])
    np.testing.assert_array_equal(made[:, 2:], 1 - made[:, :-2])
    np.testing.assert_array_equal(made[2:], made[:-2] if kind == "stripes" else 1 - made[:-2])


@given(seed=st.integers(0, 2**20), tolerance=st.floats(0, 3))
def test_every_pixel_is_one_of_the_source(seed, tolerance):
    texture = noise(8, 9, seed=seed).astype(np.float32)
    made = efros_leung(texture, key=jax.random.key(seed), size=(7, 6), window=5, tolerance=tolerance)
    source = {tuple(pixel) for pixel in texture.reshape(-1, 3).tolist()}
    assert all(tuple(pixel) in source for pixel in np.asarray(made).reshape(-1, 3).tolist())


def test_all_are_drawn_alike():
    possible = jnp.asarray([False, True, True, False, True])
    drawn = np.asarray(jax.vmap(lambda key: draw(key, possible))(jax.random.split(KEY, 3000)))
    numbers = np.bincount(drawn, minlength=5)
    assert numbers[0] == numbers[3] == 0
    assert (abs(numbers[[1, 2, 4]] - 1000) < 100).all()


def test_what_the_key_decides_and_what_compiles():
    texture = jnp.asarray(noise(9, 9), jnp.float32)
    options = {"size": (8, 8), "window": 5}
    made = efros_leung(texture, key=KEY, **options)
    programs = efros_leung.compiled._cache_size()
    np.testing.assert_array_equal(made, efros_leung(texture, key=KEY, **options))
    assert (made != efros_leung(texture, key=jax.random.key(4), **options)).any()
    assert (made != efros_leung(texture, key=KEY, tolerance=4.0, **options)).any()
    efros_leung(texture * 0.5, key=KEY, tolerance=0.5, **options)
    assert efros_leung.compiled._cache_size() == programs


def test_under_vmap_over_keys_and_under_jit():
    texture = jnp.asarray(noise(9, 9), jnp.float32)
    keys = jax.random.split(KEY, 3)
    grow = lambda key: efros_leung(texture, key=key, size=(8, 8), window=5)  # noqa: E731
    together = jax.jit(jax.vmap(grow))(keys)
    for key, made in zip(keys, together, strict=True):
        np.testing.assert_array_equal(made, grow(key))


@pytest.mark.parametrize(
    ("changed", "error", "says"),
    [
        ({"texture": noise(6, 20)}, ValueError, "texture of 6x20 is smaller than the window, 7"),
        ({"texture": noise(9, 9)[..., :1]}, ValueError, r"texture must be \[h, w, 3\]"),
        ({"texture": noise(9, 9) * 255}, ValueError, "give texture / 255"),
        ({"texture": noise(9, 9).astype(int)}, TypeError, "texture must be float"),
        ({"window": 6}, ValueError, "window must be odd.*give 7"),
        ({"window": 1}, ValueError, "at least 3"),
        ({"size": 6}, ValueError, "size of 6x6 is smaller than the window, 7"),
        ({"size": (9, 9, 3)}, ValueError, "size must be"),
        ({"size": (9, 0)}, ValueError, "size must be a positive integer"),
        ({"tolerance": -0.1}, ValueError, "tolerance must be at least 0"),
        ({"tolerance": np.nan}, ValueError, "tolerance must be at least 0"),
        ({"key": jax.random.split(KEY)}, ValueError, "one key.*jax.vmap"),
        ({"key": 0}, TypeError, "new-style key"),
    ],
)
def test_what_is_refused(changed, error, says):
    given = {"texture": noise(9, 9), "key": KEY, "size": 9, "window": 7} | changed
    with pytest.raises(error, match=says):
        efros_leung(given.pop("texture"), **given)
