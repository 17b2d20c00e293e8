"""What the tests of the command line share."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

PHOTOS = Path(__file__).parents[2] / "experiments" / "photos"


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Ran]


def tree(folder: Path) -> list[str]:
    """Return everything below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def complaint(ran: Ran, code: int = 2) -> str:
    """Return the error's one line, having checked that it is all there is."""
    assert ran.code == code, ran
    lines = [line for line in ran.err.splitlines() if "compiling takes" not in line]
    assert len(lines) == 1, ran.err
    assert lines[0].startswith("vizsynth: error: "), ran.err
    assert "Traceback" not in ran.err
    assert ran.out == ""
    return lines[0]
