"""The commands that look at folders of images: neighbors, embed; and segment."""

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import PHOTOS, Run, complaint, tree
from PIL import Image

import vizsynth
from vizsynth.files import read_image, write_image

SMALL = ("--size", "33", "--layer", "pool1")


def numbers(folder: Path) -> dict:
    return json.loads((folder / "numbers.json").read_text())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes, red and striped, and a file that is no picture."""
    rng = np.random.default_rng(0)
    for i in range(6):
        red = np.zeros((40, 44, 3)) + (0.8, 0.1, 0.1) + 0.1 * rng.random((40, 44, 3))
        stripes = np.repeat((np.arange(44) // (3 + i % 2) % 2)[None, :, None], 40, axis=0) * np.ones(3)
        write_image(tmp_path / "given" / "red" / f"{i}.png", np.clip(red, 0, 1))
        write_image(tmp_path / "given" / "stripes" / f"{i}.png", np.clip(stripes * rng.uniform(0.3, 1), 0, 1))
    (tmp_path / "given" / "red" / "bad.png").write_text("no picture")
    return tmp_path / "given"


def test_neighbors_are_the_librarys(run: Run, folder: Path, tmp_path: Path) -> None:
    ran = run("neighbors", folder, "-k", "2", *SMALL, "-o", tmp_path / "out", "--json")
    assert ran.code == 0, ran.err
    assert "bad.png is text" in ran.err
    assert tree(tmp_path / "out") == ["neighbors.png", "numbers.json"]
    told = numbers(tmp_path / "out")
    assert told["images"] == 12
    assert [Path(one["file"]).name for one in told["skipped"]] == ["bad.png"]
    paths = sorted((folder / "red").glob("[0-9].png")) + sorted((folder / "stripes").glob("*.png"))
    images = np.stack([read_image(path, (33, 33)) for path in paths])
    net = vizsynth.load("squeezenet1_1")
    near = vizsynth.nearest_neighbors(vizsynth.descriptors(net, images, layer="pool1"), k=2)
    for one, indices, distances in zip(told["neighbors"], near.indices, near.distances, strict=True):
        assert [n["image"] for n in one["pool1"]] == [str(paths[j].relative_to(folder)) for j in indices]
        np.testing.assert_allclose([n["distance"] for n in one["pool1"]], distances, rtol=1e-4, atol=1e-5)
    assert told["same_class_share"]["pool1"] == 1.0
    assert json.loads(ran.out)["same_class_share"] == told["same_class_share"]


def test_a_folder_that_has_changed_is_another(
    run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder / "stripes")
    assert run("neighbors", ".", "-k", "1", *SMALL, "-o", tmp_path / "out", "-q").code == 0
    assert run("neighbors", ".", "-k", "1", *SMALL, "-o", tmp_path / "out", "-q").code == 0
    (folder / "stripes" / "0.png").unlink()
    assert "made from something else" in complaint(
        run("neighbors", ".", "-k", "1", *SMALL, "-o", tmp_path / "out", "-q")
    )
    assert numbers(tmp_path / "out")["folder"]["name"] == "stripes"


@pytest.mark.parametrize("command", [("neighbors", "-k", "1"), ("embed",)], ids=str)
def test_a_second_run_with_defaults_replaces_the_first(
    run: Run, folder: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    name, *arguments = command
    for _ in range(2):
        ran = run(name, folder / "stripes", *arguments, "--size", "40", "-o", tmp_path / "out", "-q")
        assert ran.code == 0, ran.err
    assert numbers(tmp_path / "out")["layer"] == "fire9"


def test_photos_may_ask_for_neighbors(run: Run, folder: Path, photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = run("neighbors", folder / "stripes", "--query", photo, "-k", "3", *SMALL, "-o", out)
    assert ran.code == 0, ran.err
    told = numbers(out)
    assert len(told["neighbors"]) == 1
    assert told["same_class_share"] is None
    assert len(told["neighbors"][0]["pixels"]) == 3
    assert "of the same class" not in ran.out


def test_embed_writes_the_plane_and_the_grid(run: Run, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = run("embed", folder, "--method", "pca", *SMALL, "--most", "5", "-o", out, "-q")
    assert ran.code == 0, ran.err
    assert tree(out) == ["embedding.png", "grid.png", "numbers.json"]
    told = numbers(out)
    assert len(told["points"]) == 12
    assert told["perplexity"] is None
    with Image.open(out / "grid.png") as image:
        assert image.size == (3 * 50 - 2, 2 * 50 - 2)  # five of the twelve
    ran = run("embed", folder, *SMALL, "-o", out, "-q")  # another method is another run
    assert "made from something else" in complaint(ran)
    ran = run("embed", folder, *SMALL, "-o", tmp_path / "tsne", "-q")
    assert ran.code == 0, ran.err
    assert numbers(tmp_path / "tsne")["perplexity"] == 4
    assert set(numbers(tmp_path / "tsne")["same_class_share"]) == {"pool1", "pixels"}


def test_segment_cuts_the_object_out(run: Run, tmp_path: Path) -> None:
    with Image.open(PHOTOS / "flower.jpg") as image:
        image.resize((120, 80)).save(tmp_path / "flower.png")
    out = tmp_path / "out"
    ran = run("segment", tmp_path / "flower.png", "--size", "64", "-o", out, "-q")
    assert ran.code == 0, ran.err
    assert tree(out) == ["flower-mask.png", "flower-object.png", "numbers.json", "sheet.png"]
    mask = np.asarray(read_image(out / "flower-mask.png"))[..., 0]
    assert set(np.unique(mask)) <= {0.0, 1.0}
    share = numbers(out)["masks"][0]["share_of_pixels"]
    assert 0.02 < share < 0.9
    assert share == pytest.approx(mask.mean(), abs=1e-4)
    cut = np.asarray(read_image(out / "flower-object.png"))
    assert (cut[mask == 0] == 1).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("neighbors", "EMPTY"), "holds no picture"),
        (("neighbors", "NOWHERE"), "no nowhere in the folder"),
        (("neighbors", "GIVEN", "--query", "NOWHERE"), "no nowhere in the folder"),
        (("neighbors", "GIVEN", "-k", "12"), "at least 13 are needed"),
        (("neighbors", "GIVEN", "-k", "0"), "-k"),
        (("neighbors", "GIVEN", "--layer", "pool77"), "pool77"),
        (("embed", "FEW"), "holds 3 images; at least 4 are needed"),
        (("embed", "FEWER"), "only 1 can be read; at least 4 are needed"),
        (("embed", "GIVEN", "--perplexity", "12", *SMALL), "a perplexity of 12 needs more than 12 images"),
        (("embed", "GIVEN", "--method", "pca", "--perplexity", "3"), "pca has no perplexity"),
        (("embed", "GIVEN", "--method", "umap"), "umap"),
        (("segment", "NOWHERE"), "no nowhere in the folder"),
        (("segment", "PHOTO", "--foreground", "0.2"), "--background 0.3 must be under --foreground 0.2"),
        (("segment", "PHOTO", "--target", "unicorn"), "unicorn"),
        (("segment", "PHOTO", "--network", "vgg16"), "vgg16"),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_nothing(
    run: Run, folder: Path, photo: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    for i in range(4):
        (tmp_path / "fewer").mkdir(exist_ok=True)
        (tmp_path / "fewer" / f"{i}.png").write_text("no picture")
        if i:
            write_image(tmp_path / "few" / f"{i}.png", np.zeros((4, 4)))
    write_image(tmp_path / "fewer" / "0.png", np.zeros((4, 4)))
    names = {
        "EMPTY": tmp_path / "empty", "GIVEN": folder, "FEW": tmp_path / "few", "FEWER": tmp_path / "fewer",
        "NOWHERE": tmp_path / "nowhere", "PHOTO": photo,
    }  # fmt: skip
    before = tree(tmp_path)
    ran = run(*(names.get(word, word) for word in arguments), "-o", tmp_path / "out", "-q")
    assert message in complaint(ran)
    assert tree(tmp_path) == before
