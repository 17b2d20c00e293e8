"""The folder that a command writes into: checked before it computes, filled at the end.

What is in the folder already stays as it is, unless the same command made it from the same picture
(its `numbers.json` says so) or `--overwrite` is given. While a command works step by step, `DIR/state` holds
what it needs to go on: a folder of the run's own, whose record says so (`vizsynth.core.work`). A folder of
that name that has no record is not ours, and stays, with and without `--overwrite`.
"""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from vizsynth.cli.common import BadInput
from vizsynth.core.atomic import is_plain, read_record, write_atomic
from vizsynth.core.work import WorkFolder

NUMBERS, STATE, FRAMES = "numbers.json", "state", "frames"
ONLY = "run"  # what a run is called in DIR/state that has no name


class OutputFolder:
    """A folder for the files of one run."""

    def __init__(
        self, path: Path, origin: Mapping[str, Any], *, overwrite: bool = False, resume: bool | None = None
    ):
        """Choose the folder.

        Args:
            path: of the folder; it need not exist.
            origin: what the files are made by and from; a later run of the same origin may replace
                them.
            overwrite: whether files of any origin may be replaced.
            resume: whether a run that was stopped there goes on; None where the command does not work step by
                step.
        """
        self.path = path
        self.origin = dict(origin)
        self.overwrite = overwrite
        self.resume = resume
        self._work = WorkFolder(path / STATE)
        self._begun = False
        self._frames: list[Path] = []
        self._made: list[Path] = []  # folders, the innermost first

    # Before it computes ---------------------------------------------------------------

    def check(
        self,
        names: Iterable[str],
        *,
        inputs: Iterable[os.PathLike[str]] = (),
        frames: Callable[[str], bool] | None = None,
    ) -> None:
        """Check that the files can be written, and destroy nothing.

        Args:
            names: of the files.
            inputs: what is read.
            frames: tells of a name in DIR/frames whether it is one of this run's; None where it keeps none.

        Raises:
            BadInput: the folder cannot be made or written to; files of another origin, or the
                inputs themselves, would be replaced; there is nothing to go on with; there is a run that was
                stopped, and nobody said what to do with it.
        """
        if self.resume is not None:
            self._check_state(resume=self.resume)
        self._check_writable()
        wanted = [*names, NUMBERS]
        if frames is not None:
            wanted += self._frames_there(frames)
        inputs = list(inputs)
        for name in self._there(wanted):
            if (self.path / name).is_dir():
                raise BadInput(f"{self.path / name} is a folder; choose another --out")
            if any(_same(self.path / name, given) for given in inputs):
                raise BadInput(f"{self.path / name} is what is to be read; choose another --out")
        self._check_own(wanted)

    def _check_own(self, names: Iterable[str]) -> None:
        own = self._own()
        foreign = [name for name in self._there(names) if name not in own]
        if foreign and not self.overwrite:
            raise BadInput(
                f"{self.path} holds files that this run would replace, made from something else "
                f"({', '.join(foreign)}); choose another --out, or give --overwrite"
            )

    def _there(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if os.path.lexists(self.path / name)]

    def _frames_there(self, mine: Callable[[str], bool]) -> list[str]:
        place = self.path / FRAMES
        if not os.path.lexists(place):
            return []
        if place.is_symlink() or not place.is_dir():
            raise BadInput(f"{place} is not a folder; choose another --out")
        return sorted(f"{FRAMES}/{name}" for name in os.listdir(place) if mine(name))

    def _check_state(self, *, resume: bool) -> None:
        place = self._work.path
        if self._work.record is None:
            if os.path.lexists(place) and (place.is_symlink() or not place.is_dir() or os.listdir(place)):
                raise BadInput(f"{place} is not of a run of vizsynth; choose another --out")
            if resume:
                raise BadInput(f"{self.path} holds no run that was stopped; leave out --resume to begin one")
        elif place.is_symlink():
            raise BadInput(f"{place} is a link; choose another --out")
        elif resume:
            if not self.stopped:
                raise BadInput(f"{self.path} holds no run that was stopped; leave out --resume to begin one")
            self._work.check_origin(self.origin)
            self.overwrite |= self._work.told().get("overwrite") is True
        elif not self.overwrite:
            what = "was stopped: --resume goes on with it, --overwrite begins anew"
            if not self.stopped:
                what = (
                    "is at work, or ended before it saved anything: choose another --out, or begin anew with "
                )
                what += "--overwrite"
            raise BadInput(f"{self.path} holds a run that {what}")

    def _check_writable(self) -> None:
        nearest = next(p for p in (self.path, *self.path.absolute().parents) if os.path.lexists(p))
        if not nearest.is_dir():
            raise BadInput(f"cannot write to {self.path}: {nearest} is not a folder; choose another --out")
        try:  # asking for permission is no proof: root has it even where nothing can be written
            os.rmdir(tempfile.mkdtemp(prefix=".vizsynth-", dir=nearest))
        except OSError as error:
            raise BadInput(
                f"cannot write to {self.path}: nothing can be made in {nearest} "
                f"({error.strerror or error}); choose another --out"
            ) from error

    # While it works -------------------------------------------------------------------

    @property
    def stopped(self) -> bool:
        """Whether there is a run in the folder that can be gone on with."""
        from vizsynth.ascent import has_checkpoint

        return any(has_checkpoint(self._work.path / name) for name in self._work.names())

    @contextmanager
    def working(self, run: str = ONLY) -> Iterator[Path]:
        """Give the folder in which a run saves what it needs to go on.

        It is there after a failure or an interruption, if anything was saved; else nothing is left.

        Args:
            run: the name of the run, among several of one command.
        """
        if not self._begun:
            self._begin()
        try:
            yield self._work.claim(run)
        except BaseException:
            if not self.stopped:
                self.undo()
            raise

    def _begin(self) -> None:
        if not self.resume and self.overwrite:
            self._work.clear()  # what an earlier run has left
        self._check_state(resume=bool(self.resume))  # once more: another one may have begun
        self._note_missing(self.path)
        try:
            self._work.begin(self.origin, {"overwrite": self.overwrite})
        except BaseException:
            self._remove_made()
            raise
        self._begun = True

    def keep_frame(self, name: str, picture: Any) -> None:
        """Write a frame, named as `frame` names it."""
        from vizsynth.files import write_image

        if (self.path / FRAMES).is_symlink():
            raise BadInput(f"{self.path / FRAMES} is not a folder; choose another --out")
        self._note_missing(self.path / FRAMES)
        write_image(self.path / name, picture)
        self._frames.append(self.path / name)

    def discard(self) -> None:
        """Forget what this run has saved to go on with: it is done."""
        if self._begun:
            self._work.clear()

    def undo(self) -> None:
        """Remove all that this run has made so far: nothing comes of it."""
        self.discard()
        with suppress(OSError):
            for path in self._frames:
                path.unlink(missing_ok=True)
        self._remove_made()

    # At the end -----------------------------------------------------------------------

    def write(
        self, pictures: Mapping[str, Any], numbers: Mapping[str, Any], *, beside: Iterable[str] = ()
    ) -> list[str]:
        """Write the pictures, or texts, and `numbers.json`, all or none; return the names of the files.

        What is a function is given its path, to write there by itself. `beside` names files that this run
        has written before, or writes by itself.

        Files are made in a folder inside this one, so that nothing but renaming can go wrong once
        the first appears. `numbers.json` comes last.
        """
        from vizsynth.files import write_image

        self._check_own([*pictures, NUMBERS])  # once more: it may have taken long
        names = [*beside, *pictures, NUMBERS]
        kept = sorted(self._earlier_files() - {*names, *numbers.get("frames", ())})
        clash = [name for name, value in self.origin.items() if numbers.get(name, value) != value]
        if clash:  # the same command would take the files for those of another
            raise KeyError(f"numbers contradict the origin: {', '.join(clash)}")
        record = {**self.origin, **numbers, "files": names, "earlier_files": kept}
        self._note_missing(self.path)
        staging = None
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            staging = Path(tempfile.mkdtemp(prefix=".vizsynth-", dir=self.path))
            for name, picture in pictures.items():
                if isinstance(picture, str):
                    write_atomic(staging / name, picture)
                elif callable(picture):
                    picture(staging / name)
                else:
                    write_image(staging / name, picture)
            text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
            write_atomic(staging / NUMBERS, text)
            for name in (*pictures, NUMBERS):
                os.replace(staging / name, self.path / name)
        except BaseException:
            if staging is not None:
                shutil.rmtree(staging, ignore_errors=True)
            if not (self._begun and self.stopped):
                self.undo()
            raise
        shutil.rmtree(staging, ignore_errors=True)
        return names

    def record(self) -> dict[str, Any]:
        """Return what `numbers.json` says, of whatever run it is; nothing where there is none."""
        return read_record(self.path / NUMBERS) or {}

    def _note_missing(self, folder: Path) -> None:
        """Note the folders that are about to be made."""
        self._made = [p for p in (folder, *folder.parents) if not p.exists()] + self._made

    def _remove_made(self) -> None:
        """Remove the folders that were made here, where they are still empty."""
        with suppress(OSError):
            for folder in self._made:
                folder.rmdir()

    def _earlier_files(self) -> set[str]:
        """Return the files that an earlier run of the same origin made."""
        record = self.record()
        if any(record.get(name) != value for name, value in self.origin.items()):
            return set()
        lists = [record.get(name) for name in ("files", "earlier_files", "frames")]
        return {name for names in lists if isinstance(names, list) for name in names if _is_name(name)}

    def _own(self) -> set[str]:
        """Return the files that are this run's, or an earlier one's of the same origin."""
        own = self._earlier_files()
        if self.resume or self._begun:
            own |= {name for run in self._work.names() for name in saved_frames(self._work.path / run)}
        return own


def frame(step: int, run: str = ONLY) -> str:
    """Return the name of a frame.

    >>> frame(4), frame(4, "scale-2")
    ('frames/000004.png', 'frames/scale-2-000004.png')
    """
    return f"{FRAMES}/{'' if run == ONLY else f'{run}-'}{step:06d}.png"


def is_frame(name: str, runs: Iterable[str], wanted: Callable[[int], bool]) -> bool:
    """Tell whether a name in DIR/frames is a frame's of one of these runs, of a step that is wanted."""
    found = re.fullmatch(r"(?:(.+)-)?(\d{6,})\.png", name)
    return found is not None and (found[1] or ONLY) in runs and wanted(int(found[2]))


def saved_frames(place: Path) -> list[str]:
    """Return the frames of a run by what it has saved."""
    from vizsynth.ascent import beside

    return [frame(int(step), place.name) for step in beside(place).get("frames", ())]


def _is_name(name: object) -> bool:
    """Tell whether a name from a file is one of the folder's own: plain, or a frame's."""
    if isinstance(name, str) and name.startswith(f"{FRAMES}/"):
        name = name.removeprefix(f"{FRAMES}/")
    return is_plain(name)


def _same(path: Path, other: os.PathLike[str]) -> bool:
    try:
        return os.path.samefile(path, other)
    except OSError:
        return False
