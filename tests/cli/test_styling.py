"""The commands of style and texture."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from command_line import Run, complaint, tree
from PIL import Image

import vizsynth
from vizsynth.cli import styling
from vizsynth.files import read_image
from vizsynth.models.io.load import NETWORKS
from vizsynth.models.io.weights import skeleton
from vizsynth.replay import parts
from vizsynth.synthesis.texture.gatys import VGG_CUTS, VGG_LAYERS
from vizsynth.types import Network

SHALLOW = ("--style-layer", "relu1")
STYLE = ("--size", "60", "--content-layer", "relu1", *SHALLOW, "-q")
TEXTURE = ("--size", "40", "--source-size", "60", "-l", "relu1", "-q")


def numbers(folder: Path) -> dict:
    return json.loads((folder / "numbers.json").read_text())


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_the_layers_of_vgg_are_the_librarys() -> None:
    roles = skeleton(NETWORKS["vgg16"]).roles
    assert roles.style == VGG_LAYERS
    assert roles.cuts == VGG_CUTS


@pytest.mark.parametrize("name", ["vgg16", "resnet18", "squeezenet1_1"])
def test_networks_can_be_cut_where_the_table_says(name: str) -> None:
    import jax

    net = skeleton(NETWORKS[name])
    family = net.roles
    assert styling.pick_cuts(net, None, (512, 300)) == family.cuts
    assert styling.pick_cuts(net, None, (300, 300)) == styling.pick_cuts(net, False, (512, 300)) == ()
    image = jax.ShapeDtypeStruct((1, 96, 96, 3), jnp.float32)

    def read(net: Network, images: jnp.ndarray) -> dict[str, jnp.ndarray]:
        layers = (*family.content, *family.style)
        return parts.read(net, images, layers, lambda _, A: A.sum(), cuts=family.cuts)

    assert set(jax.eval_shape(read, net, image)) == {*family.content, *family.style}


def test_sizes_are_a_root_of_two_apart() -> None:
    assert styling.sizes((64, 96), 3) == [(32, 48), (45, 68), (64, 96)]
    assert styling.sizes((64, 96), 1) == [(64, 96)]


# Style ------------------------------------------------------------------------------


def test_style_is_the_librarys(run: Run, photo: Path, other_photo: Path, tmp_path: Path) -> None:
    import jax

    out = tmp_path / "out"
    options = ("--mix", "3,1", "--style-weight", "20", "--seed", "3", "--style-scale", "1.2")
    ran = run("style", photo, other_photo, photo, *STYLE, *options, "--steps", "2", "--every", "2", "-o", out)
    assert (ran.code, ran.err) == (0, "")
    assert tree(out) == ["frames", "frames/000002.png", "numbers.json", "sheet.png", "styled.png"]
    found = numbers(out)
    assert (found["steps"], found["finished"], found["height"], found["width"]) == (2, True, 40, 60)
    assert found["style_layers"] == ["relu1"] and found["mix"] == [3, 1]
    (scale,) = found["loss_of_scales"]
    assert scale["last"] < scale["first"]
    net = vizsynth.load("squeezenet1_1")
    made = vizsynth.transfer_style(
        net,
        read_image(photo, (40, 60)),
        [read_image(other_photo, (48, 72)), read_image(photo, (48, 72))],
        key=jax.random.key(3),
        steps=2,
        content_layers=["relu1"],
        style_layers=["relu1"],
        style_weight=20.0,
        mixture=[3.0, 1.0],
    )
    np.testing.assert_allclose(pixels(out / "styled.png") / 255, made.images[0], atol=2 / 255)


def test_scales_are_interrupted_and_taken_up_again(
    run: Run, photo: Path, other_photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--optimizer", "adam", "--size", "66", "--scales", "2", "--steps", "2", "--every", "1")
    arguments = ("style", photo, other_photo, *STYLE, *options)
    whole, out = tmp_path / "whole", tmp_path / "out"
    ran = run(*arguments, "-o", whole)
    assert ran.code == 0, ran.err
    found = numbers(whole)
    assert [(s["height"], s["width"], s["steps"]) for s in found["loss_of_scales"]] == [
        (31, 47, 2),
        (44, 66, 2),
    ]
    assert found["average"] == 0.99
    assert found["frames"] == [f"frames/scale-{k}-00000{n}.png" for k in (1, 2) for n in (1, 2)]
    written = vizsynth.files.write_image

    def interrupt(path: Path, picture: object) -> None:
        written(path, picture)
        if "scale-2-000001" in str(path):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("vizsynth.files.write_image", interrupt)
        ran = run(*arguments, "-o", out)
    assert ran.code == 130
    assert "interrupted at step 1 of 2; --resume goes on from there" in ran.err
    assert (numbers(out)["steps"], numbers(out)["finished"]) == (3, False)
    assert "--resume goes on with it" in complaint(run(*arguments, "-o", out))
    ran = run(*arguments, "-o", out, "--resume")
    assert ran.code == 0, ran.err
    assert numbers(out)["finished"] is True
    np.testing.assert_array_equal(pixels(out / "styled.png"), pixels(whole / "styled.png"))
    assert not (out / "state").exists()


def test_the_styles_are_read_once_for_all_steps(
    run: Run, photo: Path, other_photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vizsynth.synthesis.style import gatys

    made: list[Any] = []
    given: list[Any] = []
    aimed, transfer = gatys.style_targets, vizsynth.transfer_style
    monkeypatch.setattr(gatys, "style_targets", lambda *a, **o: made.append(aimed(*a, **o)) or made[-1])
    monkeypatch.setattr(
        vizsynth, "transfer_style", lambda *a, **o: given.append(o["targets"]) or transfer(*a, **o)
    )
    options = ("--optimizer", "adam", "--steps", "3", "--every", "1", "-o", tmp_path / "out", "-q")
    assert run("style", photo, other_photo, *STYLE, *options).code == 0
    assert len(made) == 1 and [one is made[0] for one in given] == [True] * 3


def test_masks_and_what_keeps_colours(run: Run, photo: Path, other_photo: Path, tmp_path: Path) -> None:
    left, right = tmp_path / "left.png", tmp_path / "right.png"
    half = np.zeros((64, 96), np.uint8)
    half[:, :48] = 255
    Image.fromarray(half).save(left)
    Image.fromarray(255 - half).save(right)
    options = ("--mask", left, "--mask", right, "--colors", "luminance", "--steps", "2")
    options = (*options, "--optimizer", "adam")
    ran = run("style", photo, other_photo, photo, *STYLE, *options, "-o", tmp_path / "out", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert json.loads(ran.out)["files"] == ["styled.png", "sheet.png", "numbers.json"]
    assert len(numbers(tmp_path / "out")["masks"]) == 2
    # The two differences of colour are the photo's, but for what had to be clipped.
    to_chroma = np.array([[0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]]).T
    styled, content = pixels(tmp_path / "out" / "styled.png") / 255, np.asarray(read_image(photo, (40, 60)))
    inside = ((styled > 0) & (styled < 1)).all(axis=-1)
    assert inside.mean() > 0.5
    np.testing.assert_allclose((styled @ to_chroma)[inside], (content @ to_chroma)[inside], atol=0.01)


@pytest.mark.parametrize("colors", ["histogram", "match"])
def test_styles_get_the_contents_colours(photo: Path, other_photo: Path, colors: str) -> None:
    from vizsynth.cli.commands.style import _colored

    content, style = read_image(photo, (40, 60)), read_image(other_photo, (40, 60))
    found = np.asarray(_colored(style, content, colors)).reshape(-1, 3)
    np.testing.assert_allclose(found.mean(axis=0), np.asarray(content).reshape(-1, 3).mean(axis=0), atol=0.03)


def test_small_styles_and_grey_ones_are_said_once(
    run: Run, photo: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    grey = tmp_path / "grey.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60), np.uint8)).save(grey)
    arguments = ("--size", "48", "--content-layer", "relu1", "--style-layer", "fire4")
    arguments = (*arguments, "--steps", "2", "--optimizer", "adam")
    ran = run("style", photo, grey, *arguments, "--style-size", "48", "--every", "1", "-o", tmp_path / "out")
    assert ran.code == 0, ran.err
    assert ran.err.count("it is grey") == 1
    assert ran.err.count("less than the 47x47 that a neuron of fire4 sees") == 1
    assert ran.err.count("warning") == 1


# Textures ---------------------------------------------------------------------------


def test_texture_is_interrupted_and_taken_up_again(
    run: Run, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The programs of L-BFGS take ten times as long to compile; style is tried with it.
    descent = {"optimizer": optax.adam, "learning_rate": 0.02}
    monkeypatch.setattr(vizsynth, "synthesize_texture", partial(vizsynth.synthesize_texture, **descent))
    arguments = ("texture", photo, *TEXTURE, "--size", "44x40", "--steps", "4", "--every", "2")
    whole, out = tmp_path / "whole", tmp_path / "out"
    ran = run(*arguments, "-o", whole)
    assert (ran.code, ran.err) == (0, "")
    assert tree(whole) == [
        "frames", "frames/000002.png", "frames/000004.png", "numbers.json", "sheet.png", "texture.png",
    ]  # fmt: skip
    assert pixels(whole / "texture.png").shape == (40, 44, 3)
    found = numbers(whole)
    assert found["loss"]["last"] < found["loss"]["first"]
    written = vizsynth.files.write_image

    def interrupt(path: Path, picture: object) -> None:
        written(path, picture)
        if "frames" in str(path):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("vizsynth.files.write_image", interrupt)
        ran = run(*arguments, "-o", out)
    assert ran.code == 130
    assert "another run (seed: 0 there, 9 now)" in complaint(
        run(*arguments, "-o", out, "--resume", "--seed", "9")
    )
    assert run(*arguments, "-o", out, "--resume").code == 0
    np.testing.assert_array_equal(pixels(out / "texture.png"), pixels(whole / "texture.png"))


@pytest.mark.parametrize("method", ["quilting", "efros-leung", "wei-levoy"])
def test_textures_without_a_network(run: Run, photo: Path, tmp_path: Path, method: str) -> None:
    arguments = ("--method", method, "--size", "35x33", "--source-size", "36", "--window", "5")
    ran = run("texture", photo, *arguments, "-o", tmp_path / "out", "--json", "-q")
    assert (ran.code, ran.err) == (0, "")
    found = json.loads(ran.out)
    assert (found["method"], found["window"], found["size"]) == (method, 5, [33, 35])
    made = pixels(tmp_path / "out" / "texture.png")
    source = np.round(np.asarray(read_image(photo, (24, 36))) * 255)
    assert made.shape == (33, 35, 3)
    assert {tuple(p) for p in made.reshape(-1, 3)} <= {tuple(p) for p in source.reshape(-1, 3)}


# In one pass ------------------------------------------------------------------------


@pytest.fixture
def stylizer(tmp_path: Path) -> Path:
    """A stylizer that has learned nothing."""
    import jax

    from vizsynth.models import save_stylizer
    from vizsynth.models import stylizer as fresh

    path = tmp_path / "made.safetensors"
    save_stylizer(
        path, fresh(["glass", "oil/canvas", "oil-canvas"], widths=(4, 4, 4), blocks=1, key=jax.random.key(0))
    )
    return path


def test_stylize_is_the_librarys(
    run: Run, photo: Path, other_photo: Path, stylizer: Path, tmp_path: Path
) -> None:
    from vizsynth.models import load_stylizer

    out = tmp_path / "out"
    options = ("--style", "glass", "--mix", "glass=1,oil/canvas=3", "--stylizer", stylizer, "--size", "48")
    ran = run("stylize", photo, other_photo, *options, "-o", out, "-q")
    assert (ran.code, ran.err) == (0, "")
    pictures = ["cat-glass.png", "cat-mixed.png", "noise-glass.png", "noise-mixed.png"]
    assert tree(out) == [*pictures, "numbers.json", "sheet.png"]
    found = numbers(out)
    assert found["weights"] == {"glass": [1, 0, 0], "mixed": [0.25, 0.75, 0]}
    assert found["sizes"] == {"cat": [32, 48], "noise": [32, 48]}
    net, image = load_stylizer(stylizer), read_image(photo, (32, 48))
    for name, weights in (
        ("glass", np.array([1, 0, 0], np.float32)),
        ("mixed", np.array([0.25, 0.75, 0], np.float32)),
    ):
        made = vizsynth.stylize(net, image[None], jnp.asarray(weights))[0]
        np.testing.assert_allclose(pixels(out / f"cat-{name}.png") / 255, made, atol=1 / 255)


def test_the_stylizer_that_ships_has_styles(run: Run, photo: Path, tmp_path: Path) -> None:
    from vizsynth.models import load_stylizer

    style = load_stylizer().styles[0]
    ran = run("stylize", photo, "--style", style, "--size", "48", "-o", tmp_path / "out", "-q")
    assert (ran.code, ran.err) == (0, "")
    assert pixels(tmp_path / "out" / f"cat-{style}.png").shape == (32, 48, 3)


def test_names_of_styles_make_names_of_files(run: Run, photo: Path, stylizer: Path, tmp_path: Path) -> None:
    options = ("--style", "oil/canvas", "--stylizer", stylizer, "-o", tmp_path / "out", "--json", "-q")
    ran = run("stylize", photo, *options)
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["files"] == ["cat-oil-canvas.png", "sheet.png", "numbers.json"]
    assert pixels(tmp_path / "out" / "cat-oil-canvas.png").shape == (64, 96, 3)  # the photo's own


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "there are: glass, oil/canvas, oil-canvas"),
        (("--style", "glas"), "the styles are: glass, oil/canvas, oil-canvas"),
        (("--mix", "glass=1,oil=1"), "the styles are: glass, oil/canvas, oil-canvas"),
        (("--mix", "glass"), "NAME=W"),
        (("--mix", "glass=-1"), "at least 0"),
        (("--mix", "glass=0"), "above 0"),
        (("--style", "oil/canvas", "--style", "oil-canvas"), "two pictures would be called"),
        (("--style", "glass", "--stylizer", "nowhere.safetensors"), "nowhere.safetensors"),
        (("--style", "glass", "--stylizer", "PHOTO"), "cat.jpg"),
    ],
    ids=str,
)
def test_what_cannot_be_stylized(
    run: Run, photo: Path, stylizer: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    out = tmp_path / "out"
    typed = [str(photo) if a == "PHOTO" else a for a in arguments]
    assert message in complaint(run("stylize", photo, "--stylizer", stylizer, *typed, "-o", out, "-q"))
    assert not out.exists()


def test_a_style_is_learned_interrupted_and_taken_up_again(
    run: Run, photo: Path, other_photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vizsynth.models import load_stylizer

    options = (
        "--size",
        "36",
        "--style-size",
        "40",
        "--batch-size",
        "2",
        "--width",
        "4",
        "--blocks",
        "1",
        "--content-layer",
        "relu1",
        *SHALLOW,
    )
    arguments = (
        "train-style",
        other_photo,
        "--photos",
        photo.parent,
        *options,
        "--steps",
        "2",
        "--every",
        "1",
    )
    (photo.parent / "broken.webp").write_text("no picture")
    whole, out = tmp_path / "whole", tmp_path / "out"
    ran = run(*arguments, "-o", whole, "-q")
    assert (ran.code, ran.err) == (0, "")
    files = ["frames", "frames/000001.png", "frames/000002.png", "numbers.json", "sheet.png"]
    assert tree(whole) == [*files, "stylizer.safetensors"]
    found = numbers(whole)
    assert (found["steps"], found["finished"], found["photos"]["count"]) == (2, True, 3)
    assert [Path(one["file"]).name for one in found["skipped"]] == ["broken.webp"]
    assert len(found["trace"]) == 2
    written = vizsynth.files.write_image

    def interrupt(path: Path, picture: object) -> None:
        written(path, picture)
        if "frames" in str(path):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("vizsynth.files.write_image", interrupt)
        assert run(*arguments, "-o", out, "-q").code == 130
    assert load_stylizer(out / "stylizer.safetensors").styles == ("noise",)
    assert (numbers(out)["steps"], numbers(out)["finished"]) == (1, False)
    ran = run(*arguments, "-o", out, "-q", "--resume")
    assert ran.code == 0, ran.err
    trained = [(folder / "stylizer.safetensors").read_bytes() for folder in (whole, out)]
    assert trained[0] == trained[1]
    ran = run(
        "stylize",
        photo,
        "--stylizer",
        out / "stylizer.safetensors",
        "--style",
        "noise",
        "-q",
        "-o",
        tmp_path / "s",
    )
    assert ran.code == 0, ran.err


# What cannot be ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("style", "PHOTO"), "STYLE"),
        (("style", "PHOTO", "nowhere.jpg"), "nowhere.jpg"),
        (("style", "PHOTO", "PHOTO", "--mix", "1,2"), "1 styles take as many weights in --mix, not 2"),
        (("style", "PHOTO", "PHOTO", "--mix", "much"), "'much' is no list of numbers"),
        (("style", "PHOTO", "PHOTO", "--mix", "0"), "above 0"),
        (("style", "PHOTO", "PHOTO", "--mix", "nan"), "at least 0"),
        (("style", "PHOTO", "PHOTO", "PHOTO", "--mask", "PHOTO"), "2 styles take as many --mask, not 1"),
        (("style", "PHOTO", "PHOTO", "--mask", "MASK"), "must be of the size of cat.jpg, 96x64, not 60x40"),
        (("style", "PHOTO", "PHOTO", "--mask", "BLACK"), "0 everywhere"),
        (("style", "PHOTO", "PHOTO", "--style-weight", "0", "--content-weight", "0"), "above 0"),
        (("style", "PHOTO", "PHOTO", "--style-layer", "relu4_2"), "its layers are"),
        (("style", "PHOTO", "PHOTO", "--style-layer", "logits"), "nothing is left"),
        (("style", "PHOTO", "PHOTO", "--colors", "mine"), "luminance"),
        (("style", "PHOTO", "PHOTO", "--noise", "2"), "--noise"),
        (("style", "PHOTO", "PHOTO", "--resume"), "holds no run"),
        (("train-style", "PHOTO"), "--photos"),
        (("train-style", "PHOTO", "--photos", "nowhere"), "nowhere"),
        (("train-style", "PHOTO", "--photos", "PHOTO"), "not a folder"),
        (("train-style", "nowhere.jpg", "--photos", "FOLDER"), "nowhere.jpg"),
        (("train-style", "PHOTO", "--photos", "FOLDER", "--resume"), "holds no run"),
        (("texture", "nowhere.jpg"), "nowhere.jpg"),
        (("texture", "PHOTO", "--method", "knitting"), "quilting"),
        (("texture", "PHOTO", "--size", "large"), "WIDTHxHEIGHT"),
        (("texture", "PHOTO", "--size", "12"), "from 33 to 4096"),
        (("texture", "PHOTO", "--window", "9"), "leave out --window"),
        (("texture", "PHOTO", "--method", "quilting", "--resume"), "in one go"),
        (("texture", "PHOTO", "--method", "wei-levoy", "--window", "8"), "odd"),
        (("texture", "PHOTO", "--method", "efros-leung", "--window", "99"), "smaller than the window"),
    ],
    ids=str,
)
def test_what_cannot_be_is_one_line_and_leaves_nothing(
    run: Run, photo: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    Image.new("L", (60, 40), 255).save(tmp_path / "mask.png")
    Image.new("L", (96, 64), 0).save(tmp_path / "black.png")
    given = {
        "PHOTO": photo,
        "FOLDER": photo.parent,
        "MASK": tmp_path / "mask.png",
        "BLACK": tmp_path / "black.png",
    }
    shallow = SHALLOW if arguments[0] == "style" and "--style-layer" not in arguments else ()
    typed = [str(given.get(a, a)) for a in arguments]
    assert message in complaint(run(*typed, *shallow, "-o", tmp_path / "out", "-q"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("made", ["styled.png", "texture.png"])
def test_files_of_others_stay(run: Run, photo: Path, tmp_path: Path, made: str) -> None:
    (tmp_path / made).write_text("mine")
    command = ("style", photo, photo, *SHALLOW) if made == "styled.png" else ("texture", photo, *TEXTURE)
    assert "--overwrite" in complaint(run(*command, "-o", tmp_path))
    assert (tmp_path / made).read_text() == "mine"


def test_the_help_of_all_options_names_the_rarer_ones_too(run: Run) -> None:
    short, whole = run("style", "--help").out, run("style", "--help-all").out
    assert "--tv-weight" not in short and "--tv-weight" in whole
    assert run("style", "--help").out == short
