"""Labelled images from folders: in memory or read when needed, what is damaged left out and told."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import vizsynth
from vizsynth.datasets.errors import DataError
from vizsynth.datasets.labelled import Streamed, read_labelled
from vizsynth.models.sequential import Dense, GlobalMean
from vizsynth.training import Source


def folder(path: Path, n: int = 6, classes: tuple[str, ...] = ("dark", "light")) -> Path:
    rng = np.random.default_rng(0)
    for k, name in enumerate(classes):
        for i in range(n):
            image = rng.integers(0, 100, (9 + i, 12, 3)) + 150 * k
            vizsynth.write_image(path / name / f"{i}.png", image.astype(np.uint8))
    return path


def damaged(path: Path) -> Path:
    file = folder(path) / "dark" / "2.png"
    file.write_bytes(file.read_bytes()[:60])
    return path


def test_a_folder_is_read_into_memory_or_streamed_alike(tmp_path: Path) -> None:
    path = folder(tmp_path / "data")
    kept, none = read_labelled(path, 8, skipped=[])
    streamed, _ = read_labelled(path, 8, skipped=[], memory=100)
    assert none is None and isinstance(streamed, Streamed) and isinstance(streamed, Source)
    assert streamed.classes == kept.classes == ("dark", "light")
    places = np.array([11, 0, 3])
    for ours, theirs in zip(streamed.read(places), kept.read(places), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    part = streamed.take(np.array([7, 2])).read(np.arange(2))
    np.testing.assert_array_equal(part[0], kept.images[[7, 2]])
    read = vizsynth.read_image(path / "dark" / "0.png", (8, 8))
    np.testing.assert_allclose(kept.images[0] / 255, read, atol=1e-6)


def test_a_damaged_image_is_left_out_and_told(tmp_path: Path) -> None:
    path, skipped = damaged(tmp_path / "data"), []
    data, _ = read_labelled(path, 8, skipped=skipped)
    assert np.bincount(data.labels).tolist() == [5, 6]
    assert [bad.path.name for bad in skipped] == ["2.png"] and "2.png" in skipped[0].reason


def test_a_damaged_image_of_a_stream_is_replaced_and_told_once(tmp_path: Path) -> None:
    path, skipped = damaged(tmp_path / "data"), []
    data, _ = read_labelled(path, 8, skipped=skipped, memory=100)
    images, labels = data.read(np.arange(12))
    np.testing.assert_array_equal(images[2], images[3])
    assert labels.tolist() == [0] * 6 + [1] * 6
    data.read(np.arange(12))
    assert [bad.path.name for bad in skipped] == ["2.png"]
    for file in path.rglob("*.png"):
        file.write_bytes(b"nothing")
    with pytest.raises(DataError, match="none of the 12 images can be read"):
        data.read(np.arange(1))


def test_a_training_on_a_stream_is_the_one_in_memory(tmp_path: Path) -> None:
    path = folder(tmp_path / "data")
    net = vizsynth.models.sequential([GlobalMean(), Dense(2)], (8, 8, 3), key=jax.random.key(0))
    found = []
    for memory in (100, 1 << 20):
        data, _ = read_labelled(path, 8, skipped=[], memory=memory)
        options: dict[str, Any] = {"epochs": 2, "batch_size": 4, "learning_rate": 0.1}
        found.append(vizsynth.fit(net, data, validation=data, key=jax.random.key(1), **options).history)
    assert found[0] == found[1]


def test_training_and_held_out_folders(tmp_path: Path) -> None:
    folder(tmp_path / "train")
    folder(tmp_path / "test", 2)
    data, held_out = read_labelled(tmp_path, 8, skipped=[])
    assert len(data.labels) == 12 and held_out.labels.tolist() == [0, 0, 1, 1]
    folder(tmp_path / "test" / "third", 1, ("x",))
    (tmp_path / "test" / "third" / "x" / "0.png").rename(tmp_path / "test" / "third" / "0.png")
    with pytest.raises(DataError, match="must hold the same classes, not dark, light and dark, light, third"):
        read_labelled(tmp_path, 8, skipped=[])


def test_what_is_no_set_of_labelled_images_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no"):
        read_labelled(tmp_path / "none", 8, skipped=[])
    with pytest.raises(ValueError, match="must hold a folder of pictures for each of at least two classes"):
        read_labelled(tmp_path, 8, skipped=[])
    one = folder(tmp_path / "one", 2, ("cat",))
    with pytest.raises(ValueError, match="it holds only one, cat"):
        read_labelled(one, 8, skipped=[])
    text = tmp_path / "notes.txt"
    text.write_text("nothing")
    with pytest.raises(DataError, match="is no set of labelled images"):
        read_labelled(text, 8, skipped=[])
    broken = folder(tmp_path / "broken", 1)
    (broken / "dark" / "0.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"no image in .*dark can be read"):
        read_labelled(broken, 8, skipped=[])
