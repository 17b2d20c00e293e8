"""A network in parts gives what the whole one gives, and keeps less."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import Subject, tiny

from vizsynth.models import vgg16
from vizsynth.ops import accelerated
from vizsynth.replay import parts
from vizsynth.synthesis.texture.gatys import VGG_CUTS, VGG_LAYERS, gram
from vizsynth.types import Network

CUTS = {"vgg": ("pool1",), "squeezenet": ("pool1", "pool3")}


@pytest.mark.parametrize("name", CUTS)
def test_parts_give_what_the_whole_gives(name: str) -> None:
    subject = tiny(name)
    layers = ("relu1_1", "pool1", "relu2_2") if name == "vgg" else ("relu1", "fire2", "fire5")

    def total(images: Any, net: Network, cuts: tuple[str, ...]) -> Any:
        found = parts.read(net, images, layers, lambda layer, A: (A**2).mean(), cuts=cuts)
        assert tuple(found) == layers
        return sum(found.values(), start=jnp.zeros(()))

    whole, g = jax.jit(jax.value_and_grad(total), static_argnums=2)(subject.images(), subject.net, ())
    cut, g_cut = jax.jit(jax.value_and_grad(total), static_argnums=2)(
        subject.images(), subject.net, CUTS[name]
    )
    np.testing.assert_allclose(cut, whole, rtol=1e-6)
    np.testing.assert_allclose(g_cut, g, rtol=1e-4, atol=1e-6 * float(jnp.abs(g).max()))


def temporary_bytes(cuts: tuple[str, ...]) -> int:
    net = accelerated(jax.eval_shape(lambda: vgg16(num_classes=None, key=jax.random.key(0))))
    image = jax.ShapeDtypeStruct((1, 256, 256, 3), jnp.float32)

    def total(image: Any, net: Any) -> Any:
        found = parts.read(net, image, VGG_LAYERS, lambda layer, A: (gram(A[0]) ** 2).mean(), cuts=cuts)
        return sum(found.values(), start=jnp.zeros(()))

    analysis = jax.jit(jax.grad(total)).lower(image, net).compile().memory_analysis()
    assert analysis is not None
    return analysis.temp_size_in_bytes


def test_parts_need_less_memory() -> None:
    assert temporary_bytes(VGG_CUTS) < 0.7 * temporary_bytes(())


def test_unknown_layers_are_named(subject: Subject) -> None:
    for layers, cuts in ((("no_such",), ("also_no",)), ((subject.middle,), ("also_no",))):
        with pytest.raises(ValueError, match=r"no layer .*also_no.*; its layers are"):
            parts.read(subject.net, subject.images(), layers, lambda layer, A: A, cuts=cuts)
