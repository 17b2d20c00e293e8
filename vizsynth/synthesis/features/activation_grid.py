"""Activation grids: what a network sees in each place of one photo.

Olah, Satyanarayan, Johnson, Carter, Schubert, Ye & Mordvintsev, The Building Blocks of Interpretability,
2018, section "What Does the Network See?": the activations of all channels at a place are a direction, and
its feature visualization shows what they mean together.
"""

from typing import Any

from jaxtyping import Array, Float

from vizsynth.core import chunks
from vizsynth.core.entry import entry
from vizsynth.ops import adaptive_mean_pool
from vizsynth.scores import Direction, LayerNorm
from vizsynth.synthesis.features.pictures import USUAL, Optimization, Size, check_pictures, maximize
from vizsynth.taps import run, shapes
from vizsynth.types import Image, Keys, Network, Synthesis


def _maps(net: Any, image: Array, layer: str) -> Float[Array, "1 ... c"]:
    return run(net, image[None], (layer,))[1][layer]


def _check(
    net: Any,
    image: Array,
    layer: str,
    key: Any,
    cells: Any,
    steps: int,
    size: Size,
    optimization: Optimization,
    state: Any,
    batch_size: int,
) -> None:
    check_pictures(
        net, LayerNorm(layer), size, optimization.transform, steps, None, key if state is None else state.key
    )
    chunks.check_count(batch_size, "batch_size")
    shape = shapes(net, image[None], (layer,))[layer].shape
    if len(shape) != 4:
        raise ValueError(f"{layer} has no places: a grid needs a layer of maps")
    if cells is not None and not (
        len(cells) == 2 and all(1 <= n <= side for n, side in zip(cells, shape[1:3], strict=True))
    ):
        raise ValueError(
            f"cells must be (rows, columns) of at most {shape[1:3]}, the map of {layer}, not {cells}"
        )
    rows, cols = cells or shape[1:3]
    if state is not None and state.step.shape != (rows * cols,):
        raise ValueError(f"the state is of {state.step.size} pictures, the grid has {rows * cols}")
    if key is not None and key.ndim:
        chunks.keys_for(key, rows * cols)


_STATIC = ("layer", "cells", "steps", "size", "batch_size")


@entry(static=_STATIC, check=_check, many=True)
def activation_grid(
    net: Network,
    image: Image,
    layer: str,
    *,
    key: Keys | None = None,
    cells: tuple[int, int] | None = None,
    cosine_power: float | Array = 2.0,
    steps: int = 128,
    size: Size = 64,
    optimization: Optimization = USUAL,
    state: Any = None,
    batch_size: int = 8,
) -> Synthesis:
    """Maximize mean_ij ⟨v, A_ij⟩ max(0.1, cos(v, A_ij))^p for each cell of the photo, v its mean activations.

    Args:
        layer: a layer of maps.
        cells: (rows, columns) that the layer's map is divided into; None is a cell for each of its places.
        cosine_power: p. Above 0 a picture is to show what is in the cell, not what excites the layer most.
        size: of a cell's picture: a side, or (height, width).
        optimization: the parametrization, transforms and optimizer (`vizsynth.Optimization`).

    Returns:
        The pictures row by row, `[rows * columns, size, size, 3]` in [0, 1]
        (`vizsynth.figures.grid(..., columns=columns)` sets them together), the objective of each at each
        step, and the state. The authors scale each picture by the length of its cell's activations; here
        all are of one size.

    Raises:
        TypeError, ValueError: a layer that the network does not have, or that has no maps; more cells than
            places; pictures too small for the network; no key.

    Example:
        >>> import jax, vizsynth
        >>> net = vizsynth.load("squeezenet1_1")
        >>> photo = jax.random.uniform(jax.random.key(0), (64, 64, 3))
        >>> options = {"cells": (2, 3), "steps": 2, "size": 32}
        >>> made = vizsynth.activation_grid(net, photo, "relu1", key=jax.random.key(1), **options)
        >>> made.images.shape
        (6, 32, 32, 3)
    """
    maps = _maps(net, image, layer)
    maps = maps if cells is None else adaptive_mean_pool(maps, size=cells)
    return maximize(
        net,
        Direction(layer, maps.reshape(-1, maps.shape[-1]), cosine_power),
        key=key,
        steps=steps,
        size=size,
        parametrization=optimization.parametrization,
        transform=optimization.transform,
        optimizer=optimization.transformation(),
        state=state,
        batch_size=batch_size,
    )
