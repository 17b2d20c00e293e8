"""How much of an image a layer's neuron sees.

The network is run on intervals in place of activations: a table of `ops` that only counts.
"""

import math
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from vizsynth.ops import Ops
from vizsynth.types import Network


@dataclass(frozen=True)
class _Field:
    """What each neuron of a layer sees: so many pixels, neighbours so many apart."""

    rows: float = 1.0
    columns: float = 1.0
    row_step: float = 1.0
    column_step: float = 1.0

    shape = (1, 1, 1, 1)

    def astype(self, dtype: Any) -> "_Field":
        del dtype
        return self

    def reshape(self, *shape: Any) -> "_Field":
        del shape
        return self

    def through(self, window: tuple[int, int], strides: tuple[int, int]) -> "_Field":
        return _Field(
            self.rows + (window[0] - 1) * self.row_step,
            self.columns + (window[1] - 1) * self.column_step,
            self.row_step * strides[0],
            self.column_step * strides[1],
        )


class _FoundError(Exception):
    def __init__(self, field: _Field) -> None:
        self.field = field


def _wider(*fields: _Field) -> _Field:
    return _Field(
        max(f.rows for f in fields),
        max(f.columns for f in fields),
        max(f.row_step for f in fields),
        max(f.column_step for f in fields),
    )


def _of(x: Any) -> _Field:
    """Return what a value's neurons see; a pixel sees itself."""
    return x if isinstance(x, _Field) else _Field()


def _same(x: Any, *_: Any, **__: Any) -> _Field:
    return _of(x)


def _all_of_it(x: Any, *_: Any, **__: Any) -> _Field:
    return _Field(math.inf, math.inf, _of(x).row_step, _of(x).column_step)


def _pool(x: Any, *, window: tuple[int, int], strides: tuple[int, int], padding: Any = None) -> _Field:
    del padding
    return _of(x).through(window, strides)


_counting = Ops(
    standardize=lambda images, how: images,
    conv=lambda x, kernel, bias, *, strides, padding, name: _of(x).through(kernel.shape[:2], strides),
    linear=_all_of_it,
    batch_norm=_same,
    relu=_same,
    max_pool=_pool,
    mean_pool=_pool,
    adaptive_mean_pool=_all_of_it,
    add=lambda x, y: _wider(_of(x), _of(y)),
    concatenate=lambda xs: _wider(*map(_of, xs)),
)


def field_size(net: Network, layer: str) -> tuple[float, float]:
    """Return how many rows and columns of pixels a neuron of a layer sees, borders aside.

    >>> import jax, vizsynth
    >>> net = vizsynth.models.vgg16(num_classes=None, key=jax.random.key(0))
    >>> field_size(net, "relu1_1"), field_size(net, "relu5_1")
    ((3.0, 3.0), (132.0, 132.0))
    """

    def tap(name: str, value: Any) -> Any:
        if name == layer:
            raise _FoundError(value)
        return value

    unknown = ValueError(f"the network has no layer {layer!r}")
    if layer not in getattr(net, "layers", (layer,)):
        raise unknown
    try:
        net(jnp.zeros((1, 1, 1, 3)), tap=tap, ops=_counting)
    except _FoundError as found:
        return found.field.rows, found.field.columns
    raise unknown
