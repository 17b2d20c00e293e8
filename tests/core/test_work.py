"""A run's folder: what is its own is removed with it, and nothing else is touched."""

import json
import os
from pathlib import Path

import pytest

from vizsynth.core.work import RECORD, WorkFolder


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def begun(path: Path, **origin: object) -> WorkFolder:
    work = WorkFolder(path)
    work.begin(origin)
    return work


def test_what_a_run_has_made_goes_with_it_and_nothing_else(tmp_path: Path) -> None:
    work = begun(tmp_path / "out" / "state", seed=0)
    (work.claim("step-1") / "deep").mkdir(parents=True)
    (work.claim("note.txt")).write_text("ours")
    (work.path / "step-3").mkdir()
    (work.path / "step-3" / "thesis.txt").write_text("theirs")
    work.remove("step-3")
    work.clear()
    assert tree(tmp_path) == ["out", "out/state", "out/state/step-3", "out/state/step-3/thesis.txt"]
    (work.path / "step-3" / "thesis.txt").unlink()


def test_a_folder_goes_only_where_the_run_made_it(tmp_path: Path) -> None:
    made, there = begun(tmp_path / "made"), tmp_path / "there"
    there.mkdir()
    begun(there).clear()
    made.clear()
    assert tree(tmp_path) == ["there"]


def test_what_is_there_is_not_claimed(tmp_path: Path) -> None:
    work = begun(tmp_path)
    (tmp_path / "step-3").mkdir()
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("step-3", "dangling", "../out", "a/b", ".."):
        with pytest.raises(FileExistsError):
            work.claim(name)
    other = work.claim_new("step-3")
    assert other.name.startswith("step-3+") and work.names() == [other.name]
    assert work.claim(other.name) == other  # its own, as often as it likes


@pytest.mark.parametrize("name", ["../victim", "/victim", "..", ".", "", "victim/data", 3, None, ["victim"]])
def test_a_name_in_a_record_leads_nowhere_else(tmp_path: Path, name: object) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "data").write_text("precious")
    work = begun(tmp_path / "state")
    record = json.loads((work.path / RECORD).read_text())
    given = str(victim) if name == "/victim" else name
    (work.path / RECORD).write_text(json.dumps(record | {"own": [given]}))
    work.clear()
    assert tree(tmp_path) == ["victim", "victim/data"]


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "data").write_text("precious")
    work = begun(tmp_path / "state")
    work.claim("step-1").symlink_to(tmp_path / "victim")
    work.claim("note").symlink_to(tmp_path / "victim" / "data")
    work.clear()
    assert tree(tmp_path) == ["state", "state/note", "state/step-1", "victim", "victim/data"]


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"own": ["a"]}', '{"kind": "a run of vizsynth"}'])
def test_a_record_that_is_not_ours_stays(tmp_path: Path, text: str) -> None:
    (tmp_path / RECORD).write_text(text)
    (tmp_path / "a").write_text("theirs")
    work = WorkFolder(tmp_path)
    assert work.record is None and work.names() == [] and work.told() == {}
    for begin in (work.begin, work.check):
        with pytest.raises(ValueError, match="does not say what run it holds; begin in another folder"):
            begin({})
    work.clear()
    assert tree(tmp_path) == ["a", RECORD] and (tmp_path / RECORD).read_text() == text


def test_another_runs_folder_is_refused_with_what_differs(tmp_path: Path) -> None:
    work = begun(tmp_path, seed=1, net="vgg16")
    work.begin({"seed": 1, "net": "vgg16"})
    with pytest.raises(ValueError, match=r"another run \(seed: 1 there, 2 now\); give its settings"):
        work.begin({"seed": 2, "net": "vgg16"})
    with pytest.raises(FileExistsError):
        (tmp_path / "history.json").write_text("theirs")
        work.check({"seed": 1, "net": "vgg16"}, ["history.json"])


def test_notes_are_kept(tmp_path: Path) -> None:
    work = begun(tmp_path)
    work.tell({"checkpoint": "step-1"})
    work.tell({"overwrite": True})
    assert WorkFolder(tmp_path).told() == {"checkpoint": "step-1", "overwrite": True}


def test_a_folder_that_cannot_be_begun_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        begun(tmp_path / "state")
    assert tree(tmp_path) == []
