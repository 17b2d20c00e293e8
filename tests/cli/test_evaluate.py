"""`vizsynth evaluate`: the table, the curves, and what it says of bad folders."""

import csv
import json
import signal
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from command_line import Run, complaint, tree
from PIL import Image

import vizsynth
from vizsynth.cli.commands import evaluate
from vizsynth.cli.common import pooled_layer
from vizsynth.cli.comparison import comparison
from vizsynth.cli.methods import METHODS
from vizsynth.models.io.load import NETWORKS
from vizsynth.models.io.weights import skeleton
from vizsynth.planted import WEIGHTS, planted

QUICK = ("-m", "saliency,cam", "--count", "4", "--steps", "4", "-q")


def test_planted_digits_are_scored_as_the_library_scores_them(run: Run, tmp_path: Path) -> None:
    ran = run("evaluate", "planted", *QUICK, "-o", tmp_path / "out")
    assert (ran.code, ran.err) == (0, "")
    assert tree(tmp_path / "out") == ["curves.png", "numbers.json", "table.csv"]
    with open(tmp_path / "out" / "table.csv", newline="") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["saliency", "cam"]

    net, found = vizsynth.load(str(WEIGHTS)), planted(0, 4, split="test", size=64)
    images, labels = jnp.asarray(found.images), jnp.asarray(found.labels)
    maps = vizsynth.cam(net, images, labels, layer="relu4")
    hits = vizsynth.pointing_game(maps, jnp.asarray(found.boxes), size=(64, 64)).hits
    assert float(rows["cam"]["pointing_game"]) == pytest.approx(float(hits.mean()), abs=1e-5)
    deleted = vizsynth.deletion(
        net,
        images,
        labels,
        vizsynth.images.upsample(maps, (64, 64)),
        steps=4,
        baseline=jnp.broadcast_to(images.mean((1, 2), keepdims=True), images.shape),
    )
    assert float(rows["cam"]["deletion"]) == pytest.approx(float(deleted.area.mean()), abs=1e-4)
    for row in rows.values():
        for column in ("deletion", "insertion", "energy_in_box"):
            assert float(row[f"{column}_low"]) <= float(row[column]) <= float(row[f"{column}_high"])


def test_a_folder_of_photos_and_a_broken_one_among_them(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(3):
        Image.fromarray(rng.integers(0, 256, (80, 90, 3), np.uint8)).save(folder / f"{i}.png")
    (folder / "1.png").write_bytes(b"no picture")
    options = ("-n", WEIGHTS, "-m", "grad-cam", "--steps", "4", "-o", tmp_path / "out", "--json")
    ran = run("evaluate", folder, *options)
    assert ran.code == 0, ran.err
    assert "left out" in ran.err and "1.png" in ran.err
    numbers = json.loads(ran.out)
    assert numbers["images"] == ["0.png", "2.png"]
    assert set(numbers["table"]["grad-cam"]) == set(numbers["columns"])
    assert "pointing_game" not in numbers["columns"]


def test_nothing_is_written_where_there_is_nothing_to_score(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for what in ("empty", "absent"):
        ran = run("evaluate", tmp_path / what, *QUICK, "-o", tmp_path / "out")
        assert what in complaint(ran)
    one = tmp_path / "one"
    one.mkdir()
    Image.new("RGB", (64, 64)).save(one / "a.png")
    assert "at least 2" in complaint(run("evaluate", one, *QUICK, "-o", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_the_comparison_sets_all_methods_on_one_scale() -> None:
    photo = np.full((40, 60, 3), 0.5, np.float32)
    small, large = np.zeros((40, 60), np.float32), np.zeros((40, 60), np.float32)
    small[10:30, 10:50], large[10:30, 10:50] = 1e-3, 50.0
    methods = [METHODS["occlusion"], METHODS["saliency"]]

    def sheet_of(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        maps = {"occlusion": [first, 0 * first], "saliency": [second, 0 * second]}
        return np.asarray(comparison(photo, methods, maps, ["a", "b"], "title"))

    same, mixed = sheet_of(large, large), sheet_of(small, large)
    maps_only = same.shape[1] // 2  # the ranges at the right differ, the maps do not
    np.testing.assert_allclose(same[:, :maps_only], mixed[:, :maps_only], atol=2 / 255)


def test_cam_has_its_layer_where_a_mean_follows() -> None:
    assert pooled_layer(skeleton(NETWORKS["vgg11"])) is None
    assert pooled_layer(vizsynth.load("squeezenet1_1")) == "relu10"
    assert pooled_layer(vizsynth.load(str(WEIGHTS))) == "relu4"


def test_what_asks_to_stop_leaves_nothing(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "_score", lambda *_: signal.raise_signal(signal.SIGTERM))
    ran = run("evaluate", "planted", *QUICK, "-o", tmp_path / "out")
    assert ran.code == 143 and ran.err.splitlines()[-1] == "vizsynth: error: interrupted"
    assert tree(tmp_path) == []
