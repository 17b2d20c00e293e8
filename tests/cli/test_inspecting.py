"""The commands that look into a network: filters, activations, patches."""

import csv
import json
import signal
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from command_line import Run, complaint, tree
from PIL import Image

import vizsynth
from vizsynth import ascent
from vizsynth.cli.commands import patches as searching
from vizsynth.files import read_image

SMALL = ("--size", "40")
SEARCH = ("--layer", "fire2", "--batch-size", "2", "-k", "3", *SMALL)


def numbers(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "numbers.json").read_text())


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "patches.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """Seven pictures, and two files that are none."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(7):
        Image.fromarray(rng.integers(0, 256, (44, 40 + i, 3), np.uint8)).save(folder / f"{i}.png")
    (folder / "1b.png").write_bytes((folder / "1.png").read_bytes()[:100])
    (folder / "9.jpg").write_text("no picture")
    return folder


# Filters ----------------------------------------------------------------------------


def test_filters_are_drawn_in_colours_and_in_grey(run: Run, tmp_path: Path) -> None:
    ran = run("filters", "-o", tmp_path / "first", "-q")
    assert (ran.code, ran.err) == (0, "")
    assert tree(tmp_path / "first") == ["filters.png", "numbers.json"]
    found = numbers(tmp_path / "first")
    assert found["layer"] == "conv1" and found["shape"]["filters"] == 64
    net = vizsynth.load("squeezenet1_1")
    expected = vizsynth.filter_colors(vizsynth.filters(net, "conv1"))[0, 0, 0]
    np.testing.assert_allclose(
        read_image(tmp_path / "first" / "filters.png")[0, 0], expected, atol=0.51 / 255
    )
    ran = run("filters", "--layer", "conv10", "--count", "2", "--json", "-o", tmp_path / "deep", "-q")
    found = json.loads(ran.out)
    assert found["drawn"] == {"filters": 2, "channels": 32}
    assert len(found["largest_weights"]) == 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--layer", "relu1"),
            "relu1 is no convolution, so it has no filters; the convolutions are: conv1, ",
        ),
        (("--layer", "conv99"), "conv10"),
        (("--count", "0"), "--count"),
    ],
)
def test_what_has_no_filters(run: Run, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    assert message in complaint(run("filters", *arguments, "-o", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


# Activations ------------------------------------------------------------------------


def test_activations_of_the_first_ten_layers_of_maps(run: Run, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = run("activations", photo, *SMALL, "-o", out, "-q")
    assert (ran.code, ran.err) == (0, "")
    layers = ["relu1", "pool1", "fire2", "fire3", "pool3", "fire4", "fire5", "pool5", "fire6", "fire7"]
    assert tree(out) == sorted([*(f"{layer}.png" for layer in layers), "numbers.json", "sheet.png"])
    found = numbers(out)
    assert list(found["layers"]) == layers
    image = read_image(photo, 40)
    A = np.asarray(vizsynth.features(vizsynth.load("squeezenet1_1"), image[None], ["fire7"])["fire7"][0])
    dead = np.flatnonzero((A == 0).all((0, 1))).tolist()
    assert found["layers"]["fire7"]["dead"] == dead and dead


def test_activations_of_named_layers_as_they_are(run: Run, photo: Path, tmp_path: Path) -> None:
    arguments = ("--layer", "fire3", "--layer", "conv1", "--raw", "--columns", "4", *SMALL)
    ran = run("activations", photo, *arguments, "-o", tmp_path / "out", "--json", "-q")
    assert json.loads(ran.out)["files"] == ["fire3.png", "conv1.png", "sheet.png", "numbers.json"]


def test_layers_without_maps_are_not_drawn(run: Run, photo: Path, tmp_path: Path) -> None:
    ran = run("activations", photo, "--layer", "logits", "-o", tmp_path / "out", "-q")
    assert "logits has no maps to draw; the layers that have: conv1, relu1" in complaint(ran)
    assert "its layers are" in complaint(run("activations", photo, "--layer", "fire99", "-q"))
    assert not (tmp_path / "out").exists()


# Patches ----------------------------------------------------------------------------


def test_patches_are_the_librarys_and_what_cannot_be_read_is_listed(
    run: Run, collection: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    ran = run("patches", collection, *SEARCH, "--channels", "3,127,0", "-o", out)
    assert ran.code == 0
    assert ran.err.count("skipped: ") == 2 and "9.jpg" in ran.err
    assert tree(out) == ["numbers.json", "patches.csv", "patches.png"]
    found = numbers(out)
    assert (found["images"], found["patches_a_channel"], found["drawn"]) == (7, 3, [3, 127, 0])
    assert [Path(one["file"]).name for one in found["skipped"]] == ["1b.png", "9.jpg"]

    net = vizsynth.load("squeezenet1_1")
    names = [f"{i}.png" for i in range(7)]
    images = np.stack([np.asarray(read_image(collection / name, (40, 40))) for name in names])
    expected = vizsynth.top_patches(
        net, [(np.arange(i, min(i + 2, 7)), images[i : i + 2]) for i in range(0, 7, 2)], layer="fire2", k=3
    )
    boxes = vizsynth.patch_boxes(net, expected, layer="fire2", image_size=(40, 40))
    rows = table(out)
    assert len(rows) == 128 * 3
    for row, (c, j) in zip(rows, np.ndindex(128, 3), strict=True):
        assert (int(row["channel"]), int(row["rank"])) == (c, j + 1)
        assert row["file"] == names[int(expected.images[c, j])]
        assert float(row["activation"]) == pytest.approx(float(expected.values[c, j]), rel=1e-5)
        assert [int(row[n]) for n in ("top", "left", "bottom", "right")] == boxes[c, j].tolist()


def test_a_search_is_interrupted_and_taken_up_again(
    run: Run, collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    arguments = ("patches", collection, *SEARCH, "--channels", "0", "--no-guided", "-q")
    assert run(*arguments, "-o", whole).code == 0
    saved, count = ascent.save, 0

    def interrupt(*given: Any) -> None:
        nonlocal count
        saved(*given)
        count += 1
        if count == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(searching, "SAVED_EVERY", 0.0)
        patch.setattr("vizsynth.ascent.save", interrupt)
        assert run(*arguments, "-o", out).code == 130
    assert tree(out)[0] == "state"
    assert "--resume goes on with it" in complaint(run(*arguments, "-o", out))
    other = run(*arguments, "-o", out, "--resume", "--size", "48")
    assert "another run (size: 40 there, 48 now)" in complaint(other)
    seen = []
    with monkeypatch.context() as patch:
        update = vizsynth.update_patches

        def watched(net: Any, images: Any, **given: Any) -> Any:
            seen.append(np.asarray(given["indices"]).tolist())
            return update(net, images, **given)

        patch.setattr(vizsynth, "update_patches", watched)
        assert run(*arguments, "-o", out, "--resume").code == 0
    assert seen == [[5, 6], [7, -1]]  # places in the folder: 1b.png is the third
    assert tree(out) == ["numbers.json", "patches.csv", "patches.png"]
    for name in ("patches.csv", "patches.png"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    assert numbers(out) == numbers(whole)
    assert "holds no run" in complaint(run(*arguments, "-o", out, "--resume"))


def test_fewer_images_than_patches_are_said(run: Run, photo: Path, tmp_path: Path) -> None:
    arguments = ("--layer", "fire2", "--channels", "5", *SMALL)
    ran = run("patches", photo.parent, *arguments, "-o", tmp_path / "out")
    assert ran.code == 0
    assert "there are 1 images, so 1 patches a channel, not 9" in ran.err
    assert numbers(tmp_path / "out")["patches_a_channel"] == 1
    assert len(table(tmp_path / "out")) == 128


def test_the_guided_map_is_that_of_the_neuron(photo: Path) -> None:
    """A place of its own in each image."""
    from vizsynth.scores import Neuron

    net = vizsynth.load("squeezenet1_1")
    images = jnp.stack([read_image(photo, (40, 40)), read_image(photo, (40, 40))[::-1]])
    rows, columns = jnp.asarray([1, 6]), jnp.asarray([3, 2])
    found = np.asarray(vizsynth.guided_backprop(net, images, Neuron("fire3.squeeze", 3, rows, columns)))
    for i in range(2):
        one = vizsynth.guided_backprop(
            net, images[i : i + 1], Neuron("fire3.squeeze", 3, int(rows[i]), int(columns[i]))
        )
        np.testing.assert_allclose(found[i], one[0], atol=1e-5)
        at = (int(rows[i]), int(columns[i]), 3)
        top, left, bottom, right = vizsynth.receptive_field(net, "fire3.squeeze", at, (40, 40))
        outside = np.ones((40, 40), bool)
        outside[top:bottom, left:right] = False
        assert np.abs(found[i]).max() > 0 and not found[i][outside].any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("EMPTY",), "empty"),
        (("nowhere",), "nowhere"),
        (("BROKEN",), "none of the 1 images"),
        (("PICTURES", "--layer", "relu9"), "its layers are"),
        (("PICTURES", "--layer", "logits"), "no maps, so no patches; the layers with maps are: conv1"),
        (("PICTURES", "--channels", "0,99999"), "has the channels 0..511, and no 99999"),
        (("PICTURES", "--channels", "first"), "no list of channels"),
        (("PICTURES", "--size", "20"), "--size"),
        (("PICTURES", "--resume"), "holds no run"),
    ],
    ids=str,
)
def test_what_cannot_be_searched(
    run: Run, collection: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    given = {"EMPTY": tmp_path / "empty", "BROKEN": tmp_path / "broken", "PICTURES": collection}
    given["EMPTY"].mkdir()
    given["BROKEN"].mkdir()
    (given["BROKEN"] / "1.png").write_text("no picture")
    typed = [str(given.get(a, a)) for a in arguments]
    ran = run("patches", *typed, *(() if "--size" in typed else SMALL), "-o", tmp_path / "out", "-q")
    assert message in complaint(ran)
    assert not (tmp_path / "out").exists()


def test_images_too_small_for_the_network_are_said(
    run: Run, collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As small as the option allows is too small for AlexNet's windows."""
    import jax

    from vizsynth.models import alexnet

    net = alexnet(None, key=jax.random.key(0))
    monkeypatch.setattr("vizsynth.cli.common.load_network", lambda name, chosen: net)
    ran = run("patches", collection, "--layer", "pool5", *SMALL, "-o", tmp_path / "out", "-q")
    assert "the images are too small for this network" in complaint(ran)


def test_what_asks_a_search_to_stop_is_told_by_its_exit_code(
    run: Run, collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def update(net: Any, images: Any, *, patches: Any, **_: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return patches

    monkeypatch.setattr(vizsynth, "update_patches", update)
    ran = run("patches", collection, *SEARCH, "-q", "-o", tmp_path / "out")
    assert ran.code == 143 and "interrupted after 2 of 9 images; --resume goes on" in ran.err
    assert [name for name in tree(tmp_path / "out") if "/" not in name] == ["state"]


def test_a_search_leaves_alone_what_is_not_its_own(
    run: Run, collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out" / "state").mkdir(parents=True)
    (tmp_path / "out" / "state" / "thesis.txt").write_text("mine")
    asked = ("patches", collection, *SEARCH, "-q", "-o")
    assert "is not of a run" in complaint(run(*asked, tmp_path / "out", "--overwrite"))
    assert tree(tmp_path / "out") == ["state", "state/thesis.txt"]

    monkeypatch.setattr(vizsynth, "update_patches", lambda net, images, *, patches, **_: patches)
    monkeypatch.setattr(searching, "_sheet", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    assert "the disk is full" in complaint(run(*asked, tmp_path / "new"), code=1)
    assert not (tmp_path / "new").exists()
