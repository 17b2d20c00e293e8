"""What is installed is what is here: the wheel, the sdist, and the library without its repository."""

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from documents import ROOT

pytestmark = pytest.mark.slow

NEEDED = "gallery,hub,onnx,store"  # the extras that the examples of all docstrings need


def run(*command: object, cwd: Path, **environment: str) -> str:
    """Run a command without what could bring the repository in; return what it prints."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "JAX_"))}
    ran = subprocess.run(
        list(map(str, command)), cwd=cwd, env=inherited | environment, capture_output=True, text=True
    )
    assert ran.returncode == 0, f"{command}\n{ran.stdout[-3000:]}\n{ran.stderr[-3000:]}"
    return ran.stdout


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The sdist, the wheel of the tree, and the wheel of the sdist."""
    folder = tmp_path_factory.mktemp("built")
    (folder / "sdist").mkdir()
    run(sys.executable, "-m", "build", "--sdist", "--outdir", folder / "sdist", ROOT, cwd=folder)
    (sdist,) = (folder / "sdist").iterdir()
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (source,) = (folder / "unpacked").iterdir()
    wheels = {}
    for name, tree in (("wheel", ROOT), ("of_sdist", source)):
        run(sys.executable, "-m", "build", "--wheel", "--outdir", folder / name, tree, cwd=folder)
        (wheels[name],) = (folder / name).iterdir()
    return {"sdist": sdist, **wheels}


def test_the_wheel_has_the_package_and_nothing_else(built: dict[str, Path]) -> None:
    package = ROOT / "vizsynth"
    here = {
        path.relative_to(ROOT).as_posix(): path.read_bytes()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    there = {name: data for name, data in contents(built["wheel"]).items() if ".dist-info/" not in name}
    assert sorted(there) == sorted(here)
    assert [name for name in here if there[name] != here[name]] == []
    data = [name for name in there if not name.endswith(".py")]
    for needed in ("py.typed", "squeezenet1_1.safetensors", "imagenet_labels.json", "stylizer.safetensors"):
        assert any(name.endswith(needed) for name in data), needed


def test_the_sdist_builds_the_same_wheel(built: dict[str, Path]) -> None:
    wheel, again = contents(built["wheel"]), contents(built["of_sdist"])
    assert sorted(wheel) == sorted(again)
    assert [name for name in wheel if wheel[name] != again[name]] == []


def test_the_sdist_has_the_repository(built: dict[str, Path]) -> None:
    with tarfile.open(built["sdist"]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for needed in ("tests/conftest.py", "docs/index.md", "experiments/photos/chelsea.jpg"):
        assert needed in names, needed
    folders = {"vizsynth", "tests", "experiments", "benchmarks", "docs", "tools", ".ci"}
    files = {"pyproject.toml", "mkdocs.yml", "LICENSE", ".gitignore", "PKG-INFO"}
    files |= {"README.md", "CHANGELOG.md", "CONTRIBUTING.md"}
    assert {name.partition("/")[0] for name in names} == folders | files


@pytest.fixture(scope="module")
def python(built: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that has the wheel, with its command line, and pytest."""
    folder = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    found = folder / "venv" / "bin" / "python"
    quiet = ("--quiet", "--disable-pip-version-check", "--no-input")
    run(found, "-m", "pip", "install", *quiet, f"{built['wheel']}[cli]", "pytest", cwd=folder)
    where = run(found, "-c", "import vizsynth; print(vizsynth.__file__)", cwd=folder)
    assert Path(where.strip()).is_relative_to(folder / "venv")
    return found


def test_the_installed_command_explains_a_photo(python: Path, tmp_path: Path) -> None:
    photo = ROOT / "experiments" / "photos" / "chelsea.jpg"
    command = (python.with_name("vizsynth"), "explain", photo, "--json", "--quiet")
    result = json.loads(run(*command, cwd=tmp_path, VIZSYNTH_CACHE="off"))
    assert 281 <= result["target"]["label"] <= 285  # ImageNet's house cats
    assert (tmp_path / "out" / "chelsea" / "sheet.png").is_file()


def test_the_examples_of_the_installed_docstrings_run(
    python: Path, built: dict[str, Path], tmp_path: Path
) -> None:
    wheel = f"{built['wheel']}[{NEEDED}]"
    run(python, "-m", "pip", "install", "--quiet", "--no-input", wheel, cwd=tmp_path)
    options = ("-q", "-p", "no:cacheprovider", "--import-mode=importlib", "--doctest-modules", "--pyargs")
    flags = ("-o", "doctest_optionflags=NORMALIZE_WHITESPACE ELLIPSIS", "--rootdir", tmp_path)
    command = (python, "-m", "pytest", *options, *flags, "vizsynth")
    printed = run(*command, cwd=tmp_path, JAX_DISABLE_MOST_OPTIMIZATIONS="1")
    assert int(printed.rpartition(" passed")[0].split()[-1]) > 200, printed
    assert "skipped" not in printed
