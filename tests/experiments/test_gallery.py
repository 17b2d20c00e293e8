"""All figures by one command, and the page that shows them."""

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from experiments import gallery
from vizsynth.files import write_image

experiments = importlib.import_module("experiments.__main__")
Figure = experiments.Figure
HERE = Path(gallery.__file__).parent
NOT_FIGURES = {"__init__", "__main__", "attributions", "figure", "gallery", "photo_crops", "training"}
NOT_FIGURES |= {"style_pictures", "stylizer_photos", "stylizer_training"}
NOT_FIGURES |= {"feature_decoder", "planted_network"}  # what they train lies in the repository


def test_every_script_is_on_the_page() -> None:
    scripts = {path.stem for path in HERE.glob("*.py")} - NOT_FIGURES
    assert {f.name for theme in experiments.THEMES.values() for f in theme} == scripts
    assert set(experiments.LONG) <= scripts


def test_a_script_consists_of_what_it_imports() -> None:
    assert {p.stem for p in experiments.sources("embedding")} == {
        *("embedding", "figure", "nearest_neighbors", "photo_crops", "planted_network", "training"),
    }


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Scripts of two figures in place of the real ones; one fails."""
    folder = tmp_path / "scripts" / "experiments"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "good.py").write_text(
        "import sys; from pathlib import Path; import numpy as np\n"
        "from PIL import Image\n"
        "out = Path(sys.argv[sys.argv.index('--out') + 1])\n"
        "Image.fromarray(np.zeros((4, 9, 3), np.uint8)).save(out / 'a_picture.png')\n"
        "(out / 'good.json').write_text('{}'); (out / 'caption.md').write_text('A <b> (Doe, 2016). More.')\n"
        "print('made', *sys.argv[1:])\n"
    )
    (folder / "bad.py").write_text("print('begun'); raise SystemExit('it went wrong')\n")
    themes = {
        "One": (Figure("good", "What is good"), Figure("bad", "What is bad")),
        "Two": (Figure("unknown", "Unknown", ("no_such_module",)),),
    }
    monkeypatch.setattr(experiments, "THEMES", themes)
    monkeypatch.setattr(experiments, "HERE", folder)
    monkeypatch.chdir(folder.parent)
    return folder


def test_failures_keep_nothing_else_from_being_made(
    scripts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert experiments.run(out, quick=True, seed=3) == 1
    told = capsys.readouterr()
    assert "[2/3] bad: FAILED" in told.out
    assert "left out, it needs no_such_module" in told.out
    assert "failed: bad: it went wrong" in told.err
    assert (out / "good" / "log.txt").read_text().split()[:4] == ["made", "--quick", "--seed", "3"]
    page = (out / "index.html").read_text()
    assert "What is good" in page
    assert "What is bad" not in page
    assert "A &lt;b&gt; (Doe, 2016)." in page


def test_only_what_has_changed_is_made_again(
    scripts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    experiments.run(out, ["good"])
    capsys.readouterr()
    experiments.run(out, ["good"])
    assert "good: there already" in capsys.readouterr().out
    experiments.run(out, ["good"], seed=1)
    assert "there already" not in capsys.readouterr().out
    (scripts / "good.py").write_text((scripts / "good.py").read_text() + "\n# changed\n")
    experiments.run(out, ["good"], seed=1)
    assert "there already" not in capsys.readouterr().out
    (out / "good" / "made.json").unlink()  # it was killed
    experiments.run(out, ["good"], seed=1)
    assert "there already" not in capsys.readouterr().out


def test_a_misspelt_name_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["experiments", "deepdraem"])
    with pytest.raises(SystemExit, match="2"):
        experiments.main()
    assert "there is no figure deepdraem" in capsys.readouterr().err


def test_the_page_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_image(tmp_path / name / "part_of-it.png", np.zeros((5, 7, 3)))
        (tmp_path / name / "caption.md").write_text("Said by `code` & [a link](https://example.org/x). More.")
        (tmp_path / name / "made.json").write_text(json.dumps({"command": f"python {name}", "seconds": 2}))
    entries = [gallery.Entry("one", "One"), gallery.Entry("two", "Two"), gallery.Entry("three", "Three")]
    page = gallery.build(tmp_path, {"All": entries}).read_text()
    shown = re.findall(r'<img src="([^"]+)" alt="([^"]+)" width="7" height="5"', page)
    assert [path for path, _ in shown] == ["one/part_of-it.png", "two/part_of-it.png"]
    assert all(alt.startswith(("One, part of it: ", "Two, part of it: ")) for _, alt in shown)
    assert '<code>code</code> &amp; <a href="https://example.org/x">a link</a>' in page
    assert not re.findall(r'(?:src|href)="(?:https?:)?//(?!example)', page)
    assert "Three" not in page
    assert set(re.findall(r'href="#([^"]+)"', page)) == set(re.findall(r'<section id="([^"]+)"', page))


def test_photos_that_several_figures_explain_are_compared_once(tmp_path: Path) -> None:
    def lay(name: str, of: str, size: tuple[int, int], **labels: str) -> None:
        folder = tmp_path / name / "compare" / of
        for stem in labels:
            write_image(folder / f"{stem}.png", np.zeros((*size, 3)))
        (folder / "labels.json").write_text(json.dumps(labels))
        (tmp_path / name / "caption.md").write_text("Said.")
        (tmp_path / name / "made.json").write_text(json.dumps({"command": f"python {name}", "seconds": 2}))

    lay("one", "cat", (5, 7), photo="the photo", saliency="saliency")
    lay("one", "dog", (5, 7), photo="the photo", saliency="saliency")
    lay("two", "cat", (5, 7), photo="the photo", lrp="LRP", other="saliency")
    lay("three", "cat", (6, 8), photo="the photo", lrp="LRP")
    entries = [gallery.Entry(name, name.title()) for name in ("one", "two", "three")]
    found = {c.title: [(p.path, p.label) for p in c.layers] for c in gallery.comparisons(tmp_path, entries)}
    assert found == {
        "cat, 7x5": [
            ("one/compare/cat/photo.png", "the photo"),
            ("one/compare/cat/saliency.png", "saliency"),
            ("two/compare/cat/lrp.png", "LRP"),
            ("two/compare/cat/other.png", "saliency (Two)"),
        ],
        "dog": [("one/compare/dog/photo.png", "the photo"), ("one/compare/dog/saliency.png", "saliency")],
        "cat, 8x6": [("three/compare/cat/photo.png", "the photo"), ("three/compare/cat/lrp.png", "LRP")],
    }
    page = gallery.build(tmp_path, {"All": entries}).read_text()
    assert page.count('<option value="') == 3


def test_rows_lead_to_their_figures(tmp_path: Path) -> None:
    write_image(tmp_path / "one" / "a.png", np.zeros((5, 7, 3)))
    (tmp_path / "one" / "caption.md").write_text("Said.")
    (tmp_path / "one" / "made.json").write_text(json.dumps({"command": "python one", "seconds": 2}))
    entries = [gallery.Entry("one", "One", ("S1", "B2")), gallery.Entry("two", "Two", ("S2",))]
    rows = {"S1": "this & that", "S2": "another", "B2": "more"}
    page = gallery.build(tmp_path, {"All": entries}, rows=rows).read_text()
    listed = re.findall(r'<th scope="row">(\w+)</th><td>([^<]+)</td>\s*<td>(?:<a href="#(\w+)">|not)', page)
    assert listed == [("S1", "this &amp; that", "one"), ("S2", "another", ""), ("B2", "more", "one")]


REAL = ("classification", "filters", "fooling")


def begin(out: Path, *names: str) -> subprocess.Popen[str]:
    """Begin to make real figures, in a group of processes of its own."""
    command = [sys.executable, "-m", "experiments", *names, "--quick", "--jobs", "1", "--out", str(out)]
    return subprocess.Popen(
        command, cwd=HERE.parent, stdout=subprocess.PIPE, text=True, start_new_session=True
    )


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was_and_a_seed_gives_the_same_pictures(tmp_path: Path) -> None:
    killed = begin(tmp_path / "killed", *REAL)
    assert killed.stdout is not None
    for line in killed.stdout:
        if line.startswith("[2/3]"):
            break
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    killed.stdout.close()
    made = {path.parent.name: path.stat().st_mtime_ns for path in (tmp_path / "killed").glob("*/made.json")}
    assert len(made) == 2

    told, _ = begin(tmp_path / "killed", *REAL).communicate()
    assert told.count("there already") == 2 and "making 1," in told
    again = {path.parent.name: path.stat().st_mtime_ns for path in (tmp_path / "killed").glob("*/made.json")}
    assert set(again) == set(REAL) and made.items() <= again.items()

    begin(tmp_path / "whole", *REAL).communicate()
    pictures = sorted(path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*.png"))
    assert len(pictures) > 3
    for path in pictures:
        assert (tmp_path / "killed" / path).read_bytes() == (tmp_path / "whole" / path).read_bytes(), path


@pytest.mark.parametrize("theirs", ["index.html", "good/notes.txt", "good/made.json", "figures.json"])
def test_what_is_not_of_the_figures_is_refused_before_anything_is_made(
    scripts: Path,
    tmp_path: Path,
    theirs: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "out" / theirs
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    monkeypatch.setattr(sys, "argv", ["experiments", "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="2"):
        experiments.main()
    assert "another" in capsys.readouterr().err
    assert path.read_text() == "mine"
    assert [p for p in (tmp_path / "out").rglob("*") if p.is_file()] == [path]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_asks_to_stop_ends_the_scripts_too(
    scripts: Path, tmp_path: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    (scripts / "good.py").write_text("import time; print('begun', flush=True); time.sleep(600)")
    stopped: list[object] = []
    stop = experiments.Runner.stop

    def stopping(runner: object) -> None:
        stopped.extend(runner.running)
        stop(runner)

    def asked(tasks: object) -> None:
        log = tmp_path / "good" / "log.txt"
        while not log.exists() or "begun" not in log.read_text():
            time.sleep(0.01)
        signal.raise_signal(number)

    monkeypatch.setattr(experiments.Runner, "stop", stopping)
    monkeypatch.setattr(experiments, "as_completed", asked)
    monkeypatch.setattr(sys, "argv", ["experiments", "good", "--out", str(tmp_path)])
    assert experiments.main() == 128 + number
    assert [process.wait() for process in stopped] == [-signal.SIGTERM]
