"""The attacks against torchattacks and Foolbox: the same networks, the same images, the same starts.

What has one answer (FGSM, BIM, PGD, MI-FGSM) is compared image by image in float64, as the sign of a gradient
that is all but 0 turns with its rounding. What searches (DeepFool, Carlini & Wagner, APGD) is compared by how
many images it fools and by how far it moves them, each as its own framework sees it.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from peers import peer
from PIL import Image
from test_networks import nchw
from torch import nn
from torch_networks import Standardized, squeezenet1_1, standardized

import vizsynth
from vizsynth.models import with_precision
from vizsynth.models.sequential import Conv, Dense, GlobalMean, MaxPool, ReLU
from vizsynth.planted import WEIGHTS, planted

torchattacks = peer("torchattacks")
foolbox = peer("foolbox")

PHOTOS = Path(__file__).parents[2] / "experiments" / "photos"
x64 = pytest.mark.usefixtures("x64")


# The networks twice -----------------------------------------------------------------


def tensor(values: Any, *order: int) -> nn.Parameter:
    values = np.asarray(values)
    return nn.Parameter(torch.from_numpy((values.transpose(order) if order else values).copy()))


def weighted(module: Any, layer: Any) -> Any:
    """Give a module of PyTorch the weights of a layer of ours."""
    kernel = layer.kernel[...]
    module.weight = tensor(kernel, *((3, 2, 0, 1) if kernel.ndim == 4 else (1, 0)))
    module.bias = tensor(layer.bias[...])
    return module


def torch_sequential(net: Any) -> Standardized:
    """Return a network of layers in PyTorch."""
    layers: list[nn.Module] = []
    for name, layer in zip(net.layers, net.config.stack, strict=True):
        match layer:
            case Conv():
                pad = layer.window // 2 if layer.padding is None else layer.padding
                conv = nn.Conv2d(1, 1, layer.window, layer.stride, pad)
                layers.append(weighted(conv, getattr(net, name)))
            case ReLU():
                layers.append(nn.ReLU())
            case MaxPool():
                layers.append(nn.MaxPool2d(layer.window, layer.stride or layer.window))
            case GlobalMean():
                layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
            case Dense():
                layers.append(weighted(nn.Linear(1, 1), getattr(net, name)))
            case _:
                raise NotImplementedError(layer)
    return standardized(nn.Sequential(*layers), *net.standardize).eval()


def torch_squeezenet(net: Any) -> Standardized:
    """Return SqueezeNet in PyTorch with our weights, its pools cut as ours are."""
    module = squeezenet1_1()
    weighted(module.features[0], net.conv1)
    weighted(module.classifier[1], net.conv10)
    for i, place in zip(range(2, 10), (3, 4, 6, 7, 9, 10, 11, 12), strict=True):
        for part in ("squeeze", "expand1x1", "expand3x3"):
            weighted(getattr(module.features[place], part), getattr(getattr(net, f"fire{i}"), part))
    for place in (2, 5, 8):
        module.features[place].ceil_mode = net.config.ceil_pool
    return standardized(module, *net.standardize).eval()


def crops(n: int, size: int = 64) -> np.ndarray:
    """Return crops of the photos, each of half its shorter side, brought to one size."""
    rng = np.random.default_rng(0)
    files = sorted(PHOTOS.glob("*.jpg"))
    found = []
    for i in range(n):
        with Image.open(files[i % len(files)]) as photo:
            rgb = photo.convert("RGB")
        side = min(rgb.size) // 2
        left, top = (int(rng.integers(extent - side + 1)) for extent in rgb.size)
        crop = rgb.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BOX)
        found.append(np.asarray(crop, np.float32) / 255)
    return np.stack(found)


class Both(NamedTuple):
    """A network on both sides, images, and the labels that it gives them."""

    torch: Standardized
    ours: Any
    x: torch.Tensor
    images: Any
    labels: Any
    y: torch.Tensor


@cache
def loaded(name: str) -> tuple[Any, Standardized]:
    with jax.ensure_compile_time_eval(), jax.enable_x64(False):
        if name == "digits":
            net = vizsynth.load(str(WEIGHTS))
            return net, torch_sequential(net)
        net = vizsynth.load("squeezenet1_1")
        return net, torch_squeezenet(net)


def both(name: str, n: int, *, double: bool = False) -> Both:
    """Return n images, each with the label that the network gives it: held-out digits, or crops of photos."""
    net, module = loaded(name)
    images = planted(0, n, split="test").images if name == "digits" else crops(n)
    if double:
        module = standardized(module.net, *net.standardize).double().eval()
        for attribute, values in net.standardize._asdict().items():
            setattr(module, attribute, torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1))
        net, images = with_precision(net, jnp.float64), images.astype(np.float64)
    else:
        module = module.float()
    x = nchw(images).contiguous()  # torchattacks asks for it
    with torch.no_grad():
        y = module(x).argmax(1)
    labels = jax.jit(lambda net, images: net(images).argmax(axis=-1))(net, jnp.asarray(images))
    assert y.tolist() == labels.tolist()
    return Both(module, net, x, jnp.asarray(images), labels, y)


def nhwc(images: torch.Tensor) -> np.ndarray:
    return images.detach().permute(0, 2, 3, 1).numpy()


def in_foolbox(subject: Both) -> Any:
    return foolbox.PyTorchModel(subject.torch, bounds=(0, 1))


# Image by image ------------------------------------------------------------------------

EPSILON, ALPHA, STEPS = 8 / 255, 2 / 255, 10
RADIUS, STRIDE = 1.0, 0.2


def targeted(attack: Any) -> Any:
    attack.set_mode_targeted_by_label(quiet=True)
    return attack


def agree(what: str, ours: Any, theirs: torch.Tensor, subject: Both) -> None:
    assert ours.dtype == jnp.float64
    moved = np.abs(nhwc(theirs) - np.asarray(subject.images)).max()
    apart = np.abs(np.asarray(ours) - nhwc(theirs)).max()
    print(f"{what}: apart {apart:.1e}, moved {moved:.1e}")  # pytest -rP shows how far all are apart
    assert moved > 1e-3
    assert apart < 1e-6


def compare_with_torchattacks(subject: Both) -> None:
    net, ours, x, images, labels, y = subject
    other = (y + 1) % 10
    linf = {"eps": EPSILON, "alpha": ALPHA, "steps": STEPS}
    same = {"epsilon": EPSILON, "step_size": ALPHA, "steps": STEPS}
    l2 = {"eps": RADIUS, "alpha": STRIDE, "steps": STEPS}
    same_l2 = {"epsilon": RADIUS, "step_size": STRIDE, "steps": STEPS}
    goal = {"labels": jnp.asarray(other.numpy()), "targeted": True}

    agree(
        "FGSM",
        vizsynth.fgsm(ours, images, labels, epsilon=EPSILON),
        torchattacks.FGSM(net, EPSILON)(x, y),
        subject,
    )
    agree("BIM", vizsynth.bim(ours, images, labels, **same), torchattacks.BIM(net, **linf)(x, y), subject)
    mine = vizsynth.bim(ours, images, **goal, **same)
    agree("BIM, targeted", mine, targeted(torchattacks.BIM(net, **linf))(x, other), subject)
    mine = vizsynth.mi_fgsm(ours, images, labels, **same)
    agree("MI-FGSM", mine, torchattacks.MIFGSM(net, decay=1.0, **linf)(x, y), subject)

    torch.manual_seed(3)
    start = jnp.asarray(nhwc((x + torch.empty_like(x).uniform_(-EPSILON, EPSILON)).clamp(0, 1)))
    torch.manual_seed(3)
    theirs = torchattacks.PGD(net, random_start=True, **linf)(x, y)
    agree("PGD", vizsynth.pgd(ours, images, labels, start=start, **same), theirs, subject)
    theirs = torchattacks.PGDL2(net, random_start=False, eps_for_division=1e-30, **l2)(x, y)
    agree("PGD L2", vizsynth.pgd_l2(ours, images, labels, **same_l2), theirs, subject)


def compare_with_foolbox(subject: Both) -> None:
    _, ours, x, images, labels, y = subject
    other = (y + 1) % 10
    attacks, theirs = foolbox.attacks, in_foolbox(subject)
    goal = foolbox.criteria.TargetedMisclassification(other)
    same = {"epsilon": EPSILON, "step_size": ALPHA, "steps": STEPS}
    same_l2 = {"epsilon": RADIUS, "step_size": STRIDE, "steps": STEPS}
    found = attacks.LinfFastGradientAttack().run(theirs, x, y, epsilon=EPSILON)
    agree("FGSM", vizsynth.fgsm(ours, images, labels, epsilon=EPSILON), found, subject)
    options = {"abs_stepsize": ALPHA, "steps": STEPS, "random_start": False}
    found = attacks.LinfBasicIterativeAttack(**options).run(theirs, x, y, epsilon=EPSILON)
    agree("BIM", vizsynth.bim(ours, images, labels, **same), found, subject)
    found = attacks.LinfPGD(**options).run(theirs, x, goal, epsilon=EPSILON)
    mine = vizsynth.pgd(ours, images, jnp.asarray(other.numpy()), targeted=True, **same)
    agree("PGD, targeted", mine, found, subject)
    options["abs_stepsize"] = STRIDE
    found = attacks.L2PGD(**options).run(theirs, x, y, epsilon=RADIUS)
    agree("PGD L2", vizsynth.pgd_l2(ours, images, labels, **same_l2), found, subject)


@x64
@pytest.mark.parametrize("compare", [compare_with_torchattacks, compare_with_foolbox])
@pytest.mark.parametrize(
    ("name", "n"), [("digits", 6), pytest.param("squeezenet", 3, marks=pytest.mark.slow)]
)
def test_images_are_the_peers(compare: Callable[[Both], None], name: str, n: int) -> None:
    compare(both(name, n, double=True))


# How many are fooled, how far they move ---------------------------------------------------


class Outcome(NamedTuple):
    """The share of images that are fooled, and the mean L2 distance of those."""

    fooled: np.ndarray
    distances: np.ndarray

    def says(self, among: np.ndarray) -> str:
        return (
            f"{self.fooled.mean():.1%} fooled, mean L2 {self.distances[among].mean():.4f} of those both fool"
        )


def outcome(subject: Both, images: Any) -> Outcome:
    if isinstance(images, torch.Tensor):
        with torch.no_grad():
            fooled = (subject.torch(images).argmax(1) != subject.y).numpy()
        images = nhwc(images)
    else:
        labels = jax.jit(lambda net, images: net(images).argmax(axis=-1))(subject.ours, images)
        fooled = np.asarray(labels != subject.labels)
    apart = np.asarray(images, np.float64) - np.asarray(subject.images, np.float64)
    return Outcome(fooled, np.sqrt(np.square(apart).sum(axis=(1, 2, 3))))


def no_worse(what: str, subject: Both, ours: Any, theirs: torch.Tensor, *, distances: bool = True) -> None:
    mine, peers = outcome(subject, ours), outcome(subject, theirs)
    among = mine.fooled & peers.fooled
    print(f"{what}, {len(among)} images: ours {mine.says(among)}; theirs {peers.says(among)}")
    assert mine.fooled.mean() >= peers.fooled.mean()
    if distances:
        assert mine.distances[among].mean() <= peers.distances[among].mean() * 1.001


def compare_deepfool(name: str, n: int) -> None:
    subject = both(name, n)
    ours = vizsynth.deepfool(subject.ours, subject.images, subject.labels)
    theirs = foolbox.attacks.L2DeepFoolAttack().run(in_foolbox(subject), subject.x, subject.y)
    no_worse(f"DeepFool and Foolbox's, {name}", subject, ours, theirs)
    if name == "digits":  # every class of every image by itself: 1000 classes take hours
        theirs = torchattacks.DeepFool(subject.torch)(subject.x, subject.y)
        no_worse(f"DeepFool and torchattacks', {name}", subject, ours, theirs)


def compare_carlini_wagner(name: str, n: int, steps: int) -> None:
    subject = both(name, n)
    ours = vizsynth.carlini_wagner(subject.ours, subject.images, subject.labels, steps=steps)
    theirs = torchattacks.CW(subject.torch, steps=steps)(subject.x, subject.y)
    no_worse(f"Carlini & Wagner and torchattacks', {name}", subject, ours, theirs)
    attack = foolbox.attacks.L2CarliniWagnerAttack(steps=steps)
    theirs = attack.run(in_foolbox(subject), subject.x, subject.y)
    no_worse(f"Carlini & Wagner and Foolbox's, {name}", subject, ours, theirs)


APGD = {"ce": vizsynth.apgd_ce, "dlr": vizsynth.apgd_dlr}


def compare_apgd(name: str, loss: str, norm: str, size: float, n: int, steps: int) -> None:
    subject = both(name, n)
    net, ours, x, images, labels, y = subject
    torch.manual_seed(0)  # as it does
    t = 2 * torch.rand(x.shape) - 1 if norm == "Linf" else torch.randn(x.shape)
    largest = t.abs().amax((1, 2, 3)) if norm == "Linf" else t.square().sum((1, 2, 3)).sqrt()
    start = jnp.asarray(nhwc((x + size * t / largest[:, None, None, None]).clamp(0, 1)))
    ball = vizsynth.linf_ball if norm == "Linf" else vizsynth.l2_ball
    mine = APGD[loss](ours, images, labels, epsilon=size, ball=ball, steps=steps, start=start)
    theirs = torchattacks.APGD(net, norm=norm, eps=size, steps=steps, loss=loss, seed=0)(x, y)
    no_worse(f"APGD {loss} {norm}, {name}", subject, mine, theirs, distances=False)


def test_deepfool_fools_as_many_from_as_near() -> None:
    compare_deepfool("digits", 8)


def test_carlini_wagner_fools_as_many_from_as_near() -> None:
    compare_carlini_wagner("digits", 6, 30)


@pytest.mark.parametrize(("loss", "norm", "size"), [("ce", "Linf", 4 / 255), ("dlr", "L2", 0.5)])
def test_apgd_fools_as_many(loss: str, norm: str, size: float) -> None:
    compare_apgd("digits", loss, norm, size, 10, 10)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits", "squeezenet"])
def test_deepfool_fools_as_many_of_a_hundred_from_as_near(name: str) -> None:
    compare_deepfool(name, 112)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "steps"), [("digits", 20), ("squeezenet", 20)])
def test_carlini_wagner_fools_as_many_of_a_hundred_from_as_near(name: str, steps: int) -> None:
    compare_carlini_wagner(name, 104, steps)


SIZES = {("digits", "Linf"): 4 / 255, ("digits", "L2"): 0.5}
SIZES |= {("squeezenet", "Linf"): 0.5 / 255, ("squeezenet", "L2"): 0.1}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "norm"), SIZES)
@pytest.mark.parametrize("loss", APGD)
def test_apgd_fools_as_many_of_a_hundred(name: str, norm: str, loss: str) -> None:
    compare_apgd(name, loss, norm, SIZES[name, norm], 104, 30)
