"""The page that shows pictures: what it takes, and what it says."""

import builtins
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vizsynth.cli.report.page import Comparison, Figure, Picture, Table, told, write_page
from vizsynth.files import write_image

A = Picture("a.png", "a", "what a is")
B = Picture("my photo #1.png", "b", 'b "quoted" <b>')


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for picture in (A, B):
        write_image(tmp_path / picture.path, np.zeros((4, 6, 3)))
    write_image(tmp_path / "large.png", np.zeros((8, 12, 3)))
    return tmp_path


def test_names_are_escaped_and_paths_are_quoted(folder: Path) -> None:
    (folder / "one#.json").write_text("{}")
    figure = Figure("one", "One <1>", "Said.", [A, B], record="one#.json", seconds=1.5)
    write_page(folder / "index.html", "T & t", {"All": [figure]}, [Comparison("cat", [A, B])])
    page = (folder / "index.html").read_text()
    assert 'src="my%20photo%20%231.png" alt="b &#34;quoted&#34; &lt;b&gt;" width="6" height="4"' in page
    assert 'href="one%23.json"' in page
    assert "<title>T &amp; t</title>" in page
    assert "One &lt;1&gt;" in page
    data = re.search(r'id="compared">(.*?)</script>', page)
    assert data is not None
    assert "<" not in data[1]  # nothing in it ends the script


def test_numbers_stand_in_a_table(folder: Path) -> None:
    table = Table(("class", "p"), [("cat <1>", "0.5"), ("dog", "0.25")])
    write_page(folder / "index.html", "T", {"All": [Figure("one", "One", "", table=table)], "None": []})
    page = (folder / "index.html").read_text()
    assert '<th scope="row">cat &lt;1&gt;</th><td>0.5</td>' in page
    assert "None" not in page
    assert "compare" not in re.sub(r"(?s)<(style|script)>.*?</\1>", "", page)


def test_captions_are_markdowns_code_links_and_paragraphs() -> None:
    assert told("A `b<c` of\n\n[d](https://e.org/f_g). *h* & <i>") == (
        '<p>A <code>b&lt;c</code> of</p><p><a href="https://e.org/f_g">d</a>. *h* &amp; &lt;i&gt;</p>'
    )
    assert told('[x](javascript:alert) [y](https://e.org"onclick=z)').count("<a ") == 0


@pytest.mark.parametrize(
    ("themes", "comparisons", "said"),
    [
        ({"All": [Figure("one", "One", "", [Picture("gone.png", "", "gone")])]}, [], "no picture .*gone.png"),
        ({"All": [Figure("one", "One", "", record="gone.json")]}, [], "gone.json, the numbers of one"),
        ({"All": [Figure("one", "One", ""), Figure("one", "Two", "")]}, [], "two figures are called one"),
        ({}, [Comparison("cat", [A])], "cat: at least two"),
        ({}, [Comparison("cat", [A, Picture("large.png", "", "l")])], "cat: .* one size .* 6x4, 12x8 pixels"),
    ],
)
def test_what_cannot_be_shown_is_told_and_nothing_is_written(
    folder: Path, themes: Any, comparisons: Any, said: str
) -> None:
    (folder / "index.html").write_text("before")
    there = sorted(folder.iterdir())
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        write_page(folder / "index.html", "T", themes, comparisons)
    assert (folder / "index.html").read_text() == "before"
    assert sorted(folder.iterdir()) == there


def test_a_page_that_cannot_be_written_leaves_nothing(folder: Path) -> None:
    (folder / "index.html").mkdir()
    there = sorted(folder.iterdir())
    with pytest.raises(OSError, match="index"):
        write_page(folder / "index.html", "T", {})
    assert sorted(folder.iterdir()) == there


def test_without_jinja2_it_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if name == "jinja2":
            raise ModuleNotFoundError(name=name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'vizsynth\[cli\]'"):
        write_page(folder / "index.html", "T", {})
