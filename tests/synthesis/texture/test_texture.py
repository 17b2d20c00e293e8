"""Gram matrices and their loss by hand, the peers' normalizations, and textures of noise."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import random_images, tiny

import vizsynth
from vizsynth import ops
from vizsynth.models import with_precision
from vizsynth.parametrizations import Pixels
from vizsynth.synthesis.texture.gatys import Gram, gram, texture_loss, texture_statistics

x64 = pytest.mark.usefixtures("x64")
KEY = jax.random.key(3)
LAYERS = ("relu1_1", "relu2_1")
ADAM: dict[str, Any] = {"optimizer": optax.adam, "learning_rate": 0.05, "parametrization": Pixels(std=0.1)}


def trunk(dtype: Any = np.float32) -> Any:
    net = tiny("vgg").net
    return net if dtype == np.float32 else with_precision(net, dtype)


def picture(seed: int = 0, h: int = 12, w: int = 10, dtype: Any = np.float32) -> jax.Array:
    return random_images(1, h, w, seed=seed, dtype=dtype)[0]


def gram_by_hand(F: np.ndarray, T: np.ndarray | None = None) -> np.ndarray:
    h, w, c = F.shape
    T = np.ones((h, w)) if T is None else T
    G = np.zeros((c, c))
    for i in range(c):
        for j in range(c):
            for y in range(h):
                for x in range(w):
                    G[i, j] += T[y, x] ** 2 * F[y, x, i] * F[y, x, j]
    return G / np.sum(T**2)


def paper_loss(F: np.ndarray, P: np.ndarray) -> float:
    """E_l = Σ (G − Ĝ)² / (4 N² M²), G raw sums; both layers of one size."""
    M, N = F.shape[0] * F.shape[1], F.shape[2]
    G, G_hat = gram_by_hand(F) * M, gram_by_hand(P) * M
    return float(np.sum((G - G_hat) ** 2) / (4 * N**2 * M**2))


@x64
def test_a_gram_matrix_by_hand() -> None:
    rng = np.random.default_rng(0)
    F, T = rng.normal(size=(4, 5, 3)), rng.uniform(size=(4, 5))
    np.testing.assert_allclose(gram(jnp.asarray(F)), gram_by_hand(F), rtol=1e-12)
    np.testing.assert_allclose(gram(jnp.asarray(F), jnp.asarray(T)), gram_by_hand(F, T), rtol=1e-12)


@x64
def test_the_gradient_of_a_gram_matrix_by_hand() -> None:
    rng = np.random.default_rng(0)
    F, T, C = rng.normal(size=(4, 5, 3)), rng.uniform(size=(4, 5)), rng.normal(size=(3, 3))
    found = jax.jit(jax.grad(lambda F: (gram(F, jnp.asarray(T)) * C).sum()))(F)
    wanted = (T**2)[..., None] * (F @ (C + C.T)) / (T**2).sum()
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


@x64
def test_the_papers_loss_and_the_peers() -> None:
    rng = np.random.default_rng(1)
    F, P = rng.normal(size=(2, 6, 4, 5))
    loss = Gram()
    E = float(loss.distance(loss.statistics(jnp.asarray(F)), loss.statistics(jnp.asarray(P))))
    np.testing.assert_allclose(E, paper_loss(F, P), rtol=1e-10)
    M, N = 24, 5
    difference = (gram_by_hand(F) - gram_by_hand(P)) * M
    np.testing.assert_allclose(np.mean((difference / M) ** 2), 4 * E, rtol=1e-10)  # Gatys' code, pystiche
    np.testing.assert_allclose(np.mean((difference / (M * N)) ** 2), 4 * E / N**2, rtol=1e-10)  # neural-style
    np.testing.assert_allclose(np.sum((difference / (M * N)) ** 2), 4 * E, rtol=1e-10)  # Johnson's equation


both_grams = jax.jit(lambda *maps: [gram(F) for F in maps])


@given(st.integers(0, 2**31), st.sampled_from([(1, 1), (1, 6), (5, 4)]))
def test_a_gram_matrix_does_not_see_where(seed: int, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    F = rng.normal(size=(*size, 3)).astype(np.float32)
    shuffled = rng.permutation(F.reshape(-1, 3)).reshape(*size[::-1], 3)
    G, other = (np.asarray(matrix) for matrix in both_grams(F, shuffled))
    np.testing.assert_allclose(other, G, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(G, G.T)
    assert np.linalg.eigvalsh(G).min() > -1e-4


def test_half_precision_is_summed_in_float32() -> None:
    F = jnp.full((64, 64, 2), 300.0, jnp.float16)  # 4096 · 300² is far above what float16 can hold
    G = gram(F)
    assert G.dtype == jnp.float32
    np.testing.assert_allclose(G, 9e4, rtol=1e-2)


@x64
@pytest.mark.parametrize("relative", [False, True])
def test_a_whole_step_by_hand(relative: bool) -> None:
    net, texture = trunk(np.float64), picture(1, dtype=np.float64)
    weights = (0.3, 2.0)
    rate = 0.01
    descent = {"optimizer": optax.sgd, "learning_rate": rate, "parametrization": Pixels(std=0.2)}
    options = {"layers": LAYERS, "layer_weights": weights, "relative": relative, "key": KEY, **descent}
    after = vizsynth.synthesize_texture(net, texture, steps=1, **options)

    def L(x: Any) -> float:
        F = vizsynth.features(net, jnp.stack([jnp.asarray(x), texture]), LAYERS)
        total = 0.0
        for layer, w in zip(LAYERS, weights, strict=True):
            found, wanted = np.asarray(F[layer])
            E = paper_loss(found, wanted)
            total += w * (E / paper_loss(0 * wanted, wanted) if relative else E)
        return total

    x = np.asarray(Pixels(std=0.2).init(jax.random.split(KEY)[0], (12, 10)))
    np.testing.assert_allclose(after.trace[0, 0], L(x), rtol=1e-10)
    step = np.asarray(after.state.params[0]) - x
    rng = np.random.default_rng(0)
    for _ in range(3):  # the step is −rate times the gradient: along directions, by differences
        way = rng.normal(size=x.shape)
        slope = (L(x + 1e-6 * way) - L(x - 1e-6 * way)) / 2e-6
        np.testing.assert_allclose(np.sum(step * way), -rate * slope, rtol=1e-6)


def test_the_source_itself_is_without_loss() -> None:
    found = texture_statistics(trunk(), picture(), LAYERS)
    assert float(texture_loss(found, found)) == 0
    assert float(texture_loss(found, found, relative=True)) == 0
    nothing = jax.tree.map(jnp.zeros_like, found)
    np.testing.assert_allclose(texture_loss(nothing, found, relative=True), 1, rtol=1e-6)


@pytest.mark.parametrize("loss", [vizsynth.Gram(), vizsynth.Wasserstein()])
def test_the_loss_falls(loss: Any) -> None:
    options = {"layers": LAYERS, "loss": loss, **ADAM}
    whole = vizsynth.synthesize_texture(trunk(), picture(), key=KEY, size=(14, 9), steps=12, **options)
    assert whole.images.shape == (1, 14, 9, 3)
    assert whole.trace[0, -1] < 0.5 * whole.trace[0, 0]


def test_a_texture_goes_on_where_it_stopped() -> None:
    options = {"layers": LAYERS, **ADAM}
    whole = vizsynth.synthesize_texture(trunk(), picture(), key=KEY, size=(14, 9), steps=12, **options)
    half = vizsynth.synthesize_texture(trunk(), picture(), key=KEY, size=(14, 9), steps=6, **options)
    rest = vizsynth.synthesize_texture(trunk(), picture(), size=(14, 9), steps=6, state=half.state, **options)
    np.testing.assert_array_equal(rest.images, whole.images)


def test_a_picture_a_key_and_each_by_itself() -> None:
    keys = jax.random.split(KEY, 2)
    options = {"layers": LAYERS, "steps": 3, **ADAM}
    both = vizsynth.synthesize_texture(trunk(), picture(), key=keys, **options)
    one = vizsynth.synthesize_texture(trunk(), picture(), key=keys[1], **options)
    np.testing.assert_allclose(both.images[1], one.images[0], atol=1e-5)
    assert not np.allclose(both.images[0], both.images[1])


def test_means_in_place_of_maxima() -> None:
    plain = texture_statistics(trunk(), picture(), LAYERS)
    means = texture_statistics(trunk(), picture(), LAYERS, ops=ops.average_pooling)
    np.testing.assert_array_equal(plain["relu1_1"], means["relu1_1"])
    assert np.abs(plain["relu2_1"] - means["relu2_1"]).max() > 1e-4


def test_numbers_do_not_compile_anew() -> None:
    function: Any = vizsynth.synthesize_texture
    for weights, rate in (((1.0, 1.0), 0.1), ((0.5, 0.0), 0.2)):
        options = {**ADAM, "learning_rate": rate, "layer_weights": weights, "layers": LAYERS}
        function(trunk(), picture(), key=KEY, steps=1, **options)
        programs = function.compiled._cache_size()
        options = {**options, "learning_rate": rate / 2}
        function(trunk(), picture(), key=KEY, steps=1, **options)
        assert function.compiled._cache_size() == programs


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"layers": "relu1_1"}, ValueError, "sequence of names"),
        ({"layers": ()}, ValueError, "sequence of names"),
        ({"layers": ("relu9_1",)}, ValueError, "no layer 'relu9_1'; its layers are: conv1_1"),
        ({"layers": ("logits",)}, ValueError, "nothing is left|trunk"),
        ({"layer_weights": (1.0,)}, ValueError, "as many weights"),
        ({"layer_weights": (0.0, 0.0)}, ValueError, "above 0"),
        ({"layer_weights": (1.0, -1.0)}, ValueError, "at least 0"),
        ({"layer_weights": (1.0, float("nan"))}, ValueError, "at least 0"),
        ({"steps": -1}, ValueError, "steps"),
        ({"key": None}, TypeError, "needs a key"),
        ({"size": 0}, ValueError, "positive"),
        ({"texture": np.zeros((8, 8, 4), np.float32)}, ValueError, r"must be \[h, w, 3\]"),
        ({"texture": np.zeros((8, 8, 3), np.uint8)}, TypeError, "float"),
        ({"cuts": ("pool9",)}, ValueError, "no layer 'pool9'"),
    ],
)
def test_what_cannot_be(options: dict[str, Any], error: type[Exception], message: str) -> None:
    given = {"layers": LAYERS, "key": KEY, "steps": 1, **options}
    texture = given.pop("texture", picture())
    function: Any = vizsynth.synthesize_texture
    programs = function.compiled._cache_size()
    with pytest.raises(error, match=message):
        function(trunk(), texture, **given)
    assert function.compiled._cache_size() == programs
