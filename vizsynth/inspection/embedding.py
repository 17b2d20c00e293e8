"""Embed descriptors in a plane: PCA, t-SNE, and a grid.

Pearson, On Lines and Planes of Closest Fit to Systems of Points in Space, 1901; van der Maaten & Hinton,
Visualizing Data using t-SNE, 2008. scikit-learn computes both; SciPy's linear assignment makes the grid.
"""

import math
from importlib import import_module
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, Int

from vizsynth.core.entry import check_key
from vizsynth.types import Key

KEPT = 50
"""The number of principal components for t-SNE, as in the paper's section 4.2."""
FEW = 2000
"""With fewer vectors, one thread is faster than several."""


def embed_pca(values: ArrayLike, *, dimensions: int = 2) -> Float[np.ndarray, "n dimensions"]:
    """Return the coordinates of each vector along the directions of largest variance.

    X − x̄ = U S Vᵀ; the points are the first columns of U S.

    Args:
        values: `[n, d]` finite floats.
        dimensions: of the points.

    Returns:
        `[n, dimensions]`, of mean 0; the signs of the axes are fixed.

    Raises:
        ValueError: `values` are not finite `[n, d]`, or `dimensions` exceeds n or d.
        ModuleNotFoundError: without scikit-learn, `pip install 'vizsynth[inspection]'`.

    Example:
        >>> points = embed_pca(np.array([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]]), dimensions=1)
        >>> abs(points).ravel().round(6).tolist()
        [5.0, 0.0, 5.0]
    """
    vectors = _vectors(values)
    if not 1 <= dimensions <= (most := min(vectors.shape)):
        raise ValueError(f"dimensions must be from 1 to {most}, the least of n and d, not {dimensions}")
    return _imported("sklearn.decomposition").PCA(dimensions, svd_solver="full").fit_transform(vectors)


def embed_tsne(
    values: ArrayLike, *, key: Key, perplexity: float | int = 30.0, dimensions: int = 2
) -> Float[np.ndarray, "n dimensions"]:
    """Return points whose neighborhoods resemble those of the vectors: t-SNE.

    It starts at the first principal components and minimizes KL(P‖Q), with p_ij from Gaussians around the
    vectors and q_ij from Student's t around the points (scikit-learn's Barnes-Hut approximation).

    Args:
        values: `[n, d]` finite floats; if d > 50, only their first 50 principal components are used.
        perplexity: roughly the number of neighbors of each vector; less than n.
        dimensions: of the points, 2 or 3.

    Returns:
        `[n, dimensions]`.

    Raises:
        ValueError: `values` are not finite `[n, d]`, or there are too few for the perplexity.
        ModuleNotFoundError: without scikit-learn, `pip install 'vizsynth[inspection]'`.

    Example:
        >>> clusters = np.repeat(np.eye(3, 8) * 9, 10, axis=0) + np.random.default_rng(0).normal(size=(30, 8))
        >>> embed_tsne(clusters, key=jax.random.key(0), perplexity=5).shape
        (30, 2)
    """
    check_key(key)
    vectors = _vectors(values)
    if not 0 < perplexity < len(vectors):
        raise ValueError(
            f"perplexity must be above 0 and under the number of vectors, {len(vectors)}, not {perplexity}"
        )
    if dimensions not in (2, 3):
        raise ValueError(f"dimensions must be 2 or 3, not {dimensions}")
    vectors = embed_pca(vectors, dimensions=min(KEPT, *vectors.shape))
    seed = int(jax.random.bits(key, dtype=np.uint32))
    begun = vectors[:, :dimensions] if vectors.shape[1] >= dimensions else None
    # The paper's initial scale, 1e-4, lets all points move freely.
    init = "random" if begun is None else (begun / (begun[:, :1].std() + 1e-12) * 1e-4).astype(np.float32)
    tsne = _imported("sklearn.manifold").TSNE(dimensions, perplexity=perplexity, init=init, random_state=seed)
    # For few vectors, the threads' synchronization takes longer than the work.
    with _imported("threadpoolctl").threadpool_limits(1 if len(vectors) < FEW else None):
        return np.asarray(tsne.fit_transform(vectors), float)


def grid_layout(points: ArrayLike, *, shape: tuple[int, int] | None = None) -> Int[np.ndarray, "n 2"]:
    """Return a different cell of a grid for each point, near the point.

    The assignment a minimizes Σ_i ‖p_i − g_a(i)‖², with points and grid scaled to the unit square.

    Args:
        points: `[n, 2]`: (x, y), x to the right and y upwards.
        shape: rows and columns, with at least n cells; by default nearly a square.

    Returns:
        `[n, 2]`: the row, from the top, and the column of each point.

    Raises:
        ValueError: the points are not `[n, 2]`, or the grid has too few cells.

    Example:
        >>> grid_layout(np.array([[0.0, 9.0], [1.0, 8.0], [0.1, 0.0], [5.0, 0.0]])).tolist()
        [[0, 0], [0, 1], [1, 0], [1, 1]]
    """
    given = _vectors(points)
    if given.shape[1] != 2:
        raise ValueError(f"points must be [n, 2], not {given.shape}")
    n = len(given)
    rows, columns = shape or (math.ceil(n / math.ceil(math.sqrt(n))), math.ceil(math.sqrt(n)))
    if rows < 1 or columns < 1 or rows * columns < n:
        raise ValueError(f"a grid of {rows} x {columns} has no room for {n} points; give it more cells")
    low, extent = given.min(axis=0), np.ptp(given, axis=0)
    unit = (given - low) / np.where(extent > 0, extent, 1)
    cells = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), axis=-1).reshape(-1, 2)
    across = cells[:, 1] / max(columns - 1, 1)
    up = 1 - cells[:, 0] / max(rows - 1, 1)
    # Imported here: the import takes half a second.
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    taken = linear_sum_assignment(cdist(unit, np.stack([across, up], axis=1), "sqeuclidean"))[1]
    return cells[taken]


def _vectors(values: ArrayLike) -> Float[np.ndarray, "n d"]:
    vectors = np.asarray(values, float)
    if vectors.ndim != 2 or 0 in vectors.shape:
        raise ValueError(f"values must be [n, d], at least one, not of shape {vectors.shape}")
    if not np.isfinite(vectors).all():
        raise ValueError("values must be finite; they hold NaN or infinity")
    return vectors


def _imported(name: str) -> Any:
    """Import scikit-learn, or a dependency of it, only if needed: it is slow and optional."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("this needs scikit-learn: pip install 'vizsynth[inspection]'") from error
