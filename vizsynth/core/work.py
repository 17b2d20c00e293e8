"""The folder of a run, and the entries in it that belong to the run.

The run's record in the folder, `run.json`, identifies the run and names its entries. An entry is named before
it is made, so that a killed run leaves none without an owner. Entries that the record does not name are
neither replaced nor removed, nor is anything outside the folder, whatever the record says.
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
        """Set the paths of the folder and its record; nothing is read or written.

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
        """The record; None without a valid one."""
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
        """Return the run's notes in the record."""
        found = (self.record or {}).get("told")
        return found if isinstance(found, dict) else {}

    def begin(self, origin: Mapping[str, Any] | None, told: Mapping[str, Any] | None = None) -> None:
        """Make the folder and its record, or check that they belong to this run.

        Args:
            origin: the settings that identify the run, as JSON.
            told: the first notes in a new record.

        Raises:
            ValueError: the folder belongs to another run.
            OSError: it cannot be made.
        """
        if self.record is not None:
            self.check_origin(origin)
            return
        made = not self.path.exists()
        self.path.mkdir(parents=True, exist_ok=True)
        # `made`: only a folder made for the run is removed with it.
        record = {"kind": KIND, "origin": digest(origin), "settings": origin, "made": made, "own": []}
        try:
            write_atomic(self._record, _as_json(record | {"told": told or {}}), new=True)
        except OSError as error:
            if made:
                with suppress(OSError):
                    self.path.rmdir()
            if isinstance(error, FileExistsError):
                self.check_origin(origin)  # another process has begun, or the file is no record of ours
                return
            raise

    def check(self, origin: Mapping[str, Any] | None, names: Iterable[str] = ()) -> None:
        """Check, before any computation, that the run can begin or resume here and make some entries.

        Raises:
            ValueError: the folder belongs to another run.
            FileExistsError: an entry of such a name exists and is not the run's.
        """
        if os.path.lexists(self._record):
            self.check_origin(origin)
        own = self.names()
        for name in names:
            if name not in own:
                self._check_free(name)

    def check_origin(self, origin: Mapping[str, Any] | None) -> None:
        """Raise unless the folder belongs to this run.

        Raises:
            ValueError: it belongs to another run; the message lists the differences.
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
        """Name an entry in the record, before it is made; return its path.

        Raises:
            FileExistsError: the entry exists and is not the run's.
        """
        names = self.names()
        if name not in names:
            self._check_free(name)
            self._write(own=[*names, name])
        return self.path / name

    def claim_new(self, name: str) -> Path:
        """Name a new entry, by this name or a longer one that begins with it; return its path."""
        while os.path.lexists(self.path / name):
            name = f"{name.partition('+')[0]}+{secrets.token_hex(4)}"
        return self.claim(name)

    def remove(self, name: str) -> None:
        """Remove an entry of the run; other entries and the targets of links stay."""
        names = self.names()
        if name not in names:
            return
        _remove(self.path / name)
        self._write(own=[other for other in names if other != name])

    def clear(self) -> None:
        """Remove the run's entries, and the folder if the run made it and it is empty."""
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
            raise FileExistsError(
                errno.EEXIST, "an entry of this name exists and is not this run's", str(path)
            )

    def _write(self, **changes: Any) -> None:
        record = self.record
        if record is None:
            raise FileNotFoundError(errno.ENOENT, "the run's record is gone", str(self._record))
        write_atomic(self._record, _as_json(record | changes))


def digest(origin: Mapping[str, Any] | None) -> str:
    """Return the hash of a run's origin."""
    return hashlib.sha256(json.dumps(origin or {}, sort_keys=True, default=str).encode()).hexdigest()


def _as_json(record: Mapping[str, Any]) -> str:
    return json.dumps(record, indent=2, default=str) + "\n"


def _remove(path: Path) -> None:
    if path.is_symlink():  # not the run's: it makes none
        return
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
