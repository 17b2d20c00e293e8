"""Images laid out on a plane by their descriptors: PCA, t-SNE, and a grid.

Pearson, On Lines and Planes of Closest Fit to Systems of Points in Space, 1901; van der Maaten & Hinton,
Visualizing Data using t-SNE, 2008. Both are scikit-learn's; the grid is SciPy's linear assignment.
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
"""Principal components that t-SNE is given, as in the paper's section 4.2."""
FEW = 2000
"""Vectors that are too few for several threads."""


def embed_pca(values: ArrayLike, *, dimensions: int = 2) -> Float[np.ndarray, "n dimensions"]:
    """Return each vector's coordinates along the directions of most variance.

    X − x̄ = U S Vᵀ; the points are U S, their first columns.

    Args:
        values: `[n, d]` finite floats.
        dimensions: of the points.

    Returns:
        `[n, dimensions]`, of mean 0; the axes' signs are such that the result is always the same.

    Raises:
        ValueError: no such vectors; more dimensions than vectors or their length.
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
    """Return points whose neighborhoods are like those of the vectors: t-SNE.

    It begins at the first principal components and minimizes KL(P‖Q), p_ij of Gaussians around each vector,
    q_ij of Student's t around each point (scikit-learn's, with Barnes and Hut's approximation).

    Args:
        values: `[n, d]` finite floats; where d > 50, their first 50 principal components count.
        key: for what is drawn at random.
        perplexity: about how many neighbors count for each; under the number of vectors.
        dimensions: of the points, 2 or 3.

    Returns:
        `[n, dimensions]`.

    Raises:
        ValueError: no such vectors; a perplexity that they are too few for.
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
    # The paper's scale: a first spread of 1e-4 lets all points move freely.
    init = "random" if begun is None else (begun / (begun[:, :1].std() + 1e-12) * 1e-4).astype(np.float32)
    tsne = _imported("sklearn.manifold").TSNE(dimensions, perplexity=perplexity, init=init, random_state=seed)
    # Threads that wait for each other take longer than the little work there is for them.
    with _imported("threadpoolctl").threadpool_limits(1 if len(vectors) < FEW else None):
        return np.asarray(tsne.fit_transform(vectors), float)


def grid_layout(points: ArrayLike, *, shape: tuple[int, int] | None = None) -> Int[np.ndarray, "n 2"]:
    """Return a cell of a grid for each point, all different, as near to the points as can be.

    The assignment that minimizes Σ_i ‖p_i − g_a(i)‖², points and grid both brought to the unit square.

    Args:
        points: `[n, 2]`: (x, y), x to the right and y upwards.
        shape: rows and columns, no fewer cells than points; by default about a square.

    Returns:
        `[n, 2]`: the row, from the top, and the column of each point.

    Raises:
        ValueError: points that are not of a plane; too few cells.

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
    # Imported here: they take half of a second, which no other method should wait for.
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
    """Import scikit-learn, and what comes with it, when needed: it is slow, and not everyone has it."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("this needs scikit-learn: pip install 'vizsynth[inspection]'") from error
