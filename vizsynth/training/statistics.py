"""Batch normalization in training.

Ioffe & Szegedy, Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift,
2015, algorithm 1: in training, μ and σ² are those of the batch. The running averages for evaluation are
PyTorch's: new = 0.9 old + 0.1 batch, with the unbiased variance of the batch (the paper, too, corrects its
average over many batches by m / (m − 1)).
"""

from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from vizsynth.ops import Ops

MOMENTUM = 0.1
Net = TypeVar("Net")


class Statistics(NamedTuple):
    """A batch's statistics at a normalization."""

    mean: Float[Array, " c"]
    variance: Float[Array, " c"]
    """Unbiased."""


def at_least_single(dtype: Any) -> Any:
    """Return the precision, or single precision if it is higher."""
    return dtype if jnp.finfo(dtype).bits >= 32 else jnp.dtype(jnp.float32)


def in_training(ops: Ops, seen: dict[str, Statistics], *, fixed: frozenset[str] = frozenset()) -> Ops:
    """Return a table that normalizes by the batch's statistics, and adds them to `seen`.

    Args:
        ops: the table of all other operations.
        seen: filled by layer name as the network runs.
        fixed: the names of the layers that use their running averages.
    """

    def batch_norm(
        x: Array, scale: Array, bias: Array, mean: Array, variance: Array, *, eps: float, name: str = ""
    ) -> Array:
        if name not in fixed:
            count = x.size // x.shape[-1]
            # A sum of many numbers needs single precision.
            wide = x.astype(at_least_single(x.dtype))
            mu, sigma2 = wide.mean((0, 1, 2)), wide.var((0, 1, 2))
            seen[name] = Statistics(mu, sigma2 * (count / max(count - 1, 1)))
            mean, variance = mu.astype(mean.dtype), sigma2.astype(variance.dtype)
        return ops.batch_norm(x, scale, bias, mean, variance, eps=eps, name=name)

    return ops._replace(batch_norm=batch_norm)


def is_norm(node: Any) -> bool:
    """Tell whether a layer is a normalization: it has a mean and a variance."""
    return all(isinstance(getattr(node, name, None), nnx.BatchStat) for name in ("mean", "variance"))


def with_statistics(net: Net, seen: dict[str, Statistics]) -> Net:
    """Return the network with its running averages moved towards a batch's statistics."""

    def moved(node: Any) -> Any:
        if not is_norm(node) or node.name not in seen:
            return node
        leaves, structure = jax.tree.flatten(node)
        copy = jax.tree.unflatten(structure, leaves)
        for name, value in seen[node.name]._asdict().items():
            old = getattr(node, name)[...]
            setattr(copy, name, nnx.BatchStat((1 - MOMENTUM) * old + MOMENTUM * value.astype(old.dtype)))
        return copy

    return jax.tree.map(moved, net, is_leaf=is_norm)
