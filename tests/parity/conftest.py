"""Leave the parity tests out where PyTorch is absent."""

from importlib.util import find_spec

if find_spec("torch") is None:
    collect_ignore_glob = ["*.py"]
else:
    import torch

    torch.set_num_threads(2)
