"""Leave the parity tests out where PyTorch is absent."""

from collections.abc import Iterator
from importlib.util import find_spec

import jax
import pytest

if find_spec("torch") is None:
    collect_ignore_glob = ["*.py"]
else:
    import torch

    torch.set_num_threads(2)


@pytest.fixture(autouse=True, scope="module")
def _as_users_compile() -> Iterator[None]:
    """Optimize the programs: what is compared is what users run, and the networks are of full size."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)
