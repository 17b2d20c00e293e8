"""See into convolutional networks and make pictures with them, in JAX.

Networks take float RGB images in [0, 1], `[n, h, w, 3]`, and everything here is a pure, jitted function
of a network, some images and a target (labels or a score).

The public names are listed in `vizsynth/api.py`.
"""

from functools import cache as _cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vizsynth.api import *  # noqa: F403


def __getattr__(name: str) -> Any:
    """Import a submodule, or the module of a public name, when first asked for it."""
    from importlib import import_module
    from importlib.util import find_spec

    if name.startswith("_"):
        raise AttributeError(f"module 'vizsynth' has no attribute {name!r}")
    # Submodules come first: a module of the package that is being imported asks for them.
    if find_spec(f"vizsynth.{name}") is not None:
        return import_module(f"vizsynth.{name}")
    if (module := _public_names().get(name)) is None:
        raise AttributeError(f"module 'vizsynth' has no attribute {name!r}")
    return globals().setdefault(name, getattr(import_module(module), name))


def __dir__() -> list[str]:
    return sorted(globals().keys() | _public_names().keys())


@_cache
def _public_names() -> dict[str, str]:
    """Return the module of each name in `api.py`, which is read: importing it imports everything."""
    import ast
    from pkgutil import get_data

    lines = ast.parse(get_data("vizsynth", "api.py") or b"").body
    imports = [line for line in lines if isinstance(line, ast.ImportFrom)]
    return {alias.name: str(line.module) for line in imports for alias in line.names}
