"""Find nearest neighbours among vectors of features or pixels.

Krizhevsky, Sutskever & Hinton, ImageNet Classification with Deep Convolutional Neural Networks, 2012, section
6.1: images with similar activations in the last hidden layer are similar, even if their pixels differ.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from vizsynth.core.chunks import check_count, in_groups
from vizsynth.core.entry import entry

Vectors = Float[Array, "n d"] | Float[np.ndarray, "n d"]
Labels = Int[Array, " n"] | Int[np.ndarray, " n"]

SPARE = 8
"""The number of extra candidates of the fast formula, before exact distances order them."""


class Neighbors(NamedTuple):
    """The nearest vectors of each query, nearest first; ties go to the lower index."""

    indices: Int[Array, "q k"]
    distances: Float[Array, "q k"]


def _check(values: Any, queries: Any, k: Any, batch_size: Any) -> None:
    check_count(k, "k")
    check_count(batch_size, "batch_size")
    if jnp.ndim(values) != 2 or not jnp.issubdtype(jnp.asarray(values).dtype, jnp.floating):
        raise ValueError(f"values must be floats [n, d], not of shape {jnp.shape(values)}")
    if queries is not None and (jnp.ndim(queries) != 2 or queries.shape[1] != values.shape[1]):
        raise ValueError(f"queries must be [q, {values.shape[1]}] like values, not {jnp.shape(queries)}")
    if k > (most := values.shape[0] - (queries is None)):
        others = "other vectors" if queries is None else "vectors"
        raise ValueError(f"k = {k} neighbors were asked for, but there are {most} {others}; ask for fewer")


@entry(static=("k", "batch_size"), check=_check)
def nearest_neighbors(
    values: Vectors, queries: Float[Array, "q d"] | Float[np.ndarray, "q d"] | None = None, *, k: int,
    batch_size: int = 1024,
) -> Neighbors:  # fmt: skip
    """Return the k vectors nearest to each query, with the least ‖q − v‖.

    ‖q − v‖² = ‖q‖² − 2 q·v + ‖v‖², a matrix product, finds candidates; exact differences, without
    cancellation, order them. For neighbors by angle, give `values / ‖values‖`.

    Args:
        values: `[n, d]`: descriptors, flattened images, or points of a plane.
        queries: `[q, d]`; None: each of the values, with its neighbors among the others.
        k: the number of neighbors.

    Returns:
        Neighbors: indices in `values`, int32 `[q, k]`, and Euclidean distances `[q, k]`.

    Raises:
        ValueError: the vectors differ in length, or there are fewer than k.

    Example:
        >>> import jax.numpy as jnp, vizsynth
        >>> found = vizsynth.nearest_neighbors(jnp.array([[0.0], [1.0], [5.0]]), k=1)
        >>> found.indices.ravel().tolist(), found.distances.ravel().tolist()
        ([1, 0, 1], [1.0, 1.0, 4.0])
    """
    values = jnp.asarray(values)
    n = values.shape[0]
    own = jnp.arange(n, dtype=jnp.int32) if queries is None else jnp.full(len(queries), -1, jnp.int32)
    queries = values if queries is None else jnp.asarray(queries, values.dtype)
    middle = values.mean(axis=0, keepdims=True)  # centered: far from 0 the formula cancels
    centred = values - middle
    wanted = min(k + SPARE, n)

    def of(group: tuple[Array, Array]) -> Neighbors:
        query, itself = group
        candidates = _candidates(query - middle, itself, centred, wanted, batch_size)
        exact = lax.map(lambda one: _distances(one[0], values[one[1]]), (query, candidates))
        exact = jnp.where(candidates < 0, jnp.asarray(jnp.inf, exact.dtype), exact)
        distances, indices = lax.sort((exact, candidates), num_keys=2)
        return Neighbors(indices[:, :k], distances[:, :k])

    return in_groups(of, (queries, own), batch_size)


def _distances(query: Float[Array, " d"], values: Float[Array, "c d"]) -> Float[Array, " c"]:
    return jnp.sqrt(((values - query[None]) ** 2).sum(axis=-1))


def _candidates(
    queries: Float[Array, "q d"], own: Int[Array, " q"], values: Float[Array, "n d"], count: int, size: int
) -> Int[Array, "q count"]:
    """Return the indices of the `count` nearest values, chunk by chunk; −1 in place of the query itself."""
    n = values.shape[0]
    infinity = jnp.asarray(jnp.inf, values.dtype)
    begun = (
        jnp.full((queries.shape[0], count), infinity),
        jnp.full((queries.shape[0], count), -1, jnp.int32),
    )
    squares = (queries**2).sum(axis=-1, keepdims=True)

    def nearer(best: tuple[Array, Array], start: Array) -> tuple[tuple[Array, Array], None]:
        places = start + jnp.arange(min(size, n), dtype=jnp.int32)
        chunk = values[jnp.minimum(places, n - 1)]
        product = jnp.matmul(queries, chunk.T, precision=lax.Precision.HIGHEST)
        distances = squares - 2 * product + (chunk**2).sum(axis=-1)[None]
        outside = (places[None] >= n) | (places[None] == own[:, None])
        distances = jnp.where(outside, infinity, distances)
        every = jnp.concatenate([best[0], distances], axis=1)
        where = jnp.concatenate([best[1], jnp.where(outside, -1, places[None])], axis=1)
        least, kept = lax.top_k(-every, count)
        return (-least, jnp.take_along_axis(where, kept, axis=1)), None

    starts = jnp.arange(0, n, min(size, n), dtype=jnp.int32)
    return jax.lax.scan(nearer, begun, starts)[0][1]


def _check_labels(indices: Any, labels: Any, query_labels: Any) -> None:
    if jnp.ndim(indices) != 2 or jnp.ndim(labels) != 1:
        raise ValueError(
            f"indices must be [q, k] and labels [n], not {jnp.shape(indices)} and {jnp.shape(labels)}"
        )
    asked = labels if query_labels is None else query_labels
    if jnp.shape(asked) != indices.shape[:1]:
        raise ValueError(f"there are {indices.shape[0]} queries but labels of {jnp.shape(asked)[0]} of them")


def same_class_share(
    indices: Int[Array, "q k"] | Int[np.ndarray, "q k"],
    labels: Labels,
    query_labels: Int[Array, " asked"] | Int[np.ndarray, " asked"] | None = None,
) -> Float[Array, " q"]:
    """Return the share of each query's neighbors in its class, (1/k) Σ_i [y_i = y].

    The mean over queries is the k-nearest-neighbor purity.

    Args:
        indices: `[q, k]`, from `nearest_neighbors`.
        labels: of its `values`, `[n]`.
        query_labels: `[q]`; None if the values were the queries.

    Returns:
        `[q]`, in [0, 1].

    Raises:
        ValueError: the number of labels differs from that of the queries.

    Example:
        >>> import jax.numpy as jnp, vizsynth
        >>> found = vizsynth.nearest_neighbors(jnp.array([[0.0], [1.0], [5.0]]), k=1)
        >>> vizsynth.same_class_share(found.indices, jnp.array([0, 0, 1])).tolist()
        [1.0, 1.0, 0.0]
    """
    _check_labels(indices, labels, query_labels)
    labels = jnp.asarray(labels)
    asked = labels if query_labels is None else jnp.asarray(query_labels)
    return (labels[jnp.asarray(indices)] == asked[:, None]).mean(axis=1)
