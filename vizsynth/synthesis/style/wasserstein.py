"""A style as a normal distribution of features: how far one must be carried to become the other.

Heitz, Vanhoey, Chambon & Belcour, A Sliced Wasserstein Loss for Neural Texture Synthesis, 2020, made optimal
transport of features a style's loss. Between normal distributions it has a closed form: Dowson & Landau, The
Fréchet Distance between Multivariate Normal Distributions, 1982,

    W₂² = ‖μ − μ̂‖² + tr(C + Ĉ − 2 (Ĉ^½ C Ĉ^½)^½).

Where Gram matrices differ by the square of a feature's variance, W₂ differs as its deviation: strong features
do not drown weak ones.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vizsynth.core.pytrees import pytree
from vizsynth.synthesis.texture.gatys import summing_dtype


class Moments(NamedTuple):
    """The mean of features and their covariance."""

    mean: Float[Array, " c"]
    covariance: Float[Array, "c c"]


@pytree
@dataclass(frozen=True)
class Wasserstein:
    """E_l = W₂² / N: the squared distance a feature has to go, on the average over the N features.

    C is E[f fᵀ] − μ μᵀ + eps 1. With eps = 10⁻⁴ it is style-transfer-pytorch's loss, which finds the root by
    twelve Newton-Schulz iterations; here it comes of the eigenvalues.
    """

    eps: Any = 1e-4

    def statistics(self, features: Float[Array, "h w c"], guidance: Any = None) -> Moments:
        """Return the mean and the covariance, each position counting as its guidance does."""
        dtype = summing_dtype(features.dtype)
        c = features.shape[-1]
        F = features.reshape(-1, c).astype(dtype)
        if guidance is None:
            T = jnp.full(len(F), 1 / len(F), dtype)
        else:
            T = guidance.reshape(-1).astype(dtype) ** 2  # as in a Gram matrix
            total = T.sum()
            T = T / jnp.where(total > 0, total, jnp.ones_like(total))
        mean = T @ F
        away = (F - mean[None]) * jnp.sqrt(T)[:, None]
        covariance = jnp.matmul(away.T, away, precision="highest")
        return Moments(mean, covariance + jnp.asarray(self.eps, dtype) * jnp.eye(c, dtype=dtype))

    def distance(self, found: Moments, wanted: Moments) -> Float[Array, ""]:
        """Return W₂² / N."""
        dtype = found.mean.dtype
        values, vectors = jnp.linalg.eigh(wanted.covariance)
        root = (vectors * jnp.sqrt(jnp.maximum(values, 0))[None]) @ vectors.T
        between = root @ found.covariance @ root
        # Its trace's root needs eigenvalues alone: their gradient exists where some are equal, too.
        least = jnp.asarray(np.finfo(dtype).tiny, dtype)
        roots = jnp.sqrt(jnp.maximum(jnp.linalg.eigvalsh((between + between.T) / 2), least)).sum()
        away = found.mean - wanted.mean
        traces = jnp.trace(found.covariance) + jnp.trace(wanted.covariance)
        return ((away * away).sum() + traces - 2 * roots) / found.mean.shape[0]
