"""Files appear whole or not at all; what a file says is read with care."""

import errno
import os
from pathlib import Path

import pytest

from vizsynth.core.atomic import full_disk, full_disk_told, is_plain, read_record, told, write_atomic


def test_a_record_that_is_deeper_than_anybody_writes_is_none(tmp_path: Path) -> None:
    (tmp_path / "record").write_text('{"a": ' * 50 + "1" + "}" * 50)
    assert read_record(tmp_path / "record") is not None
    for depth in (300, 100_000):
        (tmp_path / "record").write_text('{"a": ' * depth + "1" + "}" * depth)
        assert read_record(tmp_path / "record") is None


def test_a_file_is_replaced_whole_and_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("theirs")
    (tmp_path / "file").symlink_to(tmp_path / "theirs")
    write_atomic(tmp_path / "file", "ours")
    assert (tmp_path / "theirs").read_text() == "theirs"
    assert not (tmp_path / "file").is_symlink() and (tmp_path / "file").read_text() == "ours"
    assert sorted(os.listdir(tmp_path)) == ["file", "theirs"]


def test_a_new_file_replaces_none(tmp_path: Path) -> None:
    write_atomic(tmp_path / "file", "first", new=True, sync=True)
    with pytest.raises(FileExistsError, match="file"):
        write_atomic(tmp_path / "file", "second", new=True)
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(FileExistsError):
        write_atomic(tmp_path / "dangling", "second", new=True)
    assert (tmp_path / "file").read_text() == "first"
    assert sorted(os.listdir(tmp_path)) == ["dangling", "file"]


def test_new_files_are_new_also_where_there_are_no_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", none)
    write_atomic(tmp_path / "file", "first", new=True)
    with pytest.raises(FileExistsError):
        write_atomic(tmp_path / "file", "second", new=True)
    assert (tmp_path / "file").read_text() == "first" and os.listdir(tmp_path) == ["file"]


def test_a_failure_leaves_nothing_and_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("first")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_atomic(tmp_path / "file", "second")
    assert caught.value.filename == str(tmp_path / "file")
    assert os.listdir(tmp_path) == ["file"] and (tmp_path / "file").read_text() == "first"


def test_a_name_that_is_no_unicode_can_be_written(tmp_path: Path) -> None:
    write_atomic(tmp_path / "record.json", '{"name": "\udcff.png"}')
    assert read_record(tmp_path / "record.json") == {"name": "\udcff.png"}


@pytest.mark.parametrize("text", ["{", "[]", "3", "[" * 100_000, "\0\xff"])
def test_what_is_no_record_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "record").write_text(text, encoding="latin-1")
    assert read_record(tmp_path / "record") is None


def test_links_pipes_and_large_files_are_no_records(tmp_path: Path) -> None:
    (tmp_path / "true").write_text("{}")
    (tmp_path / "link").symlink_to("true")
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 40)  # a hole
    found = [read_record(tmp_path / name) for name in ("true", "link", "pipe", "large", "absent", ".")]
    assert found == [{}, None, None, None, None, None]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc", "..\\a", "a\0", 3, None, ["a"]])
def test_a_name_is_one_plain_component(name: object) -> None:
    assert not is_plain(name)
    assert is_plain("step-4") and is_plain("grad-cam") and is_plain("..a")


def test_a_full_disk_is_known_by_whatever_tells_of_it() -> None:
    full = os.strerror(errno.ENOSPC)
    assert full_disk(OSError(errno.ENOSPC, full)) == errno.ENOSPC
    assert full_disk(OSError(errno.EDQUOT, "quota")) == errno.EDQUOT
    assert full_disk(OSError(errno.EACCES, full)) is None
    assert full_disk(ValueError("RESOURCE_EXHAUSTED: out of memory")) is None
    with pytest.raises(OSError, match=f"cannot save: {full}") as caught, full_disk_told("cannot save"):
        raise ValueError(f"RESOURCE_EXHAUSTED: Error writing a/b: [OS error 28: {full}]")
    assert told(caught.value) == f"the disk is full: cannot save: {full}; make room on it"
    with pytest.raises(ValueError, match="another"), full_disk_told("cannot save"):
        raise ValueError("another")
