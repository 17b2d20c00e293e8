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
    """Where the score went."""

    images: Float[Array, "n h w 3"]
    """The relevance of each value of each pixel."""
    layers: dict[str, Float[Array, "n ..."]]
    """The relevance of each layer that was asked for."""
    lost: dict[str, Float[Array, " n"]]
    """What each layer received and did not hand down: to its bias, and to ε."""


class _Names(dict[str, Any]):
    """A mapping that writes down what it is asked for."""

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
    """Hand the score down layer by layer, R_in = Σ_i a_i ⊙ W_iᵀ (R / s(z)), and tell what is lost where.

    Σ images + Σ lost = S: what the rules do not lose to biases and to ε reaches the pixels, through pooling,
    concatenation and residual sums.

    Args:
        net: a network, its batch normalization folded.
        images: float RGB in [0, 1], `[n, h, w, 3]`.
        target: a label, one label an image, or a score (`vizsynth.scores`): S.
        composite: which rule each kind of layer follows (`vizsynth.rules`).
        layers: layers whose relevance is wanted too.

    Returns:
        `Relevance(images, layers, lost)`.

    Raises:
        TypeError, ValueError: images or a target that the network cannot take; a layer that it does not
            have; batch normalization that is not folded.

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
    # The score itself is handed to the activations it reads, in proportion to what each contributes.
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

    R_in = Σ_i a_i ⊙ W_iᵀ (R / s(z)), s(z) = z + ε sign(z); a rule says which inputs a, weights W and z.

    Args:
        net: a network, its batch normalization folded.
        images: float RGB in [0, 1], `[n, h, w, 3]`.
        target: a label, one label an image, or a score (`vizsynth.scores`): the relevance at the top.
        composite: which rule each kind of layer follows: `EPSILON_PLUS_FLAT`, `EPSILON_PLUS`,
            `EPSILON_GAMMA_BOX`, `EPSILON_ALPHA2_BETA1` of `vizsynth.rules`, or your own.

    Returns:
        The signed relevance `[n, h, w, 3]`; it sums to the score less what `relevance` tells is lost. Zennit
        begins with 1 instead of the score: ours divided by the score is its number.

    Raises:
        TypeError, ValueError: images or a target that the network cannot take; batch normalization that is
            not folded.

    Example:
        >>> import jax, vizsynth
        >>> net = vizsynth.load("squeezenet1_1")
        >>> images = jax.random.uniform(jax.random.key(1), (1, 64, 64, 3))
        >>> vizsynth.lrp(net, images, 281).shape
        (1, 64, 64, 3)
    """
    return relevance(net, images, target, composite=composite).images
