"""Run the command line inside the test, and see what it prints and leaves behind."""

from pathlib import Path

import numpy as np
import pytest
from command_line import PHOTOS, Ran, Run
from PIL import Image

from vizsynth.cli import main


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command in this process: `run("explain", photo)`."""
    monkeypatch.setenv("VIZSYNTH_CACHE", "off")  # the tests have a cache of their own
    monkeypatch.setattr("warnings.showwarning", None)  # put back what the command sets

    def ran(*args: object) -> Ran:
        capsys.readouterr()
        code = main([str(arg) for arg in args])
        return Ran(code, *capsys.readouterr())

    return ran


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A small photo, in a folder of its own."""
    path = tmp_path / "photos" / "cat.jpg"
    path.parent.mkdir()
    with Image.open(PHOTOS / "chelsea.jpg") as image:
        image.resize((96, 64)).save(path, quality=95)
    return path


@pytest.fixture
def other_photo(tmp_path: Path, photo: Path) -> Path:
    """Another photo of the same size, so that nothing compiles anew."""
    path = photo.with_name("noise.png")
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    Image.fromarray(noise).save(path)
    return path
