"""`vizsynth report`: everything about a photo and a network, on one page, part by part."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import jax.numpy as jnp
import numpy as np
import pytest
from command_line import PHOTOS, Run, complaint, tree
from PIL import Image

import vizsynth
from vizsynth.cli import common
from vizsynth.cli.commands import report
from vizsynth.cli.methods import METHODS
from vizsynth.cli.output import OutputFolder
from vizsynth.cli.report import made as reporting
from vizsynth.planted import WEIGHTS

QUICK = ("--quick", "--size", "64", "--network", str(WEIGHTS))  # small: its programs compile soon
TINY = reporting.SMALL._replace(
    methods=("saliency", "occlusion", "cam", "grad-cam"), curve_steps=2, channels=2, feature_side=33,
    feature_steps=2, dream_side=64, octaves=1, dream_steps=1, inverted=1, inversion_steps=2,
)  # fmt: skip


@pytest.fixture(autouse=True)
def tiny_effort(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "SMALL", TINY)


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have a part fail, by Ctrl-C unless it is said how."""

    def stop(*names: str, by: type[BaseException] = KeyboardInterrupt) -> None:
        def raising(*_: Any) -> Any:
            raise by

        for name in names:
            monkeypatch.setitem(reporting.KINDS, name, reporting.KINDS[name]._replace(make=raising))

    return stop


def read(out: Path) -> dict[str, Any]:
    return json.loads((out / "numbers.json").read_text())


def test_a_page_shows_all_that_is_made(run: Run, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = run("report", photo, "-o", out, *QUICK, "-q")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines()[-1].endswith(f"the page: {out / 'index.html'}")
    record = read(out)
    assert record["finished"]
    assert tree(out) == sorted(record["files"])
    assert list(record["parts"]) == list(reporting.KINDS)
    page = (out / "index.html").read_text()
    for path in re.findall(r'(?:src|href)="([^"#:]+)"', page):
        assert (out / unquote(path)).is_file(), path
    names = list(TINY.methods)
    compared = json.loads(re.search(r'id="compared">(.*?)</script>', page)[1])  # type: ignore[index]
    assert [layer["label"] for layer in compared[0]["layers"]] == ["the photo", *names]
    for name in ("photo.png", *map(reporting.map_file, names)):
        with Image.open(out / name) as picture:
            assert picture.size == (96, 64)  # as large as the photo
    assert record["versions"]["vizsynth"] in page
    top = record["parts"]["classes"]["numbers"]["classes"][0]
    assert f'<th scope="row">{top["name"]}</th>' in page
    assert "Not made yet" not in page
    assert "<title>cat.jpg by network.safetensors</title>" in page
    assert str(WEIGHTS.parent) not in page


def test_the_bar_knows_every_step(
    run: Run, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    announced, begun = [], []

    @contextmanager
    def recorded(what: str, steps: list[str], quiet: bool) -> Iterator[Callable[[str], None]]:
        announced.extend(steps)
        yield begun.append

    monkeypatch.setattr(common, "progress", recorded)
    assert run("report", photo, "-o", tmp_path / "out", *QUICK).code == 0
    assert begun == announced
    assert len(set(begun)) == len(begun)  # the bar goes by the name


def test_numbers_are_those_of_the_library(run: Run, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = run("report", photo, "-o", out, *QUICK, "-q", "--json", "-t", "7", "--inside", "conv3")
    record = json.loads(ran.out)
    assert {name: value for name, value in record.items() if name != "out"} == read(out)
    parts = {name: part["numbers"] for name, part in record["parts"].items()}
    net = vizsynth.load(str(WEIGHTS))
    image = vizsynth.files.read_image(photo, 64)[None]
    assert parts["classes"]["target"]["label"] == 7
    saliency = vizsynth.saliency(net, image, 7)
    with np.load(out / "maps.npz") as maps:
        np.testing.assert_allclose(maps["saliency"], saliency[0], rtol=1e-4, atol=1e-6)
    scores = parts["faithfulness"]["scores"]
    wanted = vizsynth.insertion(net, image, 7, saliency, steps=2).area
    assert scores["saliency"]["insertion"] == pytest.approx(float(wanted[0]), abs=1e-4)
    differences = [
        scores[name]["insertion"] - scores[name]["deletion"] for name in parts["faithfulness"]["order"]
    ]
    assert differences == sorted(differences, reverse=True)

    hidden = parts["occlusion"]
    top, left, bottom, right = hidden["square"]
    covered = image.at[:, top:bottom, left:right].set(0.5)
    softmax = jnp.exp(net(covered)[0] - jnp.max(net(covered)[0]))
    assert hidden["hidden"] == pytest.approx(float(softmax[7] / softmax.sum()), rel=1e-3)
    assert (
        hidden["before"] - hidden["hidden"] >= hidden["largest_mean_drop"] - 1e-6
    )  # one is at least the mean

    answers = vizsynth.features(net, image, ["conv3"])["conv3"][0]
    means = np.asarray(jnp.maximum(answers, 0).mean(axis=(0, 1)))
    channels = parts["channels"]["channels"]
    assert [one["channel"] for one in channels] == np.argsort(-means)[:2].tolist()
    for one in channels:
        place = np.unravel_index(int(answers[..., one["channel"]].argmax()), answers.shape[:2])
        box = vizsynth.receptive_field(net, "conv3", (*map(int, place), one["channel"]), (64, 96))
        assert one["boxes"][0] == list(box)


def test_what_is_interrupted_is_shown_and_gone_on_with(
    run: Run, photo: Path, other_photo: Path, tmp_path: Path, stop_at: Callable[..., None]
) -> None:
    out = tmp_path / "out"
    stop_at("faithfulness")
    stopped = run("report", photo, "-o", out, *QUICK, "-q")
    assert stopped.code == 130
    assert f"interrupted at faithfulness; {out / 'index.html'} shows what there is, --resume" in stopped.err
    assert not read(out)["finished"]
    assert tree(out) == sorted(read(out)["files"])
    page = (out / "index.html").read_text()
    assert "Not made yet: are the maps faithful?, the channels that answer most" in page
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}

    assert "--resume goes on with it" in complaint(run("report", photo, "-o", out, *QUICK))
    other = complaint(run("report", photo, "-o", out, *QUICK, "--resume", "--seed", "3"))
    assert "seed: 0 there, 3 now" in other
    assert "photo" in complaint(run("report", other_photo, "-o", out, *QUICK, "--resume"))
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_only_what_is_missing_is_made(
    run: Run, photo: Path, tmp_path: Path, stop_at: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    arguments = ("report", photo, "-o", out, *QUICK, "-q")
    kinds = dict(reporting.KINDS)
    stop_at("faithfulness")
    assert run(*arguments).code == 130
    for name, kind in kinds.items():
        monkeypatch.setitem(reporting.KINDS, name, kind)
    stop_at("classes", "maps", "occlusion", by=AssertionError)
    assert run(*arguments, "--resume").code == 0
    assert read(out)["finished"]
    scores = read(out)["parts"]["faithfulness"]["numbers"]

    (out / "dream.png").unlink()
    stop_at("faithfulness", "channels", "inversion", by=AssertionError)
    assert run(*arguments, "--resume").code == 0
    assert (out / "dream.png").is_file()

    (out / "index.html").unlink()
    stop_at("dream", by=AssertionError)
    assert run(*arguments, "--resume").code == 0
    assert (out / "index.html").is_file()
    for name, kind in kinds.items():
        monkeypatch.setitem(reporting.KINDS, name, kind)
    assert run(*arguments).code == 0  # it is done: the same command may make it anew
    assert read(out)["parts"]["faithfulness"]["numbers"] == scores


def test_nothing_of_others_is_replaced(run: Run, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "index.html").write_text("mine")
    assert "--overwrite" in complaint(run("report", photo, "-o", out, *QUICK))
    assert tree(out) == ["index.html"]
    assert (out / "index.html").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("gone.jpg",), "gone.jpg"),
        (("PHOTO", "--resume"), "holds no report to go on with"),
        (("PHOTO", "--layer", "logits"), "logits has no maps; there are conv1, "),
        (("PHOTO", "--inside", "fire99"), "fire99"),
        (("PHOTO", "--target", "qwertz"), "qwertz"),
        (("PHOTO", "--network", "vgg99"), "vgg99"),
    ],
)
def test_what_cannot_be_is_told_in_a_line(
    run: Run, photo: Path, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    typed = [str(photo) if one == "PHOTO" else one for one in arguments]
    assert said in complaint(run("report", *QUICK, *typed, "-o", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_whole_report_names_the_cat(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vizsynth", "report", str(PHOTOS / "chelsea.jpg")]
    environment = os.environ | {"VIZSYNTH_CACHE": str(tmp_path / "cache")}
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    out = tmp_path / "out" / "chelsea-report"
    record = read(out)
    assert "cat" in record["parts"]["classes"]["numbers"]["target"]["name"]
    assert list(record["parts"]["faithfulness"]["numbers"]["scores"].keys()) == list(METHODS)
    errors = list(record["parts"]["inversion"]["numbers"]["errors"].values())
    assert errors == sorted(errors)  # deeper layers know less
    for channel in range(1, 7):
        with Image.open(out / f"channel-{channel}.png") as picture:
            assert np.asarray(picture).std() > 10  # not grey


def test_what_asks_to_stop_and_what_is_not_ours(
    run: Run, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopping(*_: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)

    out = tmp_path / "out"
    monkeypatch.setitem(reporting.KINDS, "maps", reporting.KINDS["maps"]._replace(make=stopping))
    ran = run("report", photo, "-o", out, *QUICK, "-q")
    assert ran.code == 143 and "interrupted at maps; " in ran.err
    (out / "maps.png").write_text("mine")
    assert "(maps.png)" in complaint(run("report", photo, "-o", out, *QUICK, "--resume"))
    assert (out / "maps.png").read_text() == "mine"


PAGE = {"shown": [], "compared": [], "caption": "", "table": None}


@pytest.mark.parametrize(
    ("changes", "there"),
    [
        ({}, True),
        ({"files": ["../secret.png"]}, False),
        ({"files": ["link.png"]}, False),
        ({"files": ["other.png"]}, False),
        ({"files": None}, False),
        ({"page": PAGE | {"shown": [["../secret.png", "a", "b"]]}}, False),
        ({"page": PAGE | {"compared": [["/etc/passwd", "a", "b"]]}}, False),
        ({"page": {}}, False),
        ({"page": PAGE | {"caption": 3}}, False),
    ],
)
def test_a_part_shows_files_of_its_report_alone(tmp_path: Path, changes: dict[str, Any], there: bool) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in ("secret.png", "out/a.png", "out/other.png"):
        (tmp_path / name).write_bytes(b"")
    (out / "link.png").symlink_to(tmp_path / "secret.png")
    part = {"files": ["a.png"], "numbers": {}, "seconds": 1.0, "page": PAGE} | changes
    record = {"command": "report", "seed": 0, "finished": False, "parts": {"maps": part, "unknown": part}}
    (out / "numbers.json").write_text(json.dumps(record))
    folder = OutputFolder(out, {"command": "report"})
    wanted = {"command": "report", "seed": 0}
    found = report._earlier(folder, wanted, {"maps": ["a.png", "link.png"]}, resume=True)
    assert list(found) == (["maps"] if there else [])
