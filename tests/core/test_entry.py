"""What comes in at the door: every wrong argument has a message, and nothing is compiled before it."""

import inspect
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import CLASSES, random_images, tiny

import vizsynth
from vizsynth.core.entry import as_image, as_images, as_network, check_key, entry
from vizsynth.images import Standardize
from vizsynth.models import sequential, with_attributes
from vizsynth.models.sequential import Conv
from vizsynth.scores import Channel, Class, LogProbability
from vizsynth.types import Key

TRACES: list[str] = []


@entry(static=("steps",))
def scaled(net: Any, images: Any, target: Any, *, steps: int = 1, step_size: Any = 1.0) -> Any:
    TRACES.append("scaled")
    for _ in range(steps):
        images = images * step_size
    return target({"logits": net(images)})


@entry()
def labelled(net: Any, images: Any, labels: Any) -> Any:
    TRACES.append("labelled")
    return labels


@entry()
def keyed(image: Any, *, key: Any) -> Any:
    TRACES.append("keyed")
    return image + jax.random.uniform(key, image.shape, image.dtype)


@pytest.fixture(autouse=True)
def traces() -> Iterator[list[str]]:
    """Count from zero what is traced: another test may have compiled the same program."""
    for function in (scaled, labelled, keyed):
        function.compiled.clear_cache()
    TRACES.clear()
    yield TRACES


NET = tiny("sequential").net  # standardizes
BARE = with_attributes(NET, standardize=None)
IMAGES = np.asarray(tiny("sequential").images(3))


def changed(value: float) -> np.ndarray:
    images = IMAGES.copy()
    images[1, 2, 3, 0] = value
    return images


WRONG_IMAGES = {
    "one image": (IMAGES[0], ValueError, r"one image \(20, 18, 3\); give images\[None\]"),
    "NCHW": (IMAGES.transpose(0, 3, 1, 2), ValueError, r"give images\.transpose\(0, 2, 3, 1\)"),
    "grey": (IMAGES[..., :1], ValueError, r"must be \[n, h, w, 3\], not \(3, 20, 18, 1\).* RGB"),
    "RGBA": (np.ones((1, 20, 18, 4), np.float32), ValueError, r"make them RGB first"),
    "five axes": (IMAGES[None], ValueError, r"must be \[n, h, w, 3\], not \(1, 3, 20, 18, 3\)"),
    "a matrix": (np.ones((4, 4), np.float32), ValueError, r"must be \[n, h, w, 3\], not \(4, 4\)"),
    "no image": (IMAGES[:0], ValueError, r"hold no pixel"),
    "no row": (IMAGES[:, :0], ValueError, r"hold no pixel"),
    "bytes": ((IMAGES * 255).astype(np.uint8), TypeError, r"not uint8; give .* / 255"),
    "integers": (IMAGES.astype(np.int32), TypeError, r"must be float in \[0, 1\], not int32"),
    "0..255": (IMAGES * 255, ValueError, r"must lie in \[0, 1\].*like 0\.\.255: give images / 255"),
    "standardized": ((IMAGES - 0.45) * 4.4 + 0.5, ValueError, r"before their mean was subtracted"),
    "NaN": (changed(np.nan), ValueError, r"hold 1 values that are NaN or infinite"),
    "infinity": (changed(np.inf), ValueError, r"hold 1 values that are NaN or infinite"),
    "a list of integers": ([[[[1, 2, 3]]]], TypeError, r"must be float"),
}


OF_VALUES = ("0..255", "standardized", "NaN", "infinity")


@pytest.mark.parametrize("name", WRONG_IMAGES)
@pytest.mark.parametrize("as_jax", [False, True])
def test_wrong_images_are_named(name: str, as_jax: bool, traces: list[str]) -> None:
    images, error, message = WRONG_IMAGES[name]
    images = jnp.asarray(images) if as_jax else images
    asked = as_jax and name in OF_VALUES  # no call looks at them there
    with pytest.raises(error, match=message):
        (vizsynth.check if asked else scaled)(NET, images, 1)
    assert not traces


ROW = np.arange(3)
WRONG_TARGETS = {
    "a name": ("tabby", TypeError, r"a label \(an int\), not 'tabby'; .*find_class"),
    "a float": (1.0, TypeError, r"one label, one label an image, or a score, not float"),
    "floats": (ROW.astype(np.float32), TypeError, r"not ndarray \(3,\)"),
    "a boolean": (True, TypeError, r"one label, one label an image, or a score"),
    "an object": (object(), TypeError, r"not object"),
    "nothing": (None, TypeError, r"target must be given, not None: a label"),
    "past the last": (CLASSES, ValueError, r"label \[5\] is outside the network's 5 classes 0\.\.4"),
    "1000": (1000, ValueError, r"label \[1000\] is outside"),
    "negative": (-1, ValueError, r"label \[-1\] is outside"),
    "one of three": (np.asarray([1, 7, -2]), ValueError, r"label \[-2, 7\] is outside"),
    "too few": (ROW[:2], ValueError, r"3 images take one label or 3 labels.*\(2,\).*jax\.vmap"),
    "too many": (np.arange(4), ValueError, r"3 images take one label or 3 labels"),
    "a column": (ROW[:, None], ValueError, r"not an array \(3, 1\)"),
    "no label": (ROW[:0], ValueError, r"not an array \(0,\)"),
    "in a score": (Class(9), ValueError, r"label \[9\] is outside"),
    "in a sum": (
        Class(1) - 2 * LogProbability(8) + Channel("conv1", 3),
        ValueError,
        r"label \[8\] is outside",
    ),
}


@pytest.mark.parametrize("name", WRONG_TARGETS)
def test_wrong_targets_are_named(name: str, traces: list[str]) -> None:
    target, error, message = WRONG_TARGETS[name]
    with pytest.raises(error, match=message):
        scaled(NET, IMAGES, target)
    assert not traces


@pytest.mark.parametrize("name", ["past the last", "negative", "one of three", "in a score", "in a sum"])
def test_wrong_labels_on_a_device_are_named_when_asked_and_give_nan(name: str) -> None:
    wrong, error, message = WRONG_TARGETS[name]
    target = (
        jnp.asarray(wrong) if np.ndim(wrong) or isinstance(wrong, int) else jax.tree.map(jnp.asarray, wrong)
    )
    with pytest.raises(error, match=message):
        vizsynth.check(NET, IMAGES, target)
    inside = [True, False, False] if name == "one of three" else [False] * 3
    for function in (vizsynth.gradient, vizsynth.guided_backprop):  # whose rule lets no NaN through
        result = np.asarray(function(NET, IMAGES, target))
        for mine, good in zip(result, inside, strict=True):
            assert (np.isfinite if good else np.isnan)(mine).all()
    assert vizsynth.check(NET, IMAGES, jnp.asarray([0, 4, 2])) is None
    assert vizsynth.check(NET, IMAGES) is None


@pytest.mark.parametrize("label", [CLASSES, -1])
def test_a_plain_functions_classes_are_known_too(label: int) -> None:
    net = lambda images, tap=None: NET(images)  # noqa: E731
    with pytest.raises(ValueError, match=r"is outside the network's 5 classes"):
        scaled(net, IMAGES, label)
    assert np.isnan(scaled(net, IMAGES, jnp.asarray(label))).all()


def test_wrong_networks_keys_and_images_of_one_are_named(traces: list[str]) -> None:
    with pytest.raises(TypeError, match=r"net must be a network .* not str"):
        scaled("vgg16", IMAGES, 1)
    with pytest.raises(TypeError, match=r"net must be a network"):
        scaled(IMAGES, NET, 1)
    with pytest.raises(TypeError, match=r"new-style key, jax\.random\.key\(seed\), not int"):
        keyed(IMAGES[0], key=0)
    with pytest.raises(TypeError, match=r"new-style key.* \(2,\)"):
        keyed(IMAGES[0], key=jax.random.PRNGKey(0))
    with pytest.raises(ValueError, match=r"image must be \[h, w, 3\], not \(3, 20, 18, 3\)"):
        keyed(IMAGES, key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"image hold 1 values that are NaN"):
        keyed(changed(np.nan)[1], key=jax.random.key(0))
    assert not traces


ENTRIES = {name: f for name in dir(vizsynth) if hasattr(f := getattr(vizsynth, name), "compiled")}
GIVEN = {"net", "images", "image", "target", "labels", "key", "layer", "layers"}


@pytest.mark.parametrize("name", ENTRIES)
def test_what_must_be_given_is_told_where_it_is_none(name: str) -> None:
    parameters = inspect.signature(ENTRIES[name]).parameters
    needed = [p for p in parameters if parameters[p].default is inspect.Parameter.empty]
    for wanted in GIVEN.intersection(needed):
        remedy = {"key": r"jax\.random\.key\(seed\)", "target": "a label, .*argmax"}.get(wanted, "")
        with pytest.raises(TypeError, match=f"{wanted} must be given, not None: {remedy}"):
            ENTRIES[name](**{p: None if p == wanted else object() for p in needed})


@pytest.mark.parametrize(
    "name", [name for name in ENTRIES if "key" in inspect.signature(ENTRIES[name]).parameters]
)
def test_several_keys_are_refused_where_one_is_wanted(name: str) -> None:
    parameters = inspect.signature(ENTRIES[name]).parameters
    needed = {p: object() for p in parameters if parameters[p].default is inspect.Parameter.empty}
    one = parameters["key"].annotation in (Key, Key | None)
    shape = (2,) if one else (2, 2)
    message = (
        "one key, not an array of keys.*give one of them" if one else r"one an image \[n\], not an array"
    )
    with pytest.raises(ValueError, match=message):
        ENTRIES[name](**(needed | {"key": jax.random.split(jax.random.key(0), shape)}))
    assert one == (name in ONE_KEY)


ONE_KEY = (
    "bootstrap_mean",
    "cascading_randomization",
    "efros_leung",
    "independent_randomization",
    "interpolate",
    "quilt_texture",
    "quilt_transfer",
    "train_style",
    "universal_perturbation",
    "visualize_diverse",
    "wei_levoy",
)


def test_what_is_not_compiled_looks_at_its_key_too() -> None:
    for wrong in (None, 0, jax.random.PRNGKey(0)):
        with pytest.raises(TypeError, match=r"new-style key, jax\.random\.key\(seed\), not"):
            check_key(wrong)
    with pytest.raises(ValueError, match="give one of them"):
        check_key(jax.random.split(jax.random.key(0)))
    old = jax.random.PRNGKey(0)
    for function in (
        partial(sequential, (Conv(2),)),
        vizsynth.models.vgg11,
        vizsynth.models.resnet18,
        vizsynth.models.alexnet,
        vizsynth.models.squeezenet1_1,
        partial(vizsynth.embed_tsne, np.zeros((4, 2))),
    ):
        with pytest.raises(TypeError, match="new-style key"):
            function(key=old)


@pytest.mark.parametrize("function", [vizsynth.gradient, vizsynth.saliency])
def test_public_functions_check_before_they_compile(function: Any) -> None:
    before = function.compiled._cache_size()
    for images, error, _ in WRONG_IMAGES.values():
        with pytest.raises(error):
            function(NET, images, 1)
    for target, error, _ in WRONG_TARGETS.values():
        with pytest.raises(error):
            function(NET, IMAGES, target)
    assert function.compiled._cache_size() == before


def test_images_too_small_for_the_network_say_so() -> None:
    with pytest.raises(ValueError, match=r"too small for this network.*5x5.*give larger images"):
        vizsynth.saliency(NET, IMAGES[:, :4, :4], 1)


def test_a_layer_of_vectors_has_no_map() -> None:
    with pytest.raises(ValueError, match=r"needs a layer of maps, but 'logits' is a vector of 5"):
        vizsynth.grad_cam(NET, IMAGES, 1, layer="logits")


# What is right passes -----------------------------------------------------------


def test_slack_is_left_for_noise_and_bare_networks_take_any_range() -> None:
    assert as_images(IMAGES * 2.5 - 0.75).shape == IMAGES.shape
    scaled(NET, IMAGES * 2.5 - 0.75, 1)
    scaled(BARE, (IMAGES - 0.5) * 300, 1)
    with pytest.raises(ValueError, match="NaN"):
        scaled(BARE, changed(np.nan), 1)
    with pytest.raises(ValueError, match="must lie"):
        scaled(with_attributes(BARE, standardize=Standardize((0, 0, 0), (1, 1, 1))), IMAGES * 255, 1)


def test_arrays_of_any_kind_are_images() -> None:
    assert as_images(IMAGES[:1, :1, :1].tolist()).shape == (1, 1, 1, 3)
    assert as_images(jnp.asarray(IMAGES, jnp.bfloat16)).dtype == jnp.bfloat16
    assert as_image(IMAGES[0]).shape == (20, 18, 3)


@pytest.mark.parametrize(
    "target",
    [2, np.int64(2), np.asarray(2), np.asarray([2]), [2], jnp.int32(2), np.asarray([2, 2, 2]), [2, 2, 2]],
)
def test_labels_of_any_kind_are_the_same_score(target: Any) -> None:
    expected = np.asarray(NET(jnp.asarray(IMAGES)))[:, 2]
    np.testing.assert_allclose(scaled(NET, IMAGES, target), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(labelled(NET, IMAGES, target), [2, 2, 2])


def test_one_label_an_image() -> None:
    labels = np.asarray([4, 0, 3])
    expected = np.asarray(NET(jnp.asarray(IMAGES)))[[0, 1, 2], labels]
    np.testing.assert_allclose(scaled(NET, IMAGES, labels), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(labelled(NET, IMAGES, labels), labels)


def test_a_plain_function_is_a_network() -> None:
    def double(images: Any) -> Any:
        return images.sum((1, 2)) * 2

    np.testing.assert_allclose(scaled(double, IMAGES, 1), 2 * IMAGES.sum((1, 2))[:, 1], rtol=1e-5)
    assert jax.tree.leaves(as_network(double)) == []
    assert as_network(NET) is NET


# One program --------------------------------------------------------------------


def test_numbers_are_traced_once(traces: list[str]) -> None:
    for label, step_size, net in ((0, 0.5, NET), (3, 0.25, NET), (4, 2.0, jax.tree.map(jnp.cos, NET))):
        scaled(net, IMAGES, label, step_size=step_size)
        scaled(net, IMAGES[::-1].copy(), np.int64(label), step_size=np.float32(step_size).item())
    scaled(NET, IMAGES, np.asarray([2]), step_size=0.1)
    assert len(traces) == scaled.compiled._cache_size() == 1


def test_structure_is_traced_anew(traces: list[str]) -> None:
    for steps in (1, 2, 1, 2):
        scaled(NET, IMAGES, 1, steps=steps)
    assert len(traces) == 2


@pytest.mark.parametrize(
    "function",
    [vizsynth.gradient, vizsynth.saliency, partial(vizsynth.grad_cam, layer="relu1")],
)
def test_another_label_does_not_compile_anew(function: Any) -> None:
    compiled = getattr(function, "func", function).compiled
    net = tiny("sequential_mean").net
    images = random_images(3, 17, 18)
    before = compiled._cache_size()
    for label in (0, 4, 2):
        function(net, images, Class(label))
    assert compiled._cache_size() == before + 1
    for seed in (1, 2):
        labels = np.random.default_rng(seed).integers(0, CLASSES, 3)
        function(net, random_images(3, 17, 18, seed=seed), labels)
    assert compiled._cache_size() == before + 2


def test_within_a_program_tracers_pass_and_constants_are_checked(traces: list[str]) -> None:
    inside = jax.jit(lambda images, label: scaled(NET, images, label))
    assert inside(IMAGES, 1).shape == (3,)
    assert inside(changed(np.nan), 1).shape == (3,)  # nobody can look at a tracer's values
    assert jnp.isnan(inside(IMAGES, CLASSES)).all()  # nor at a label's, but nothing else is explained
    gradients = jax.jit(lambda images, label: vizsynth.gradient(NET, images, label))
    assert jnp.isnan(gradients(IMAGES, -1)).all()
    with pytest.raises(jax.errors.ConcretizationTypeError):
        jax.jit(lambda images: vizsynth.check(NET, images))(IMAGES)
    assert jax.grad(lambda images: scaled(NET, images, 1).sum())(jnp.asarray(IMAGES)).shape == (3, 20, 18, 3)
    with pytest.raises(ValueError, match="NaN"):
        jax.jit(lambda scale: scaled(NET, changed(np.nan), 1, step_size=scale))(0.5)
    with pytest.raises(ValueError, match=r"label \[5\]"):
        jax.jit(lambda images: scaled(NET, images, CLASSES))(IMAGES)
    with pytest.raises(ValueError, match="give images"):
        jax.jit(lambda images: scaled(NET, images, 1))(IMAGES[0])


def test_an_entry_keeps_its_name_its_arguments_and_its_words() -> None:
    assert vizsynth.saliency.__name__ == "saliency"
    assert "labels" not in inspect.signature(vizsynth.saliency).parameters
    assert "largest absolute gradient" in str(vizsynth.saliency.__doc__)
    with pytest.raises(TypeError, match="layer"):
        vizsynth.grad_cam(NET, IMAGES, 1)
    with pytest.raises(TypeError, match="unexpected"):
        vizsynth.saliency(NET, IMAGES, 1, layers="relu1")
