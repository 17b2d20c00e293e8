"""What is in a command's folder: what is not the run's own stays, and what is can be gone on with."""

import errno
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from command_line import Run, complaint, tree
from PIL import Image
from runs import ORIGIN, made, opened, take

from vizsynth import ascent
from vizsynth.cli import making
from vizsynth.cli.commands import dream, visualize
from vizsynth.cli.common import BadInput
from vizsynth.cli.output import OutputFolder


def lay(path: Path, text: str = "mine") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def fails(error: BaseException) -> Callable[..., Any]:
    def failing(*_: object, **__: object) -> None:
        raise error

    return failing


def failing_at(step: int, act: Callable[[], Any]) -> Callable[[Any, int], Any]:
    """Do something before the chunk that begins at a step."""

    def taken(state: Any, count: int) -> Any:
        if state is not None and int(state.step[0]) == step and count:
            act()
        return take(state, count)

    return taken


class Whole(NamedTuple):
    """A run that nobody disturbed."""

    numbers: dict[str, Any]
    files: dict[str, bytes]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    out = tmp_path_factory.mktemp("whole") / "out"
    return Whole(made(out), contents(out))


@pytest.fixture
def killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was killed after it had saved step 4, and before it wrote that frame."""
    written = OutputFolder.keep_frame

    def dying(self: OutputFolder, name: str, picture: Any) -> None:
        if name == "frames/000004.png":
            raise SystemExit
        written(self, name, picture)

    with monkeypatch.context() as patch:
        patch.setattr(OutputFolder, "keep_frame", dying)
        with pytest.raises(SystemExit):
            made(tmp_path / "killed")
    assert sorted(os.listdir(tmp_path / "killed" / "frames")) == ["000002.png"]
    return tmp_path / "killed"


# What is not ours ---------------------------------------------------------------------


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("what", ["state/thesis.txt", "state/run.json", "state/step-3/a", "state"])
def test_a_state_that_no_run_made_is_refused_and_stays(tmp_path: Path, what: str, overwrite: bool) -> None:
    lay(tmp_path / "out" / what)
    for resume in (False, True):
        with pytest.raises(BadInput, match=r"state is not of a run of vizsynth; choose another --out"):
            opened(tmp_path / "out", overwrite=overwrite, resume=resume)
    assert contents(tmp_path / "out") == {what: b"mine"}


def test_a_state_that_is_a_link_is_refused(tmp_path: Path, killed: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "state").symlink_to(killed / "state")
    before = contents(killed)
    for options in ({"overwrite": True}, {"resume": True}):
        with pytest.raises(BadInput, match="is a link"):
            opened(tmp_path / "out", **options)
    assert contents(killed) == before


def test_an_empty_state_may_be_used_and_stays(tmp_path: Path) -> None:
    (tmp_path / "out" / "state").mkdir(parents=True)
    made(tmp_path / "out", every=None)
    assert tree(tmp_path / "out") == ["made.png", "numbers.json", "state"]


def test_what_others_put_into_the_state_stays(tmp_path: Path) -> None:
    def put() -> None:
        lay(tmp_path / "out" / "state" / "step-3" / "a")

    made(tmp_path / "out", every=4, steps=8, takes=failing_at(4, put))
    assert contents(tmp_path / "out" / "state") == {"step-3/a": b"mine"}


def test_frames_of_others_are_refused_before_anything_is_computed(tmp_path: Path) -> None:
    frame = lay(tmp_path / "out" / "frames" / "000004.png")
    lay(tmp_path / "out" / "frames" / "holiday.png")
    with pytest.raises(BadInput, match=r"\(frames/000004\.png\); choose another --out, or give --overwrite"):
        opened(tmp_path / "out")
    for every in (None, 3, 4):  # it would not be written, or there are no such frames
        if every != 4:
            opened(tmp_path / "out", every=every)
    assert contents(tmp_path / "out") == {"frames/000004.png": b"mine", "frames/holiday.png": b"mine"}
    made(tmp_path / "out", overwrite=True)
    assert frame.read_bytes() != b"mine"
    assert (tmp_path / "out" / "frames" / "holiday.png").read_text() == "mine"


@pytest.mark.parametrize("kind", ["link", "file"])
def test_frames_never_go_elsewhere(tmp_path: Path, kind: str) -> None:
    lay(tmp_path / "victim" / "000004.png")
    (tmp_path / "out").mkdir()
    if kind == "link":
        (tmp_path / "out" / "frames").symlink_to(tmp_path / "victim")
    else:
        lay(tmp_path / "out" / "frames")
    with pytest.raises(BadInput, match="frames is not a folder"):
        opened(tmp_path / "out", overwrite=True)
    assert contents(tmp_path / "victim") == {"000004.png": b"mine"}


def test_what_is_read_is_not_replaced_by_a_frame(tmp_path: Path) -> None:
    photo = lay(tmp_path / "out" / "frames" / "000002.png")
    folder = OutputFolder(tmp_path / "out", ORIGIN, overwrite=True, resume=False)
    with pytest.raises(BadInput, match="is what is to be read"):
        folder.check([], inputs=[photo], frames=making.frames(2, 6, folder))


def test_frames_of_an_earlier_run_of_the_same_origin_are_its_own(tmp_path: Path) -> None:
    for every in (2, 3, 2):
        made(tmp_path / "out", every=every)
    with pytest.raises(BadInput, match=r"frames/000002\.png"):
        opened(tmp_path / "out", origin=ORIGIN | {"seed": 1})


@pytest.mark.parametrize("name", ["../victim", "/victim", "frames/../victim", "frames/a/b", "..", 3, None])
def test_a_name_in_numbers_is_plain(tmp_path: Path, name: Any) -> None:
    record = {**ORIGIN, "files": ["numbers.json", name], "earlier_files": [name], "frames": [name]}
    lay(tmp_path / "out" / "numbers.json", json.dumps(record))
    folder = opened(tmp_path / "out")
    folder.write({}, {})
    assert folder.record()["earlier_files"] == []


def test_numbers_that_are_a_link_or_a_pipe_are_not_ours(tmp_path: Path) -> None:
    record = json.dumps({**ORIGIN, "files": ["made.png", "numbers.json"], "earlier_files": []})
    lay(tmp_path / "theirs.json", record)
    for name in ("link", "pipe"):
        (tmp_path / name).mkdir()
    (tmp_path / "link" / "numbers.json").symlink_to(tmp_path / "theirs.json")
    os.mkfifo(tmp_path / "pipe" / "numbers.json")
    for name in ("link", "pipe"):
        with pytest.raises(BadInput, match=r"made from something else \(numbers\.json\)"):
            opened(tmp_path / name)
    assert (tmp_path / "theirs.json").read_text() == record


def test_what_appears_while_it_works_is_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"\(made\.png\)"):
        made(tmp_path / "out", takes=failing_at(4, lambda: lay(tmp_path / "out" / "made.png")))
    assert (tmp_path / "out" / "made.png").read_text() == "mine"
    with pytest.raises(BadInput, match=r"\(made\.png\)"):  # to go on is not to overwrite
        opened(tmp_path / "out", resume=True)
    (tmp_path / "out" / "made.png").unlink()
    assert made(tmp_path / "out", resume=True)["finished"]


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    def another() -> None:
        with pytest.raises(BadInput, match="holds a run that is at work"):
            opened(tmp_path / "out", origin=ORIGIN | {"seed": 1}, every=None)

    made(tmp_path / "out", takes=lambda state, n: (state is None and n > 1 and another()) or take(state, n))


# Gone on with -------------------------------------------------------------------------


def test_a_frame_that_was_saved_and_not_written_is_written_by_resuming(killed: Path, whole: Whole) -> None:
    assert made(killed, resume=True) == whole.numbers
    assert contents(killed) == whole.files
    assert whole.numbers["frames"] == [f"frames/00000{n}.png" for n in (2, 4, 6)]
    assert whole.numbers["objective"]["first"] == [0.0] and len(whole.numbers["trace"][0]) == 6


def test_a_run_that_dies_anywhere_ends_as_one_that_did_not(
    tmp_path: Path, whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit):
        made(tmp_path / "out", takes=fails(SystemExit()))
    assert not (tmp_path / "out").exists()
    with pytest.raises(SystemExit):
        made(tmp_path / "out", takes=failing_at(2, fails(SystemExit())))
    # It dies again, this time between its last step and the results.
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(OutputFolder, "write", fails(SystemExit()))
        made(tmp_path / "out", resume=True)
    assert made(tmp_path / "out", resume=True) == whole.numbers
    assert contents(tmp_path / "out") == whole.files


def test_frames_are_remembered_where_no_more_are_kept(tmp_path: Path, killed: Path) -> None:
    found = made(killed, resume=True, every=None)
    assert found["frames"] == ["frames/000002.png", "frames/000004.png"]
    with Image.open(killed / "frames" / "000004.png") as frame:
        frame.load()


def test_resuming_does_not_replace_what_others_made_meanwhile(killed: Path) -> None:
    lay(killed / "frames" / "000006.png")
    with pytest.raises(BadInput, match=r"\(frames/000006\.png\)"):
        opened(killed, resume=True)
    lay(killed / "frames" / "000004.png")  # saved, not written: it is the run's by its record
    (killed / "frames" / "000006.png").unlink()
    opened(killed, resume=True)


def test_what_overwrite_allowed_at_the_beginning_it_allows_to_go_on(
    tmp_path: Path,
) -> None:
    lay(tmp_path / "made.png")
    with pytest.raises(SystemExit):
        made(tmp_path, takes=failing_at(2, fails(SystemExit())), overwrite=True)
    assert made(tmp_path, resume=True)["finished"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_and_resuming_goes_on(
    tmp_path: Path, whole: Whole, number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(making.Stopped, match="interrupted at step 4 of 6; --resume goes on") as caught:
        made(tmp_path / "out", takes=failing_at(2, lambda: signal.raise_signal(number)))
    assert caught.value.exit_code == 128 + number
    assert "stopping after these steps" in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "numbers.json").read_text())["finished"] is False
    assert made(tmp_path / "out", resume=True) == whole.numbers
    assert contents(tmp_path / "out") == whole.files


# A full disk --------------------------------------------------------------------------


def full(*_: object, **__: object) -> None:
    raise ValueError(f"RESOURCE_EXHAUSTED: Error writing d/a: {os.strerror(errno.ENOSPC)}")


def test_a_full_disk_at_the_first_step_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orbax.checkpoint.StandardCheckpointer.save", full)
    with pytest.raises(OSError, match=r"cannot save the run in .*: No space left"):
        made(tmp_path / "deep" / "out")
    assert tree(tmp_path) == []


def test_a_full_disk_later_keeps_what_was_saved(
    tmp_path: Path, whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        act = lambda: patch.setattr("orbax.checkpoint.StandardCheckpointer.save", full)  # noqa: E731
        with pytest.raises(
            making.Stopped, match=r"the disk is full: .*; --resume goes on from what was saved"
        ):
            made(tmp_path / "out", takes=failing_at(4, act))
    assert tree(tmp_path / "out" / "state" / "run")[1].startswith("step-4")
    assert not list((tmp_path / "out" / "state" / "run").glob("step-6*"))
    assert made(tmp_path / "out", resume=True) == whole.numbers


def test_room_is_asked_for_before_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Orbax, which meets a full disk half way, prints from threads that nobody can reach."""
    begun: list[object] = []
    monkeypatch.setattr(os, "posix_fallocate", fails(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))
    monkeypatch.setattr("orbax.checkpoint.StandardCheckpointer.save", lambda *_: begun.append(1))
    with pytest.raises(OSError, match="No space left"):
        ascent.save(tmp_path / "run", take(None, 1).state)
    assert not begun and not ascent.has_checkpoint(tmp_path / "run")


def test_a_full_disk_at_the_end_keeps_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = opened(tmp_path / "out", every=None)
    found = making.make(take, what="toy", steps=2, every=None, folder=folder, quiet=True)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr("vizsynth.files.write_image", fails(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))
        folder.write({"made.png": found.images[0]}, {})
    assert sorted(os.listdir(tmp_path / "out")) == ["state"]
    assert made(tmp_path / "out", steps=2, every=None, resume=True)["finished"]


# At the command line ------------------------------------------------------------------

TYPED = ("visualize", "3", "--layer", "fire2", "--steps", "8", "--every", "4", "--size", "64", "-q")


def visualizes(patch: pytest.MonkeyPatch, takes: Callable[[Any, int], Any]) -> None:
    """Let `visualize` take other steps than its network's."""
    patch.setattr(visualize, "_take", lambda *_: takes)


def test_visualize_leaves_alone_what_is_not_its_own(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    visualizes(monkeypatch, take)
    lay(tmp_path / "state" / "thesis.txt")
    lay(tmp_path / "frames" / "000004.png")
    assert "choose another --out" in complaint(run(*TYPED, "-o", tmp_path, "--overwrite"))
    (tmp_path / "state" / "thesis.txt").rename(tmp_path / "thesis.txt")
    assert "frames/000004.png" in complaint(run(*TYPED, "-o", tmp_path))
    assert contents(tmp_path) == {"thesis.txt": b"mine", "frames/000004.png": b"mine"}


def test_visualize_says_what_stopped_it_by_its_exit_code(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopping(state: Any, count: int) -> Any:
        if count > 1 and state is None:
            signal.raise_signal(signal.SIGTERM)
        return take(state, count)

    visualizes(monkeypatch, stopping)
    ran = run(*TYPED, "-o", tmp_path / "out")
    assert ran.code == 143
    last = "vizsynth: error: interrupted at step 4 of 8; --resume goes on from there"
    assert ran.err.splitlines()[-1] == last
    assert run(*TYPED, "-o", tmp_path / "out", "--resume").code == 0

    def hung_up(state: Any, count: int) -> Any:  # before the first step is done, and that twice
        return signal.raise_signal(signal.SIGHUP) or signal.raise_signal(signal.SIGHUP)

    visualizes(monkeypatch, hung_up)
    ran = run(*TYPED, "-o", tmp_path / "other")
    assert ran.code == 129 and ran.err.splitlines()[-1] == "vizsynth: error: interrupted"
    assert not (tmp_path / "other").exists()


def test_visualize_says_in_one_line_that_the_disk_is_full(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    visualizes(monkeypatch, take)
    monkeypatch.setattr("orbax.checkpoint.StandardCheckpointer.save", full)
    line = complaint(run(*TYPED, "-o", tmp_path / "out"), code=1)
    assert "the disk is full: cannot save the run in" in line
    assert tree(tmp_path) == []


def test_a_film_leaves_alone_what_is_not_its_own(run: Run, photo: Path, tmp_path: Path) -> None:
    asked = ("dream", photo, "--size", "48", "--octaves", "1", "--frames", "3", "-q", "-o", tmp_path / "out")
    for name in ("frames/0002.png", "zoom.webp"):
        path = lay(tmp_path / "out" / name)
        assert f"({name})" in complaint(run(*asked))
        path.unlink()


@pytest.mark.parametrize("stop", [signal.SIGTERM, None])
def test_a_film_that_ends_early(tmp_path: Path, stop: signal.Signals | None) -> None:
    def film() -> Iterator[Any]:
        for i in range(3):
            yield np.full((1, 4, 4, 3), i / 3, np.float32)
            if i == 0 and stop is not None:
                signal.raise_signal(stop)
            if i == 1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    folder = OutputFolder(tmp_path / "deep" / "out", ORIGIN, resume=False)
    if stop is None:
        with pytest.raises(OSError, match="No space"):
            dream._film(film(), folder, 3, "toy", quiet=True)
        assert tree(tmp_path) == []
        return
    found = dream._film(film(), folder, 3, "toy", quiet=True)
    assert (found.frames, found.code) == (["frames/0000.png", "frames/0001.png"], 143)
