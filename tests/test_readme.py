"""What the README says is so."""

import re
import shlex
from pathlib import Path

import pytest
from documents import ROOT, calls, execute

import vizsynth
from experiments.__main__ import THEMES
from vizsynth.cli import COMMANDS

README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_its_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    execute(README, tmp_path, monkeypatch)
    assert (tmp_path / "out" / "grad_cam.png").is_file()


def test_its_functions_exist() -> None:
    names = []
    for section in (
        "Which paper is which function",
        "Making pictures",
        "Texture and style",
        "Looking inside",
    ):
        table = README.split(f"## {section}")[1].split("\n## ")[0]
        rows = [line.split("|")[2] for line in table.splitlines() if line.startswith("| ")][1:]
        names += [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert len(names) > 40
    for name in names:
        assert callable(getattr(vizsynth, name)), name


def test_papers_lead_to_figures() -> None:
    figures = {figure.name for theme in THEMES.values() for figure in theme}
    tables = README.split("## Which paper is which function")[1].split("\n## Networks")[0]
    rows = [line.split("|") for line in tables.splitlines() if line.startswith("| ") and line.count("|") == 4]
    found = {name for row in rows for name in re.findall(r"`(\w+)`", row[3])}
    assert found <= figures
    assert all(f"`{name}`" in README for name in figures)


def test_its_links_and_pictures_exist() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert "://" in target or (ROOT / target).is_file(), target
    for picture in (ROOT / "docs" / "pictures").iterdir():
        assert picture.stat().st_size < 200_000
        assert f"docs/pictures/{picture.name}" in README


def test_its_commands_and_options_exist() -> None:
    from vizsynth.cli import group

    found = [shlex.split(call) for call in calls(README)]
    assert len(found) > 5
    for call in found:
        assert call[0] == "vizsynth" and call[1] in COMMANDS, call
        command = group.commands[call[1]]
        known = {name for parameter in command.params for name in parameter.opts}
        assert {word for word in call if word.startswith("-")} <= known, call


def test_the_quick_start_is_two_lines_that_ci_can_find() -> None:
    for folder, needed in ((".venv", "experiments --quick"), (".venv-test", "-m pytest")):
        (line,) = [line for line in README.splitlines() if f"python3 -m venv {folder} &&" in line]
        assert needed in line
