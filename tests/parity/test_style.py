"""Style transfer beside loops written as the peers' are, in float64, from the same weights."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from tiny import random_images
from torch_networks import randomize, vgg

import vizsynth
from vizsynth.models import vgg11, with_precision
from vizsynth.parametrizations import Pixels
from vizsynth.synthesis.style.gatys import content_loss
from vizsynth.synthesis.texture.gatys import texture_loss, texture_statistics
from vizsynth.taps import run

pytestmark = [
    pytest.mark.usefixtures("x64"),
    pytest.mark.filterwarnings("ignore:style 0 is:UserWarning"),
]
STYLE, CONTENT = ("relu1_1", "relu2_1", "relu3_1"), "relu3_2"
INDEX = {1: "relu1_1", 4: "relu2_1", 7: "relu3_1", 9: "relu3_2"}  # in torchvision's `features`
CONVOLUTIONS = {0: "conv1_1", 3: "conv2_1", 6: "conv3_1", 8: "conv3_2"}
STEPS, RATE = 4, 0.02


@pytest.fixture(scope="module")
def networks() -> tuple[Any, Any]:
    """Return VGG-11's trunk twice, in float64, without standardization."""
    module: Any = randomize(vgg(11, False, 5), seed=0).double().eval().requires_grad_(False)
    with jax.enable_x64(True):
        ours = with_precision(vgg11(num_classes=None, key=jax.random.key(0)), jnp.float64)
        for i, name in CONVOLUTIONS.items():
            layer, conv = module.features[i], getattr(ours, name)
            conv.kernel[...] = jnp.asarray(layer.weight.numpy().transpose(2, 3, 1, 0))
            conv.bias[...] = jnp.asarray(layer.bias.numpy())
        ours.standardize = None
    return ours, module


def pictures() -> list[np.ndarray]:
    return [np.asarray(random_images(1, 36, 32, seed=s, dtype=np.float64)) for s in range(2)]


def nchw(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.transpose(0, 3, 1, 2).copy())


def seen(module: Any, x: torch.Tensor) -> dict[str, torch.Tensor]:
    found = {}
    for i, layer in enumerate(module.features[: max(INDEX) + 1]):
        x = torch.relu(x) if i in INDEX else layer(x)  # the module's own would write over its input
        if i in INDEX:
            found[INDEX[i]] = x
    return found


def raw_gram(A: torch.Tensor) -> torch.Tensor:
    flat = A[0].reshape(A.shape[1], -1)
    return flat @ flat.T


def gatys(A: torch.Tensor, S: torch.Tensor) -> torch.Tensor:
    """Return MSE(G / M), as the authors' code and pystiche have it."""
    M, L = A[0, 0].numel(), S[0, 0].numel()
    return torch.nn.functional.mse_loss(raw_gram(A) / M, raw_gram(S) / L)


def neural_style(A: torch.Tensor, S: torch.Tensor) -> torch.Tensor:
    """Return MSE(G / (C H W)), as neural-style-pt has it."""
    return torch.nn.functional.mse_loss(raw_gram(A) / A.numel(), raw_gram(S) / S.numel())


def johnson(A: torch.Tensor, S: torch.Tensor) -> torch.Tensor:
    """Return ‖G / (C H W)‖² of Johnson's equation."""
    return ((raw_gram(A) / A.numel() - raw_gram(S) / S.numel()) ** 2).sum()


@pytest.mark.parametrize(
    ("theirs", "factor"),
    [
        (gatys, lambda N: 4.0),
        (neural_style, lambda N: 4.0 / N**2),
        (johnson, lambda N: 4.0),
    ],
)
def test_each_peers_style_loss_is_ours_times_a_factor(
    networks: Any, theirs: Callable[..., torch.Tensor], factor: Callable[[int], float]
) -> None:
    net, module = networks
    x, style = pictures()
    found, wanted = (texture_statistics(net, jnp.asarray(p[0]), STYLE) for p in (x, style))
    for layer in STYLE:
        ours = float(texture_loss({layer: found[layer]}, {layer: wanted[layer]}))
        peer = float(theirs(seen(module, nchw(x))[layer], seen(module, nchw(style))[layer]))
        np.testing.assert_allclose(peer, ours * factor(len(found[layer])), rtol=1e-10)


def test_the_peers_content_loss_is_ours_times_a_factor(networks: Any) -> None:
    net, module = networks
    x, content = pictures()
    F, P = (run(net, jnp.asarray(p), (CONTENT,))[1][CONTENT] for p in (x, content))
    peer = torch.nn.functional.mse_loss(seen(module, nchw(x))[CONTENT], seen(module, nchw(content))[CONTENT])
    np.testing.assert_allclose(float(peer), 2 / F.size * float(content_loss(F, P)), rtol=1e-10)


def test_steps_of_adam_end_where_the_peers_loop_does(networks: Any) -> None:
    """α ½ Σ (F − P)² + β Σ_l w_l E_l, by the authors' code's terms: α ½ N M MSE and ¼ w_l MSE(G / M)."""
    net, module = networks
    content, style = pictures()
    weights, alpha, beta = (0.5, 1.0, 2.0), 1e-3, 1.0
    made = vizsynth.transfer_style(
        net,
        jnp.asarray(content[0]),
        [jnp.asarray(style[0])],
        key=jax.random.key(0),
        steps=STEPS,
        content_layers=(CONTENT,),
        style_layers=STYLE,
        content_weight=alpha,
        style_weight=beta,
        layer_weights=weights,
        relative=False,
        parametrization=Pixels(),
        optimizer=optax.adam,
        learning_rate=RATE,
    )

    P, S = seen(module, nchw(content)), seen(module, nchw(style))
    x = nchw(content).requires_grad_()
    descent = torch.optim.Adam([x], lr=RATE)
    losses = []
    for _ in range(STEPS):
        descent.zero_grad()
        F = seen(module, x)
        L: Any = alpha * torch.nn.functional.mse_loss(F[CONTENT], P[CONTENT]) * F[CONTENT].numel() / 2
        for layer, w in zip(STYLE, weights, strict=True):
            L = L + beta * w * gatys(F[layer], S[layer]) / 4
        L.backward()
        descent.step()
        losses.append(L.item())
    np.testing.assert_allclose(made.trace[0], losses, rtol=1e-6)
    theirs = x.detach().numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(made.state.params, theirs, atol=1e-5)
