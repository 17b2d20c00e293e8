from typing import Any

import numpy as np
import pytest
from test_weights import CONFIGS, random_arrays

from vizsynth.models.io.load import NETWORKS
from vizsynth.models.io.names import dialects, layer_name, translate
from vizsynth.models.io.weights import Config, WeightsError, fit, paths, skeleton
from vizsynth.models.vgg import VGGConfig


def as_torch(config: VGGConfig, arrays: dict[str, np.ndarray], timm: bool = False) -> dict[str, np.ndarray]:
    """Write tiny VGG weights as PyTorch does, one at a time and by the definition of its layouts."""
    theirs: dict[str, np.ndarray] = {}
    index = 0
    for b, depth in enumerate(config.depths, start=1):
        for i in range(1, depth + 1):
            kernel = arrays[f"conv{b}_{i}.kernel"]
            weight = np.zeros((kernel.shape[3], kernel.shape[2], *kernel.shape[:2]), np.float32)
            for y, x, c, k in np.ndindex(*kernel.shape):
                weight[k, c, y, x] = kernel[y, x, c, k]
            theirs[f"features.{index}.weight"] = weight
            theirs[f"features.{index}.bias"] = arrays[f"conv{b}_{i}.bias"]
            index += 2
        index += 1
    h, w = config.head_size
    channels = config.widths[-1]
    fc6 = arrays["fc6.kernel"].reshape(h, w, channels, -1)  # rows first, channels last
    channels_first = np.stack([fc6[:, :, c] for c in range(channels)])  # c h w out
    kinds = ("pre_logits.fc1", "pre_logits.fc2", "head.fc") if timm else (0, 3, 6)
    first, second, last = (kind if timm else f"classifier.{kind}" for kind in kinds)
    weight = channels_first.reshape(channels * h * w, -1).T
    theirs[f"{first}.weight"] = weight.reshape(-1, channels, h, w) if timm else weight
    theirs[f"{second}.weight"] = arrays["fc7.kernel"].T[..., None, None] if timm else arrays["fc7.kernel"].T
    theirs[f"{last}.weight"] = arrays["fc8.kernel"].T
    for name, ours in ((first, "fc6"), (second, "fc7"), (last, "fc8")):
        theirs[f"{name}.bias"] = arrays[f"{ours}.bias"]
    return theirs


@pytest.mark.parametrize("timm", [False, True])
def test_vgg_comes_back_from_pytorch(timm: bool) -> None:
    config = VGGConfig((1, 1, 1, 1, 1), False, 5, (2, 3, 4, 5, 6), hidden=8, head_size=(2, 3))
    arrays = random_arrays(skeleton(config))
    found = translate(as_torch(config, arrays, timm), config)
    assert found.dialect.name == ("timm" if timm else "torchvision")
    assert found.config == config
    assert found.arrays.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array)


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "module.net."])
def test_wrappers_of_training_loops_are_taken_off(prefix: str) -> None:
    config = CONFIGS["vgg"]
    assert isinstance(config, VGGConfig)
    theirs = as_torch(config, random_arrays(skeleton(config)))
    found = translate({prefix + name: array for name, array in theirs.items()}, config)
    assert found.arrays.keys() == paths(skeleton(config)).keys()
    assert found.names["fc8.bias"] == prefix + "classifier.6.bias"


def test_the_classes_are_those_of_the_file() -> None:
    config = CONFIGS["vgg"]
    assert isinstance(config, VGGConfig)
    theirs = as_torch(config, random_arrays(skeleton(config)))
    standard = VGGConfig(config.depths, False, 1000, config.widths, config.hidden)
    assert translate(theirs, standard).config.num_classes == 5
    trunk = {name: array for name, array in theirs.items() if name.startswith("features")}
    assert translate(trunk, standard).config.num_classes is None


def test_mismatches_are_named_as_in_the_file() -> None:
    config = CONFIGS["vgg"]
    assert isinstance(config, VGGConfig)
    theirs = as_torch(config, random_arrays(skeleton(config)))
    theirs["classifier.0.weight"] = theirs["classifier.0.weight"][:, :-1]
    theirs["features.0.weight"] = theirs["features.0.weight"][0]
    theirs["extra.weight"] = np.zeros(3, np.float32)
    del theirs["classifier.3.bias"]
    found = translate(theirs, config)
    with pytest.raises(WeightsError) as caught:
        fit(skeleton(found.config), found.arrays, names=found.names)
    for said in (
        "missing: fc7.bias (classifier.3.bias in the file) (8,)",
        "unexpected: extra.weight (3,)",
        "fc6.kernel (classifier.0.weight in the file) must be (294, 8), not (293, 8)",
        "conv1_1.kernel (features.0.weight in the file) must be (3, 3, 3, 2), not (3, 3, 3)",
    ):
        assert said in str(caught.value)
    assert "in 4 places" in str(caught.value)


def test_a_file_of_another_kind_is_told_which_names_are_wanted() -> None:
    with pytest.raises(WeightsError, match=r"it holds encoder\.0, .*torchvision: features\.0\.weight"):
        translate({"encoder.0": np.zeros(1)}, CONFIGS["vgg"])


@pytest.mark.parametrize("config", NETWORKS.values(), ids=NETWORKS)
def test_every_dialect_reaches_parameters_that_exist(config: Config) -> None:
    known = paths(skeleton(config))
    spoken = dialects(config, known)
    full = [d.name for d in spoken if {place.path for place in d.places.values()} == known.keys()]
    assert {"vizsynth", "torchvision"} <= set(full)
    for dialect in spoken:
        reached = [place.path for place in dialect.places.values()]
        assert len(set(reached)) == len(reached)
        assert set(reached) <= known.keys()


class Net:
    """All that `layer_name` looks at."""

    def __init__(self, config: Config):
        self.config = config
        self.layers = skeleton(config).layers


NETS: dict[str, Any] = {}


def named(network: str) -> Any:
    if network not in NETS:
        NETS[network] = Net(NETWORKS[network])
    return NETS[network]


@pytest.mark.parametrize(
    ("network", "typed", "layer"),
    [
        ("vgg16", "relu5_3", "relu5_3"),
        ("vgg16", " relu5_3 ", "relu5_3"),
        ("vgg16", "block1_conv1", "conv1_1"),
        ("vgg16", "block5_conv3", "conv5_3"),
        ("vgg16", "block5_pool", "pool5"),
        ("vgg16", "vgg16/block5_conv3", "conv5_3"),
        ("vgg16", "fc1", "relu6"),
        ("vgg16", "fc2", "relu7"),
        ("vgg16", "predictions", "logits"),
        ("vgg16", "features.0", "conv1_1"),
        ("vgg16", "features.28", "conv5_3"),
        ("vgg16", "features.29", "relu5_3"),
        ("vgg16", "features.30", "pool5"),
        ("vgg16", "classifier.0", "fc6"),
        ("vgg16", "classifier.1", "relu6"),
        ("vgg16", "classifier.3", "fc7"),
        ("vgg16", "classifier.6", "logits"),
        ("vgg11", "features.18", "conv5_2"),
        ("vgg19", "features.34", "conv5_4"),
        ("vgg19", "block5_conv4", "conv5_4"),
        ("vgg16_bn", "features.40", "conv5_3"),
        ("vgg16_bn", "features.41", "conv5_3"),  # the batch normalization is part of the convolution
        ("vgg16_bn", "features.42", "relu5_3"),
        ("vgg16_bn", "features.43", "pool5"),
        ("alexnet", "features.0", "conv1"),
        ("alexnet", "features.2", "pool1"),
        ("alexnet", "features.10", "conv5"),
        ("alexnet", "features.11", "relu5"),
        ("alexnet", "features.12", "pool5"),
        ("alexnet", "classifier.1", "fc6"),
        ("alexnet", "classifier.6", "logits"),
        ("squeezenet1_1", "features.0", "conv1"),
        ("squeezenet1_1", "features.2", "pool1"),
        ("squeezenet1_1", "features.3", "fire2"),
        ("squeezenet1_1", "features.5", "pool3"),
        ("squeezenet1_1", "features.12", "fire9"),
        ("squeezenet1_1", "features.12.expand3x3", "fire9.expand3x3"),
        ("squeezenet1_1", "features.3.squeeze_activation", "fire2.squeeze_relu"),
        ("squeezenet1_1", "classifier.1", "conv10"),
        ("resnet18", "layer4", "layer4.1"),
        ("resnet50", "layer4", "layer4.2"),
        ("resnet50", "layer3.5", "layer3.5"),
        ("resnet50", "layer2.0.downsample", "layer2.0.shortcut"),
        ("resnet50", "layer2.0.bn3", "layer2.0.conv3"),
        ("resnet18", "maxpool", "pool1"),
        ("resnet18", "fc", "logits"),
    ],
)
def test_what_people_type_is_understood(network: str, typed: str, layer: str) -> None:
    net = named(network)
    assert layer in net.layers
    assert layer_name(net, typed) == layer


def test_an_unknown_layer_lists_the_nearest_and_all() -> None:
    with pytest.raises(ValueError, match=r"no layer 'relu5_4'; the nearest are: .*relu5_3.*conv1_1, relu1_1"):
        layer_name(named("vgg16"), "relu5_4")
    with pytest.raises(ValueError, match=r"no layer 'block5_conv4'"):
        layer_name(named("vgg16"), "block5_conv4")
    with pytest.raises(ValueError, match=r"no layer 'features.31'"):
        layer_name(named("vgg16"), "features.31")


def test_a_trunk_does_not_offer_what_it_lacks() -> None:
    net = Net(VGGConfig((1, 1, 1, 1, 1), False, None, (2, 2, 2, 2, 2)))
    with pytest.raises(ValueError, match="no layer 'predictions'"):
        layer_name(net, "predictions")
