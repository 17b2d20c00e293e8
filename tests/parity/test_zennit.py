"""Relevance propagation against Zennit's composites, in float64.

Zennit begins with 1 where ours begins with the score. It acts on modules, so the sums of residual blocks are
made modules, by its own canonizer. Batch normalization is merged by PyTorch: the identity that Zennit's
`SequentialMergeBatchNorm` leaves in its place still divides by √(1 + 1e-5).
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from peers import peer
from test_captum_maps import Both, agree, both, nhwc
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch_networks import BasicBlock, Bottleneck

import vizsynth
from vizsynth import rules

composites = peer("zennit.composites")
canonizers = peer("zennit.canonizers")
zennit_layer = peer("zennit.layer")

pytestmark = pytest.mark.usefixtures("x64")

COMPOSITES = {
    "EpsilonPlus": rules.EPSILON_PLUS,
    "EpsilonPlusFlat": rules.EPSILON_PLUS_FLAT,
    "EpsilonGammaBox": rules.EPSILON_GAMMA_BOX,
    "EpsilonAlpha2Beta1": rules.EPSILON_ALPHA2_BETA1,
    "EpsilonAlpha2Beta1Flat": rules.EPSILON_ALPHA2_BETA1_FLAT,
}


def summed(block: BasicBlock | Bottleneck, x: Tensor) -> Tensor:
    """Return what the block returns, its sum being a module."""
    branch = block.relu1(block.bn1(block.conv1(x)))
    branch = block.bn2(block.conv2(branch))
    if isinstance(block, Bottleneck):
        branch = block.bn3(block.conv3(block.relu2(branch)))
    shortcut = x if block.downsample is None else block.downsample(x)
    total = block.canonizer_sum(torch.stack([shortcut, branch], dim=-1))
    return (block.relu3 if isinstance(block, Bottleneck) else block.relu2)(total)


def with_sums(name: str, module: nn.Module) -> dict[str, Any] | None:
    if not isinstance(module, BasicBlock | Bottleneck):
        return None
    return {"forward": summed.__get__(module), "canonizer_sum": zennit_layer.Sum()}


def merge_batch_norm(net: nn.Module) -> None:
    modules = [(name, module) for name, module in net.named_modules() if not list(module.children())]
    for (before, conv), (name, norm) in itertools.pairwise(modules):
        if isinstance(norm, nn.BatchNorm2d):
            net.set_submodule(before, fuse_conv_bn_eval(conv, norm))
            net.set_submodule(name, nn.Identity())


def by_zennit(subject: Both, which: str) -> np.ndarray:
    """Return the relevance of the standardized pixels, for a score of 1."""
    standardize, net = subject.torch, subject.torch.net
    x = ((subject.x - standardize.mean) / standardize.std).requires_grad_()
    options: dict[str, Any] = {}
    if which == "EpsilonGammaBox":
        black, white = torch.zeros_like(subject.x), torch.ones_like(subject.x)
        options = {
            "low": (black - standardize.mean) / standardize.std,
            "high": (white - standardize.mean) / standardize.std,
        }
    merge_batch_norm(net)
    ready = [canonizers.AttributeCanonizer(with_sums)]
    with getattr(composites, which)(canonizers=ready, **options).context(net) as hooked:
        logits = hooked(x)
        seed = nn.functional.one_hot(torch.tensor(subject.labels), logits.shape[1]).to(logits)
        (relevance,) = torch.autograd.grad(logits, x, seed)
    return nhwc(relevance)


def compare(name: str, size: int, which: dict[str, rules.Composite]) -> None:
    subject = both(name, size, n=1)

    def every(net: Any, images: Any, labels: Any, which: Any) -> Any:
        return {name: vizsynth.lrp(net, images, labels, composite=rule) for name, rule in which.items()}

    found = jax.jit(every)(subject.ours, subject.images, jnp.asarray(subject.labels), which)
    score = subject.ours(subject.images)[jnp.arange(1), jnp.asarray(subject.labels)]
    for rule, maps in found.items():
        agree(f"{rule} of Zennit", maps / score[:, None, None, None], by_zennit(subject, rule))


def test_composites_are_zennits() -> None:
    compare(
        "squeezenet1_1", 64, {name: COMPOSITES[name] for name in ("EpsilonGammaBox", "EpsilonAlpha2Beta1")}
    )


def test_residual_sums_are_zennits() -> None:
    compare("resnet18", 49, {"EpsilonPlusFlat": rules.EPSILON_PLUS_FLAT})


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), [("squeezenet1_1", 64), ("resnet18", 49)])
def test_every_composite_is_zennits(name: str, size: int) -> None:
    compare(name, size, COMPOSITES)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vgg16", "resnet50", "squeezenet1_1"])
def test_a_composite_is_zennits_at_the_native_size(name: str) -> None:
    compare(name, 224, {"EpsilonGammaBox": rules.EPSILON_GAMMA_BOX})
