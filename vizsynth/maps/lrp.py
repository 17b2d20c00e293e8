"""Layer-wise relevance propagation.

Bach, Binder, Montavon, Klauschen, Müller & Samek, On Pixel-Wise Explanations for Non-Linear Classifier
Decisions by Layer-Wise Relevance Propagation, 2015. The composites: Kohlbrenner, Bauer, Nakajima, Binder,
Samek & Lapuschkin, Towards Best Practice in Explaining Neural Network Decisions with LRP, 2019. The rules
are in `vizsynth.rules`.
"""

from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vizsynth import rules
from vizsynth.core.entry import entry
from vizsynth.rules import Composite
from vizsynth.taps import run, shift
from vizsynth.types import Images, Network, Target


class Relevance(NamedTuple):
    """The relevance of pixels and layers, and the loss of relevance."""

    images: Float[Array, "n h w 3"]
    """The relevance of each value of each pixel."""
    layers: dict[str, Float[Array, "n ..."]]
    """The relevance of each of the given layers."""
    lost: dict[str, Float[Array, " n"]]
    """The relevance that each layer received and did not hand down: absorbed by its bias and by ε."""


class _Names(dict[str, Any]):
    """A mapping that records its look-ups."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def get(self, name: str, default: Any = None) -> Any:
        self.asked.append(name)
        return default


@entry(static=("layers",))
def relevance(
    net: Network,
    images: Images,
    target: Target,
    *,
    composite: Composite = rules.EPSILON_PLUS_FLAT,
    layers: Sequence[str] = (),
) -> Relevance:
    """Hand the score down layer by layer, R_in = Σ_i a_i ⊙ W_iᵀ (R / s(z)), with the loss at each layer.

    Σ images + Σ lost = S, the target: the relevance that biases and ε do not absorb reaches the pixels,
    through pooling, concatenation and residual sums.

    Args:
        net: with its batch normalization folded.
        composite: the rule of each kind of layer (`vizsynth.rules`).
        layers: the relevance of these layers is returned too.

    Returns:
        `Relevance(images, layers, lost)`.

    Raises:
        ValueError: batch normalization that is not folded.

    Example:
        >>> import jax, vizsynth
        >>> net = vizsynth.load("squeezenet1_1")
        >>> images = jax.random.uniform(jax.random.key(1), (1, 64, 64, 3))
        >>> found = vizsynth.relevance(net, images, 281, layers=["fire5"])
        >>> found.layers["fire5"].shape
        (1, 7, 7, 256)
    """
    wanted = tuple(dict.fromkeys((*target.layers, *layers)))
    names = _Names()

    def shapes(images: Images) -> dict[str, Array]:
        return run(net, images, wanted, ops=rules.lrp(composite, names, images.dtype))[1]

    found = jax.eval_shape(shapes, images)
    zeros = {layer: jnp.zeros_like(found[layer]) for layer in layers}
    dtype = found[target.layers[0]].dtype
    lost = {name: jnp.zeros_like(images, dtype, shape=images.shape[:1]) for name in names.asked}

    def top(images: Images, offsets: dict[str, Array], lost: dict[str, Array]) -> dict[str, Array]:
        table = rules.lrp(composite, lost, dtype)
        return run(net, images, target.layers, tap=shift(offsets), ops=table)[1]

    activations, hand_down = jax.vjp(top, images, zeros, lost)
    # The score is handed to the activations that it reads, in proportion to their contributions.
    slope = jax.grad(lambda a: target(a).sum())(activations)
    contribution = jax.tree.map(jnp.multiply, activations, slope)
    whole = reduce(jnp.add, [c.sum(axis=tuple(range(1, c.ndim))) for c in contribution.values()])
    scale = target(activations) / rules.stabilized(whole, 1e-12)
    seed = jax.tree.map(lambda c: c * scale.reshape(-1, *(1,) * (c.ndim - 1)), contribution)
    return Relevance(*hand_down(seed))


@entry()
def lrp(
    net: Network, images: Images, target: Target, *, composite: Composite = rules.EPSILON_PLUS_FLAT
) -> Float[Array, "n h w 3"]:
    """Return the relevance of each pixel for the score, handed down layer by layer.

    R_in = Σ_i a_i ⊙ W_iᵀ (R / s(z)), s(z) = z + ε sign(z); a rule defines the inputs a, weights W and z. The
    target is the relevance at the top.

    Args:
        net: with its batch normalization folded.
        composite: the rule of each kind of layer: `EPSILON_PLUS_FLAT`, `EPSILON_PLUS`,
            `EPSILON_GAMMA_BOX`, `EPSILON_ALPHA2_BETA1` of `vizsynth.rules`, or your own.

    Returns:
        The signed relevance `[n, h, w, 3]`; it sums to the score less the `lost` of `relevance`. Zennit
        begins with 1 instead of the score: its number is ours divided by the score.

    Raises:
        ValueError: batch normalization that is not folded.

    Example:
        >>> import jax, vizsynth
        >>> net = vizsynth.load("squeezenet1_1")
        >>> images = jax.random.uniform(jax.random.key(1), (1, 64, 64, 3))
        >>> vizsynth.lrp(net, images, 281).shape
        (1, 64, 64, 3)
    """
    return relevance(net, images, target, composite=composite).images
