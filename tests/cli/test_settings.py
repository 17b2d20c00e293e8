"""What follows from the fields of a command's settings: options, their order, checks, and the record."""

# ruff: noqa: RUF009

from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from vizsynth.cli import options
from vizsynth.cli.photos import Photo
from vizsynth.cli.settings import argument, command_of, fixed, option, recorded


@dataclass(frozen=True, kw_only=True)
class Base(options.Seeded):
    weights: str | None = options.weights()
    size: int | None = options.size(record="numbers")


@dataclass(frozen=True, kw_only=True)
class Settings(Base):
    photo: Photo = argument()
    gain: float = option(0.5, "How much", type=options.ABOVE_0)
    pair: tuple[int, ...] | None = option(
        None, "Two of them [none]", parse=lambda typed: tuple(map(int, typed.split(",")))
    )
    layers: tuple[str, ...] = options.layers("Which")
    weights: None = fixed(None)
    size: int = option(7, "Its side", record="numbers")
    out: Path | None = options.out("NAME-made")


given: list[Settings] = []
command = command_of(Settings)(lambda settings: given.append(settings))


def called(*words: str) -> Settings:
    command.main(list(words), standalone_mode=False)
    return given.pop()


def test_own_options_come_first_and_keep_the_place_of_their_base() -> None:
    names = [parameter.name for parameter in command.params]
    own = ["photo", "gain", "pair", "layers"]
    assert names == [*own, "size", "seed", "out", "overwrite", "as_json", "quiet"]


def test_an_option_tells_its_default() -> None:
    help = {p.name: p.help for p in command.params if isinstance(p, click.Option)}
    assert (help["gain"], help["pair"], help["layers"]) == (
        "How much [0.5].",
        "Two of them [none].",
        "Which.",
    )


def test_the_settings_are_recorded_where_their_fields_say(tmp_path: Path) -> None:
    photo = tmp_path / "a.png"
    photo.write_bytes(b"some")
    settings = called(str(photo), "--pair", "1,2", "-l", "a", "-l", "b", "--size", "9", "-q")
    assert settings.quiet and settings.pair == (1, 2)
    origin = {"gain": 0.5, "pair": [1, 2], "layers": ["a", "b"], "weights": None, "seed": 0}
    described = {"name": "a.png", "sha256": settings.photo.digest}
    assert recorded(settings, "origin") == {"photo": described, **origin}
    assert recorded(settings, "numbers") == {"size": 9}
    folder = settings.open("cat", resolved={"gain": 2.0, "more": 1})
    assert folder.path == Path("out/cat-made")
    assert folder.origin == {"command": "test-settings", "photo": described, **origin, "gain": 2.0, "more": 1}


@pytest.mark.parametrize("words", [("--gain", "0"), ("--pair", "1,x"), ("--weights", "mine")])
def test_what_cannot_be_typed_is_told(words: tuple[str, str]) -> None:
    with pytest.raises(click.UsageError) as caught:
        called("a.png", *words)
    assert words[0] in caught.value.format_message()
