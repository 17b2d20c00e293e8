"""The peers as they are published, in one process with ours.

`install_peers.sh` installs them. Some of them import packages that they use only for what is not looked at
here. torchvision: pytorch-grad-cam for its transforms of pictures, for a resize in SESS and in targets for
detection boxes; Zennit for the classes of the blocks that its ResNet canonizers exchange. Its wheels on PyPI
are made for PyTorch with CUDA. GitPython and requests: Foolbox, for its zoo of downloaded networks. So where
one of them is absent, modules of its name stand in while a peer is imported: they hold the imported names,
and do nothing.
"""

import sys
from importlib.util import find_spec
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
    "git": ("Repo",),
    "requests": (),
}


def _stand_ins() -> dict[str, ModuleType]:
    """Return a module for each that is absent."""
    absent = [name for name in IMPORTED if find_spec(name.partition(".")[0]) is None]
    modules = {name: ModuleType(name) for name in absent}
    for name, module in modules.items():
        for attribute in IMPORTED[name]:
            setattr(module, attribute, type(attribute, (), {}))
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(modules[parent], child, module)
    return modules


def peer(name: str) -> Any:
    """Import a peer, or skip the module that wants it."""
    stand_ins = _stand_ins()
    sys.modules.update(stand_ins)
    try:
        return pytest.importorskip(name, reason=INSTALL)
    finally:
        for module in stand_ins:
            del sys.modules[module]
