"""Names that strangers gave, of files and classes: none steers a terminal, forges a line or ends a run."""

import io
import json
import os
import re
import struct
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest
from command_line import Run, complaint
from PIL import Image

from vizsynth import stores
from vizsynth.ascent import restore, save
from vizsynth.cli import common, folders, making, photos
from vizsynth.cli.output import NUMBERS, OutputFolder
from vizsynth.cli.report.made import bar_chart
from vizsynth.cli.report.page import Comparison, Figure, Picture, write_page
from vizsynth.core.texts import literal
from vizsynth.figures import caption
from vizsynth.files import write_image
from vizsynth.planted import WEIGHTS

CLI = Path(common.__file__).parent
FORGED = "\x1b[31mred\x1b]0;title\x07\nvizsynth: error: forged\r\x9b2J\x7f\u202e\u2066\u2028\udce9"
SPELLED = r"\x1b[31mred\x1b]0;title\x07\nvizsynth: error: forged\r\x9b2J\x7f\u202e\u2066\u2028\xe9"
LATIN = os.fsdecode(b"caf\xe9\x1b[2J\n")  # a name that is not UTF-8, and more


class State(NamedTuple):
    step: np.ndarray
    values: np.ndarray


class Terminal(io.StringIO):
    """What tqdm takes for a terminal."""

    def isatty(self) -> bool:
        return True


# What is printed ----------------------------------------------------------------------


def test_names_are_spelled_wherever_we_print(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    common.tell(f"a {FORGED}", "", "naïve 猫")
    common.say(f"b {FORGED}")
    common.say(FORGED, quiet=True)
    common.tell_json({FORGED: FORGED})
    with common.progress(FORGED, [FORGED], quiet=False), making.bar(FORGED, 2, quiet=False):
        pass
    out, err = capsys.readouterr()
    told, _, record = out.partition("{")
    assert told == f"a {SPELLED}\n\nnaïve 猫\n"
    assert json.loads("{" + record) == {FORGED: FORGED}
    assert record.isascii() and record.replace("\n", "").isprintable()
    assert err.splitlines()[0] == f"b {SPELLED}"
    assert [line.count(SPELLED) for line in err.splitlines()] == [1, 2, 1]

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with common.progress(FORGED, [FORGED], quiet=False) as begin:
        begin(FORGED)
    with making.bar(FORGED, 2, quiet=False) as advance:
        advance(1, np.ones((1, 1)))
    shown = terminal.getvalue()
    assert SPELLED in shown
    assert FORGED not in shown and not set(shown) & set("\x07\x9b\x7f\u202e\u2066\u2028\udce9")


def test_what_a_terminal_has_no_letters_for_is_spelled(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    common.tell("naïve 猫")
    sys.stdout.flush()
    assert raw.getvalue() == rb"na\xefve \u732b" + b"\n"


def test_only_one_place_prints() -> None:
    printing = re.compile(r"click\.s?echo\(|\bprint\(|std(out|err)\.write\(|click\.(prompt|confirm)\(")
    found = {path.name for path in CLI.rglob("*.py") if printing.search(path.read_text(encoding="utf-8"))}
    assert found == {"common.py"}


def test_errors_and_warnings_are_spelled(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    del recwarn  # it lets warnings pass
    header = json.dumps({FORGED[:-1]: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    told = complaint(run("convert", path, tmp_path / "out.safetensors", "--network", "squeezenet1_1"))
    assert told.isprintable()
    told = complaint(run("explain", tmp_path / FORGED))
    assert told.isprintable()
    assert r"\x1b[31mred\x1b]0;title\x07" in told
    told = complaint(run("visualize", FORGED))
    assert told.isprintable()

    def warn() -> list[object]:
        import warnings

        warnings.warn(FORGED, stacklevel=1)
        return []

    monkeypatch.setattr("vizsynth.cli.commands.networks._networks", warn)
    monkeypatch.setattr("vizsynth.cli.commands.networks._table", lambda _: [FORGED])
    ran = run("networks")
    assert ran.out == f"{SPELLED}\n"
    assert ran.err.startswith("vizsynth: warning: ") and ran.err[:-1].isprintable()


# Where files go ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("cat.jpg", "cat"),
        ("./...jpg", "unnamed"),
        ("....png", "unnamed"),
        (". .jpg", "unnamed"),
        (".hidden.png", "hidden"),
        ("a b (1) ü猫.png", "a b (1) ü猫"),
        ("a\\b\n.jpg", "a-b-"),
        (f"{LATIN}.jpg", "caf--[2J-"),
        ("x" * 250 + ".jpg", "x" * 100),
        ("猫" * 80 + ".jpg", "猫" * 33),
    ],
)
def test_the_usual_folder_is_a_plain_one_in_out(name: str, folder: str) -> None:
    assert common.usual_folder("NAME", Path(name).stem) == Path("out", folder)
    assert common.usual_folder("NAME-dream", Path(name).stem) == Path("out", f"{folder}-dream")
    assert photos.distinct_names([Path(name)] * 3) == [folder, f"{folder}-2", f"{folder}-3"]


def test_commands_name_no_folder_of_out_themselves() -> None:
    found = {path.name for path in CLI.rglob("*.py") if 'Path("out' in path.read_text(encoding="utf-8")}
    assert found == {"common.py"}


# To the end -----------------------------------------------------------------------------


def test_a_run_of_a_file_whose_name_is_no_utf8_comes_to_its_end(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    for name in (f"{LATIN}.png", "...png"):
        picture.save(name, "PNG")
    arguments = ("--network", WEIGHTS, "--layer", "relu1", "--size", "64")
    ran = run("activations", f"{LATIN}.png", *arguments)
    assert ran.code == 0, ran
    assert "wrote into out/caf--[2J--activations: relu1.png" in ran.out
    assert all(line.isprintable() for line in (ran.out + ran.err).splitlines())
    record = Path("out/caf--[2J--activations", NUMBERS)
    assert json.loads(record.read_bytes().decode("utf-8"))["photo"]["name"] == f"{LATIN}.png"
    ran = run("activations", f"{LATIN}.png", *arguments, "--json")  # knows its own again
    assert ran.code == 0, ran
    assert json.loads(ran.out)["photo"]["name"] == f"{LATIN}.png"
    ran = run("activations", "./...png", *arguments, "--quiet")
    assert ran.code == 0, ran
    assert sorted(os.listdir()) == ["...png", f"{LATIN}.png", "out"]
    assert sorted(os.listdir("out")) == ["caf--[2J--activations", "unnamed-activations"]


def test_records_of_such_names_are_utf8_and_give_them_back(tmp_path: Path) -> None:
    chosen = OutputFolder(tmp_path / LATIN, {"photo": LATIN})
    chosen.check([f"{LATIN}.csv"])
    chosen.write({f"{LATIN}.csv": f"file\n{LATIN}\n"}, {"skipped": [LATIN, FORGED]})
    chosen.check([f"{LATIN}.csv"])  # are its own
    there = json.loads((tmp_path / LATIN / NUMBERS).read_bytes().decode("utf-8"))
    assert (there["photo"], there["skipped"]) == (LATIN, [LATIN, FORGED])
    assert (tmp_path / LATIN / f"{LATIN}.csv").read_bytes().decode("utf-8")


def test_a_folder_of_such_names_is_listed_and_stored(tmp_path: Path) -> None:
    folder = tmp_path / LATIN
    names = [f"{i}{LATIN}.png" for i in range(2)]
    for name in names:
        folder.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(folder / name, "PNG")
    described = folders.described_folder(folder)
    assert (described["name"], described["files"]) == (LATIN, 2)

    place = folder / "store"
    one = {"maps": jax.ShapeDtypeStruct((2,), "float32")}
    stores.create_store(place, origin={"folder": LATIN}, names=names, results=one)
    with stores.Writer(place) as writer:
        writer.write([0], {"maps": [np.ones(2)]})
        writer.broken(1, FORGED)
    stores.check_store(place, origin={"folder": LATIN}, names=names, results=one)
    found = stores.open_store(place)
    assert found.names == tuple(names) and found.broken == {names[1]: FORGED}
    assert np.asarray(found.arrays["maps"][0]).tolist() == [1, 1]
    for path in (place / stores.MANIFEST, *place.glob("journal-*")):
        path.read_bytes().decode("utf-8")

    state = State(np.asarray(3, np.int32), np.arange(2, dtype=np.float32))
    save(folder / "state", state, {"photo": LATIN})
    assert restore(folder / "state", state).values.tolist() == [0, 1]


# Pictures and pages ---------------------------------------------------------------------


def test_names_in_sheets_and_pages_are_spelled(tmp_path: Path) -> None:
    blank = np.ones((40, 60, 3))
    np.testing.assert_array_equal(caption(blank, "\udce9\x1b"), caption(blank, r"\xe9\x1b"))
    np.testing.assert_array_equal(bar_chart(["\udce9"], {"p": [1.0]}), bar_chart([r"\xe9"], {"p": [1.0]}))

    write_image(tmp_path / "a.png", blank)
    evil = FORGED + "<script>alert(1)</script>`code` [link](https://example.org)\n\nanother paragraph"
    picture = Picture("a.png", evil, evil)
    figure = Figure("one", evil, f"It is {literal(evil)}.", [picture])
    write_page(tmp_path / "index.html", evil, {evil: [figure]}, [Comparison(evil, [picture, picture])])
    page = (tmp_path / "index.html").read_bytes().decode("utf-8")
    assert page.replace("\n", "").isprintable()
    assert "<script>alert" not in page and "<code>code" not in page and 'href="https://example' not in page
    assert "`code` [link](https://example.org)" in page
    assert "<p>another paragraph" not in page
