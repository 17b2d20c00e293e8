"""A folder that a run works in, and what in it is the run's own.

`run.json` in the folder is the run's record: which run it is, and the names of the entries that it has made
there. An entry is named before it is made, so that a run that is killed leaves nothing that nobody owns. What
is not named in the record is neither replaced nor removed, nor is anything outside the folder, whatever a
record says.
"""

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from vizsynth.core.atomic import is_plain, read_record, write_atomic

RECORD = "run.json"
KIND = "a run of vizsynth"


class WorkFolder:
    """A run's folder: begun, added to, and removed by its record."""

    def __init__(self, path: str | os.PathLike[str], record: str = RECORD) -> None:
        """Name the folder, and its record; nothing is read or written.

        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as out:
        ...     work = WorkFolder(f"{out}/work")
        ...     work.begin({"seed": 0})
        ...     work.claim("step-1").mkdir()
        ...     _ = (work.path / "mine.txt").write_text("somebody else's")
        ...     work.clear()
        ...     os.listdir(work.path)
        ['mine.txt']
        """
        self.path = Path(path)
        self._record = self.path / record

    @property
    def record(self) -> dict[str, Any] | None:
        """What the record says; None where there is none of ours."""
        found = read_record(self._record)
        if found is None or found.get("kind") != KIND or not isinstance(found.get("own"), list):
            return None
        return found | {
            "own": [name for name in found["own"] if is_plain(name) and name != self._record.name]
        }

    def names(self) -> list[str]:
        """Return the names of the entries that the run has made."""
        return list((self.record or {"own": []})["own"])

    def told(self) -> dict[str, Any]:
        """Return what the run has noted beside."""
        found = (self.record or {}).get("told")
        return found if isinstance(found, dict) else {}

    def begin(self, origin: Mapping[str, Any] | None, told: Mapping[str, Any] | None = None) -> None:
        """Make the folder, or go on in it where it is of the same run.

        Args:
            origin: what makes the run what it is, as JSON.
            told: what else is noted, where it begins.

        Raises:
            ValueError: the folder is of another run.
            OSError: it cannot be made.
        """
        if self.record is not None:
            self.check_origin(origin)
            return
        made = not self.path.exists()
        self.path.mkdir(parents=True, exist_ok=True)
        # Whether the folder was made for the run: if not, it stays when the run goes.
        record = {"kind": KIND, "origin": digest(origin), "settings": origin, "made": made, "own": []}
        try:
            write_atomic(self._record, _as_json(record | {"told": told or {}}), new=True)
        except OSError as error:
            if made:
                with suppress(OSError):
                    self.path.rmdir()
            if isinstance(error, FileExistsError):
                self.check_origin(origin)  # another one has begun meanwhile, or it is not ours
                return
            raise

    def check(self, origin: Mapping[str, Any] | None, names: Iterable[str] = ()) -> None:
        """Check, before anything is computed, that a run can begin here, or go on, and make some entries.

        Raises:
            ValueError: the folder is of another run.
            FileExistsError: there is an entry of such a name that the run has not made.
        """
        if os.path.lexists(self._record):
            self.check_origin(origin)
        own = self.names()
        for name in names:
            if name not in own:
                self._check_free(name)

    def check_origin(self, origin: Mapping[str, Any] | None) -> None:
        """Raise unless the folder is of this run.

        Raises:
            ValueError: it is of another one; the message says what differs.
        """
        record = self.record
        if record is None:
            raise ValueError(f"{self.path} does not say what run it holds; begin in another folder")
        if record.get("origin") != digest(origin):
            theirs, ours = record.get("settings"), json.loads(json.dumps(origin or {}, default=str))
            theirs = theirs if isinstance(theirs, dict) else {}
            other = sorted(k for k in {*theirs, *ours} if theirs.get(k) != ours.get(k))
            which = "; ".join(f"{k}: {theirs.get(k)!r} there, {ours.get(k)!r} now" for k in other[:4])
            raise ValueError(f"{self.path} holds another run ({which}); give its settings, or another folder")

    def tell(self, told: Mapping[str, Any]) -> None:
        """Note something in the record."""
        self._write(told=self.told() | dict(told))

    def claim(self, name: str) -> Path:
        """Name an entry as the run's own, before it is made; return its path.

        Raises:
            FileExistsError: there is something of that name that the run has not made.
        """
        names = self.names()
        if name not in names:
            self._check_free(name)
            self._write(own=[*names, name])
        return self.path / name

    def claim_new(self, name: str) -> Path:
        """Name an entry that is not there yet, by this name or one that begins with it; return its path."""
        while os.path.lexists(self.path / name):
            name = f"{name.partition('+')[0]}+{secrets.token_hex(4)}"
        return self.claim(name)

    def remove(self, name: str) -> None:
        """Remove an entry of the run's own; what is not stays, and so does what a link leads to."""
        names = self.names()
        if name not in names:
            return
        _remove(self.path / name)
        self._write(own=[other for other in names if other != name])

    def clear(self) -> None:
        """Remove what the run has made, and the folder, if the run made it and nothing else is in it."""
        record = self.record
        if record is None:
            return
        for name in record["own"]:
            _remove(self.path / name)
        self._record.unlink(missing_ok=True)
        if record.get("made") is True:
            with suppress(OSError):
                self.path.rmdir()

    def _check_free(self, name: str) -> None:
        path = self.path / name
        if not is_plain(name) or os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, "this run has not made what is there", str(path))

    def _write(self, **changes: Any) -> None:
        record = self.record
        if record is None:
            raise FileNotFoundError(errno.ENOENT, "the run's record is gone", str(self._record))
        write_atomic(self._record, _as_json(record | changes))


def digest(origin: Mapping[str, Any] | None) -> str:
    """Return what tells a run's origin from all others."""
    return hashlib.sha256(json.dumps(origin or {}, sort_keys=True, default=str).encode()).hexdigest()


def _as_json(record: Mapping[str, Any]) -> str:
    return json.dumps(record, indent=2, default=str) + "\n"


def _remove(path: Path) -> None:
    if path.is_symlink():  # the run makes none: somebody has put it there
        return
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
