"""Random weights made by NumPy alone, the same with and without PyTorch."""

from collections.abc import Mapping
from math import prod, sqrt
from zlib import crc32

import numpy as np

BRANCH_SCALE = 0.2  # keeps the sums of deep residual networks moderate


def random_state_dict(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    """Return a float32 array per name; its values depend on the name, the shape and the seed.

    The name and the rank decide the kind: He-normal kernels, biases and running means of standard
    deviation 0.1, batch normalization scales and running variances uniform in [0.5, 1.5). The last
    batch normalization of a residual branch is scaled by `BRANCH_SCALE`.
    """
    return {
        name: _random_array(name, tuple(shape), seed, _ends_branch(name, shapes))
        for name, shape in shapes.items()
    }


def _ends_branch(name: str, names: Mapping[str, object]) -> bool:
    """Tell whether a name is the scale of a residual branch's last batch normalization."""
    if name.endswith(".bn2.weight"):
        return name.removesuffix("bn2.weight") + "bn3.weight" not in names
    return name.endswith(".bn3.weight")


def _random_array(name: str, shape: tuple[int, ...], seed: int, ends_branch: bool) -> np.ndarray:
    """Draw one tensor from its own stream."""
    rng = np.random.default_rng([seed, crc32(name.encode())])
    kind = name.rpartition(".")[2]
    if kind == "num_batches_tracked":
        return np.zeros(shape, np.float32)
    if kind in ("bias", "running_mean"):
        return rng.standard_normal(shape, np.float32) * np.float32(0.1)
    if kind == "weight" and len(shape) >= 2:
        std = sqrt(2 / prod(shape[1:]))
        return rng.standard_normal(shape, np.float32) * np.float32(std)
    if kind == "running_var" or (kind == "weight" and len(shape) == 1):
        values = rng.random(shape, np.float32) + np.float32(0.5)
        return values * np.float32(BRANCH_SCALE) if ends_branch else values
    raise ValueError(f"no kind of random values for {name!r} of shape {shape}")
