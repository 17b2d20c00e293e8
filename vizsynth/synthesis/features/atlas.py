"""Activation atlases: all that a layer can see, laid out on a plane.

Carter, Armstrong, Schubert, Johnson & Olah, Exploring Neural Networks with Activation Atlases, 2019. The
activations at many places of many photos are laid out in two dimensions; the plane is divided into cells, and
the mean direction of each is visualized. The paper lays out by UMAP; any layout will do here (t-SNE, PCA).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from vizsynth.core import chunks
from vizsynth.core.entry import entry, is_on_host
from vizsynth.scores import Direction
from vizsynth.synthesis.features.pictures import USUAL, Optimization, Size, check_pictures, maximize
from vizsynth.types import Keys, Network, Synthesis


class Cells(NamedTuple):
    """The cells of an atlas."""

    directions: Float[Array, "rows columns c"]
    """The mean activation of each cell; zero where there is none."""
    counts: Int[Array, "rows columns"]
    """How many activations lie in each."""
    occupied: Bool[Array, "rows columns"]
    """Which of them hold enough to be shown."""


def _check_cells(activations: Any, layout: Any, grid: Any, least: Any) -> None:
    if np.ndim(activations) != 2 or 0 in np.shape(activations):
        raise ValueError(f"activations must be [N, c], not {np.shape(activations)}")
    if np.shape(layout) != (np.shape(activations)[0], 2):
        n = np.shape(activations)[0]
        raise ValueError(f"layout must hold (x, y) for each activation, [{n}, 2], not {np.shape(layout)}")
    if min(_rows_and_columns(grid)) < 1:
        raise ValueError(f"grid must be positive, not {grid}")
    for name, values in (("activations", activations), ("layout", layout)):
        if is_on_host(values) and not np.isfinite(np.asarray(values)).all():
            raise ValueError(f"{name} hold NaN or infinity")
    if is_on_host(least) and least < 1:
        raise ValueError(f"least must be at least 1, not {least}: an empty cell has no direction")


def _rows_and_columns(grid: int | tuple[int, int]) -> tuple[int, int]:
    return (grid, grid) if isinstance(grid, int) else grid


@entry(static=("grid",), check=_check_cells)
def atlas_cells(
    activations: Float[Array, "N c"],
    layout: Float[Array, "N 2"],
    *,
    grid: int | tuple[int, int] = 10,
    least: int | Array = 6,
) -> Cells:
    """Return the mean of the activations in each cell of their layout, v_rc = mean {A_i : i in cell (r, c)}.

    Args:
        activations: A, one vector a place of a photo, `[N, c]`; `whitening` makes them alike in length.
        layout: where each lies on the plane, (x, y): x goes right, y down. It is stretched to the grid.
        grid: how many rows and columns, or (rows, columns).
        least: a cell of fewer activations is not shown. The authors' code shows those of more than 5.

    Returns:
        The directions, how many activations lie in each cell, and which cells are occupied:
        `cells.directions[cells.occupied]` are those to give to `vizsynth.activation_atlas`.

    Raises:
        ValueError: activations that are not `[N, c]`; a layout that is not `[N, 2]`; NaN.

    Example:
        >>> import jax.numpy as jnp, vizsynth
        >>> layout = jnp.asarray([[0.0, 0.0], [0.1, 0.0], [1.0, 1.0]])
        >>> cells = vizsynth.atlas_cells(jnp.asarray([[1.0], [3.0], [7.0]]), layout, grid=2, least=1)
        >>> cells.directions[..., 0].tolist(), cells.counts.tolist()
        ([[2.0, 0.0], [0.0, 7.0]], [[2, 0], [0, 1]])
    """
    activations, layout = jnp.asarray(activations), jnp.asarray(layout)
    rows, cols = _rows_and_columns(grid)
    low = layout.min(axis=0, keepdims=True)
    extent = layout.max(axis=0, keepdims=True) - low
    share = (layout - low) / jnp.where(extent > 0, extent, jnp.ones_like(extent))
    at = [jnp.minimum((share[:, k] * n).astype(jnp.int32), n - 1) for k, n in ((1, rows), (0, cols))]
    cell = at[0] * cols + at[1]
    sums = jax.ops.segment_sum(activations, cell, rows * cols)
    counts = jax.ops.segment_sum(jnp.ones_like(cell), cell, rows * cols)
    means = sums / jnp.maximum(counts, 1).astype(sums.dtype)[:, None]
    counts = counts.reshape(rows, cols)
    return Cells(means.reshape(rows, cols, -1), counts, counts >= jnp.asarray(least))


def _check_whitening(activations: Any, ridge: Any) -> None:
    if np.ndim(activations) != 2 or 0 in np.shape(activations):
        raise ValueError(f"activations must be [N, c], not {np.shape(activations)}")
    if is_on_host(ridge) and not float(ridge) >= 0:
        raise ValueError(f"ridge must be at least 0, not {ridge}")


@entry(check=_check_whitening)
def whitening(activations: Float[Array, "N c"], *, ridge: float | Array = 1e-3) -> Float[Array, "c c"]:
    """Return S = (AᵀA / N + r m I)⁻¹, m the mean of the diagonal of AᵀA / N: directions become v S.

    Channels that are large everywhere then count for less. `ridge` is r; 0 is the authors' code, which needs
    more activations than channels.

    >>> import jax.numpy as jnp
    >>> whitening(jnp.asarray([[2.0, 0.0], [0.0, 1.0]]), ridge=0.0).tolist()
    [[0.5, 0.0], [0.0, 2.0]]
    """
    activations = jnp.asarray(activations)
    n, c = activations.shape
    covariance = jnp.matmul(activations.T, activations, precision="highest") / n
    floor = jnp.asarray(ridge, covariance.dtype) * jnp.trace(covariance) / c
    return jnp.linalg.inv(covariance + floor * jnp.eye(c, dtype=covariance.dtype))


def _check(
    net: Any,
    directions: Any,
    layer: str,
    key: Any,
    steps: int,
    size: Size,
    optimization: Optimization,
    state: Any,
    batch_size: int,
) -> None:
    if np.ndim(directions) != 2 or 0 in np.shape(directions):
        raise ValueError(
            f"directions must be [m, c], not {np.shape(directions)}; give cells.directions[cells.occupied]"
        )
    check_pictures(net, Direction(layer, directions), size, optimization.transform, steps, state, key)
    chunks.check_count(batch_size, "batch_size")
    if key is not None and key.ndim:
        chunks.keys_for(key, len(directions))


@entry(
    static=("layer", "steps", "size", "batch_size"),
    check=_check,
    many=True,
)
def activation_atlas(
    net: Network,
    directions: Float[Array, "m c"],
    layer: str,
    *,
    key: Keys | None = None,
    cosine_power: float | Array = 2.0,
    steps: int = 128,
    size: Size = 96,
    optimization: Optimization = USUAL,
    state: Any = None,
    batch_size: int = 8,
) -> Synthesis:
    """Maximize mean_ij ⟨v, A_ij⟩ max(0.1, cos(v, A_ij))^p for the direction v of each cell.

    Args:
        directions: v, one a cell, `[m, c]` (`vizsynth.atlas_cells`); whitened: v S (`vizsynth.whitening`).
        layer: the layer that the activations are of.
        cosine_power: p. The authors' code has 2, or 4: a picture is to show this cell and not its neighbours.
        size: of a cell's picture: a side, or (height, width).
        optimization: the parametrization, transforms and optimizer (`vizsynth.Optimization`).

    Returns:
        The pictures `[m, size, size, 3]` in [0, 1], the objective of each at each step, and the state.
        Departure: the authors' code jitters more (five times); `Optimization.transform` takes that.

    Raises:
        TypeError, ValueError: a layer that the network does not have; directions of another length; pictures
            too small for the network; no key.

    Example:
        >>> import jax, vizsynth
        >>> net = vizsynth.load("squeezenet1_1")
        >>> v = jax.random.uniform(jax.random.key(0), (3, 64))
        >>> made = vizsynth.activation_atlas(net, v, "relu1", key=jax.random.key(1), steps=2, size=32)
        >>> made.images.shape
        (3, 32, 32, 3)
    """
    return maximize(
        net,
        Direction(layer, directions, cosine_power),
        key=key,
        steps=steps,
        size=size,
        parametrization=optimization.parametrization,
        transform=optimization.transform,
        optimizer=optimization.transformation(),
        state=state,
        batch_size=batch_size,
    )
