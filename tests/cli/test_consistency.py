"""What holds of every command: one word means one thing, mistakes are one line, output has one place."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import click
import jax
import pytest
from command_line import PHOTOS, Run, complaint, tree

from vizsynth.cli import COMMANDS, group

OTHERS = ("convert", "networks")  # the one writes a file, the other none
WRITERS = tuple(name for name in COMMANDS if name not in OTHERS)


def options(command: str) -> dict[str, click.Option]:
    """Return a command's options by their longest names."""
    found = [p for p in group.commands[command].params if isinstance(p, click.Option)]
    return {max(option.opts, key=len): option for option in found}


def arguments(command: str) -> list[click.Argument]:
    return [p for p in group.commands[command].params if isinstance(p, click.Argument)]


# One word, one meaning --------------------------------------------------------------

# Where a command's option is another thing, and says so: the help of these is its own.
OWN_HELP = {
    "--network": {"convert", "train"},  # what IN is of; another usual one
    "--overwrite": {"convert"},  # a file, not a folder
    "--every": {"train-style"},  # has a usual number
}
SAME = (
    "--seed",
    "--json",
    "--quiet",
    "--resume",
    "--weights",
    "--target",
    "--patience",
    "--epochs",
    "--augment",
)


@pytest.mark.parametrize("name", [*SAME, *OWN_HELP])
def test_an_option_says_the_same_everywhere(name: str) -> None:
    told: dict[tuple[object, ...], list[str]] = {}
    for command in COMMANDS:
        option = options(command).get(name)
        if option is not None and command not in OWN_HELP.get(name, ()):
            said = (option.help, option.metavar, tuple(option.opts), option.is_flag, repr(option.type))
            told.setdefault(said, []).append(command)
    assert len(told) == 1, told


@pytest.mark.parametrize("name", sorted({name for command in COMMANDS for name in options(command)}))
def test_an_option_is_written_the_same_everywhere(name: str) -> None:
    found = {command: options(command)[name] for command in COMMANDS if name in options(command)}
    assert len({tuple(option.opts) for option in found.values()}) == 1, "another short name"
    assert len({option.is_flag for option in found.values()}) == 1, "a flag here, a value there"
    for command, option in found.items():
        assert option.help, command


METAVARS = {
    "--batch-size": "IMAGES",
    "--layer": "NAME",
    "--learning-rate": "RATE",
    "--network": "NAME",
    "--out": "DIR",
    "--size": "PIXELS",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_values_have_the_same_names(command: str) -> None:
    for name, metavar in METAVARS.items():
        if name in options(command):
            assert options(command)[name].metavar == metavar, name


@pytest.mark.parametrize("command", COMMANDS)
def test_a_short_name_stands_for_one_option(command: str) -> None:
    known = {"-n": "--network", "-w": "--weights", "-t": "--target", "-l": "--layer", "-m": "--method"}
    known |= {"-o": "--out", "-q": "--quiet", "-c": "--channels", "-s": "--style", "-Q": "--query"}
    for name, option in options(command).items():
        for short in (opt for opt in option.opts if not opt.startswith("--")):
            assert known.get(short, short) == name


@pytest.mark.parametrize("command", COMMANDS)
def test_usual_values_are_told(command: str) -> None:
    for name, option in options(command).items():
        if (
            option.is_flag
            or option.required
            or option.multiple
            or not isinstance(option.default, int | float)
        ):
            continue
        assert f"[{option.default:g}" in (option.help or "") or "[" in (option.help or ""), name


@pytest.mark.parametrize("command", COMMANDS)
def test_scripts_can_read_every_result(command: str) -> None:
    assert "--json" in options(command)


@pytest.mark.parametrize("command", WRITERS)
def test_what_writes_a_folder_lets_it_be_chosen(command: str) -> None:
    found = options(command)
    assert {"--out", "--overwrite", "--quiet"} <= set(found)
    assert (found["--out"].help or "").startswith("Where the files go [out/")
    assert isinstance(found["--out"].type, click.Path)


def test_a_command_is_one_file(photo: Path, tmp_path: Path) -> None:
    guide = (PHOTOS.parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    _, code = guide.split("## A new command")[1].split("```python\n")
    path = tmp_path / "edges.py"
    path.write_text(code.split("```")[0], encoding="utf-8")
    spec = spec_from_file_location("edges", path)
    assert spec is not None and spec.loader is not None
    spec.loader.exec_module(module := module_from_spec(spec))
    module.command.main([str(photo), "-o", str(tmp_path / "out"), "--gain", "2"], standalone_mode=False)
    record = json.loads((tmp_path / "out" / "numbers.json").read_text(encoding="utf-8"))
    assert (record["command"], record["gain"], record["photo"]["name"]) == ("edges", 2.0, "cat.jpg")


# Mistakes ---------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_a_misspelt_option_is_one_line_with_the_nearest(run: Run, command: str) -> None:
    for name in options(command):
        if not name.startswith("--") or len(name) < 6 or options(command)[name].hidden:
            continue
        misspelt = name[:-2] + name[-1]  # one letter is missing
        assert name in complaint(run(command, misspelt)).split(misspelt, 1)[1]


@pytest.mark.parametrize("command", [name for name in COMMANDS if any(a.required for a in arguments(name))])
def test_a_missing_argument_is_one_line(run: Run, command: str) -> None:
    missing = complaint(run(command))
    assert f"vizsynth {command} --help" in missing
    first = next(a for a in arguments(command) if a.required)
    assert first.make_metavar(click.Context(group.commands[command])).removesuffix("...") in missing


@pytest.mark.parametrize("command", COMMANDS)
def test_one_argument_too_many_is_one_line(run: Run, command: str) -> None:
    if any(a.nargs == -1 for a in arguments(command)):
        return
    words = ["x"] * (len(arguments(command)) + 1)
    assert f"vizsynth {command} --help" in complaint(run(command, *words))


# Completion -------------------------------------------------------------------------

SHELLS = {"bash": "complete", "zsh": "compdef", "fish": "complete --no-files"}


def completed(instruction: str, **environment: str) -> str:
    code = """
import sys
from vizsynth.cli import main
try:
    main()
finally:
    assert "jax" not in sys.modules
"""
    given = os.environ | {"_VIZSYNTH_COMPLETE": instruction} | environment
    ran = subprocess.run([sys.executable, "-c", code], env=given, capture_output=True, text=True)
    assert "AssertionError" not in ran.stderr, "it waited for JAX"
    return ran.stdout


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_gets_a_script(shell: str) -> None:
    script = completed(f"{shell}_source")
    assert SHELLS[shell] in script and f"_VIZSYNTH_COMPLETE={shell}_complete" in script


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("vizsynth ex", {"explain"}),
        ("vizsynth explain --targ", {"--target"}),
        ("vizsynth dream --o", {"--octaves", "--octave-scale", "--out", "--overwrite"}),
    ],
)
def test_words_are_completed(words: str, offered: set[str]) -> None:
    last = str(len(words.split()) - 1)
    found = completed("bash_complete", COMP_WORDS=words, COMP_CWORD=last).split()
    assert {word.partition(",")[2] for word in found} == offered
    assert offered <= set(completed("zsh_complete", COMP_WORDS=words, COMP_CWORD=last).splitlines())


# -o ---------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to run in, beside a folder of photos, of class folders, and another run's files."""
    del photo
    for name in ("one/1.jpg", "one/2.jpg", "two/1.jpg", "two/2.jpg"):
        path = tmp_path / "classes" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(PHOTOS / "chelsea.jpg")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


PHOTO, FOLDER = "../photos/cat.jpg", "../classes"
GIVEN = {
    "activations": [PHOTO],
    "dream": [PHOTO],
    "embed": [FOLDER],
    "evaluate": ["planted"],
    "explain": [PHOTO],
    "filters": [],
    "fine-tune": [FOLDER],
    "fool": [PHOTO, "--to", "espresso"],
    "invert": [PHOTO],
    "map": [FOLDER],
    "neighbors": [FOLDER],
    "patches": ["../classes/one"],
    "report": [PHOTO],
    "segment": [PHOTO],
    "style": [PHOTO, PHOTO],
    "stylize": [PHOTO, "--style", "glass"],
    "texture": [PHOTO],
    "train": [FOLDER],
    "train-style": [PHOTO, "--photos", "../classes/one"],
    "visualize": ["flamingo"],
}


def test_the_table_has_every_command() -> None:
    assert set(GIVEN) == set(WRITERS)


@pytest.fixture
def compiled() -> Iterator[list[str]]:
    """The programs that are compiled."""
    names: list[str] = []

    def listen(event: str, duration_secs: float, **about: str | int) -> None:
        del duration_secs
        if event.endswith("/backend_compile_duration"):
            names.append(str(about.get("fun_name")))

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield names
    jax.monitoring.unregister_event_duration_listener(listen)


# What loading weights, or a check of theirs, needs: nothing that an image goes through.
LOADING = {
    f"jit({name})"
    for name in ("stage", "broadcast_in_dim", "convert_element_type", "concatenate", "reshape", "transpose")
}


@pytest.mark.parametrize("command", WRITERS)
def test_files_of_others_are_not_replaced(run: Run, folder: Path, compiled: list[str], command: str) -> None:
    out = folder / "out"
    out.mkdir()
    (out / "numbers.json").write_text("mine", encoding="utf-8")
    before = tree(folder)
    refused = complaint(run(command, *GIVEN[command], "-o", out, "--quiet"))
    assert "--overwrite" in refused and "numbers.json" in refused
    assert (out / "numbers.json").read_text(encoding="utf-8") == "mine"
    assert tree(folder) == before
    assert set(compiled) <= LOADING, "it computed first"


SMALL = {  # what is made in a second or two
    "explain": ["--method", "saliency", "--size", "64"],
    "filters": [],
    "stylize": ["--size", "40"],
    "texture": ["--method", "quilting", "--size", "40"],
    "visualize": ["--steps", "1", "--size", "40"],
}


@pytest.mark.parametrize("command", SMALL)
def test_all_output_is_where_it_is_told(run: Run, folder: Path, command: str) -> None:
    before = tree(folder)
    ran = run(command, *GIVEN[command], *SMALL[command], "-o", "../deep/out", "--json", "--quiet")
    assert (ran.code, ran.err) == (0, "")
    files = json.loads(ran.out)["files"]
    made = set(tree(folder)) - set(before)
    assert made == {"deep", "deep/out", *(f"deep/out/{name}" for name in files)}
    first = {name: (folder / "deep" / "out" / name).read_bytes() for name in files}
    assert run(command, *GIVEN[command], *SMALL[command], "-o", "../deep/out", "--quiet").code == 0
    assert {name: (folder / "deep" / "out" / name).read_bytes() for name in files} == first


def test_without_it_the_output_is_below_out(run: Run, folder: Path) -> None:
    assert run("filters", "-q").code == 0
    assert [path.name for path in (folder / "here").iterdir()] == ["out"]
