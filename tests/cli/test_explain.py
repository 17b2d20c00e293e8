import json
import os
import pickle
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import jax
import numpy as np
import pytest
from command_line import PHOTOS, Run, complaint, tree
from PIL import Image

import vizsynth
from vizsynth import files
from vizsynth.cli import photos
from vizsynth.cli.commands import explain
from vizsynth.cli.methods import Method

SMALL = ("--size", "64", "--method", "saliency,grad-cam", "--layer", "fire5")  # compiles quickly
FILES = ["grad-cam-overlay.png", "grad-cam.png", "numbers.json", "saliency.png", "sheet.png"]


def test_a_newcomers_command_names_the_cat_twice_in_a_row(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vizsynth", "explain", str(PHOTOS / "chelsea.jpg"), "-o", "out"]
    environment = os.environ | {"VIZSYNTH_CACHE": str(tmp_path / "cache")}
    for _ in range(2):
        ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        assert "tabby cat (281)" in ran.stdout
        assert len(ran.stderr.splitlines()) == 1, ran.stderr  # that it compiles, and no noise
        assert tree(tmp_path / "out") == sorted([*FILES, "gradient.png"])
    with Image.open(tmp_path / "out" / "grad-cam-overlay.png") as overlay:
        assert overlay.size == (451, 300)  # as large as the photo
    numbers = json.loads((tmp_path / "out" / "numbers.json").read_text())
    assert [found["label"] for found in numbers["classes"][:3]] == [285, 281, 282]
    assert numbers["seen_at"] == {"height": 227, "width": 341}
    assert numbers["maps"]["saliency"]["shape"] == [227, 341]
    assert numbers["maps"]["gradient"]["min"] < 0 < numbers["maps"]["gradient"]["max"]


def test_numbers_agree_with_the_library(run: Run, photo: Path, tmp_path: Path) -> None:
    ran = run("explain", photo, "-o", tmp_path / "out", *SMALL, "--json", "-q")
    assert (ran.code, ran.err) == (0, "")
    numbers = json.loads(ran.out)
    assert numbers["files"] == [*FILES[3:4], "grad-cam.png", "grad-cam-overlay.png", "sheet.png", FILES[2]]
    written = json.loads((tmp_path / "out" / "numbers.json").read_text())
    assert {name: numbers[name] for name in written if name in numbers} == {
        name: value for name, value in written.items() if name in numbers
    }
    net = vizsynth.load("squeezenet1_1")
    image = vizsynth.files.read_image(photo, 64)
    label = int(jax.jit(lambda net, images: net(images))(net, image[None]).argmax())
    assert numbers["target"] == numbers["classes"][0]
    assert numbers["target"]["label"] == label
    expected = vizsynth.grad_cam(net, image[None], label, layer="fire5")
    np.testing.assert_allclose(numbers["maps"]["grad-cam"]["max"], float(expected.max()), rtol=1e-4)


def test_saliency_beside_the_gradient_is_no_second_gradient(
    run: Run, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("explain", photo, "--size", 64, "--json", "-q", "-m")
    alone = json.loads(run(*asked, "saliency", "-o", tmp_path / "alone").out)["maps"]["saliency"]
    monkeypatch.setattr(vizsynth, "saliency", None, raising=False)
    ran = run(*asked, "saliency,gradient", "-o", tmp_path / "both")
    assert ran.code == 0, ran.err
    both = json.loads(ran.out)["maps"]
    assert list(both) == ["saliency", "gradient"]
    assert both["saliency"]["shape"] == alone["shape"] == both["gradient"]["shape"][:2]
    np.testing.assert_allclose(both["saliency"]["max"], alone["max"], rtol=1e-5)
    np.testing.assert_allclose(both["saliency"]["min"], alone["min"], rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("typed", ["281", "tabby", "Tabby Cat"])
def test_a_class_is_a_name_or_a_number(run: Run, photo: Path, tmp_path: Path, typed: str) -> None:
    ran = run("explain", photo, "-o", tmp_path / "out", *SMALL, "-t", typed)
    assert ran.code == 0
    assert "explained: tabby cat (281)" in ran.out
    assert f"wrote into {tmp_path / 'out'}" in ran.out


def test_layers_go_by_torchvisions_names_too(run: Run, photo: Path, tmp_path: Path) -> None:
    arguments = ("--size", "64", "-m", "grad-cam", "--json")
    ours = run("explain", photo, "-o", tmp_path / "a", *arguments, "-l", "fire5")
    theirs = run("explain", photo, "-o", tmp_path / "b", *arguments, "-l", "features.7")
    assert json.loads(ours.out)["maps"] == json.loads(theirs.out)["maps"]


def test_the_folder_is_out_and_the_photos_name(
    run: Run, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("explain", photo, *SMALL).code == 0
    assert tree(tmp_path / "out") == ["cat", *(f"cat/{name}" for name in FILES)]


def test_a_photo_is_opened_once(
    run: Run, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    opening = files.open_picture
    monkeypatch.setattr(files, "open_picture", lambda path: opened.append(path) or opening(path))
    assert run("explain", photo, "-o", tmp_path / "out", *SMALL).code == 0
    assert opened == [photo]


def test_large_photos_are_shown_smaller(run: Run, photo: Path, tmp_path: Path) -> None:
    large = photo.with_name("large.png")
    with Image.open(photo) as image:
        image.resize((1536, 1024)).save(large)
    assert run("explain", large, "-o", tmp_path / "out", *SMALL).code == 0
    with Image.open(tmp_path / "out" / "saliency.png") as written:
        assert max(written.size) == photos.LARGEST


# What is in the folder already --------------------------------------------------


def test_a_second_run_replaces_its_own_files_only(
    run: Run, photo: Path, other_photo: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert run("explain", photo, "-o", out, *SMALL).code == 0
    (out / "notes.txt").write_text("mine")
    first = (out / "saliency.png").read_bytes()
    assert run("explain", photo, "-o", out, *SMALL, "-t", "281").code == 0

    before = {path.name: path.read_bytes() for path in out.iterdir()}
    refused = complaint(run("explain", other_photo, "-o", out, *SMALL))
    assert "--overwrite" in refused
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before

    assert run("explain", other_photo, "-o", out, *SMALL, "--overwrite").code == 0
    assert (out / "saliency.png").read_bytes() != first
    assert (out / "notes.txt").read_text() == "mine"
    assert tree(out) == sorted([*FILES, "notes.txt"])


def test_files_of_an_earlier_run_with_more_methods_are_still_its_own(
    run: Run, photo: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for methods in ("saliency,grad-cam", "saliency", "saliency,grad-cam"):
        assert run("explain", photo, "-o", out, "--size", 64, "-m", methods, "-l", "fire5").code == 0
    assert tree(out) == FILES


def test_files_of_the_user_are_never_replaced_unasked(run: Run, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "sheet.png").write_text("mine")
    assert "sheet.png" in complaint(run("explain", photo, "-o", out, *SMALL))
    assert (out / "sheet.png").read_text() == "mine"
    assert tree(out) == ["sheet.png"]


def test_the_photo_itself_is_never_replaced(run: Run, photo: Path) -> None:
    sheet = photo.rename(photo.with_name("sheet.png"))
    before = sheet.read_bytes()
    refused = complaint(run("explain", sheet, "-o", sheet.parent, *SMALL, "--overwrite"))
    assert "sheet.png" in refused
    assert sheet.read_bytes() == before


# Bad input: one line with the remedy, exit code 2, nothing written ------------------


def _png_of_size(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


class Evil:
    """What touches a file when it is unpickled."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.marker,)


def _bad_photos(folder: Path, photo: Path) -> dict[str, tuple[Path, str]]:
    whole = (PHOTOS / "coffee.jpg").read_bytes()
    contents = {
        "text.jpg": (b"these are words\n", "text, not a picture"),
        "truncated.jpg": (whole[: len(whole) // 2], "cut short"),
        "empty.jpg": (b"", "empty"),
        "bomb.png": (_png_of_size(30_000, 30_000), "too many pixels"),
    }
    for name, (data, _) in contents.items():
        (folder / name).write_bytes(data)
    Image.new("RGB", (900, 10)).save(folder / "ribbon.png")
    named = {name: (folder / name, message) for name, (_, message) in contents.items()}
    return named | {
        "ribbon.png": (folder / "ribbon.png", "8 times as long"),
        "missing": (folder / "cta.jpg", "did you mean cat.jpg"),
        "folder": (folder, "is a folder"),
    }


@pytest.mark.parametrize(
    "name", ["text.jpg", "truncated.jpg", "empty.jpg", "bomb.png", "ribbon.png", "missing", "folder"]
)
def test_photos_that_are_none(run: Run, photo: Path, tmp_path: Path, name: str) -> None:
    path, message = _bad_photos(photo.parent, photo)[name]
    assert message in complaint(run("explain", path, "-o", tmp_path / "out", *SMALL))
    assert tree(tmp_path) == sorted(["photos", *(f"photos/{p.name}" for p in photo.parent.iterdir())])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-t", "tabyb cat"), "tabby cat (281)"),
        (("-t", "1000"), "0..999"),
        (("-t", "-1"), "-1"),
        (("-l", "fire99"), "fire9"),
        (("-l", "logits", "-m", "grad-cam"), "vector"),
        (("-m", "gradcam"), "did you mean grad-cam"),
        (("--size", "20"), "--size"),
        (("-n", "vgg61"), "vgg16"),
        (("-n", "vgg19"), "PATH"),
        (("-w", "nowhere.pth"), "nowhere.pth"),
    ],
)
def test_things_that_are_not_there(
    run: Run, photo: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    line = complaint(run("explain", photo, "-o", tmp_path / "out", "--size", "64", *arguments))
    assert message in line
    assert tree(tmp_path) == ["photos", "photos/cat.jpg"]


def _bad_weights(folder: Path) -> dict[str, tuple[str, Path, str]]:
    from vizsynth.models.io.load import BUNDLED

    whole = BUNDLED.read_bytes()
    (folder / "truncated.safetensors").write_bytes(whole[: len(whole) // 2])
    (folder / "whole.safetensors").write_bytes(whole)
    (folder / "evil.pkl").write_bytes(pickle.dumps({"conv1": Evil(folder / "marker")}))
    return {
        "truncated": ("squeezenet1_1", folder / "truncated.safetensors", "again"),
        "architecture": ("alexnet", folder / "whole.safetensors", "squeezenet1_1"),
        "evil": ("squeezenet1_1", folder / "evil.pkl", ""),
    }


@pytest.mark.parametrize("case", ["truncated", "architecture", "evil"])
def test_weights_that_do_not_fit(run: Run, photo: Path, tmp_path: Path, case: str) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    network, path, message = _bad_weights(folder)[case]
    before = tree(tmp_path)
    line = complaint(run("explain", photo, "-o", tmp_path / "out", "-n", network, "-w", path))
    assert message in line
    assert tree(tmp_path) == before  # nothing written, and nothing executed


def test_a_trunk_has_no_classes(run: Run, photo: Path, tmp_path: Path) -> None:

    from vizsynth.models import Weights, save

    net = vizsynth.models.squeezenet1_1(num_classes=None, key=jax.random.key(0))
    path = tmp_path / "trunk.safetensors"
    save(path, net, Weights("squeezenet1_1", net.config, None, None))
    line = complaint(run("explain", photo, "-o", tmp_path / "out", "-n", path))
    assert "trunk" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("place", ["a file/out", "a file", "/proc/out"])
def test_folders_that_cannot_be_written_fail_before_anything_is_computed(
    run: Run, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setattr(explain, "probabilities_of", lambda *_: pytest.fail("computed"))
    (tmp_path / "a file").write_text("text")
    line = complaint(run("explain", photo, "-o", tmp_path / place, *SMALL))
    assert "choose another --out" in line
    assert tree(tmp_path) == ["a file", "photos", "photos/cat.jpg"]


# What goes wrong on the way ---------------------------------------------------------


def test_a_full_disk_leaves_nothing(
    run: Run, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vizsynth import files

    def full(path: Path, image: object) -> None:
        if path.name == "sheet.png":
            raise OSError(28, "No space left on device")
        write(path, image)  # type: ignore[arg-type]

    write = files.write_image
    monkeypatch.setattr(files, "write_image", full)
    line = complaint(run("explain", photo, "-o", tmp_path / "deep" / "out", *SMALL), code=1)
    assert "No space left" in line
    assert tree(tmp_path) == ["photos", "photos/cat.jpg"]


def test_an_interrupt_leaves_nothing(
    run: Run, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Method, "maps", interrupted)
    ran = run("explain", photo, "-o", tmp_path / "out", *SMALL)
    assert ran.code == 130
    assert ran.err.splitlines()[-1] == "vizsynth: error: interrupted"
    assert tree(tmp_path) == ["photos", "photos/cat.jpg"]


def test_without_matplotlib_it_says_what_to_install(
    run: Run, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    line = complaint(run("explain", photo, "-o", tmp_path / "out"), code=1)
    assert "pip install 'vizsynth[cli]'" in line


def test_bugs_are_one_line_unless_asked_for(
    run: Run, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("deep inside")

    monkeypatch.setattr(explain, "probabilities_of", broken)
    arguments = ("explain", photo, "-o", tmp_path / "out", *SMALL)
    assert "VIZSYNTH_DEBUG=1" in complaint(run(*arguments), code=1)
    monkeypatch.setenv("VIZSYNTH_DEBUG", "1")
    with pytest.raises(KeyError, match="deep inside"):
        run(*arguments)


def test_a_terminal_sees_a_bar_and_no_rest_of_it(
    run: Run, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vizsynth.cli.common._is_terminal", lambda: True)
    ran = run("explain", photo, "-o", tmp_path / "out", *SMALL)
    assert ran.code == 0
    assert "compiling and running grad-cam" in ran.err
    assert ran.err.endswith("\r")


@pytest.mark.slow
def test_all_methods(run: Run, photo: Path, tmp_path: Path) -> None:
    ran = run("explain", photo, "-o", tmp_path / "out", "--size", 64, "-m", "all", "--json")
    assert ran.code == 0, ran.err
    for name, values in json.loads(ran.out)["maps"].items():
        figure = explain.METHODS[name].figure
        assert values["max"] > 0, name
        if name == "lrp" or figure == "signed-cam":  # of either sign, as the rules and the photo have it
            continue
        assert (values["min"] < 0) if figure == "signed" else (values["min"] >= 0), name
