"""The options that commands share, so that the same word means the same everywhere.

A function returns the field of an option; a class holds the options that go together, and their use.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

import click

from vizsynth.cli import common
from vizsynth.cli.output import OutputFolder
from vizsynth.cli.settings import Record, name_of, option, recorded

# The texts are short enough for a line each, so that a command's help fits a screen.
PIXELS = click.IntRange(33, 4096)
COUNT = click.IntRange(1)
ABOVE_0 = click.FloatRange(0, min_open=True)
WEIGHT = click.FloatRange(0)


def network(usual: str = common.DEFAULT_NETWORK, *, record: Record | None = "origin") -> Any:
    """Return the option for a network."""
    return option(
        usual, "As `vizsynth networks` lists them", "--network", "-n", metavar="NAME", record=record
    )


def weights(*, record: Record | None = "origin") -> Any:
    """Return the option for the network's weights."""
    help = "Its weights: a file, or a listed name"
    return option(None, help, "--weights", "-w", metavar="NAME", record=record)


def target(*, record: Record | None = "origin") -> Any:
    """Return the option for a class."""
    help = "A class, by name or number [the top one]"
    return option("top", help, "--target", "-t", metavar="CLASS", record=record)


def layer(help: str = "A layer [the network's usual one]", *, record: Record | None = "origin") -> Any:
    """Return the option for a layer."""
    return option(None, help, "--layer", "-l", metavar="NAME", record=record)


def layers(help: str, *, record: Record | None = "origin") -> Any:
    """Return the option for layers."""
    return option((), help, "--layer", "-l", metavar="NAME", record=record)


def size(*, record: Record | None = "origin") -> Any:
    """Return the option for the size of photos."""
    help = "The shorter side of what the network sees"
    return option(None, help, type=PIXELS, metavar="PIXELS", record=record)


def side() -> Any:
    """Return the option for the side of square pictures."""
    return option(224, "The side of the pictures", "--size", type=PIXELS, metavar="PIXELS")


def seed(*, record: Record | None = "origin") -> Any:
    """Return the option for the seed."""
    return option(0, "Of what is drawn at random", record=record)


def steps(usual: int, help: str = "How many steps", *, record: Record | None = None) -> Any:
    """Return the option for a number of steps."""
    return option(usual, help, "--steps", type=click.IntRange(1, 1_000_000), record=record)


def batch(usual: int | None, help: str, most: int, *, record: Record | None = "origin") -> Any:
    """Return the option for the number of images computed together."""
    return option(usual, help, "--batch-size", type=click.IntRange(1, most), metavar="IMAGES", record=record)


def resume() -> Any:
    """Return the option that resumes a run."""
    return option(False, "Go on with the run that was stopped in DIR", record=None)


def as_json() -> Any:
    """Return the option for JSON in place of text."""
    return option(False, "Print JSON", "--json", record=None)


def out(usual: str) -> Any:
    """Return the option for the folder of all that a command writes.

    `usual` is the default, a folder in `out`; words in capitals stand for the names given to `Written.open`.
    """
    made = option(None, f"Where the files go [out/{usual}]", "--out", "-o", metavar="DIR", record=None)
    return field(default=None, metadata={**made.metadata, "usual": usual})


@dataclass(frozen=True, kw_only=True)
class Written:
    """The settings of a command that writes a folder."""

    out: Path | None = out("NAME")
    overwrite: bool = option(False, "Replace files of other runs in DIR", record=None)
    as_json: bool = as_json()
    quiet: bool = option(False, "Print results and errors only", "--quiet", "-q", record=None)

    def origin(self, resolved: Mapping[str, Any]) -> dict[str, Any]:
        """Return the origin of the files: the command, and its settings that belong there.

        `resolved` replaces typed values, and adds others.
        """
        return {"command": name_of(self), **recorded(self, "origin"), **resolved}

    def path(self, *names: str) -> Path:
        """Return the path of the folder; the names replace the words in capitals of its default."""
        usual = next(f.metadata["usual"] for f in fields(self) if f.name == "out")
        return self.out or common.usual_folder(usual, *names)

    def open(self, *names: str, resolved: Mapping[str, Any] = MappingProxyType({})) -> OutputFolder:
        """Return the folder at `path(*names)` with `origin(resolved)`; nothing is checked or written yet."""
        origin, resume = self.origin(resolved), getattr(self, "resume", None)
        return OutputFolder(self.path(*names), origin, overwrite=self.overwrite, resume=resume)

    def write(
        self,
        folder: OutputFolder,
        pictures: Mapping[str, Any],
        numbers: Mapping[str, Any],
        *lines: str,
        beside: Iterable[str] = (),
        wrote: str | None = None,
    ) -> None:
        """Write the results of a command, and print them: as JSON, or as lines.

        Args:
            folder: the folder of the files.
            pictures: as in `OutputFolder.write`.
            numbers: results for numbers.json, added to the settings recorded among them.
            lines: the printed results.
            beside: files that are written already.
            wrote: the last line; by default the folder and the names of the files.
        """
        import jax

        numbers = {
            **recorded(self, "numbers"),
            **numbers,
            "versions": common.versions(),
            "device": jax.devices()[0].device_kind,
        }
        files = folder.write(pictures, numbers, beside=beside)
        if self.as_json:
            common.tell_json({**folder.origin, **numbers, "out": str(folder.path), "files": files})
        else:
            common.tell(*lines, wrote or f"wrote into {folder.path}: {', '.join(files)}")


@dataclass(frozen=True, kw_only=True)
class Seeded(Written):
    """The settings of a command that draws at random."""

    seed: int = seed()


@dataclass(frozen=True, kw_only=True)
class Resumable(Seeded):
    """The settings of a command whose runs can be resumed."""

    resume: bool = resume()


@dataclass(frozen=True, kw_only=True)
class Stepwise(Resumable):
    """The settings of a command that makes pictures step by step."""

    every: int | None = option(
        None, "Keep a frame so often, in DIR/frames", type=COUNT, metavar="STEPS", record=None
    )
