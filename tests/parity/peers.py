"""The peers as they are published, in one process with ours.

`install_peers.sh` installs them. Two of them name torchvision as a dependency, and import it when they
are imported, but use it only for what is not looked at here: pytorch-grad-cam for its transforms of
pictures, for a resize in SESS and in targets for detection boxes; Zennit for the classes of the
blocks that its ResNet canonizers exchange. torchvision's wheels on PyPI are made for PyTorch with CUDA, so
where it is absent modules of its name stand in while a peer is imported: they hold the imported names, and
do nothing.
"""

import sys
from types import ModuleType
from typing import Any

import pytest

INSTALL = "run tests/parity/install_peers.sh"
# Module, and the names that are imported from it.
IMPORTED = {
    "torchvision": (),
    "torchvision.transforms": ("Compose", "Normalize", "ToTensor"),
    "torchvision.transforms.functional": ("resize",),
    "torchvision.models": (),
    "torchvision.models.resnet": ("BasicBlock", "Bottleneck"),
}


def _stand_ins() -> dict[str, ModuleType]:
    modules = {name: ModuleType(name) for name in IMPORTED}
    for name, module in modules.items():
        for attribute in IMPORTED[name]:
            setattr(module, attribute, type(attribute, (), {}))
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(modules[parent], child, module)
    return modules


def peer(name: str) -> Any:
    """Import a peer, or skip the module that wants it."""
    absent = False
    try:
        import torchvision as torchvision
    except ImportError:
        absent = True
        sys.modules.update(_stand_ins())
    try:
        return pytest.importorskip(name, reason=INSTALL)
    finally:
        if absent:
            for module in IMPORTED:
                del sys.modules[module]
