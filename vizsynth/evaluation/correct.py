"""Accuracy as a score."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from vizsynth.core.pytrees import pytree
from vizsynth.types import Activations


@pytree
@dataclass(frozen=True)
class Correct:
    """1 if the network predicts the label, else 0: the mean over images is the accuracy.

    >>> import jax.numpy as jnp
    >>> Correct(1)({"logits": jnp.asarray([[0.0, 3.0], [5.0, 2.0]])}).tolist()
    [1.0, 0.0]
    """

    label: Any
    layers = ("logits",)

    def __call__(self, activations: Activations) -> Float[Array, " n"]:
        """Return whether each image is classified as the label."""
        logits = activations["logits"]
        label = jnp.broadcast_to(jnp.asarray(self.label), logits.shape[:1])
        return (logits.argmax(axis=-1) == label).astype(logits.dtype)
