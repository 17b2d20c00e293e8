"""Fresh heads: another number of classes, and nothing else another."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import FAMILIES, tiny, tiny_resnet, tiny_vgg

import vizsynth
from vizsynth.models import fold_batch_norm, record_of, save, with_classes, with_precision
from vizsynth.models.io.weights import paths
from vizsynth.models.sequential import Conv, Dense, GlobalMean, sequential

KEY = jax.random.key(3)
CLASSES = ("cat", "dog", "fox")


def changed(net: Any, other: Any) -> set[str]:
    ours, theirs = paths(net), paths(other)
    return {
        name
        for name in {*ours, *theirs}
        if name not in ours or name not in theirs or not np.array_equal(ours[name], theirs[name])
    }


@pytest.mark.parametrize("name", FAMILIES)
def test_the_last_layer_alone_is_another(name: str) -> None:
    subject = tiny(name)
    other = with_classes(subject.net, CLASSES, key=KEY)
    last = {"vgg": "fc8", "resnet": "fc", "squeezenet": "conv10", "sequential": "logits"}
    layer = last[name.partition("_")[0]]
    assert changed(subject.net, other) == {f"{layer}.kernel", f"{layer}.bias"}
    assert jax.eval_shape(other, subject.images(1)).shape == (1, 3) and other.num_classes == 3
    assert other.labels == CLASSES and other.layers == subject.net.layers
    assert subject.net.num_classes == 5


def test_the_head_is_fresh_for_as_many_classes_too() -> None:
    net = tiny("resnet_basic").net
    assert changed(net, with_classes(net, "abcde", key=KEY)) == {"fc.kernel", "fc.bias"}


@pytest.mark.parametrize("norm", [False, True])
def test_a_trunk_gets_what_it_lacks(norm: bool) -> None:
    trunk = tiny_vgg(batch_norm=norm, num_classes=None)
    net = with_classes(trunk, CLASSES, key=KEY)
    assert changed(trunk, net) == {"head.logits.kernel", "head.logits.bias"}
    image = tiny("vgg").images(1)
    means = np.asarray(trunk(image)).mean((1, 2))
    expected = means @ np.asarray(net.head.logits.kernel[...]) + np.asarray(net.head.logits.bias[...])
    np.testing.assert_allclose(net(image), expected, rtol=1e-4, atol=1e-5)
    again = with_classes(net, "ab", key=KEY)
    assert again(image).shape == (1, 2) and changed(net, again) == {"head.logits.kernel", "head.logits.bias"}
    trunk = tiny_resnet(bottleneck=True, num_classes=None)
    assert changed(trunk, with_classes(trunk, CLASSES, key=KEY)) == {"fc.kernel", "fc.bias"}


def test_folded_networks_and_other_precisions_stay_so() -> None:
    subject = tiny("resnet_basic")
    folded = with_precision(fold_batch_norm(subject.net), jnp.bfloat16)
    net = with_classes(folded, CLASSES, key=KEY)
    assert changed(folded, net) == {"fc.kernel", "fc.bias"}
    assert net(subject.images(1)).dtype == jnp.bfloat16


def test_what_is_saved_is_loaded_as_it_was_folded_or_not(tmp_path: Path) -> None:
    subject = tiny("resnet_basic")
    net = with_classes(subject.net, CLASSES, key=KEY)
    path = tmp_path / "mine.safetensors"
    save(path, net, record_of(net, "resnet", input_size=(23, 20), origin="here"))
    unfolded = vizsynth.load(path, folded=False)
    assert changed(net, unfolded) == set()
    loaded = vizsynth.load(path)
    assert loaded.labels == CLASSES and loaded.layer1[0].conv1.norm is None
    assert loaded.record.input_size == (23, 20) and loaded.record.origin == "here"
    images = subject.images()
    np.testing.assert_allclose(loaded(images), net(images), rtol=1e-4, atol=1e-4)
    other = with_classes(unfolded, "ab", key=KEY)
    assert other.record.labels == ("a", "b") and other.record.config.num_classes == 2


@pytest.mark.parametrize("classes", [(), ("cat",), ("cat", "cat")])
def test_two_classes_at_least(classes: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="two classes or more"):
        with_classes(tiny("vgg").net, classes, key=KEY)


def test_what_ends_with_maps_has_no_head() -> None:
    maps = sequential((Conv(3),), (8, 8, 3), key=KEY)
    with pytest.raises(ValueError, match=r"ends with Conv.*Dense"):
        with_classes(maps, CLASSES, key=KEY)
    with pytest.raises(TypeError, match="no network of"):
        with_classes(lambda images: images, CLASSES, key=KEY)
    assert (
        with_classes(sequential((GlobalMean(), Dense(5)), (8, 8, 3), key=KEY), "ab", key=KEY).num_classes == 2
    )
