"""What the pages of the documentation say is so, and nothing public is left out of them."""

import html
import inspect
import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from documents import ROOT, calls, execute

import vizsynth

DOCS = ROOT / "docs"
GUIDES = sorted([*DOCS.glob("*.md"), *(DOCS / "guide").glob("*.md")])
NAMES = [path.relative_to(DOCS).with_suffix("").as_posix() for path in GUIDES]
IMPORT = re.compile(r"from \.([\w.]+) import (\w+) as (\w+)")
PUBLIC = IMPORT.findall(
    (ROOT / "vizsynth" / "__init__.pyi").read_text(encoding="utf-8")
)  # module, name, alias


def identifiers() -> Counter[str]:
    """Return how often each name is shown in the reference."""
    pages = [path.read_text(encoding="utf-8") for path in (DOCS / "reference").glob("*.md")]
    return Counter(name for page in pages for name in re.findall(r"^::: (\S+)$", page, re.MULTILINE))


def test_the_reference_has_every_public_name_once() -> None:
    assert len(PUBLIC) > 100
    shown = identifiers()
    for module, name, alias in PUBLIC:
        assert name == alias
        ways = {f"vizsynth.{name}", f"vizsynth.{module}.{name}", f"vizsynth.{module}.{name}.{name}"}
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
def test_the_site_builds_without_a_warning_and_tells_what_docstrings_tell(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    pages = "".join(page.read_text("utf-8") for page in (tmp_path / "reference").rglob("*.html"))
    pages = re.sub(r'<details class="mkdocstrings-source">.*?</details>', "", pages, flags=re.DOTALL)
    told = spaced(html.unescape(re.sub(r"<[^>]+>", "", pages)))
    assert "Returns:" in told and ">>> " in told
    for _, name, _ in PUBLIC:
        public = getattr(vizsynth, name)
        if inspect.ismodule(public) or not hasattr(public, "__name__"):  # a value has no docstring of its own
            continue
        prose = re.split(r"^(?:[A-Z]\w+:$|>>> )", inspect.getdoc(public) or "", flags=re.MULTILINE)[0]
        for paragraph in prose.split("\n\n"):
            assert spaced(paragraph.replace("`", "")) in told, name


def spaced(text: str) -> str:
    """Return a text with one space between any two words."""
    return " ".join(text.split())
