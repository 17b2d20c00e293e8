"""PyTorch's own files: both kinds are read, wrapped or not, and never executed."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch_networks import randomize, squeezenet1_1, standardized

from vizsynth.models import load
from vizsynth.models.io.formats import read_file
from vizsynth.models.io.weights import WeightsError, paths


@pytest.fixture(scope="module")
def module() -> torch.nn.Module:
    return randomize(squeezenet1_1(num_classes=7), seed=3)


def _legacy(state: Any, path: Path) -> None:
    torch.save(state, path, _use_new_zipfile_serialization=False)


WRITERS: dict[str, Callable[[dict[str, torch.Tensor], Path], None]] = {
    "zip": torch.save,
    "legacy": _legacy,
    "safetensors": lambda state, path: save_file(dict(state), path),
    "wrapped": lambda state, path: torch.save({"epoch": 3, "state_dict": state, "lr": 0.1}, path),
    "parallel": lambda state, path: torch.save({f"module.{k}": v for k, v in state.items()}, path),
    "parameters": lambda state, path: torch.save({k: torch.nn.Parameter(v) for k, v in state.items()}, path),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_every_kind_of_file_gives_the_same_network(
    write: Callable[..., None], module: torch.nn.Module, tmp_path: Path
) -> None:
    path = tmp_path / "weights.pth"  # what the file is shows in its content
    write(module.state_dict(), path)
    net = load("squeezenet1_1", weights=path)
    assert net.num_classes == 7
    found = paths(net)
    np.testing.assert_array_equal(found["conv10.bias"], module.state_dict()["classifier.1.bias"])
    expected = module.state_dict()["features.3.expand3x3.weight"].permute(2, 3, 1, 0)
    np.testing.assert_array_equal(found["fire2.expand3x3.kernel"], expected)


def test_the_network_predicts_what_pytorch_does(module: torch.nn.Module, tmp_path: Path) -> None:
    torch.save(module.state_dict(), tmp_path / "weights.pth")
    net = load("squeezenet1_1", weights=tmp_path / "weights.pth")
    images = jax.random.uniform(jax.random.key(0), (2, 70, 83, 3))
    with torch.no_grad():
        wanted = standardized(module)(torch.from_numpy(np.array(images)).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(
        jax.jit(lambda n, x: n(x))(net, jnp.asarray(images)), wanted, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("kind", ["zip", "safetensors"])
def test_other_precisions_are_read(
    kind: str, dtype: torch.dtype, module: torch.nn.Module, tmp_path: Path
) -> None:
    state = {name: tensor.to(dtype) for name, tensor in module.state_dict().items()}
    WRITERS[kind](state, tmp_path / "weights.pth")
    net = load("squeezenet1_1", weights=tmp_path / "weights.pth")
    np.testing.assert_array_equal(net.conv10.bias[...], state["classifier.1.bias"].float())


class Payload:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str):
        self.command = command

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (self.command,)


@pytest.mark.parametrize("write", [torch.save, _legacy], ids=["zip", "legacy"])
def test_a_file_that_would_run_code_is_refused_and_not_run(
    write: Callable[..., None], tmp_path: Path
) -> None:
    marker, path = tmp_path / "ran", tmp_path / "weights.pth"
    write({"features.0.weight": torch.zeros(2), "x": Payload(f"touch {marker}")}, path)
    with pytest.raises(WeightsError, match=r"could run code: save only the weights, torch\.save") as caught:
        read_file(path)
    assert "\n" not in str(caught.value) and not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.exists()  # so the payload was one


def test_a_whole_module_is_refused_with_the_remedy(module: torch.nn.Module, tmp_path: Path) -> None:
    torch.save(module, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match=r"model\.state_dict\(\)"):
        read_file(tmp_path / "weights.pth")


@pytest.mark.parametrize("write", [torch.save, _legacy], ids=["zip", "legacy"])
@pytest.mark.parametrize("keep", [0.01, 0.5, 0.99])
def test_cut_files_are_refused_in_one_line(keep: float, write: Callable[..., None], tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    write({f"layer{i}.weight": torch.zeros(10, 10) for i in range(20)}, path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(WeightsError, match="damaged") as caught:
        read_file(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 1}, torch.zeros(3)])
def test_a_file_without_named_tensors_is_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match="holds no tensors by name"):
        read_file(tmp_path / "weights.pth")
