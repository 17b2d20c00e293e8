"""The folder that a command writes into: checked before it computes, filled at the end.

What is in the folder already stays as it is, unless the same command made it from the same picture
(its `numbers.json` says so) or `--overwrite` is given.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from vizsynth.cli.common import BadInput

NUMBERS = "numbers.json"
ESCAPES = "backslashreplace"  # writes what of a file's name is not UTF-8 as JSON does


class OutputFolder:
    """A folder for the files of one run."""

    def __init__(self, path: Path, origin: Mapping[str, Any], *, overwrite: bool = False):
        """Choose the folder.

        Args:
            path: of the folder; it need not exist.
            origin: what the files are made by and from; a later run of the same origin may replace
                them.
            overwrite: whether files of any origin may be replaced.
        """
        self.path = path
        self.origin = dict(origin)
        self.overwrite = overwrite

    def check(self, names: Iterable[str], *, inputs: Iterable[Path] = ()) -> None:
        """Check that the files can be written, and destroy nothing.

        Raises:
            BadInput: the folder cannot be made or written to; files of another origin, or the
                inputs themselves, would be replaced.
        """
        self._check_writable()
        there = [name for name in (*names, NUMBERS) if os.path.lexists(self.path / name)]
        for name in there:
            if (self.path / name).is_dir():
                raise BadInput(f"{self.path / name} is a folder; choose another --out")
            if any(_same(self.path / name, given) for given in inputs):
                raise BadInput(f"{self.path / name} is what is to be read; choose another --out")
        foreign = [name for name in there if name not in self._earlier_files()]
        if foreign and not self.overwrite:
            raise BadInput(
                f"{self.path} holds files that this run would replace, made from something else "
                f"({', '.join(foreign)}); choose another --out, or give --overwrite"
            )

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

        names = [*beside, *pictures, NUMBERS]
        kept = sorted(set(self._earlier_files()) - set(names))
        record = {**self.origin, **numbers, "files": names, "earlier_files": kept}
        made = [p for p in (self.path, *self.path.parents) if not p.exists()]
        staging = None
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            staging = Path(tempfile.mkdtemp(prefix=".vizsynth-", dir=self.path))
            for name, picture in pictures.items():
                if isinstance(picture, str):
                    (staging / name).write_text(picture, encoding="utf-8", errors=ESCAPES)
                elif callable(picture):
                    picture(staging / name)
                else:
                    write_image(staging / name, picture)
            text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
            (staging / NUMBERS).write_text(text, encoding="utf-8", errors=ESCAPES)
            for name in (*pictures, NUMBERS):
                os.replace(staging / name, self.path / name)
        finally:
            if staging is not None:
                shutil.rmtree(staging, ignore_errors=True)
            with suppress(OSError):  # what was made here goes again where it is still empty
                for folder in made:
                    folder.rmdir()
        return names

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

    def _earlier_files(self) -> list[str]:
        """Return the files that an earlier run of the same origin made."""
        try:
            record = json.loads((self.path / NUMBERS).read_text(encoding="utf-8"))
            if any(record.get(name) != value for name, value in self.origin.items()):
                return []
            return [str(name) for name in (*record["files"], *record["earlier_files"])]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return []


def _same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:
        return False
