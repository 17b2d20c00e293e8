"""Quilts beside the same by hand in NumPy, their cuts beside all the paths there are."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vizsynth import quilt_texture, quilt_transfer
from vizsynth.synthesis.texture.quilting import block_errors, layout, minimum_cut, shrinking

x64 = pytest.mark.usefixtures("x64")
KEY = jax.random.key(5)


def noise(*size, seed=0, channels=3):
    return np.random.default_rng(seed).uniform(size=(*size, channels))


def tiled(period, *size, seed=1):
    repeats = [-(-side // p) for side, p in zip(size, period, strict=True)]
    return np.tile(noise(*period, seed=seed), (*repeats, 1))[: size[0], : size[1]].astype(np.float32)


def paths_down(b, v, row, col):
    """Return all paths from (row, col) to the last row, as columns."""
    for turns in product((-1, 0, 1), repeat=b - 1 - row):
        path = col + np.cumsum([0, *turns])
        if (path >= 0).all() and (path < v).all():
            yield path


def cut_by_hand(e, left, above, v):
    """Return which pixels are new, and the least cost, by trying everything."""
    b = len(e)
    new = np.ones((b, b), bool)
    if not left and not above:
        return new, 0.0

    def cheapest(e, row, col):
        costs = ((e[np.arange(row, b), path].sum(), path) for path in paths_down(b, v, row, col))
        return min(costs, key=lambda pair: pair[0])

    best = np.inf
    for i, j in product(range(v), repeat=2):
        if (i > 0 and not above) or (j > 0 and not left):
            continue
        cost, down, along = 0.0, None, None
        if left:
            down_cost, down = cheapest(e, i, j)
            cost += down_cost
        if above:
            along_cost, along = cheapest(e.T, j, i)
            cost += along_cost
        if left and above:
            cost -= e[i, j]
        if cost < best:
            best = cost
            new = np.ones((b, b), bool)
            for r, c in product(range(b), repeat=2):
                if left and c < (down[r - i] if r >= i else j):
                    new[r, c] = False
                if above and r < (along[c - j] if c >= j else i):
                    new[r, c] = False
    return new, best


def by_hand(texture, key, size, b, v, tolerance, verbatim, *, weight=1.0, besides=None):
    h, w = texture.shape[:2]
    step = b - v
    rows, cols = (max(1, int(np.ceil((side - v) / step))) for side in size)
    made = np.zeros((rows * step + v, cols * step + v, 3))
    drawn, numbers = {}, []
    for i, j in product(range(rows), range(cols)):
        t = made[i * step : i * step + b, j * step : j * step + b]
        errors = np.zeros((h - b + 1, w - b + 1))
        for y, x in np.ndindex(errors.shape):
            for r, c in product(range(b), repeat=2):
                if (r < v and i > 0) or (c < v and j > 0):
                    errors[y, x] += weight * ((texture[y + r, x + c] - t[r, c]) ** 2).sum()
            if besides is not None:
                errors[y, x] += besides(y, x, i * step, j * step)
        if not verbatim:
            for before, (down, along) in (((i, j - 1), (0, step)), ((i - 1, j), (step, 0))):
                if before in drawn:
                    y, x = drawn[before][0] + down, drawn[before][1] + along
                    if y < errors.shape[0] and x < errors.shape[1]:
                        errors[y, x] = np.inf
        possible = np.argwhere(errors <= (1 + tolerance) * errors.min() + 1e-13)
        n = i * cols + j
        chosen = jax.random.randint(jax.random.fold_in(key, n), (), 0, len(possible), jnp.int32)
        y, x = drawn[i, j] = tuple(possible[int(chosen)])
        s = texture[y : y + b, x : x + b]
        new, _ = cut_by_hand(((s - t) ** 2).sum(axis=-1), j > 0, i > 0, v)
        t[new] = s[new]
        numbers.append(len(possible))
    return made[: size[0], : size[1]], numbers


@x64
@pytest.mark.parametrize(
    ("verbatim", "size", "b", "v", "tolerance"),
    [(True, (9, 8), 4, 2, 0.5), (False, (10, 7), 6, 2, 0.1), (False, (7, 7), 5, 1, 1.0)],
)
def test_the_picture_by_hand(size, b, v, tolerance, verbatim):
    texture = noise(10, 11, seed=b)
    expected, numbers = by_hand(texture, KEY, size, b, v, tolerance, verbatim)
    assert len(set(numbers)) > 2
    options = {"size": size, "block": b, "overlap": v, "tolerance": tolerance, "verbatim": verbatim}
    made = quilt_texture(jnp.asarray(texture), key=KEY, **options)
    np.testing.assert_array_equal(made, expected)


@x64
def test_the_error_of_every_block():
    image, template, weights = noise(7, 8), noise(3, 3, seed=1), noise(3, 3, seed=2, channels=1)[..., 0]
    found = block_errors(jnp.asarray(image), jnp.asarray(template), jnp.asarray(weights))
    assert found.shape == (5, 6)
    for y, x in np.ndindex(5, 6):
        away = (image[y : y + 3, x : x + 3] - template) ** 2
        np.testing.assert_allclose(found[y, x], (weights[..., None] * away).sum(), atol=1e-12)


@x64
@pytest.mark.parametrize(("b", "v"), [(4, 2), (6, 3), (3, 1)])
def test_the_least_cut_of_all_paths(b, v):
    cut = jax.jit(minimum_cut, static_argnames="overlap")
    for seed, left, above in product(range(8), [True, False], [True, False]):
        e = noise(b, b, seed=seed, channels=1)[..., 0]
        expected, _ = cut_by_hand(e, left, above, v)
        np.testing.assert_array_equal(cut(jnp.asarray(e), left, above, overlap=v), expected)
        assert expected[v:, v:].all()


def test_blocks_cover_the_picture():
    for size, b, v in product([(18, 18), (19, 40), (64, 33)], [6, 18], [1, 3]):
        found = layout(size, b, v)
        step = b - v
        for side, n, whole in zip(size, found[:2], found.canvas, strict=True):
            assert whole == (n - 1) * step + b
            assert whole >= side > whole - step or n == 1
    assert layout((64, 64), 24, None).v == 4
    assert layout((64, 64), 5, None).v == 1


@pytest.mark.parametrize(("offset", "contrast"), [(0.0, 1.0), (0.95, 0.001)])
@pytest.mark.parametrize("verbatim", [True, False])
def test_a_periodic_texture_goes_on(verbatim, offset, contrast):
    """Also a bright one of hardly any contrast, for which the squares cancel all but wholly."""
    texture = (offset + contrast * tiled((3, 4), 20, 21)).astype(np.float32)
    made = np.asarray(quilt_texture(texture, key=KEY, size=(25, 31), block=8, overlap=3, verbatim=verbatim))
    np.testing.assert_array_equal(made[3:], made[:-3])
    np.testing.assert_array_equal(made[:, 4:], made[:, :-4])


@pytest.mark.parametrize("kind", ["stripes", "checkerboard"])
def test_stripes_and_checkerboards_go_on(kind):
    y, x = np.mgrid[:20, :20]
    pattern = (x // 2) % 2 if kind == "stripes" else (x // 2 + y // 2) % 2
    texture = np.repeat(pattern[..., None], 3, axis=-1).astype(np.float32)
    made = np.asarray(quilt_texture(texture, key=KEY, size=(25, 31), block=8, overlap=3))
    np.testing.assert_array_equal(made[:, 2:], 1 - made[:, :-2])
    np.testing.assert_array_equal(made[2:], made[:-2] if kind == "stripes" else 1 - made[:-2])


def pieces_of(texture, h, w):
    return {
        texture[y : y + h, x : x + w].tobytes()
        for y in range(texture.shape[0] - h + 1)
        for x in range(texture.shape[1] - w + 1)
    }


@given(seed=st.integers(0, 2**20), tolerance=st.floats(0, 3))
def test_what_a_quilt_is_made_of(seed, tolerance):
    """Every pixel is of the source, and so is all of a block that no other overlaps."""
    texture = noise(11, 12, seed=seed).astype(np.float32)
    key = jax.random.key(seed)
    made = quilt_texture(texture, key=key, size=(10, 14), block=6, overlap=2, tolerance=tolerance)
    made = np.asarray(made)
    pixels = pieces_of(texture, 1, 1)
    assert all(pixel.tobytes() in pixels for pixel in made.reshape(-1, 3))
    cores = pieces_of(texture, 2, 2)
    for y, x in product((2, 6), (2, 6, 10)):
        assert made[y : y + 2, x : x + 2].tobytes() in cores


def test_one_block_is_a_piece_of_the_source():
    texture = noise(9, 9).astype(np.float32)
    made = quilt_texture(texture, key=KEY, size=6, block=6)
    assert np.asarray(made).tobytes() in pieces_of(texture, 6, 6)


def test_the_source_is_not_continued_unless_asked_for():
    texture = noise(6, 40).astype(np.float32)
    pieces = pieces_of(texture, 6, 10)
    continued = {True: 0, False: 0}
    for seed, verbatim in product(range(12), continued):
        key = jax.random.key(seed)
        made = quilt_texture(texture, key=key, size=(6, 10), block=6, overlap=2, verbatim=verbatim)
        continued[verbatim] += np.asarray(made).tobytes() in pieces
    assert continued[False] == 0
    assert continued[True] >= 9  # but where the source ends


def test_a_source_of_one_block_is_laid_again_and_again():
    texture = noise(6, 6).astype(np.float32)
    made = np.asarray(quilt_texture(texture, key=KEY, size=(6, 10), block=6, overlap=2))
    np.testing.assert_array_equal(made[:, :4], texture[:, :4])
    np.testing.assert_array_equal(made[:, 6:], texture[:, 2:])


def test_what_the_key_decides_and_what_compiles():
    texture = jnp.asarray(noise(12, 12), jnp.float32)
    options = {"size": 14, "block": 6}
    made = quilt_texture(texture, key=KEY, **options)
    programs = quilt_texture.compiled._cache_size()
    np.testing.assert_array_equal(made, quilt_texture(texture, key=KEY, **options))
    assert (made != quilt_texture(texture, key=jax.random.key(4), **options)).any()
    assert (made != quilt_texture(texture, key=KEY, tolerance=4.0, **options)).any()
    quilt_texture(texture * 0.5, key=KEY, tolerance=0.5, **options)
    assert quilt_texture.compiled._cache_size() == programs


def test_under_vmap_over_keys_and_under_jit():
    texture = jnp.asarray(noise(12, 12), jnp.float32)
    keys = jax.random.split(KEY, 3)
    quilt = lambda key: quilt_texture(texture, key=key, size=14, block=6)  # noqa: E731
    together = jax.jit(jax.vmap(quilt))(keys)
    for key, made in zip(keys, together, strict=True):
        np.testing.assert_array_equal(made, quilt(key))


LUMINANCE = np.asarray([0.299, 0.587, 0.114])


def transferred_by_hand(texture, content, key, b, iterations, alpha, tolerance):
    of_texture, of_content = texture @ LUMINANCE, content @ LUMINANCE
    wanted = (of_content - of_content.mean()) / of_content.std() * of_texture.std() + of_texture.mean()
    made, size = None, content.shape[:2]
    for n in range(iterations):
        a = alpha if iterations == 1 else alpha + (1 - 2 * alpha) * n / (iterations - 1)

        def besides(y, x, top, left, b=b, a=a, made=made):
            error = 0.0
            for r, c in product(range(b), repeat=2):
                row, col = min(top + r, size[0] - 1), min(left + c, size[1] - 1)
                error += (1 - a) * (of_texture[y + r, x + c] - wanted[row, col]) ** 2
                if made is not None:
                    error += a * ((texture[y + r, x + c] - made[row, col]) ** 2).sum()
            return error

        key_n, v = jax.random.fold_in(key, n), max(1, b // 6)
        made, _ = by_hand(texture, key_n, size, b, v, tolerance, True, weight=a, besides=besides)
        b = round(b * 2 / 3)
    return made


@x64
@pytest.mark.parametrize(("b", "iterations", "alpha"), [(7, 1, 0.4), (9, 3, 0.3)])
def test_a_transfer_by_hand(b, iterations, alpha):
    texture, content = noise(10, 11), noise(10, 9, seed=1) ** 2
    expected = transferred_by_hand(texture, content, KEY, b, iterations, alpha, 0.2)
    options = {"block": b, "iterations": iterations, "alpha": alpha, "tolerance": 0.2}
    made = quilt_transfer(jnp.asarray(texture), jnp.asarray(content), key=KEY, **options)
    np.testing.assert_array_equal(made, expected)


def test_a_texture_is_transferred_to_itself():
    """And to what has its luminance, however dim."""
    texture = noise(16, 21).astype(np.float32)
    grey = np.repeat((texture @ LUMINANCE.astype(np.float32))[..., None], 3, axis=-1)
    for content in (texture, grey / 4):
        made = quilt_transfer(texture, content, key=KEY, block=6, iterations=1, alpha=0.0)
        np.testing.assert_array_equal(made, texture)


def test_a_content_of_one_grey_can_be_quilted():
    texture = noise(12, 12).astype(np.float32)
    content = np.full((9, 10, 3), 0.5, np.float32)
    with jax.debug_nans(True):
        made = quilt_transfer(texture, content, key=KEY, block=6, iterations=1)
    assert made.shape == (9, 10, 3)
    pixels = pieces_of(texture, 1, 1)
    assert all(pixel.tobytes() in pixels for pixel in np.asarray(made).reshape(-1, 3))


def test_blocks_shrink_by_a_third():
    assert shrinking(36, 4) == [36, 24, 16, 11]


def test_a_transfer_is_one_program():
    texture, content = (jnp.asarray(noise(12, 12, seed=seed), jnp.float32) for seed in (0, 1))
    transfer = lambda key, **options: quilt_transfer(  # noqa: E731
        texture, content, key=key, block=6, iterations=2, **options
    )
    made = transfer(KEY)
    programs = quilt_transfer.compiled._cache_size()
    np.testing.assert_array_equal(made, transfer(KEY))
    assert (made != transfer(KEY, alpha=0.4, tolerance=0.5)).any()
    assert quilt_transfer.compiled._cache_size() == programs
    together = jax.vmap(transfer)(jnp.stack([KEY, jax.random.key(6)]))
    np.testing.assert_array_equal(together[0], made)


@pytest.mark.parametrize(
    ("changed", "error", "says"),
    [
        ({"content": noise(9, 9)[..., :1]}, ValueError, r"content must be \[h, w, 3\]"),
        ({"content": noise(6, 9)}, ValueError, "size of 6x9 is smaller than the block, 7"),
        ({"alpha": 1.1}, ValueError, r"alpha must lie in \[0, 1\]"),
        ({"iterations": 0}, ValueError, "iterations must be a positive integer"),
        ({"iterations": 3}, ValueError, "of 3 pixels in the last of 3 iterations.*larger blocks"),
        ({"tolerance": -1.0}, ValueError, "tolerance must be at least 0"),
        ({"key": jax.random.split(KEY)}, ValueError, "one key.*jax.vmap"),
    ],
)
def test_what_a_transfer_refuses(changed, error, says):
    given = {"content": noise(9, 9), "key": KEY, "block": 7, "iterations": 2} | changed
    with pytest.raises(error, match=says):
        quilt_transfer(noise(12, 12), given.pop("content"), **given)


@pytest.mark.parametrize(
    ("changed", "error", "says"),
    [
        ({"texture": noise(6, 20)}, ValueError, "texture of 6x20 is smaller than the block, 7"),
        ({"texture": noise(9, 9)[..., :1]}, ValueError, r"texture must be \[h, w, 3\]"),
        ({"block": 1}, ValueError, "block must be at least 2"),
        ({"block": 0}, ValueError, "block must be a positive integer"),
        ({"overlap": 0}, ValueError, "overlap must be a positive integer"),
        ({"overlap": 4}, ValueError, "overlap must be at most half the block, 3, not 4"),
        ({"size": (9, 6)}, ValueError, "size of 9x6 is smaller than the block, 7"),
        ({"tolerance": -0.1}, ValueError, "tolerance must be at least 0"),
        ({"key": jax.random.split(KEY)}, ValueError, "one key.*jax.vmap"),
    ],
)
def test_what_is_refused(changed, error, says):
    given = {"texture": noise(9, 9), "key": KEY, "size": 9, "block": 7} | changed
    with pytest.raises(error, match=says):
        quilt_texture(given.pop("texture"), **given)
