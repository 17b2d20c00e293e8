"""`vizsynth train` and `vizsynth fine-tune`."""

import json
import signal
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from command_line import Run, complaint, tree

import vizsynth
from vizsynth import ascent, training
from vizsynth.cli import classifying
from vizsynth.models.io.load import NETWORKS
from vizsynth.models.io.weights import FAMILIES
from vizsynth.models.vgg import VGGConfig

FILES = ["history.json", "history.png", "network.safetensors", "numbers.json"]
OPTIONS = ("--size", "32", "--batch-size", "4", "--epochs", "2", "--validation", "0.25")


def test_the_schedules_are_the_librarys() -> None:
    assert set(classifying.SCHEDULES) == set(training.SCHEDULES)


@pytest.mark.parametrize("name", classifying.AUGMENTATIONS)
def test_augmentations_keep_the_size(name: str) -> None:
    change = classifying.augmentation(name, 32)
    image = jax.random.uniform(jax.random.key(0), (32, 32, 3))
    made = change(jax.random.key(1), image)
    assert made.shape == (32, 32, 3) and np.array_equal(made, image) == (name == "none")


@pytest.fixture
def small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let VGG-11 be a tiny one."""
    monkeypatch.setitem(NETWORKS, "vgg11_bn", VGGConfig((1, 1), True, widths=(4, 6)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for k, name in enumerate(("dark", "light")):
        for i in range(8):
            image = rng.integers(0, 90, (40, 36, 3)) + 160 * k
            vizsynth.write_image(tmp_path / "data" / name / f"{i}.png", image.astype(np.uint8))
    return tmp_path / "data"


def numbers(out: Path) -> dict[str, Any]:
    return json.loads((out / "numbers.json").read_text())


def test_a_network_is_trained_and_every_command_takes_it(
    run: Run, folder: Path, small_networks: None, tmp_path: Path
) -> None:
    (folder / "dark" / "3.png").write_bytes(b"nothing")
    out = tmp_path / "out"
    ran = run(
        "train", folder, "-n", "vgg11_bn", *OPTIONS, "--epochs", "6", "-o", out, "--learning-rate", "0.02"
    )
    assert ran.code == 0, ran.err
    assert tree(out) == FILES
    found = numbers(out)
    assert found["classes"] == ["dark", "light"] and found["images"] + found["held_out"] == 15
    assert [Path(bad["path"]).name for bad in found["skipped"]] == ["3.png"]
    assert "1 images cannot be read and are left out" in ran.err and "epoch 6/6" in ran.err
    assert found["best"]["validation_accuracy"] == 1.0 and "accuracy 1.0000" in ran.out
    assert len(json.loads((out / "history.json").read_text())) == 6
    net = vizsynth.load(out / "network.safetensors")
    assert net.labels == ("dark", "light") and net.record.input_size == (32, 32)
    assert net.conv1_1.norm is None
    image = vizsynth.read_image(folder / "light" / "0.png", (32, 32))
    assert int(net(image[None]).argmax()) == 1
    again = run("train", folder, "-n", "vgg11_bn", *OPTIONS, "-o", out)
    assert "made from something else" in complaint(again)


def test_a_training_is_interrupted_and_taken_up_again(
    run: Run, folder: Path, small_networks: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import contextlib

    arguments = ("train", folder, "-n", "vgg11_bn", *OPTIONS)
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert run(*arguments, "-q", "-o", whole).code == 0
    with monkeypatch.context() as patch:
        asked = iter([False, False, False, True])
        patch.setattr(classifying.making, "patient", lambda: contextlib.nullcontext(lambda: next(asked)))
        ran = run(*arguments, "-q", "-o", out)
    assert "interrupted after 1 of 2 epochs; --resume goes on from there" in ran.err and ran.code == 130
    assert {*FILES, "state"} <= set(tree(out)) and not numbers(out)["finished"]
    assert "--resume goes on with it" in complaint(run(*arguments, "-o", out))
    ran = run(*arguments, "-q", "-o", out, "--resume")
    assert ran.code == 0, ran.err
    assert tree(out) == FILES
    for name in ("history.json", "network.safetensors"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    assert "holds no run that was stopped" in complaint(run(*arguments, "-o", out, "--resume"))


def test_a_network_is_fine_tuned_with_layers_frozen(run: Run, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = (
        "--size",
        "40",
        "--batch-size",
        "6",
        "--epochs",
        "1",
        "--freeze-to",
        "fire8",
        "--augment",
        "mirror",
    )
    ran = run("fine-tune", folder, *options, "--freeze", "fire9.squeeze", "-q", "-o", out, "--json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert found["network"] == "squeezenet1_1" and "fire8.expand3x3" in found["frozen"]
    before, after = vizsynth.load("squeezenet1_1"), vizsynth.load(out / "network.safetensors")
    assert after.labels == ("dark", "light")
    for name in ("fire8.expand3x3", "fire9.squeeze", "fire9.expand1x1"):
        fire, conv = name.split(".")
        kernels = [getattr(getattr(net, fire), conv).kernel[...] for net in (before, after)]
        assert np.array_equal(*kernels) == (name != "fire9.expand1x1"), name


def test_fresh_networks_of_every_family_have_the_classes() -> None:
    for name in ("vgg11", "resnet18", "squeezenet1_1", "alexnet"):
        made = jax.eval_shape(lambda name=name: vizsynth.models.fresh_network(name, "abc"))
        assert made.num_classes == 3 and type(made) in {family for family, _ in FAMILIES.values()}


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("train", ("-n", "vgg12"), "no network is called 'vgg12'"),
        ("train", ("--patience", "2", "--validation", "0"), "--patience needs images that are held out"),
        ("train", ("--validation", "1"), "is not in the range"),
        ("fine-tune", ("--freeze", "layer1"), "no layer with weights begins with 'layer1'"),
        ("fine-tune", ("--freeze-to", "layer1"), "layer1"),
        ("fine-tune", ("--size", "8"), "too small"),
        ("fine-tune", ("-n", "vgg16"), "vgg16 comes without weights: name them"),
        ("fine-tune", ("--resume",), "holds no run that was stopped"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_written(
    command: str, arguments: tuple[str, ...], message: str, run: Run, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    ran = run(command, folder, *OPTIONS, "-q", *arguments, "-o", out)
    assert message in complaint(ran) and not out.exists()


def test_bad_data_is_told_before_anything_is_written(run: Run, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for data, message in (
        (tmp_path / "none", "there is no"),
        (folder / "dark", "at least two classes; it holds none"),
        (folder / "dark" / "1.png", "is no set of labelled images"),
    ):
        assert message in complaint(run("train", data, "-n", "resnet18", "-q", "-o", out))
        assert not out.exists()


class Saved(NamedTuple):
    step: np.ndarray


def test_what_asks_to_stop_is_told_by_the_exit_code(
    run: Run, folder: Path, small_networks: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(net: Any, data: Any, *, watch: Any, folder: Path, **_: Any) -> training.Fitted:
        signal.raise_signal(signal.SIGHUP)
        assert watch(training.Progress(1, 8, 1, np.float32(0.5), ()))
        state = Saved(np.asarray(1, np.int32))
        ascent.save(folder, state)
        return training.Fitted(net, (), None, False, state)

    monkeypatch.setattr(vizsynth, "fit", fit)
    ran = run("train", folder, "-n", "vgg11_bn", *OPTIONS, "-q", "-o", tmp_path / "out")
    assert ran.code == 129 and "interrupted after 0 of 2 epochs; --resume goes on from there" in ran.err
    assert "state" in tree(tmp_path / "out")


def test_a_state_of_others_stays(run: Run, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "state").mkdir(parents=True)
    (tmp_path / "out" / "state" / "thesis.txt").write_text("mine")
    for command in ("train", "fine-tune"):
        assert "is not of a run" in complaint(run(command, folder, "-o", tmp_path / "out", "--overwrite"))
    assert tree(tmp_path / "out") == ["state", "state/thesis.txt"]
