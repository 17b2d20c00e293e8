"""The PyTorch networks against the published sizes, names and shapes."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from random_weights import BRANCH_SCALE, random_state_dict
from torch import nn
from torch_networks import alexnet, randomize, resnet, squeezenet1_1, standardized, vgg

PARAMETERS = {
    "vgg11": (lambda: vgg(11, False), 132_863_336),
    "vgg13": (lambda: vgg(13, False), 133_047_848),
    "vgg16": (lambda: vgg(16, False), 138_357_544),
    "vgg19": (lambda: vgg(19, False), 143_667_240),
    "vgg11_bn": (lambda: vgg(11, True), 132_868_840),
    "vgg13_bn": (lambda: vgg(13, True), 133_053_736),
    "vgg16_bn": (lambda: vgg(16, True), 138_365_992),
    "vgg19_bn": (lambda: vgg(19, True), 143_678_248),
    "resnet18": (lambda: resnet(18), 11_689_512),
    "resnet34": (lambda: resnet(34), 21_797_672),
    "resnet50": (lambda: resnet(50), 25_557_032),
    "resnet101": (lambda: resnet(101), 44_549_160),
    "resnet152": (lambda: resnet(152), 60_192_808),
    "alexnet": (alexnet, 61_100_840),
    "squeezenet1_1": (squeezenet1_1, 1_235_496),
}

SHAPES = {
    "vgg16": {
        "features.0.weight": (64, 3, 3, 3),
        "features.28.weight": (512, 512, 3, 3),
        "classifier.0.weight": (4096, 25088),
        "classifier.3.weight": (4096, 4096),
        "classifier.6.bias": (1000,),
    },
    "vgg16_bn": {"features.1.running_mean": (64,), "features.40.weight": (512, 512, 3, 3)},
    "resnet18": {
        "layer2.0.downsample.0.weight": (128, 64, 1, 1),
        "layer2.0.downsample.1.running_var": (128,),
        "layer4.1.conv2.weight": (512, 512, 3, 3),
        "fc.weight": (1000, 512),
    },
    "resnet50": {
        "conv1.weight": (64, 3, 7, 7),
        "bn1.num_batches_tracked": (),
        "layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "layer4.2.conv3.weight": (2048, 512, 1, 1),
        "fc.bias": (1000,),
    },
    "alexnet": {
        "features.0.weight": (64, 3, 11, 11),
        "features.10.weight": (256, 256, 3, 3),
        "classifier.1.weight": (4096, 9216),
        "classifier.4.weight": (4096, 4096),
        "classifier.6.weight": (1000, 4096),
    },
    "squeezenet1_1": {
        "features.3.squeeze.weight": (16, 64, 1, 1),
        "features.3.expand1x1.weight": (64, 16, 1, 1),
        "features.12.expand3x3.weight": (256, 64, 3, 3),
        "classifier.1.weight": (1000, 512, 1, 1),
    },
}

TENSORS = {  # entries of the state dict, batch normalization's five each
    "vgg16": 32,
    "vgg16_bn": 97,
    "resnet18": 122,
    "resnet50": 320,
    "alexnet": 16,
    "squeezenet1_1": 52,
}


def built_without_memory(name: str) -> nn.Module:
    with torch.device("meta"):
        return PARAMETERS[name][0]()


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts_are_the_published_ones(name: str) -> None:
    module = built_without_memory(name)
    assert sum(p.numel() for p in module.parameters()) == PARAMETERS[name][1]
    assert not module.training


@pytest.mark.parametrize("name", SHAPES)
def test_state_dict_has_torchvisions_names(name: str) -> None:
    tensors = built_without_memory(name).state_dict()
    assert len(tensors) == TENSORS[name]
    assert {key: tuple(tensors[key].shape) for key in SHAPES[name]} == SHAPES[name]


@pytest.mark.parametrize("size", [(224, 224), (193, 209), (64, 64)])
@pytest.mark.parametrize("build", [squeezenet1_1, alexnet, PARAMETERS["resnet18"][0]])
def test_forward_gives_finite_moderate_logits(build: Callable[[], nn.Module], size: tuple[int, int]) -> None:
    net = standardized(randomize(build(), 0))
    x = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = net(x)
    assert logits.shape == (2, 1000)
    assert 0.01 < logits.std() < 100


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vgg16", "vgg19_bn", "resnet34", "resnet50", "resnet152"])
def test_deep_networks_give_finite_moderate_logits(name: str) -> None:
    net = standardized(randomize(PARAMETERS[name][0](), 0))
    with torch.no_grad():
        logits = net(torch.rand(1, 3, 193, 209, generator=torch.Generator().manual_seed(0)))
    assert logits.shape == (1, 1000)
    assert 0.01 < logits.std() < (1000 if name == "resnet152" else 100)  # 50 sums add up


@pytest.mark.parametrize("name", ["vgg11_bn", "resnet18", "resnet50", "squeezenet1_1"])
def test_each_relu_is_called_once_and_not_in_place(name: str) -> None:
    net = built_without_memory(name)
    calls: list[nn.Module] = []
    relus = [module for module in net.modules() if isinstance(module, nn.ReLU)]
    for relu in relus:
        relu.register_forward_hook(lambda module, args, out: calls.append(module))
    net(torch.empty(1, 3, 64, 64, device="meta"))
    assert len(calls) == len(set(calls)) == len(relus)
    assert not any(relu.inplace for relu in relus)


def test_randomize_fills_a_module_with_the_numpy_values() -> None:
    net = randomize(resnet(18, num_classes=10), 3)
    tensors = net.state_dict()
    arrays = random_state_dict({name: tuple(t.shape) for name, t in tensors.items()}, 3)
    for name, tensor in tensors.items():
        assert arrays[name].dtype == np.float32
        np.testing.assert_array_equal(tensor.numpy(), arrays[name])


def test_random_values_depend_on_seed_and_name_alone() -> None:
    one = random_state_dict({"a.weight": (8, 4), "b.weight": (8, 4)}, 0)
    alone = random_state_dict({"b.weight": (8, 4)}, 0)
    other = random_state_dict({"b.weight": (8, 4)}, 1)
    np.testing.assert_array_equal(one["b.weight"], alone["b.weight"])
    assert not np.array_equal(one["a.weight"], one["b.weight"])
    assert not np.array_equal(alone["b.weight"], other["b.weight"])


@pytest.mark.parametrize(("last", "others"), [(2, [1]), (3, [1, 2])])
def test_only_the_last_scale_of_a_branch_is_small(last: int, others: list[int]) -> None:
    arrays = random_state_dict({f"layer1.0.bn{i}.weight": (64,) for i in [*others, last]}, 0)
    assert arrays[f"layer1.0.bn{last}.weight"].max() <= 1.5 * BRANCH_SCALE
    for i in others:
        assert arrays[f"layer1.0.bn{i}.weight"].min() >= 0.5


def test_random_values_of_an_unknown_kind_are_refused() -> None:
    with pytest.raises(ValueError, match="no kind of random values"):
        random_state_dict({"scale": (3,)}, 0)


def test_standardized_shifts_and_scales_each_channel() -> None:
    net = standardized(nn.Identity(), (0.1, 0.2, 0.3), (0.5, 0.25, 0.125))
    out = net(torch.full((1, 3, 1, 1), 0.5)).flatten().numpy()
    np.testing.assert_allclose(out, [0.8, 1.2, 1.6], rtol=1e-6)
    assert not net.state_dict()
