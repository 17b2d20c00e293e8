"""Every architecture against numbers that PyTorch computed, for those who do not have it.

`goldens/make_networks.py` made them; `random_weights` makes the weights, here as there.
"""

import json
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_weights import random_state_dict
from tiny import random_images

from vizsynth.models import fold_batch_norm, with_precision
from vizsynth.models.io.load import NETWORKS
from vizsynth.models.io.names import translate
from vizsynth.models.io.weights import fit, skeleton
from vizsynth.models.vgg import VGGConfig

GOLDENS = np.load(Path(__file__).parent.parent / "goldens" / "networks.npz")
CLASSES = 10
HIDDEN = 16
EVERY = 31
DEEP = (
    "alexnet",
    "resnet34",
    "resnet101",
    "resnet152",
    "vgg11_bn",
    "vgg13",
    "vgg13_bn",
    "vgg16",
    "vgg16_bn",
    "vgg19",
)
MARKED = [pytest.param(n, marks=pytest.mark.slow) if n in DEEP else n for n in NETWORKS]


def distance(a: object, b: object) -> float:
    return float(np.linalg.norm(np.asarray(a) - np.asarray(b)) / np.linalg.norm(np.asarray(b)))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", MARKED)
def test_logits_and_gradients_are_pytorchs(name: str) -> None:
    shapes = {key: tuple(shape) for key, shape in json.loads(str(GOLDENS[f"{name}/shapes"])).items()}
    config = NETWORKS[name]
    if isinstance(config, VGGConfig):
        config = replace(config, hidden=HIDDEN)
    found = translate(random_state_dict(shapes, 0), config)
    net = fit(skeleton(found.config, folded=False), found.arrays, names=found.names)
    net = fold_batch_norm(with_precision(net, jnp.float64))
    images = jnp.asarray(np.asarray(random_images(1, *GOLDENS[f"{name}/size"]), np.float64))

    @jax.jit
    def both(net, images):
        logits, pull = jax.vjp(lambda images: net(images), images)
        return logits, pull(jnp.linspace(-1, 1, CLASSES)[None])[0]

    logits, gradient = both(net, images)
    assert distance(logits, GOLDENS[f"{name}/logits"]) < 1e-10
    assert distance(jnp.linalg.norm(gradient), GOLDENS[f"{name}/norm"]) < 1e-8
    assert distance(gradient.reshape(-1)[::EVERY], GOLDENS[f"{name}/gradient"]) < 1e-6  # kept in float32


def test_every_network_that_has_a_name_is_here() -> None:
    assert {key.split("/")[0] for key in GOLDENS.files if "/" in key} == set(NETWORKS)
