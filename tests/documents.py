"""The code blocks of Markdown pages, as the tests read and run them."""

import re
from functools import wraps
from pathlib import Path
from typing import Any

import pytest

import vizsynth

ROOT = Path(__file__).parents[1]
# What takes minutes takes a step on a small picture, unless the page says how many and how large.
HURRIED = {
    "deepdream": {"steps": 1, "octaves": 1},
    "fool": {"steps": 1},
    "invert": {"steps": 1},
    "synthesize_texture": {"steps": 1},
    "transfer_style": {"steps": 1},
    "visualize_class": {"steps": 1, "size": 64},
    "visualize_feature": {"steps": 1, "size": 64},
}
SIDE = 96  # pixels: the shorter side of photos


def blocks(text: str, language: str) -> list[str]:
    """Return what stands between the fences of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def calls(text: str) -> list[str]:
    """Return the calls of `vizsynth` in the bash blocks."""
    lines = [line.split("#")[0] for block in blocks(text, "bash") for line in block.splitlines()]
    steps = [step.strip().removeprefix(".venv/bin/") for line in lines for step in re.split(r"&&|\|", line)]
    return [step for step in steps if step.startswith("vizsynth ")]


def execute(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run a page's Python, block after block, in a folder that has the photos; return its names."""
    (folder / "experiments").symlink_to(ROOT / "experiments")
    monkeypatch.chdir(folder)
    for name, fewer in HURRIED.items():
        monkeypatch.setattr(vizsynth, name, _with(getattr(vizsynth, name), fewer))
    read_image = vizsynth.read_image

    def smaller(path: str, size: Any = None) -> Any:
        return read_image(path, SIDE if isinstance(size, int) else size)

    monkeypatch.setattr(vizsynth, "read_image", smaller)
    names: dict[str, Any] = {}
    for block in blocks(text, "python"):
        exec(block, names)
    return names


def _with(function: Any, given: dict[str, Any]) -> Any:
    @wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **given | kwargs)

    return called
