"""See into convolutional networks and make pictures with them, in JAX.

Networks take float RGB images in [0, 1], `[n, h, w, 3]`, and everything here is a pure, jitted function
of a network, some images and a target (labels or a score).

The public names are listed in `vizsynth/api.py`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vizsynth.api import *  # noqa: F403


def __getattr__(name: str) -> Any:
    """Import a submodule, or the public names, when first asked for one."""
    from importlib import import_module
    from importlib.util import find_spec

    if name.startswith("_"):
        raise AttributeError(f"module 'vizsynth' has no attribute {name!r}")
    # Submodules come first: a module of the package that is being imported asks for them, and must
    # not set off the import of all others.
    if find_spec(f"vizsynth.{name}") is not None:
        return import_module(f"vizsynth.{name}")
    api = import_module("vizsynth.api")
    if name not in vars(api):
        raise AttributeError(f"module 'vizsynth' has no attribute {name!r}")
    return globals().setdefault(name, getattr(api, name))


def __dir__() -> list[str]:
    from importlib import import_module

    public = {name for name in vars(import_module("vizsynth.api")) if not name.startswith("_")}
    return sorted(globals().keys() | public)
