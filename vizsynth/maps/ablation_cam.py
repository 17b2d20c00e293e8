"""Ablation-CAM.

Desai & Ramaswamy, Ablation-CAM: Visual Explanations for Deep Convolutional Network via Gradient-free
Localization, 2020, section 3.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vizsynth import ops
from vizsynth.core.chunks import check_count, each
from vizsynth.core.entry import entry
from vizsynth.maps.grad_cam import layer_maps
from vizsynth.replay import ablation, incremental
from vizsynth.replay.ablation import Ablated
from vizsynth.replay.linearity import is_affine
from vizsynth.taps import evaluate, replace, run
from vizsynth.types import Heatmaps, Images, Network, Target


def _check(batch_size: int) -> None:
    check_count(batch_size, "batch_size")


@entry(static=("layer", "batch_size"), check=_check)
def ablation_cam(
    net: Network, images: Images, target: Target, *, layer: str, batch_size: int = 32
) -> Heatmaps:
    """Return L = relu(Σ_k w_k A^k), w_k = (y − y_k) / y (eq. 3, 4).

    y is the target, y_k the same score with the channel A^k set to 0. Only the layers after `layer` run
    again, and the first operation that mixes channels uses the weights of channel k alone
    (`vizsynth.replay.ablation`). If these layers are affine (global average pooling and a matrix), one
    gradient gives all y_k.

    Args:

    Returns:
        The maps at the layer's resolution `[n, h', w']`, at least 0, unscaled. A negative y turns the sign
        of every weight, as in the paper.

    Example:
        >>> import jax, vizsynth
        >>> net = vizsynth.load("squeezenet1_1")
        >>> images = jax.random.uniform(jax.random.key(1), (2, 64, 64, 3))
        >>> vizsynth.ablation_cam(net, images, net(images).argmax(-1), layer="fire9").shape
        (2, 3, 3)
    """
    A = layer_maps(net, images, layer)
    clean: list[Any] = []

    def score(A: Array) -> Float[Array, " n"]:
        return evaluate(net, images, target, tap=replace({layer: A}))

    def without_in_whole(channel: Array) -> Float[Array, " n"]:
        return score(A.at[..., channel].set(0))

    def without(channel: Array) -> Float[Array, " n"]:
        changed = Ablated(A, jnp.zeros_like(A[..., :1]), channel)
        hold: Any = lambda name, value: changed if name == layer else value  # noqa: E731
        seen = run(net, images, target.layers, tap=hold, ops=ablation.table(clean))[1]
        return target({name: a.dense() if isinstance(a, Ablated) else a for name, a in seen.items()})

    y, gradient = jax.vjp(score, A)
    if is_affine(score, A):  # a head of global average pooling: y_k = y − Σ_ij A^k_ij ∂y/∂A^k_ij
        y_k = y[None] - (A * gradient(jnp.ones_like(y))[0]).sum(axis=(1, 2)).T
    else:
        channels = jnp.arange(A.shape[-1])
        try:
            evaluate(net, images, target, tap=replace({layer: A}), ops=incremental.recording(ops.fast, clean))
            y_k = each(without, channels, batch_size)
        except (TypeError, AttributeError):  # a network that does arithmetic outside of `ops`
            y_k = each(without_in_whole, channels, batch_size)
    w = (y[None] - y_k) / jnp.where(y == 0, 1, y)[None]
    return jax.nn.relu(jnp.einsum("kn,nijk->nij", w, A))
