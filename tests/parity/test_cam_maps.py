"""The class activation maps against pytorch-grad-cam and torch-cam, before they scale them.

Some of pytorch-grad-cam's methods round to float32 on their way (Score-CAM its scores, Ablation-CAM its
weights, EigenCAM its map): they are compared as far as that goes, and the same formula is written out
in PyTorch in float64 for the rest of the digits.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from peers import peer
from test_captum_maps import CLOSE, LAYERS, Both, agree, both, in_one_program
from test_networks import distance
from torch import Tensor, nn
from torch.nn.functional import interpolate

import vizsynth
from vizsynth.evaluation.insertion_deletion import deletion, deletion_and_insertion, insertion

pytorch_grad_cam = peer("pytorch_grad_cam")
targets = peer("pytorch_grad_cam.utils.model_targets")
torchcam = peer("torchcam.methods")
torchcam_metrics = peer("torchcam.metrics")

SMALL = {"resnet18": 49, "squeezenet1_1": 64}
FEW_CHANNELS = {"resnet18": ("layer1.1", "layer1.1"), "squeezenet1_1": ("fire2", "features.3")}
ROUNDED = 1e-5  # what float32 explains

pytestmark = [
    pytest.mark.usefixtures("x64"),
]


def activations(net: nn.Module, module: nn.Module, x: Tensor, labels: list[int]) -> tuple[Tensor, Tensor]:
    """Return A and ∂S/∂A by PyTorch."""
    kept: list[Tensor] = []
    hook = module.register_forward_hook(lambda module, args, out: kept.append(out))
    score = net(x)[torch.arange(len(labels)), labels].sum()
    hook.remove()
    (gradient,) = torch.autograd.grad(score, kept[0])
    return kept[0].detach(), gradient


def unscaled(method: Any, subject: Both, **options: Any) -> np.ndarray:
    """Return a peer's map as it is before its ReLU and scaling."""
    net, _, x, _, labels, _, module = subject
    A, g = (a.numpy() for a in activations(net, module, x, labels))
    wanted = [targets.ClassifierOutputTarget(label) for label in labels]
    with method(net, [module], **options) as cam:
        return cam.get_cam_image(x, module, wanted, A, g, False)


EXACT = {
    "grad_cam": (vizsynth.grad_cam, "GradCAM"),
    "grad_cam_pp": (partial(vizsynth.grad_cam_pp, eps=1e-6), "GradCAMPlusPlus"),
    "xgrad_cam": (vizsynth.xgrad_cam, "XGradCAM"),
    "layer_cam": (vizsynth.layer_cam, "LayerCAM"),
    "hires_cam": (vizsynth.hires_cam, "HiResCAM"),
}


def compare_gradient_methods(name: str, size: int) -> None:
    subject = both(name, size)
    maps = {which: ours for which, (ours, _) in EXACT.items()}
    maps["eigen_cam"] = partial(vizsynth.eigen_cam, center=True)
    found = in_one_program(maps, subject, layer=subject.layer)
    for which, (_, theirs) in EXACT.items():
        expected = unscaled(getattr(pytorch_grad_cam, theirs), subject)
        if which != "hires_cam":
            expected = np.maximum(expected, 0)
        agree(f"{which} of pytorch-grad-cam", found[which], expected)
    compare_eigen_cam(subject, found["eigen_cam"])


def aligned(maps: Any, size: tuple[int, int]) -> Any:
    """Upsample with the corners aligned, as `UpsamplingBilinear2d` does."""

    def weights(few: int, many: int) -> Any:
        place = np.linspace(0, few - 1, many)
        return jnp.asarray(np.stack([np.interp(place, np.arange(few), row) for row in np.eye(few)], 1))

    return weights(maps.shape[-2], size[0]) @ maps @ weights(maps.shape[-1], size[1]).T


def score_cam_in_torch(subject: Both, chunk: int = 64) -> np.ndarray:
    """Return Score-CAM as pytorch-grad-cam has it, its scores in float64."""
    net, _, x, _, labels, _, module = subject
    A, _ = activations(net, module, x, labels)
    mask = interpolate(A, x.shape[-2:], mode="bilinear", align_corners=True)
    low, high = mask.amin((2, 3), keepdim=True), mask.amax((2, 3), keepdim=True)
    mask = (mask - low) / (high - low + 1e-8)
    maps = []
    with torch.no_grad():
        for i, label in enumerate(labels):
            masked = [x[i][None] * part[:, None] for part in mask[i].split(chunk)]
            scores = torch.cat([net(part)[:, label] for part in masked])
            maps.append(torch.einsum("k,kij->ij", scores.softmax(0), A[i]))
    return torch.stack(maps).numpy()


def ablation_cam_in_torch(subject: Both, chunk: int = 64) -> np.ndarray:
    """Return Ablation-CAM in float64: one hook that sets one channel of each copy to zero."""
    net, _, x, _, labels, _, module = subject
    A, _ = activations(net, module, x, labels)
    with torch.no_grad():
        y = net(x)[torch.arange(len(labels)), labels]
        maps = []
        for i, label in enumerate(labels):
            scores = []
            for channels in torch.arange(A.shape[1]).split(chunk):
                held = A[i].repeat(len(channels), 1, 1, 1)
                held[torch.arange(len(channels)), channels] = 0
                hook = module.register_forward_hook(lambda module, args, out, held=held: held)
                scores.append(net(x[i].expand(len(channels), -1, -1, -1))[:, label])
                hook.remove()
            maps.append(torch.einsum("k,kij->ij", (y[i] - torch.cat(scores)) / y[i], A[i]))
    return torch.stack(maps).numpy()


def compare_forward_methods(name: str, size: int) -> None:
    subject = both(name, size, n=1, at=FEW_CHANNELS[name])
    _, net, _, images, labels, layer, _ = subject
    maps = vizsynth.score_cam(net, images, labels, layer=layer, upsample=aligned)
    peers = np.maximum(unscaled(pytorch_grad_cam.ScoreCAM, subject), 0)
    agree("score_cam of pytorch-grad-cam", maps, peers, ROUNDED)
    # 1e-8 in the denominator of its masks is seen in the eighth digit.
    agree("score_cam in float64", maps, np.maximum(score_cam_in_torch(subject), 0), 1e-6)
    maps = vizsynth.ablation_cam(net, images, labels, layer=layer)
    peers = np.maximum(unscaled(pytorch_grad_cam.AblationCAM, subject), 0)
    agree("ablation_cam of pytorch-grad-cam", maps, peers, ROUNDED)
    agree("ablation_cam in float64", maps, np.maximum(ablation_cam_in_torch(subject), 0))


def compare_eigen_cam(subject: Both, ours: Any) -> None:
    """Up to its sign, which is the solver's there and fixed here."""
    A, _ = activations(subject.torch, subject.module, subject.x, subject.labels)
    theirs = unscaled(pytorch_grad_cam.EigenCAM, subject)
    X = A.flatten(2).transpose(1, 2)
    mean = X.mean(1)
    X = X - mean[:, None]
    v = torch.linalg.svd(X)[2][:, 0]
    v = v * torch.where((v * mean).sum(1, keepdim=True) < 0, -1, 1)
    exact = torch.einsum("npk,nk->np", X, v).reshape(ours.shape).numpy()
    sign = np.sign((theirs * exact).sum(axis=(1, 2), keepdims=True))
    agree("eigen_cam of pytorch-grad-cam", ours, sign * theirs, ROUNDED)
    agree("eigen_cam in float64", ours, exact)


@pytest.mark.parametrize("name", SMALL)
def test_gradient_methods_and_eigen_cam_are_those_of_pytorch_grad_cam(name: str) -> None:
    compare_gradient_methods(name, SMALL[name])


def test_forward_methods_are_those_of_pytorch_grad_cam() -> None:
    compare_forward_methods("squeezenet1_1", 64)


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_gradient_methods_and_eigen_cam_at_the_native_size(name: str) -> None:
    compare_gradient_methods(name, 224)


@pytest.mark.slow
def test_forward_methods_of_a_residual_network() -> None:
    compare_forward_methods("resnet18", 49)


# torch-cam -----------------------------------------------------------------------


def test_cam_is_torch_cams() -> None:
    subject = both("resnet18", 49)
    with torchcam.CAM(subject.torch, "net.layer4", "net.fc") as extractor:
        subject.torch(subject.x)
        (theirs,) = extractor(subject.labels, normalized=False)
    ours = vizsynth.cam(subject.ours, subject.images, subject.labels, layer="layer4.1")
    agree("cam of torch-cam", ours, theirs.detach().numpy())


@pytest.mark.parametrize(
    ("method", "ours"), [("XGradCAM", vizsynth.xgrad_cam), ("LayerCAM", vizsynth.layer_cam)]
)
def test_maps_of_torch_cam_that_are_their_papers(method: str, ours: Callable[..., Any]) -> None:
    subject = both("resnet18", 49)
    with getattr(torchcam, method)(subject.torch, subject.module) as extractor:
        scores = subject.torch(subject.x.clone().requires_grad_())
        (theirs,) = extractor(subject.labels, scores, normalized=False)
    options = {"eps": 1e-8} if method == "XGradCAM" else {}
    maps = ours(subject.ours, subject.images, subject.labels, layer=subject.layer, **options)
    agree(f"{method} of torch-cam", maps, np.maximum(theirs.detach().numpy(), 0))


def test_grad_cam_pp_is_the_papers_and_not_torch_cams() -> None:
    """torch-cam sums A g³ where eq. 19 has g³ Σ A, and writes α into a copy: its α is g² alone."""
    subject = both("resnet18", 49)
    A, g = activations(subject.torch, subject.module, subject.x, subject.labels)
    total = A.sum((2, 3), keepdim=True)
    alpha = torch.where(g == 0, 0, g**2 / (2 * g**2 + g**3 * total))
    papers = ((alpha * g.relu()).sum((2, 3), keepdim=True) * A).sum(1).relu().numpy()
    maps = vizsynth.grad_cam_pp(subject.ours, subject.images, subject.labels, layer=subject.layer)
    agree("grad_cam_pp of the paper", maps, papers)
    with torchcam.GradCAMpp(subject.torch, subject.module) as extractor:
        scores = subject.torch(subject.x.clone().requires_grad_())
        (theirs,) = extractor(subject.labels, scores, normalized=False)
    cubed = ((g.relu() ** 3).sum((2, 3), keepdim=True) * A).sum(1)  # α = g²: w = Σ g² relu(g)
    assert distance(theirs.detach(), cubed) < CLOSE
    theirs, papers = (np.maximum(m, 0) / np.linalg.norm(np.maximum(m, 0)) for m in (cubed.numpy(), papers))
    assert distance(theirs, papers) > 0.01  # also when both are scaled


def test_the_floor_of_pytorch_grad_cams_grad_cam_pp_is_not_in_the_paper() -> None:
    """Its 1e-6 outweighs g² wherever |g| < 1e-3; with eps = 0 ours is the paper's, whatever the scale."""
    subject = both("resnet18", 49)
    call = partial(vizsynth.grad_cam_pp, subject.ours, subject.images, layer=subject.layer)
    small = call(1e-4 * vizsynth.scores.Class(jnp.asarray(subject.labels)), eps=0.0)
    floored = call(1e-4 * vizsynth.scores.Class(jnp.asarray(subject.labels)), eps=1e-6)
    A, g = activations(subject.torch, subject.module, subject.x, subject.labels)
    g = 1e-4 * g
    alpha = torch.where(g == 0, 0, 1 / (2 + g * A.sum((2, 3), keepdim=True)))
    papers = ((alpha * g.relu()).sum((2, 3), keepdim=True) * A).sum(1).relu().numpy()
    agree("grad_cam_pp of a small score", small, papers)
    assert float(jnp.linalg.norm(floored)) < 0.1 * float(jnp.linalg.norm(small))


class Given:
    """What torch-cam takes for an extractor, whose map is given."""

    def __init__(self, model: nn.Module, maps: np.ndarray) -> None:
        self.model = model
        self.maps = torch.from_numpy(maps)

    def __call__(self, class_idx: Any = None, scores: Any = None, **options: Any) -> list[Tensor]:
        return [self.maps]

    def fuse_cams(self, cams: list[Tensor]) -> Tensor:
        return cams[0]

    def _hooks_off(self) -> Any:
        return torch.no_grad()


def test_deletion_and_insertion_are_torch_cams() -> None:
    """Both rank the same map; black is 0 for both, as the network standardizes inside."""
    net, ours, x, images, labels, _, _ = both("squeezenet1_1", 64, n=1)
    heat = np.random.default_rng(2).random((1, 64, 63))
    steps = 12  # 64 · 63 pixels go in 12 equal parts: else the two cut them differently
    probability = partial(torch.softmax, dim=-1)
    metric = torchcam_metrics.DeletionInsertionMetric(Given(net, heat), probability, steps=steps)
    metric.update(x, labels)
    found = metric.summary()
    for function, name in [(deletion, "deletion_auc"), (insertion, "insertion_auc")]:
        curve = function(ours, images, labels, jnp.asarray(heat), steps=steps, baseline=0.0)
        # Its fractions are float32.
        assert float(curve.area[0]) == pytest.approx(found[name], rel=1e-6)
    both_curves = deletion_and_insertion(ours, images, labels, jnp.asarray(heat), steps=steps)
    for curve, name in zip(both_curves, ("deletion_auc", "insertion_auc"), strict=True):
        assert float(curve.area[0]) == pytest.approx(found[name], rel=1e-6)
