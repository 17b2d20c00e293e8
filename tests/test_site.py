"""What the pages of the documentation say is so, and nothing public is left out of them."""

import re
import shlex
from collections import Counter
from pathlib import Path

import pytest
from documents import ROOT, calls, execute

DOCS = ROOT / "docs"
GUIDES = sorted([*DOCS.glob("*.md"), *(DOCS / "guide").glob("*.md")])
NAMES = [path.relative_to(DOCS).with_suffix("").as_posix() for path in GUIDES]
IMPORT = re.compile(r"from ([\w.]+) import \(?\s*(\w+) as (\w+)", re.MULTILINE)


def identifiers() -> Counter[str]:
    """Return how often each name is shown in the reference."""
    pages = [path.read_text(encoding="utf-8") for path in (DOCS / "reference").glob("*.md")]
    return Counter(name for page in pages for name in re.findall(r"^::: (\S+)$", page, re.MULTILINE))


def test_the_reference_has_every_public_name_once() -> None:
    public = IMPORT.findall((ROOT / "vizsynth" / "api.py").read_text(encoding="utf-8"))
    assert len(public) > 100
    shown = identifiers()
    for module, name, alias in public:
        assert name == alias
        if f"{module}.{name}" == "vizsynth.models":  # a module: its functions are shown
            continue
        ways = {f"vizsynth.{name}", f"{module}.{name}", f"{module}.{name}.{name}"}
        assert sum(shown[way] for way in ways) == 1, f"{name} is to stand on one page of docs/reference"


def test_the_reference_shows_nothing_twice() -> None:
    assert [name for name, count in identifiers().items() if count > 1] == []


@pytest.mark.slow
@pytest.mark.parametrize("page", GUIDES, ids=NAMES)
def test_the_python_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    execute(page.read_text(encoding="utf-8"), tmp_path, monkeypatch)


@pytest.mark.parametrize("page", GUIDES, ids=NAMES)
def test_the_commands_of_a_page_exist(page: Path) -> None:
    from vizsynth.cli import COMMANDS, group

    text = page.read_text(encoding="utf-8")
    inline = re.findall(r"`(vizsynth [a-z][^`]*)`", text)
    for words in [shlex.split(call) for call in (*calls(text), *inline)]:
        if words[1].startswith("-"):
            continue
        assert words[1] in COMMANDS, words
        known = {name for parameter in group.commands[words[1]].params for name in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= known | {"-h", "--help"}, words


def test_the_pages_of_commands_name_them_all() -> None:
    from vizsynth.cli import COMMANDS

    text = (DOCS / "guide" / "command_line.md").read_text(encoding="utf-8")
    assert [name for name in COMMANDS if f"`vizsynth {name}" not in text] == []


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    import subprocess
    import sys

    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    page = (tmp_path / "reference" / "maps" / "index.html").read_text(encoding="utf-8")
    assert "Returns:" in page and "&gt;&gt;&gt;" in page
    assert "doc-heading" in page
