"""The trained stylizer: its styles are the ones it was shown, on photos that it was not."""

from pathlib import Path
from tempfile import TemporaryDirectory

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vizsynth
from experiments.fast_style import HELD_OUT, held_out
from experiments.figure import PHOTOS
from experiments.style_pictures import STYLES, pictures
from experiments.stylizer_photos import TRAINED_ON, photographs
from experiments.stylizer_training import Training, begun, halfway, provenance, settings_of
from vizsynth.models import load_stylizer, save_stylizer, stylizer
from vizsynth.models.io.weights import paths
from vizsynth.models.stylizers import BUNDLED

WRITTEN = (PHOTOS / "SOURCES.md").read_text()


def test_it_is_small_and_trained_on_free_photos() -> None:
    assert BUNDLED.stat().st_size < 3_000_000
    assert not set(TRAINED_ON) & set(HELD_OUT)
    for name in TRAINED_ON:
        row = next(line for line in WRITTEN.splitlines() if line.startswith(f"| `{name}.jpg`"))
        assert row.split("|")[-2].strip() in ("CC0", "public domain")
    record = load_stylizer().record
    assert all(name in record.origin for name in TRAINED_ON)
    assert "## stylizer.safetensors" in (Path(vizsynth.__file__).parent / "data" / "README.md").read_text()


def test_styles_and_crops_are_always_the_same() -> None:
    found = np.asarray(pictures())
    assert found.shape == (3, 256, 256, 3) and 0 <= found.min() <= found.max() <= 1
    np.testing.assert_array_equal(found, pictures())
    crops = photographs(0, 4, 48)
    assert crops.shape == (4, 48, 48, 3) and 0 <= crops.min() <= crops.max() <= 1
    np.testing.assert_array_equal(crops, photographs(0, 4, 48))
    assert not np.array_equal(crops, photographs(0, 4, 48, pasted=0.0))


@pytest.mark.parametrize("quick", [False, True])
def test_settings_say_what_was_trained(quick: bool) -> None:
    widths = load_stylizer().config.widths
    found = settings_of(Training(widths=widths), quick=quick, network="vgg16", seed=0)
    assert found["styles"] == list(load_stylizer().styles)
    assert tuple(found["widths"]) == widths
    with pytest.raises(SystemExit, match="it can grow, not shrink"):
        settings_of(Training(begin=BUNDLED, widths=(4, 6, 8)), quick=quick, network="vgg16", seed=0)


def test_a_training_may_begin_with_what_is_in_the_package() -> None:
    found = settings_of(Training(begin=BUNDLED), quick=True, network="vgg16", seed=0)
    bundled = load_stylizer()
    config = bundled.config
    kind = (config.widths, config.blocks, config.skips)
    assert (tuple(found["widths"]), found["blocks"], found["skips"]) == kind
    assert found["begun with"] and found["begun with"] in provenance(found)["origin"]
    began = begun(BUNDLED, found, jax.random.key(0))
    np.testing.assert_array_equal(began.in1.kernel[...], bundled.in1.kernel[...])


def test_the_weights_say_how_they_were_trained() -> None:
    found = settings_of(Training(skips=True, parts=2, pasted=0.25), quick=True, network="vgg16", seed=0)
    assert (
        ", widths 4, 6, 8, with skips: 4 steps of 3 crops of 48 px in 2x2 parts, 25% of them pasted, seed 0"
        in provenance(found)["origin"]
    )
    with pytest.raises(SystemExit, match="from 0 to 1, not 25"):
        settings_of(Training(pasted=25), quick=True, network="vgg16", seed=0)
    plain = provenance(settings_of(Training(), quick=True, network="vgg16", seed=0))["origin"]
    assert "skips" not in plain and "parts" not in plain and "60% of them pasted" in plain
    assert "in 2x2 parts" in load_stylizer().record.origin and load_stylizer().config.skips


@pytest.mark.parametrize(("before", "widths"), [(False, (4, 6, 8)), (True, (5, 9, 12))])
def test_a_network_may_grow(before: bool, widths: tuple[int, ...]) -> None:
    """It paints what it painted before, with skips and more channels, until it is trained on."""
    kind = {"widths": (4, 6, 8), "blocks": 1, "skips": before}
    small = stylizer(list(STYLES), **kind, key=jax.random.key(1))
    photos = held_out(24)
    with TemporaryDirectory() as folder:
        save_stylizer(f"{folder}/small.safetensors", small)
        settings = {"widths": widths, "blocks": 1, "skips": True}
        grown = begun(Path(folder) / "small.safetensors", settings, jax.random.key(0))
    assert grown.config.skips and grown.config.widths == widths
    np.testing.assert_allclose(
        vizsynth.stylize(grown, photos, 1), vizsynth.stylize(small, photos, 1), atol=1e-6
    )
    # What is new is not dead: it has a gradient, or what takes from it has.
    steepest = jax.jit(jax.grad(lambda net: (net(photos, jnp.ones((2, 3)) / 3) ** 2).sum()))(grown)
    new = {name: np.asarray(leaf) for name, leaf in paths(steepest).items() if name.endswith("kernel")}
    assert all(np.abs(leaf[:, :, -1]).max() > 0 for leaf in new.values())


def test_the_mean_of_two_trainings_lies_between() -> None:
    one, other = (stylizer(list(STYLES), widths=(4, 6, 8), blocks=1, key=jax.random.key(i)) for i in (0, 1))
    found = paths(halfway(one, other))
    for name, leaf in paths(one).items():
        np.testing.assert_allclose(found[name], (np.asarray(leaf) + paths(other)[name]) / 2, rtol=1e-6)
    with pytest.raises(SystemExit, match="give --begin FILE"):
        settings_of(Training(mean=True), quick=True, network="vgg16", seed=0)
    found = settings_of(Training(begin=BUNDLED, mean=True), quick=True, network="vgg16", seed=0)
    assert "are the means of" in provenance(found)["origin"]


def test_what_is_made_has_the_style_that_was_asked_for() -> None:
    """A held-out photo in a style is nearer to it than the photo is, and than it is in other styles."""
    net, made, count = vizsynth.load("squeezenet1_1"), load_stylizer(), len(STYLES)
    photos = jnp.repeat(held_out(64), count, axis=0)
    which = jnp.tile(jnp.arange(count), len(HELD_OUT))
    options = {"content_layers": ("fire3",), "style_layers": ("relu1", "fire2", "fire3")}
    found = vizsynth.stylize(made, photos, which)

    def away(images: jax.Array, style: int) -> np.ndarray:
        each = jnp.broadcast_to(pictures()[style], (len(images), 256, 256, 3))
        return np.asarray(vizsynth.perceptual_loss(net, images, photos, each[:1], **options).style)

    made_of = np.stack([away(found, style) for style in range(count)])
    nothing = np.stack([away(photos, style) for style in range(count)])
    for i, style in enumerate(which):
        assert made_of[style, i] < 0.7 * nothing[style, i]
        assert made_of[style, i] == made_of[style, i // count * count : (i // count + 1) * count].min()
