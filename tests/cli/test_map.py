"""`vizsynth map`: each image of a folder once, in a store that can be stopped, killed and shared."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from command_line import Ran, Run, complaint, tree
from PIL import Image

import vizsynth
from vizsynth import stores
from vizsynth.cli.commands import map as mapping
from vizsynth.files import read_pixels
from vizsynth.planted import WEIGHTS

NET = ("--network", str(WEIGHTS), "--size", "64", "--layer", "relu4")
QUICK = (*NET, "--batch-size", "4", "-q")
GOOD = ["0.png", "1.png", "10.png", "2.png", "3.png", "4.png", "5.png", "6.png", "7.png", "8.png", "9.png"]


def fill(folder: Path, count: int) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (44, 40 + i % 7, 3), np.uint8)).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eleven pictures, and two files that are none."""
    folder = fill(tmp_path / "pictures", 11)
    (folder / "1b.png").write_bytes((folder / "1.png").read_bytes()[:100])
    (folder / "9.jpg").write_text("no picture")
    return folder


def expected(folder: Path, names: list[str], target: int | None = None) -> dict[str, np.ndarray]:
    net = vizsynth.load(str(WEIGHTS))
    images = jnp.stack([read_pixels(folder / name, (64, 64)) for name in names])
    labels = np.asarray(net(images).argmax(-1)) if target is None else np.full(len(names), target)
    return {
        "labels": labels,
        "gradient": np.asarray(vizsynth.gradient(net, images, labels)),
        "grad-cam": np.asarray(vizsynth.grad_cam(net, images, labels, layer="relu4")),
    }


def check(store: Path, wanted: dict[str, np.ndarray], names: list[str]) -> None:
    stored = stores.open_store(store)
    places = [stored.names.index(name) for name in names]
    assert np.flatnonzero(stored.done).tolist() == places
    for name, array in stored.arrays.items():
        found = np.asarray(array)[places]
        scale = max(float(np.abs(wanted[name]).max()), 1e-6)
        np.testing.assert_allclose(found / scale, wanted[name] / scale, atol=1e-5)


# What it makes -----------------------------------------------------------------------


def test_every_image_has_its_map_and_broken_ones_their_reason(run: Run, folder: Path, tmp_path: Path) -> None:
    ran = run("map", folder, *NET, "--batch-size", "4", "-m", "gradient,grad-cam", "-o", tmp_path / "out")
    assert ran.code == 0, ran.err
    assert "11 images, 2 that cannot be read; 11 of them here" in ran.out and "a second" in ran.out
    assert "open_store(" in ran.out
    assert "1b.png" in ran.err and "9.jpg" in ran.err
    check(tmp_path / "out", expected(folder, GOOD), GOOD)
    stored = stores.open_store(tmp_path / "out")
    assert sorted(stored.broken) == ["1b.png", "9.jpg"]
    assert stored.origin["methods"] == {"gradient": {}, "grad-cam": {}}
    numbers = json.loads((tmp_path / "out" / "numbers.json").read_text())
    assert numbers["images"] == 11 and len(numbers["skipped"]) == 2
    assert numbers["files"] == ["manifest.json", *sorted(stored.arrays), "numbers.json"]
    assert numbers["arrays"]["gradient"] == {"shape": [13, 64, 64, 3], "dtype": "float32"}


def test_a_class_is_explained_and_class_folders_are_gone_into(run: Run, tmp_path: Path) -> None:
    (tmp_path / "classes").mkdir()
    for name in ("b", "a-1", "a"):  # by name "a-1/0.png" comes before "a/0.png"
        fill(tmp_path / "classes" / name, 2)
    ran = run("map", tmp_path / "classes", *QUICK, "--target", "3", "-o", tmp_path / "out", "--json")
    assert (ran.code, ran.err) == (0, "")
    found = json.loads(ran.out)
    assert found["target"] == 3 and list(found["methods"]) == ["grad-cam"]
    names = ["a-1/0.png", "a-1/1.png", "a/0.png", "a/1.png", "b/0.png", "b/1.png"]
    assert list(stores.open_store(tmp_path / "out").names) == names
    check(tmp_path / "out", expected(tmp_path / "classes", names, 3), names)


def test_two_processes_share_the_work(run: Run, folder: Path, tmp_path: Path) -> None:
    """The first to come does all that is missing; the second finds nothing left, and says so."""
    for process in (0, 1):
        ran = run("map", folder, *QUICK, "--processes", 2, "--process", process, "-o", tmp_path / "out")
        assert ran.code == 0, ran.err
        assert ("of them here" in ran.out) == (process == 0)
    check(tmp_path / "out", expected(folder, GOOD), GOOD)


def test_all_devices_of_a_process_share_its_batches(folder: Path, tmp_path: Path) -> None:
    given = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    command = [
        sys.executable,
        "-m",
        "vizsynth",
        "map",
        str(folder),
        *QUICK,
        "--json",
        "-o",
        tmp_path / "four",
    ]
    ran = subprocess.run(command, capture_output=True, text=True, env=given)
    assert (ran.returncode, ran.stderr) == (0, "")
    check(tmp_path / "four", expected(folder, GOOD), GOOD)
    command[command.index("--batch-size") + 1] = "6"
    ran = subprocess.run([*command[:-1], tmp_path / "none"], capture_output=True, text=True, env=given)
    assert "multiple of the 4 devices" in complaint(Ran(ran.returncode, ran.stdout, ran.stderr))
    assert not (tmp_path / "none").exists()


# Stopped and resumed -----------------------------------------------------------------


@pytest.fixture
def stopped(run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store that was stopped by SIGTERM after its first batch."""
    write = stores.Writer.write

    def interrupted(self: Any, *args: Any) -> None:
        write(self, *args)
        signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(stores.Writer, "write", interrupted)
        ran = run("map", folder, *QUICK, "-o", tmp_path / "out")
    assert ran.code == 143
    assert "--resume goes on" in ran.err and "Traceback" not in ran.err
    assert int(stores.open_store(tmp_path / "out").done.sum()) == 4
    return tmp_path / "out"


def test_what_was_stopped_goes_on(run: Run, folder: Path, tmp_path: Path, stopped: Path) -> None:
    ran = run("map", folder, *QUICK, "-o", stopped, "--resume")
    assert ran.code == 0, ran.err
    assert "11 images, 2 that cannot be read; 7 of them here" in ran.out
    assert run("map", folder, *QUICK, "-o", tmp_path / "whole").code == 0
    ours, whole = stores.open_store(stopped), stores.open_store(tmp_path / "whole")
    assert (ours.done == whole.done).all() and ours.broken == whole.broken
    for name in whole.arrays:
        np.testing.assert_array_equal(np.asarray(ours.arrays[name]), np.asarray(whole.arrays[name]))
    ran = run("map", folder, *QUICK, "-o", stopped, "--resume")  # there is nothing left
    assert ran.code == 0 and "of them here" not in ran.out


def test_a_mended_file_is_done_by_resuming(run: Run, folder: Path, stopped: Path) -> None:
    (folder / "1b.png").write_bytes((folder / "1.png").read_bytes())
    assert run("map", folder, *QUICK, "-o", stopped, "--resume").code == 0
    there = stores.open_store(stopped)
    assert list(there.broken) == ["9.jpg"]
    maps = np.asarray(there.arrays["grad-cam"])
    np.testing.assert_array_equal(maps[there.names.index("1b.png")], maps[there.names.index("1.png")])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--resume goes on with it, --overwrite begins anew"),
        (("--resume", "-m", "gradient"), "methods.gradient is null there"),
        (("--resume", "--target", "3"), 'target is "top" there, 3 now'),
        (("--resume", "--size", "63"), "size is 64 there, 63 now"),
        (("--resume", "--layer", "relu3"), 'layer is "relu4" there, "relu3" now'),
        (("--resume", "--overwrite"), "--overwrite does not go with --resume"),
        (("--overwrite", "--processes", "2"), "--overwrite does not go with several processes"),
        (("--processes", "2", "--process", "1", "--target", "3"), "holds another run"),
    ],
)
def test_a_store_of_another_run_is_refused_and_stays(
    run: Run, folder: Path, stopped: Path, arguments: tuple[str, ...], message: str
) -> None:
    before = {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
    assert message in complaint(run("map", folder, *QUICK, "-o", stopped, *arguments))
    assert {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()} == before


def test_another_network_is_refused(run: Run, folder: Path, stopped: Path) -> None:
    given = ("--size", "64", "--layer", "fire2", "-q", "-o", stopped, "--resume")
    refused = complaint(run("map", folder, *given))
    assert "network is " in refused and "weights is " in refused


def test_other_files_are_refused(run: Run, folder: Path, stopped: Path) -> None:
    (folder / "1.png").rename(folder / "x.png")
    refused = complaint(run("map", folder, *QUICK, "-o", stopped, "--resume"))
    assert "1 added (x.png), 1 removed (1.png)" in refused and "restore them" in refused


def test_overwriting_begins_anew_and_leaves_what_is_not_the_stores(
    run: Run, folder: Path, stopped: Path
) -> None:
    (stopped / "mine.txt").write_text("mine")
    assert run("map", folder, *QUICK, "-m", "saliency", "-o", stopped, "--overwrite").code == 0
    there = stores.open_store(stopped)
    assert sorted(there.arrays) == ["labels", "saliency"] and there.done.sum() == 11
    assert not (stopped / "grad-cam").exists() and (stopped / "mine.txt").exists()


def test_a_manifest_that_names_anothers_folder_removes_nothing(
    run: Run, folder: Path, tmp_path: Path, stopped: Path
) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "data.txt").write_text("precious")
    record = json.loads((stopped / "manifest.json").read_text())
    record["arrays"]["../victim"] = record["arrays"].pop("grad-cam")
    (stopped / "manifest.json").write_text(json.dumps(record))
    before = tree(tmp_path)
    for more in ((), ("--overwrite",), ("--resume",)):
        complaint(run("map", folder, *QUICK, "-o", stopped, *more))
    assert tree(tmp_path) == before and (victim / "data.txt").read_text() == "precious"


def test_folders_and_numbers_of_others_stay(run: Run, folder: Path, stopped: Path) -> None:
    (stopped / "saliency").mkdir()
    asked = ("map", folder, *QUICK, "-o", stopped)
    assert "saliency is a folder" in complaint(run(*asked, "-m", "saliency", "--overwrite"))
    (stopped / "numbers.json").write_text("mine")
    assert "numbers.json" in complaint(run(*asked, "--resume"))
    assert (stopped / "numbers.json").read_text() == "mine" and (stopped / "grad-cam").exists()


def test_a_full_disk_is_one_line_and_resuming_goes_on(
    run: Run, folder: Path, stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(stores.Writer, "write", full)
        line = complaint(run("map", folder, *QUICK, "-o", stopped, "--resume"), code=1)
    assert "the disk is full" in line and "--resume goes on" in line
    assert run("map", folder, *QUICK, "-o", stopped, "--resume").code == 0


# Mistakes ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--resume",), "holds no run that was stopped; leave out --resume"),
        (("--resume", "--processes", "2", "--process", "1"), "holds no run that was stopped"),
        (("-m", "grad-kam"), "did you mean"),
        (("--layer", "relu99"), "relu99"),
        (("--layer", "logits"), "logits"),
        (("--target", "11111"), "11111"),
        (("--size", "20"), "--size"),
        (("--batch-size", "0"), "--batch-size"),
        (("--processes", "2", "--process", "2"), "--process must be one of 0..1"),
        (("--process", "1"), "--process must be one of 0..0"),
        (("--network", "resnet81"), "resnet81"),
        (("--network", "squeezenet1_1", "--weights", "no.safetensors"), "no.safetensors"),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_written(
    run: Run, folder: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    assert message in complaint(run("map", folder, *QUICK, "-o", tmp_path / "out", *arguments))
    assert not (tmp_path / "out").exists()


def test_folders_that_cannot_be(run: Run, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "empty").mkdir()
    for what in ("empty", "absent", "pictures/1.png"):
        assert what in complaint(run("map", tmp_path / what, *QUICK, "-o", out))
    bad = tmp_path / "bad"
    bad.mkdir()
    for i in range(3):
        (bad / f"{i}.png").write_text("no picture")
    assert "none of the 3 images" in complaint(run("map", bad, *QUICK, "-o", out))
    assert not out.exists()
    assert "is not a folder" in complaint(run("map", folder, *QUICK, "-o", folder / "1.png" / "x"))


def test_nobody_begins(run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapping, "PATIENCE", 0.1)
    given = ("--processes", "2", "--process", "1", "-o", tmp_path / "out")
    assert "start process 0" in complaint(run("map", folder, *QUICK, *given))
    assert not (tmp_path / "out").exists()


def test_without_tensorstore(run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = mapping.common.find_spec
    monkeypatch.setattr(mapping.common, "find_spec", lambda n: None if n == "tensorstore" else find(n))
    told = complaint(run("map", folder, *QUICK, "-o", tmp_path / "out"), code=1)
    assert "pip install 'vizsynth[store]'" in told


def test_cam_needs_its_network(run: Run, folder: Path, tmp_path: Path) -> None:
    arguments = ("-n", "squeezenet1_1", "-m", "cam", "--size", "64", "-q", "-o", tmp_path / "out")
    assert run("map", folder, *arguments, "--batch-size", "8").code == 0
    stored = stores.open_store(tmp_path / "out")
    assert sorted(stored.arrays) == ["cam", "labels"]
    assert tree(tmp_path / "out").count("numbers.json") == 1


# Killed ------------------------------------------------------------------------------


def started(folder: Path, out: Path, *arguments: object) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "vizsynth",
        "map",
        folder,
        *QUICK,
        "-m",
        "gradient",
        "-o",
        out,
        *arguments,
    ]
    return subprocess.Popen(
        [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def ended(process: subprocess.Popen[str]) -> Ran:
    out, err = process.communicate(timeout=120)
    return Ran(process.returncode, out, err)


@pytest.mark.slow
@pytest.mark.parametrize("survivor", [True, False], ids=["one lives on", "all die"])
def test_a_killed_process_loses_nothing(
    tmp_path: Path, survivor: bool, request: pytest.FixtureRequest
) -> None:
    folder = fill(tmp_path / "pictures", 300)
    (folder / "7b.png").write_text("no picture")
    assert ended(started(folder, tmp_path / "whole")).code == 0

    out = tmp_path / "out"
    both = [started(folder, out, "--processes", 2, "--process", i) for i in range(2)]
    for process in both:
        request.addfinalizer(process.communicate)
        request.addfinalizer(process.kill)
    draw = random.Random(os.getpid())
    least = draw.randrange(8, 100)
    until = time.monotonic() + 120
    while not stores.has_store(out) or stores.open_store(out).done.sum() < least:
        assert time.monotonic() < until and both[0].poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    time.sleep(draw.random() / 10)
    for process in both[: 1 if survivor else 2]:
        process.kill()
    assert ended(both[0]).code == -signal.SIGKILL
    if survivor:
        assert ended(both[1]).code == 0
        assert stores.open_store(out).done.sum() == 300, "the other does what the killed one left"
    else:
        assert ended(both[1]).code == -signal.SIGKILL
        assert stores.open_store(out).done.sum() < 300
        ran = ended(started(folder, out, "--resume", "--processes", 1))  # another number than before
        assert ran.code == 0, ran.err

    ours, whole = stores.open_store(out), stores.open_store(tmp_path / "whole")
    assert ours.names == whole.names and (ours.done == whole.done).all() and ours.broken == whole.broken
    for name in whole.arrays:
        np.testing.assert_array_equal(np.asarray(ours.arrays[name]), np.asarray(whole.arrays[name]))
