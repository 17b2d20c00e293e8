import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Run, complaint

import vizsynth
from vizsynth.cli import COMMANDS, cache
from vizsynth.cli.methods import METHODS

HELPS = [["--help"], ["--version"], [], *([command, "--help"] for command in COMMANDS)]


@pytest.mark.parametrize("arguments", HELPS, ids=" ".join)
def test_help_does_not_wait_for_jax(arguments: list[str]) -> None:
    code = f"import sys; from vizsynth.cli import main; main({arguments}); sys.exit('jax' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("arguments", [["--help"], *([command, "-h"] for command in COMMANDS)], ids=" ".join)
def test_help_fits_a_screen(run: Run, arguments: list[str]) -> None:
    ran = run(*arguments)
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert len(lines) <= (36 if arguments == ["--help"] else 27)  # a line for each command
    assert max(map(len, lines)) <= 80


def test_it_is_a_module_and_a_command() -> None:
    ran = subprocess.run([sys.executable, "-m", "vizsynth", "--version"], capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("vizsynth 0.")


def test_without_arguments_it_shows_its_help(run: Run) -> None:
    ran = run()
    assert ran.code == 2
    assert "Usage: vizsynth" in ran.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["explian"], "explain"),
        (["explain", "--metod", "x"], "--method"),
        (["explain"], "PHOTO"),
        (["explain", "x.jpg", "--seed", "many"], "--seed"),
        (["networks", "--jsn"], "--json"),
    ],
)
def test_mistyped_words_are_one_line_with_the_remedy(run: Run, arguments: list[str], message: str) -> None:
    assert message in complaint(run(*arguments))


def test_without_click_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['click'] = None; import vizsynth.cli"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 1
    assert ran.stderr.strip().endswith("pip install 'vizsynth[cli]'")
    assert "Traceback" not in ran.stderr


def test_warnings_are_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    def networks() -> list[object]:
        import warnings

        warnings.warn("something\nis odd", stacklevel=1)
        return []

    monkeypatch.setattr("vizsynth.cli.commands.networks._networks", networks)
    monkeypatch.setattr("vizsynth.cli.commands.networks._table", lambda _: ["a table"])
    ran = run("networks")
    assert (ran.out, ran.err) == ("a table\n", "vizsynth: warning: something is odd\n")


# The table of methods ---------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_rows_tell_what_the_functions_need(name: str) -> None:
    method = METHODS[name]
    parameters = inspect.signature(getattr(vizsynth, method.function)).parameters
    assert method.needs_layer == ("layer" in parameters)
    assert method.needs_key == ("key" in parameters)
    given = {"net", "images", "target", "layer", "key", *method.options}
    required = {n for n, p in parameters.items() if p.default is inspect.Parameter.empty}
    assert required <= given


# The compilation cache --------------------------------------------------------------


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    for name in list(os.environ):
        if name.startswith(("VIZSYNTH_", "XDG_", "JAX_COMPILATION", "JAX_PERSISTENT")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("DIR", "MIN_COMPILE_TIME_SECS", "MIN_ENTRY_SIZE_BYTES"):  # put back what is set below
        prefix = "JAX_COMPILATION_CACHE" if name == "DIR" else "JAX_PERSISTENT_CACHE"
        monkeypatch.setenv(f"{prefix}_{name}", "")
        monkeypatch.delenv(f"{prefix}_{name}")
    return monkeypatch


def test_programs_are_kept_in_the_users_cache(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cache.use_cache()
    kept = Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    assert kept.parent == tmp_path / "home" / ".cache" / "vizsynth"
    assert kept.is_dir()
    environment.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.cache_folder() == tmp_path / "xdg" / "vizsynth" / kept.name
    environment.setenv("VIZSYNTH_CACHE", str(tmp_path / "chosen"))
    assert cache.cache_folder() == tmp_path / "chosen" / kept.name


@pytest.mark.parametrize("chosen", ["off", "/proc/nothing", "{file}/below"])
def test_no_cache_is_no_failure(environment: pytest.MonkeyPatch, tmp_path: Path, chosen: str) -> None:
    (tmp_path / "file").write_text("text")
    environment.setenv("VIZSYNTH_CACHE", chosen.format(file=tmp_path / "file"))
    cache.use_cache()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ


def test_the_users_own_setting_of_jax_stays(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.setenv("JAX_COMPILATION_CACHE_DIR", "mine")
    cache.use_cache()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == "mine"
