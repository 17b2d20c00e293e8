"""The commands that make pictures step by step."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from command_line import Run, complaint, tree
from PIL import Image

import vizsynth
from vizsynth.cli import making

SMALL = ("--size", "40")
CHANNELS = ("visualize", "3", "5", "--layer", "fire2", *SMALL)


def numbers(folder: Path) -> dict:
    return json.loads((folder / "numbers.json").read_text())


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.mark.parametrize(
    ("steps", "every", "size"),
    [(256, None, 16), (200, None, 20), (7, None, 1), (97, None, 7), (10, 4, 4), (3, 9, 3)],
)
def test_chunks_are_alike_where_they_can_be(steps, every, size):
    assert making.chunk_size(steps, every) == size


def test_classes_go_by_name_and_the_picture_is_the_librarys(run: Run, tmp_path: Path) -> None:

    out = tmp_path / "out"
    ran = run(
        "visualize",
        "tabby cat",
        "130",
        *SMALL,
        "--steps",
        "2",
        "--every",
        "2",
        "-o",
        out,
        "-q",
        "--seed",
        "3",
    )
    assert ran.code == 0
    assert "tabby cat, p = " in ran.out
    net = vizsynth.load("squeezenet1_1")
    made = vizsynth.visualize_class(net, np.asarray([281, 130]), key=jax.random.key(3), steps=2, size=40)
    np.testing.assert_allclose(pixels(out / "0281.png") / 255, made.images[0], atol=2 / 255)


@pytest.mark.parametrize("recipe", ["simonyan", "decay-and-blur"])
def test_recipes(run: Run, tmp_path: Path, recipe: str) -> None:
    ran = run(*CHANNELS, "--steps", "1", "--recipe", recipe, "-o", tmp_path / "out", "--json", "-q")
    assert ran.code == 0
    assert json.loads(ran.out)["recipe"] == recipe


def test_fool_changes_the_class_even_of_the_file(run: Run, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = run("fool", photo, "--to", "espresso", "--size", "64", "-o", out, "--json", "-q")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert tree(out) == ["difference.png", "fooled.png", "numbers.json", "sheet.png"]
    assert found["fooled"] and found["after"]["name"] == "espresso"
    assert found["before"]["label"] != found["after"]["label"]
    changed = np.asarray(vizsynth.files.read_image(out / "fooled.png"))
    net = vizsynth.load("squeezenet1_1")
    assert int(jax.jit(lambda net, images: net(images))(net, changed[None]).argmax()) == 967
    original = np.asarray(vizsynth.files.read_image(photo, 64))
    np.testing.assert_allclose(found["l2"], np.sqrt(((changed - original) ** 2).sum()), rtol=1e-4)
    np.testing.assert_allclose(found["linf"], np.abs(changed - original).max(), rtol=1e-4)


def test_fool_says_when_it_did_not_do(run: Run, photo: Path, tmp_path: Path) -> None:
    arguments = ("--to", "espresso", "--size", "64", "--steps", "1", "--step-size", "0.001", "-q")
    ran = run("fool", photo, *arguments, "-o", tmp_path / "out")
    assert ran.code == 1
    assert "give more --steps" in ran.err
    assert numbers(tmp_path / "out")["fooled"] is False


def test_dream_and_its_zoom(run: Run, photo: Path, tmp_path: Path) -> None:
    arguments = ("--layer", "relu1", "--octaves", "2", "--steps", "1", "--size", "48", "-q")
    ran = run("dream", photo, *arguments, "-o", tmp_path / "a")
    assert (ran.code, ran.err) == (0, "")
    assert tree(tmp_path / "a") == ["dream.png", "numbers.json", "sheet.png"]
    assert pixels(tmp_path / "a" / "dream.png").shape == (48, 72, 3)
    ran = run("dream", photo, *arguments, "-o", tmp_path / "b", "--frames", "2")
    assert ran.code == 0, ran.err
    with Image.open(tmp_path / "b" / "zoom.webp") as film:
        assert film.n_frames == 2
    np.testing.assert_array_equal(
        pixels(tmp_path / "b" / "frames" / "0000.png").shape, pixels(tmp_path / "a" / "dream.png").shape
    )


@pytest.mark.slow
def test_invert_tells_the_error_of_each_layer(run: Run, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = run("invert", photo, *SMALL, "-l", "relu1", "-l", "fire2", "--steps", "3", "-o", out, "-q")
    assert (ran.code, ran.err) == (0, "")
    assert tree(out) == ["1-relu1.png", "2-fire2.png", "numbers.json", "sheet.png"]
    assert list(numbers(out)["errors"]) == ["relu1", "fire2"]


# Interrupted, and taken up again ------------------------------------------------------


def test_visualize_writes_all_is_interrupted_keeps_what_there_is_and_goes_on(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "whole"
    ran = run(*CHANNELS, "--steps", "4", "--every", "2", "-o", whole, "-q")
    assert (ran.code, ran.err) == (0, "")
    files = ["fire2-0003.png", "fire2-0005.png", "frames", "frames/000002.png", "frames/000004.png"]
    assert tree(whole) == [*files, "numbers.json", "sheet.png"]
    found = numbers(whole)
    assert (found["steps"], found["finished"], found["targets"]) == (4, True, [3, 5])
    assert len(found["objective"]["last"]) == 2
    assert pixels(whole / "fire2-0003.png").shape == (40, 40, 3)
    out = tmp_path / "out"
    arguments = (*CHANNELS, "--steps", "4", "--every", "2", "-o", out, "-q")
    written = vizsynth.files.write_image

    def interrupt(path: Path, picture: object) -> None:
        written(path, picture)
        if "frames" in str(path):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("vizsynth.files.write_image", interrupt)
        ran = run(*arguments)
    assert ran.code == 130
    assert "interrupted at step 2 of 4; --resume goes on from there" in ran.err
    found = numbers(out)
    assert (found["steps"], found["finished"]) == (2, False)
    assert (out / "sheet.png").exists()
    # What is there is not lost by chance.
    assert "--resume goes on with it, --overwrite begins anew" in complaint(run(*arguments))
    assert "another run (seed: 0 there, 9 now)" in complaint(run(*arguments, "--resume", "--seed", "9"))
    ran = run(*arguments, "--resume")
    assert ran.code == 0, ran.err
    assert (numbers(out)["steps"], numbers(out)["finished"]) == (4, True)
    np.testing.assert_array_equal(pixels(out / "fire2-0003.png"), pixels(whole / "fire2-0003.png"))
    assert not (out / "state").exists()
    assert "holds no run that was stopped" in complaint(run(*arguments, "--resume"))


@pytest.mark.slow
def test_a_real_interrupt_from_the_keyboard(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "vizsynth",
        *CHANNELS,
        "--steps",
        "100000",
        "--every",
        "1",
        "-o",
        str(out),
    ]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for _ in range(600):
        if (out / "frames" / "000002.png").exists():
            break
        time.sleep(0.2)
    started.send_signal(signal.SIGINT)
    _, err = started.communicate(timeout=120)
    assert started.returncode == 130
    assert "interrupted at step" in err and "Traceback" not in err
    assert (out / "fire2-0003.png").exists() and (out / "state").exists()
    assert not [name for name in os.listdir(out) if name.startswith(".vizsynth")]


def test_nan_stops_it_with_the_step_and_the_cause(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import jax.numpy as jnp

    function = vizsynth.visualize_feature

    def broken(*args: object, **options: object) -> object:
        result = function(*args, **options)
        if options["state"] is None:
            return result
        trace = jnp.full_like(result.trace, jnp.nan)
        return result._replace(trace=trace, state=options["state"])

    monkeypatch.setattr("vizsynth.visualize_feature", broken, raising=False)
    out = tmp_path / "out"
    ran = run(*CHANNELS, "--steps", "4", "--every", "2", "-o", out, "-q")
    assert ran.code == 1
    assert "step 2 gave NaN or infinity" in ran.err
    assert numbers(out)["finished"] is False
    assert (out / "fire2-0003.png").exists()


# What cannot be -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("visualize", "flamigo"), "flamingo"),
        (("visualize", "3", "--layer", "fire22"), "fire2"),
        (("visualize", "900", "--layer", "fire2"), "fire2 has 128 channels, 0 to 127"),
        (("visualize", "x", "--layer", "fire2"), "a number or a range"),
        (("visualize", "281", "281"), "twice"),
        (("visualize", "281", "--recipe", "magic"), "robust"),
        (("visualize", "281", "--size", "20"), "--size"),
        (("visualize", "281", "--steps", "0"), "--steps"),
        (("visualize", "281", "--resume"), "holds no run"),
        (("fool", "PHOTO", "--to", "flamigo"), "flamingo"),
        (("fool", "PHOTO", "--to", "281", "--step-size", "0"), "--step-size"),
        (("fool", "PHOTO"), "--to"),
        (("fool", "nowhere.jpg", "--to", "281"), "nowhere.jpg"),
        (("dream", "PHOTO", "--layer", "fire99"), "fire9"),
        (("dream", "PHOTO", "--octaves", "12", "--size", "48"), "octaves=2"),
        (("dream", "PHOTO", "--octave-scale", "1"), "--octave-scale"),
        (("dream", "PHOTO", "-l", "fire2", "-l", "fire3", "--guide", "PHOTO"), "one layer"),
        (("dream", "PHOTO", "--frames", "2", "--resume"), "leave out"),
        (("invert", "PHOTO", "--layer", "nothing"), "its layers are"),
        (("invert", "PHOTO", "--tv", "-1"), "--tv"),
    ],
    ids=str,
)
def test_what_cannot_be_is_one_line_and_leaves_nothing(
    run: Run, photo: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    arguments = tuple(str(photo) if a == "PHOTO" else a for a in arguments)
    assert message in complaint(run(*arguments, "-o", tmp_path / "out", "-q"))
    assert not (tmp_path / "out").exists()
