"""The layers of a network by their use."""

from typing import Any

import jax
import pytest

import vizsynth
from vizsynth.models import roles_of
from vizsynth.models.alexnet import ROLES as ALEXNET
from vizsynth.models.io.load import NETWORKS
from vizsynth.models.io.weights import skeleton
from vizsynth.models.resnet import ROLES as RESNET
from vizsynth.models.roles import Roles
from vizsynth.models.sequential import Conv, Dense, Flatten, GlobalMean, ReLU, sequential
from vizsynth.models.squeezenet import ROLES as SQUEEZENET
from vizsynth.models.vgg import ROLES as VGG

KEY = jax.random.key(0)


def layers_of(roles: Roles) -> set[str]:
    """Return all names of layers in the roles."""
    several = (roles.inverted, roles.content, roles.style, roles.texture, roles.cuts)
    several += (roles.training_content, roles.training_style)
    single = [roles.cam, roles.channels, roles.dream, *([roles.pooled] if roles.pooled else [])]
    return {*single, *(name for names in several for name in names)}


@pytest.mark.parametrize(
    ("name", "told"),
    [("vgg16", VGG), ("resnet18", RESNET), ("alexnet", ALEXNET), ("squeezenet1_1", SQUEEZENET)],
)
def test_a_family_tells_its_layers(name: str, told: Roles) -> None:
    net = skeleton(NETWORKS[name])
    assert net.roles == roles_of(net) == told
    assert layers_of(net.roles) <= set(net.layers)


@pytest.mark.parametrize("name", ["vgg11", "vgg19_bn", "resnet50"])
def test_other_networks_of_a_family_have_all_their_layers(name: str) -> None:
    net = skeleton(NETWORKS[name])
    assert layers_of(net.roles) <= set(net.layers)
    assert all(value for value in net.roles._replace(pooled="none"))


def test_what_a_small_vgg_lacks_is_the_nearest() -> None:
    net = skeleton(NETWORKS["vgg11"])
    assert net.roles.cam == net.roles.dream == net.roles.channels == "conv5_2"
    assert net.roles.content == ("relu4_2",)
    assert net.roles.training_style == tuple(n for n in net.layers if n.startswith("relu") and "_" in n)


def test_a_trunk_pools_nothing() -> None:
    net: Any = vizsynth.models.squeezenet1_1(num_classes=None, key=KEY)
    assert net.roles.pooled is None
    assert net.roles.cam == "fire9"


def test_a_sequential_network_is_read_by_its_shapes() -> None:
    stack = [Conv(4), ReLU(), Conv(4), ReLU(), GlobalMean(), Dense(2)]
    roles = sequential(stack, (8, 8, 3), key=KEY).roles
    assert (roles.cam, roles.pooled, roles.channels) == ("relu2", "relu2", "conv2")
    assert (roles.content, roles.style) == (("relu2",), ("relu1", "relu2"))
    flat = sequential([Conv(4), ReLU(), Flatten(), Dense(2)], (8, 8, 3), key=KEY)
    assert (flat.roles.cam, flat.roles.pooled) == ("relu1", None)


def test_a_network_without_maps_is_refused() -> None:
    with pytest.raises(ValueError, match="no layer of maps"):
        roles_of(sequential([Flatten(), Dense(2)], (8, 8, 3), key=KEY))
