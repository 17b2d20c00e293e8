"""Style transfer by hand: the objective, mixtures, masks, sizes; and what is refused."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import random_images, tiny

import vizsynth
from vizsynth import ascent
from vizsynth.models import with_precision
from vizsynth.parametrizations import Fourier, Pixels, SigmoidPixels
from vizsynth.synthesis.style import gatys
from vizsynth.synthesis.style.gatys import content_loss, enlarge
from vizsynth.synthesis.texture.gatys import gram
from vizsynth.updates import average_iterates

pytestmark = pytest.mark.filterwarnings("ignore:style 0 is:UserWarning", "ignore:style 1 is:UserWarning")
x64 = pytest.mark.usefixtures("x64")
KEY = jax.random.key(3)
LAYERS: dict[str, Any] = {"content_layers": ("relu2_1",), "style_layers": ("relu1_1", "relu2_2")}
ADAM: dict[str, Any] = {"optimizer": optax.adam, "learning_rate": 0.02, "parametrization": Pixels()}


def trunk(dtype: Any = np.float32) -> Any:
    net = tiny("vgg").net
    return net if dtype == np.float32 else with_precision(net, dtype)


def picture(seed: int = 0, h: int = 12, w: int = 10, dtype: Any = np.float32) -> jax.Array:
    return random_images(1, h, w, seed=seed, dtype=dtype)[0]


def transfer(content: Any, styles: Any, *, net: Any = None, **options: Any) -> Any:
    return vizsynth.transfer_style(
        trunk() if net is None else net,
        content,
        styles,
        **{"key": KEY, "steps": 1, **LAYERS, **ADAM, **options},
    )


def features_of(net: Any, *pictures: Any) -> dict[str, np.ndarray]:
    layers = ("relu1_1", "relu2_1", "relu2_2")
    return {k: np.asarray(v) for k, v in vizsynth.features(net, jnp.stack(pictures), layers).items()}


def E(F: np.ndarray, P: np.ndarray) -> float:
    """Σ (G − Ĝ)² / (4 N²), G over the positions."""
    G, P_hat = (A.reshape(-1, A.shape[-1]).T @ A.reshape(-1, A.shape[-1]) / A[..., 0].size for A in (F, P))
    return float(np.sum((G - P_hat) ** 2) / (4 * G.shape[0] ** 2))


@x64
@pytest.mark.parametrize("relative", [False, True])
def test_the_objective_by_hand(relative: bool) -> None:
    net = trunk(np.float64)
    content, style, x = (picture(s, dtype=np.float64) for s in range(3))
    weights = {"content_weight": 0.7, "style_weight": 3.0, "tv_weight": 0.2, "layer_weights": (0.4, 1.5)}
    found = transfer(content, [style], net=net, start=x, relative=relative, **weights)

    at = features_of(net, x, content, style)
    F, P, _ = at["relu2_1"]
    L = 0.7 * (np.sum((F - P) ** 2) / np.sum(P**2) if relative else 0.5 * np.sum((F - P) ** 2))
    for layer, w in (("relu1_1", 0.4), ("relu2_2", 1.5)):
        F, _, S = at[layer]
        L += 3.0 * w * (E(F, S) / E(0 * S, S) if relative else E(F, S))
    pixels = np.asarray(x)
    tv = np.sum(np.diff(pixels, axis=0) ** 2) + np.sum(np.diff(pixels, axis=1) ** 2)
    L += 0.2 * tv / (12 * 10)
    np.testing.assert_allclose(found.trace[0, 0], L, rtol=1e-10)


@x64
def test_the_content_loss_and_the_peers() -> None:
    F, P = np.random.default_rng(0).normal(size=(2, 4, 5, 3))
    found = float(content_loss(jnp.asarray(F), jnp.asarray(P)))
    np.testing.assert_allclose(found, 0.5 * np.sum((F - P) ** 2), rtol=1e-12)
    np.testing.assert_allclose(np.mean((F - P) ** 2), found * 2 / (3 * 20), rtol=1e-12)


@x64
def test_a_mixture_is_of_statistics() -> None:
    """Styles 3 : 1 are the Gram matrix ¾ G₁ + ¼ G₂, whatever the weights add up to."""
    net = trunk(np.float64)
    content, x = picture(0, dtype=np.float64), picture(5, dtype=np.float64)
    styles = [picture(1, dtype=np.float64), picture(2, 16, 8, dtype=np.float64)]
    seen = features_of(net, picture(4, dtype=np.float64), x, styles[0])
    of_second = features_of(net, styles[1])
    options = {"start": x, "content_weight": 0.0, "style_weight": 1.0, "relative": False, "net": net}
    found = transfer(content, styles, mixture=(6.0, 2.0), **options)
    L = 0.0
    for layer in LAYERS["style_layers"]:
        A = [np.asarray(gram(jnp.asarray(F))) for F in (*seen[layer][1:], of_second[layer][0])]
        L += 0.5 * np.sum((A[0] - 0.75 * A[1] - 0.25 * A[2]) ** 2) / (4 * len(A[0]) ** 2)
    np.testing.assert_allclose(found.trace[0, 0], L, rtol=1e-10)


def test_masks_give_each_style_its_region() -> None:
    content = picture(0, 16, 16)
    left = jnp.zeros((16, 16)).at[:, :8].set(1.0)
    options = {"content_weight": 0.0, "style_layers": ("relu1_1",), "steps": 3}
    found = transfer(content, [picture(1)], masks=[left], **options).images[0]
    np.testing.assert_array_equal(found[:, 9:], content[:, 9:])  # a neuron of relu1_1 sees one pixel further
    assert float(jnp.abs(found[:, :8] - content[:, :8]).mean()) > 1e-3
    both = transfer(content, [picture(1), picture(2)], masks=[left, 1 - left], **options).images[0]
    other = transfer(content, [picture(2)], **options).images[0]
    to_own, to_other = (float(jnp.abs(both[:, :7] - p[:, :7]).mean()) for p in (found, other))
    assert to_own < 0.1 * to_other
    whole = transfer(content, [picture(1)], masks=[jnp.ones((16, 16))], **options)
    alone = transfer(content, [picture(1)], **options)
    np.testing.assert_allclose(whole.images, alone.images, atol=1e-5)


def test_a_part_of_a_style_may_count_alone() -> None:
    style = jnp.concatenate([picture(1), picture(2)], axis=1)
    mask = jnp.zeros((12, 20)).at[:, :10].set(1.0)
    options = {"style_layers": ("conv1_1",), "content_weight": 0.0}
    found = transfer(picture(), [style], style_masks=[mask], **options).trace
    other = transfer(picture(), [style], **options).trace
    assert not np.allclose(found, other)
    inside = transfer(picture(), [picture(1)], **options).trace
    np.testing.assert_allclose(found, inside, rtol=0.1)  # but for the border of the part


def test_it_begins_with_the_content_or_with_noise() -> None:
    content = picture()
    np.testing.assert_allclose(transfer(content, [picture(1)], steps=0).images[0], content, atol=1e-6)
    noise = transfer(content, [picture(1)], steps=0, noise=1.0).images[0]
    other = transfer(picture(9), [picture(1)], steps=0, noise=1.0).images[0]
    np.testing.assert_allclose(noise, other, atol=1e-6)
    start = transfer(content, [picture(1)], steps=0, start=picture(7)).images[0]
    np.testing.assert_allclose(start, picture(7), atol=1e-6)


@pytest.mark.parametrize("loss", [vizsynth.Gram(), vizsynth.Wasserstein()])
def test_the_loss_falls(loss: Any) -> None:
    options = {"loss": loss, "average": 0.9}
    whole = transfer(picture(), [picture(1)], steps=10, **options)
    assert whole.trace[0, -1] < whole.trace[0, 0]


def test_a_transfer_goes_on_where_it_stopped() -> None:
    options = {"average": 0.9}
    whole = transfer(picture(), [picture(1)], steps=10, **options)
    half = transfer(picture(), [picture(1)], steps=5, **options)
    rest = transfer(picture(), [picture(1)], steps=5, state=half.state, key=None, **options)
    np.testing.assert_array_equal(rest.images, whole.images)


@pytest.mark.parametrize("masks", [None, [np.eye(12, 10, dtype=np.float32), np.ones((12, 10), np.float32)]])
def test_targets_may_be_computed_before(masks: Any) -> None:
    content, styles = picture(), [picture(1), picture(2)]
    options: dict[str, Any] = {**LAYERS, "mixture": (3.0, 1.0), "masks": masks}
    targets = gatys.style_targets(trunk(), content, styles, **options)
    whole, parted = (transfer(content, styles, targets=t, **options) for t in (None, targets))
    np.testing.assert_allclose(parted.trace, whole.trace, rtol=1e-5)
    half = jax.tree.map(lambda value: value / 2, targets)  # they alone are aimed at
    assert transfer(content, styles, targets=half, **options).trace != whole.trace
    with pytest.raises(ValueError, match="2 styles take as many masks, not 1"):
        gatys.style_targets(trunk(), content, styles, **{**options, "masks": [np.ones((12, 10), np.float32)]})


def test_parts_change_nothing() -> None:
    options = {"steps": 3, "loss": vizsynth.Gram()}
    whole = transfer(picture(), [picture(1)], **options)
    cut = transfer(picture(), [picture(1)], cuts=("relu1_1", "pool1"), **options)
    np.testing.assert_allclose(cut.images, whole.images, atol=1e-4)


def test_the_picture_stays_in_float32_in_a_coarser_network() -> None:
    net = with_precision(trunk(), jnp.bfloat16)
    found = transfer(picture(), [picture(1)], net=net, steps=3)
    assert found.images.dtype == jnp.float32
    assert found.trace.dtype == jnp.float32
    exact = transfer(picture(), [picture(1)], steps=3)
    np.testing.assert_allclose(found.trace[0, 0], exact.trace[0, 0], rtol=0.1)


def test_the_mean_of_the_iterates() -> None:
    iterates = [np.asarray(transfer(picture(), [picture(1)], steps=t).state.params[0]) for t in (1, 2, 3)]
    found = transfer(picture(), [picture(1)], steps=3, average=0.5).images[0]
    wanted = (0.25 * iterates[0] + 0.5 * iterates[1] + iterates[2]) / 1.75
    np.testing.assert_allclose(found, np.clip(wanted, 0, 1), atol=1e-5)
    begun = transfer(picture(), [picture(1)], steps=0, average=0.5).images[0]
    np.testing.assert_allclose(begun, picture(), atol=1e-6)


# From coarse to fine ---------------------------------------------------------------


@pytest.mark.parametrize("parametrization", [SigmoidPixels(), Fourier()])
def test_a_run_goes_on_at_another_size(parametrization: Any) -> None:
    options: dict[str, Any] = {"parametrization": parametrization, "optimizer": optax.adam, "average": 0.9}
    ramp = jnp.linspace(0.2, 0.8, 8)
    content = jnp.broadcast_to(ramp[:, None, None] * ramp[None, :, None], (8, 8, 3)) + 0.1
    small = transfer(content, [picture(1)], steps=2, **options)
    how = {k: v for k, v in {**ADAM, **options}.items() if k in ("learning_rate", "average")}
    state = enlarge(small.state, (16, 14), parametrization=parametrization, optimizer=optax.adam, **how)
    larger = vizsynth.images.resize(content, (16, 14))
    found = transfer(larger, [picture(1)], steps=1, state=state, key=None, **options)
    assert found.images.shape == (1, 16, 14, 3)
    decode = jax.jit(lambda p, q: (parametrization.decode(p, (8, 8)), parametrization.decode(q, (16, 14))))
    before, after = (np.asarray(x)[None] for x in decode(small.state.params[0], state.params[0]))
    np.testing.assert_allclose(after.mean(axis=(1, 2)), before.mean(axis=(1, 2)), atol=0.02)
    assert int(found.state.step[0]) == 3


@pytest.mark.parametrize(("rows", "larger"), [(5, 8), (5, 9), (6, 9), (8, 5)])
def test_a_spectrum_of_another_size_keeps_every_frequency_at_its_place(rows: int, larger: int) -> None:
    """Each value is its own frequency; what both sizes have is where the transform of the new size looks."""
    own, new = (np.round(np.fft.fftfreq(size) * size) for size in (rows, larger))
    values = jnp.asarray(np.broadcast_to(own[None, :, None, None, None], (1, rows, 4, 3, 2)))
    found = np.asarray(gatys._resized_spectrum(values, (larger, 6), None))[0, :, 0, 0, 0]
    kept = np.isin(new, own) & (np.abs(new) < min(rows, larger) / 2)
    np.testing.assert_array_equal(found[kept], new[kept])
    if larger > rows:
        assert not found[np.abs(new) > rows / 2].any()


def test_the_pairs_of_lbfgs_are_begun_anew() -> None:
    descent = average_iterates(optax.lbfgs(memory_size=2), 0.9)
    init, params = jax.jit(jax.vmap(descent.init)), jnp.ones((1, 4, 3, 3, 2))
    state = ascent.State(params, init(params), KEY[None], jnp.full(1, 5, jnp.int32))
    state = state._replace(memory=jax.tree.map(jnp.ones_like, state.memory))
    found = enlarge(state, (6, 6), optimizer=lambda _: optax.lbfgs(memory_size=2), average=0.9)
    fresh = init(found.params)
    assert jax.tree.structure(found.memory) == jax.tree.structure(fresh)
    for ours, theirs in zip(jax.tree.leaves(found.memory.inner), jax.tree.leaves(fresh.inner), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert found.params.shape == found.memory.total.shape == (1, 6, 4, 3, 2)
    assert int(found.step[0]) == 5


def test_adams_moments_are_carried() -> None:
    small = transfer(picture(), [picture(1)], steps=3)
    state = enlarge(small.state, (24, 20), parametrization=Pixels(), optimizer=optax.adam, learning_rate=0.02)
    assert int(state.memory[0].count[0]) == 3
    assert float(state.memory[0].nu.min()) >= 0
    small_mean, large_mean = small.state.memory[0].nu.mean(), state.memory[0].nu.mean()
    np.testing.assert_allclose(large_mean, small_mean, rtol=0.05)


# What is refused --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"content_weight": 0.0, "style_weight": 0.0}, ValueError, "one of the weights .* must be above 0"),
        ({"content_weight": -1.0}, ValueError, "at least 0"),
        ({"tv_weight": float("nan")}, ValueError, "at least 0"),
        ({"mixture": (0.0,)}, ValueError, "mixture must be above 0"),
        ({"mixture": (1.0, 1.0)}, ValueError, "1 styles take mixture of as many"),
        ({"masks": [np.ones((5, 5), np.float32)]}, ValueError, "size of its picture, 12x10, not"),
        ({"masks": [np.zeros((12, 10), np.float32)]}, ValueError, "0 everywhere"),
        ({"masks": [np.full((12, 10), 2.0, np.float32)]}, ValueError, r"lie in \[0, 1\]"),
        ({"masks": []}, ValueError, "as many masks"),
        ({"style_masks": [np.ones((3, 3), np.float32)]}, ValueError, "mask of style 0 must be of the size"),
        ({"start": np.zeros((4, 4, 3), np.float32)}, ValueError, "start must be of the content's shape"),
        ({"noise": 1.5}, ValueError, "noise must lie"),
        ({"average": -0.1}, ValueError, "average must lie"),
        ({"content_layers": ("relu8_8",)}, ValueError, "no layer 'relu8_8'; its layers are"),
        ({"style_layers": ()}, ValueError, "sequence of names"),
        ({"layer_weights": (0.0, 0.0)}, ValueError, "above 0"),
        ({"steps": 1.5}, ValueError, "steps"),
        ({"key": None}, TypeError, "needs a key"),
        ({"styles": []}, ValueError, "at least one image"),
        ({"styles": np.zeros((12, 10, 3), np.float32)}, ValueError, r"give \[style\]"),
        ({"styles": [np.zeros((12, 10), np.float32)]}, ValueError, r"style 0 must be \[h, w, 3\]"),
    ],
)
def test_what_cannot_be(options: dict[str, Any], error: type[Exception], message: str) -> None:
    given = dict(options)
    styles = given.pop("styles", [picture(1)])
    function: Any = vizsynth.transfer_style
    programs = function.compiled._cache_size()
    with pytest.raises(error, match=message):
        transfer(picture(), styles, **given)
    assert function.compiled._cache_size() == programs


def test_a_style_that_is_smaller_than_what_a_neuron_sees_is_told() -> None:
    with pytest.warns(UserWarning, match="style 0 is 4x10 pixels, less than the 8x8 .* of relu2_1"):
        transfer(picture(), [picture(1, 4, 10)], steps=0, style_layers=("relu2_1",))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        transfer(picture(), [picture(1, 8, 8)], steps=0, style_layers=("relu2_1",))
