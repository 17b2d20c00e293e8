"""Training beside a loop in PyTorch: the same steps from the same weights, in float64."""

from typing import Any

import jax
import numpy as np
import pytest
import torch
from jaxtyping import Array
from tiny import randomized
from torch import nn

import vizsynth
from vizsynth import training
from vizsynth.models import with_precision
from vizsynth.models.sequential import Conv, Dense, GlobalMean, MaxPool, ReLU, Sequential
from vizsynth.training import Examples

STACK = (
    Conv(5, stride=2, batch_norm=True), ReLU(), MaxPool(2), Conv(6, batch_norm=True), ReLU(), GlobalMean(),
    Dense(4),
)  # fmt: skip
EPOCHS, BATCH, RATE, DECAY = 3, 8, 0.1, 0.03
KEY = jax.random.key(5)


def fresh() -> Sequential:
    return randomized(vizsynth.models.sequential(STACK, (12, 12, 3), key=jax.random.key(0)))


def data() -> Examples:
    rng = np.random.default_rng(1)
    return Examples(rng.random((20, 12, 12, 3)), np.arange(20, dtype=np.int32) % 4, tuple("abcd"))


def tensor(array: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(array, np.float64))


def in_torch(net: Sequential) -> nn.Sequential:
    def conv(ours: Any, stride: int) -> list[nn.Module]:
        kernel = tensor(ours.kernel[...]).permute(3, 2, 0, 1).contiguous()
        made = nn.Conv2d(kernel.shape[1], kernel.shape[0], 3, stride, 1)
        norm = nn.BatchNorm2d(kernel.shape[0])
        made.weight.data, made.bias.data = kernel, tensor(ours.bias[...])
        norm.weight.data, norm.bias.data = tensor(ours.norm.scale[...]), tensor(ours.norm.bias[...])
        norm.running_mean, norm.running_var = tensor(ours.norm.mean[...]), tensor(ours.norm.variance[...])
        return [made, norm, nn.ReLU()]

    head = nn.Linear(6, 4)
    head.weight.data, head.bias.data = tensor(net.logits.kernel[...]).T.clone(), tensor(net.logits.bias[...])
    layers = [*conv(net.conv1, 2), nn.MaxPool2d(2), *conv(net.conv2, 1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head).double()


def arrays(net: Sequential) -> list[Array]:
    convs = [net.conv1, net.conv2]
    return [
        *(a for c in convs for a in (c.kernel[...].transpose(3, 2, 0, 1), c.bias[...])),
        *(a for c in convs for a in (c.norm.scale[...], c.norm.bias[...])),
        *(a for c in convs for a in (c.norm.mean[...], c.norm.variance[...])),
        net.logits.kernel[...].T,
        net.logits.bias[...],
    ]


def tensors(net: nn.Sequential) -> list[torch.Tensor]:
    convs, norms = [net[0], net[4]], [net[1], net[5]]
    return [
        *(t for c in convs for t in (c.weight, c.bias)),
        *(t for n in norms for t in (n.weight, n.bias)),
        *(t for n in norms for t in (n.running_mean, n.running_var)),
        net[9].weight,
        net[9].bias,
    ]


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_training_is_pytorchs(name: str, x64: None) -> None:
    examples = data()
    held_out = examples._replace(images=examples.images[::-1].copy(), labels=examples.labels[::-1].copy())
    rate = RATE if name == "sgd" else 0.01
    fitted = vizsynth.fit(
        with_precision(fresh(), np.float64),
        examples,
        key=KEY,
        validation=held_out,
        epochs=EPOCHS,
        batch_size=BATCH,
        learning_rate=rate,
        weight_decay=DECAY,
        optimizer=getattr(training, name),
        schedule=training.constant,
    )
    peer = in_torch(fresh())
    decayed = [p for p in peer.parameters() if p.ndim > 1]
    others = [p for p in peer.parameters() if p.ndim == 1]
    groups = [{"params": decayed, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = (
        torch.optim.SGD(groups, lr=rate, momentum=0.9)
        if name == "sgd"
        else torch.optim.AdamW(groups, lr=rate)
    )
    order_key, _ = jax.random.split(KEY)
    for epoch in range(EPOCHS):
        peer.train()
        losses, correct = [], 0
        order = training.data.order(order_key, epoch, 20)[: 20 // BATCH * BATCH]
        for places in order.reshape(-1, BATCH):
            x = tensor(examples.images[places]).permute(0, 3, 1, 2)
            y = torch.from_numpy(examples.labels[places].astype(np.int64))
            logits = peer(x)
            loss = nn.functional.cross_entropy(logits, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            correct += int((logits.argmax(1) == y).sum())
        peer.eval()
        with torch.no_grad():
            logits = peer(tensor(held_out.images).permute(0, 3, 1, 2))
            y = torch.from_numpy(held_out.labels.astype(np.int64))
            validation = nn.functional.cross_entropy(logits, y).item()
        record = fitted.history[epoch]
        assert record.loss == pytest.approx(np.mean(losses), rel=1e-10)
        assert record.accuracy == pytest.approx(correct / 16)
        assert record.validation_loss == pytest.approx(validation, rel=1e-10)
        assert record.validation_accuracy == pytest.approx(float((logits.argmax(1) == y).double().mean()))
    # Adam divides by the gradient's size, also where it is rounding alone: a bias before a normalization.
    atol = 1e-10 if name == "sgd" else 1e-8
    for ours, theirs in zip(arrays(fitted.state.net), tensors(peer), strict=True):
        assert ours.dtype == np.float64
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-9, atol=atol)
