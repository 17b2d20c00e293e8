"""Scores: what is explained or maximized.

A score turns activations into one number an image. It is a pytree whose numbers are leaves, so
another label or channel does not compile anew, and `jax.vmap` over scores gives the maps of many
classes in one pass. Scores add, subtract and scale:

>>> from vizsynth.scores import Channel, Class
>>> score = Class(281) - 0.5 * Channel("relu4_1", 7)
>>> score.layers
('logits', 'relu4_1')

A score of your own is a callable pytree with `layers`. Its fields tell by their metadata what they are:
`STATIC` is structure; a `NUMBER`, a `VECTOR` or a `LABEL` is one for all images, or one an image. Labels
are checked against the network's classes. A field without metadata is one for all images.

>>> from dataclasses import dataclass, field
>>> from vizsynth.scores import LABEL, pytree
>>> @pytree
... @dataclass(frozen=True)
... class Margin:
...     label: int = field(metadata=LABEL)
...     other: int = field(metadata=LABEL)
...     layers = ("logits",)
...
...     def __call__(self, activations):
...         logits = activations["logits"]
...         rows = jnp.arange(len(logits))
...         return logits[rows, self.label] - logits[rows, self.other]
>>> labels_in(Class(281) + Multiple(0.5, Margin(282, 285)))
[281, 282, 285]
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import GetAttrKey, SequenceKey, tree_leaves_with_path
from jaxtyping import Array, Float

from vizsynth.core.pytrees import pytree
from vizsynth.types import Activations, Score

Number = Any  # an int, a float or an array: a leaf
Values = Float[Array, " n"]


class _Algebra:
    """The sums and multiples of scores."""

    def __add__(self, other: Score) -> "Sum":
        return Sum(self, other)  # type: ignore[arg-type]

    def __sub__(self, other: Score) -> "Sum":
        return Sum(self, Multiple(-1.0, other))  # type: ignore[arg-type]

    def __mul__(self, factor: Number) -> "Multiple":
        return Multiple(factor, self)  # type: ignore[arg-type]

    __rmul__ = __mul__

    def __neg__(self) -> "Multiple":
        return Multiple(-1.0, self)  # type: ignore[arg-type]


# The metadata of a score's fields: structure; or numbers, with the axes that one image's has.
STATIC = {"static": True}  # no leaf of the pytree
NUMBER = {"axes": 0}
VECTOR = {"axes": 1}
LABEL = {"axes": 0, "label": True}


def _pick(values: Array, index: Number) -> Values:
    """Return `values[i, index[i]]`, or NaN where there is no such entry."""
    index = jnp.broadcast_to(jnp.asarray(index), values.shape[:1])
    picked = jnp.take_along_axis(values, index[:, None], axis=1, mode="fill")[:, 0]
    return jnp.where(index < 0, jnp.nan, picked)  # negative ones count from the end


@pytree
@dataclass(frozen=True)
class Class(_Algebra):
    """The logit of a class, S_c: one label for all images, or one an image.

    Source: Simonyan, Vedaldi & Zisserman, Deep Inside Convolutional Networks, 2013, section 3,
    takes the unnormalized score, as the probability also rises when other classes fall.
    """

    label: Number = field(metadata=LABEL)
    layers = ("logits",)

    def __call__(self, activations: Activations) -> Values:
        """Return the logits of the labels."""
        return _pick(activations["logits"], self.label)


@pytree
@dataclass(frozen=True)
class LogProbability(_Algebra):
    """The logarithm of a class's softmax probability: log p_c = S_c − log Σ_k exp S_k."""

    label: Number = field(metadata=LABEL)
    layers = ("logits",)

    def __call__(self, activations: Activations) -> Values:
        """Return the log probabilities of the labels."""
        return _pick(jax.nn.log_softmax(activations["logits"]), self.label)


@pytree
@dataclass(frozen=True)
class Probability(_Algebra):
    """A class's softmax probability: p_c = exp S_c / Σ_k exp S_k."""

    label: Number = field(metadata=LABEL)
    layers = ("logits",)

    def __call__(self, activations: Activations) -> Values:
        """Return the probabilities of the labels."""
        return _pick(jax.nn.softmax(activations["logits"]), self.label)


@pytree
@dataclass(frozen=True)
class Neuron(_Algebra):
    """One unit of a layer: its channel at row y and column x; the centre where they are None.

    Each is one number for all images, or one an image.
    """

    layer: str = field(metadata=STATIC)
    channel: Number = field(metadata=NUMBER)
    y: Number = field(default=None, metadata=NUMBER)
    x: Number = field(default=None, metadata=NUMBER)

    @property
    def layers(self) -> tuple[str, ...]:
        """The layer that is read."""
        return (self.layer,)

    def __call__(self, activations: Activations) -> Values:
        """Return the unit's activation in each image."""
        values = activations[self.layer]
        if values.ndim == 4:
            y = values.shape[1] // 2 if self.y is None else self.y
            x = values.shape[2] // 2 if self.x is None else self.x
            n = values.shape[0]
            y, x = (jnp.broadcast_to(jnp.asarray(i), (n,)) for i in (y, x))
            values = values.at[jnp.arange(n), y, x].get(
                mode="fill", fill_value=jnp.nan, wrap_negative_indices=False
            )
        return _pick(values, self.channel)


@pytree
@dataclass(frozen=True)
class Channel(_Algebra):
    """The mean of a channel over its positions."""

    layer: str = field(metadata=STATIC)
    channel: Number = field(metadata=NUMBER)

    @property
    def layers(self) -> tuple[str, ...]:
        """The layer that is read."""
        return (self.layer,)

    def __call__(self, activations: Activations) -> Values:
        """Return the channel's mean in each image."""
        values = activations[self.layer]
        return _pick(values.mean(axis=tuple(range(1, values.ndim - 1))), self.channel)


@pytree
@dataclass(frozen=True)
class Direction(_Algebra):
    """The mean over positions of the product with a direction in channel space, Σ_k v_k A_k max(0.1, cos)^p.

    `cosine_power` is p: above 0 it favours what points in the direction over what is merely large. None is
    p = 0, the product alone. Olah, Mordvintsev & Schubert, Feature Visualization, 2017; Carter et al.,
    Activation Atlas, 2019, has p = 2 and p = 4.
    """

    layer: str = field(metadata=STATIC)
    vector: Number = field(metadata=VECTOR)
    cosine_power: Number = field(default=None, metadata=NUMBER)

    @property
    def layers(self) -> tuple[str, ...]:
        """The layer that is read."""
        return (self.layer,)

    def __call__(self, activations: Activations) -> Values:
        """Return the mean projection in each image."""
        values = activations[self.layer]
        vector = jnp.asarray(self.vector, values.dtype)
        positions = tuple(range(1, values.ndim - 1))
        if self.cosine_power is None:
            return (values.mean(axis=positions) @ vector).astype(values.dtype)
        dot = (values @ vector).astype(values.dtype)
        lengths = jnp.linalg.norm(vector) * _length(values, -1)
        return (dot * _favour(dot, lengths, self.cosine_power)).mean(axis=positions)


_LEAST_COSINE = 0.1
_LEAST_LENGTH = 1e-4


def _length(values: Array, axis: int | tuple[int, ...]) -> Array:
    return jnp.sqrt((values * values).sum(axis=axis) + jnp.asarray(_LEAST_LENGTH**2, values.dtype))


def _favour(dot: Array, lengths: Array, power: Number) -> Array:
    """Return max(0.1, cos)^p."""
    cosine = dot / (lengths + jnp.asarray(_LEAST_LENGTH, dot.dtype))
    return jnp.maximum(cosine, jnp.asarray(_LEAST_COSINE, dot.dtype)) ** jnp.asarray(power, dot.dtype)


@pytree
@dataclass(frozen=True)
class Caricature(_Algebra):
    """How much a layer is as it was for another image: ⟨A, A₀⟩ · max(0.1, cos(A, A₀))^p.

    Maximized, the traits of that image are exaggerated. `activations` are A₀, `[h, w, c]` or `[c]`; where a
    layer has another size, the mean over positions is compared. Olah et al., Feature Visualization, 2017;
    Lucid divides the cosine by the length of A₀ alone.
    """

    layer: str = field(metadata=STATIC)
    activations: Number
    cosine_power: Number = 1.0

    @property
    def layers(self) -> tuple[str, ...]:
        """The layer that is read."""
        return (self.layer,)

    def __call__(self, activations: Activations) -> Values:
        """Return the likeness of each image."""
        values = activations[self.layer]
        like = jnp.asarray(self.activations, values.dtype)
        if values.shape[1:] != like.shape:
            values = values.mean(axis=tuple(range(1, values.ndim - 1)))
            like = like.mean(axis=tuple(range(like.ndim - 1)))
        values = values.reshape(values.shape[0], -1)
        like = like.reshape(-1)
        dot = values @ like
        return dot * _favour(dot, _length(values, -1) * jnp.linalg.norm(like), self.cosine_power)


@pytree
@dataclass(frozen=True)
class LayerNorm(_Algebra):
    """Half the squared norm of a layer, ½ Σ A², whose gradient is the activations themselves."""

    layer: str = field(metadata=STATIC)

    @property
    def layers(self) -> tuple[str, ...]:
        """The layer that is read."""
        return (self.layer,)

    def __call__(self, activations: Activations) -> Values:
        """Return half the squared norm in each image."""
        values = activations[self.layer]
        return (values * values).sum(axis=tuple(range(1, values.ndim))) / 2


@pytree
@dataclass(frozen=True)
class Sum(_Algebra):
    """The sum of two scores."""

    first: Any
    second: Any

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that either reads."""
        return tuple(dict.fromkeys((*self.first.layers, *self.second.layers)))

    def __call__(self, activations: Activations) -> Values:
        """Return the sum in each image."""
        return self.first(activations) + self.second(activations)


@pytree
@dataclass(frozen=True)
class Multiple(_Algebra):
    """A multiple of a score."""

    factor: Number = field(metadata=NUMBER)
    score: Any

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that the score reads."""
        return self.score.layers

    def __call__(self, activations: Activations) -> Values:
        """Return the multiple in each image."""
        values = self.score(activations)
        return jnp.asarray(self.factor, values.dtype) * values


def labels_in(score: Any) -> list[Any]:
    """Return the class labels that a score names, however deep."""
    return [leaf for leaf, told in _described(score) if told.get("label")]


def count(score: Any) -> int | None:
    """Return for how many images a score has numbers of their own; None if it has one for all.

    >>> count(Class(3)), count(Class(jnp.arange(4)) + Channel("relu1", 2))
    (None, 4)
    """
    counts = {leaf.shape[0] for leaf, rank in _ranked(score) if leaf.ndim > rank} - {1}
    if len(counts) > 1:
        raise ValueError(f"the score's parts are for different numbers of images: {sorted(counts)}")
    return counts.pop() if counts else None


def spread(score: Any, n: int) -> Any:
    """Return the score with n of each of its numbers, for `jax.vmap` over them.

    >>> spread(Class(3), 2).label.tolist()
    [3, 3]
    """
    leaves, treedef = jax.tree.flatten(score)
    ranks = [rank for _, rank in _ranked(score)]
    arrays = [jnp.asarray(leaf) for leaf in leaves]
    each = [
        jnp.broadcast_to(a if a.ndim > rank else a[None], (n, *a.shape[a.ndim - rank :]))
        for a, rank in zip(arrays, ranks, strict=True)
    ]
    return jax.tree.unflatten(treedef, each)


def _ranked(score: Any) -> list[tuple[Array, int]]:
    """Return the leaves of a score, each with the number of axes that it has for one image."""
    return [
        (jnp.asarray(leaf), told.get("axes", jnp.ndim(leaf)))  # without a word, one for all
        for leaf, told in _described(score)
    ]


def _described(score: Any) -> list[tuple[Any, Mapping[str, Any]]]:
    """Return the leaves of a score, each with the metadata of the field that holds it."""
    found = []
    for path, leaf in tree_leaves_with_path(score):
        value, told = score, {}
        for key in path:
            if isinstance(key, GetAttrKey):
                told = _metadata(value, key.name)
                value = getattr(value, key.name)
            elif isinstance(key, SequenceKey):
                value = value[key.idx]
            else:
                told = {}
                break
        found.append((leaf, told))
    return found


def _metadata(value: Any, name: str) -> Mapping[str, Any]:
    of = fields(value) if is_dataclass(value) else ()
    return next((f.metadata for f in of if f.name == name), {})
