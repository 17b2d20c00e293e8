"""Folders of images: what is listed, in which order, and what is skipped."""

from pathlib import Path

import numpy as np
import pytest

from vizsynth.datasets.folders import list_folder, read_batches
from vizsynth.files import ImageFileError, write_image


def picture(path: Path, value: float = 0.5, size: tuple[int, int] = (6, 8)) -> Path:
    write_image(path, np.full((*size, 3), value))
    return path


def test_class_folders_are_labels_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("dog/b.png", "dog/a.png", "cat/z.jpg", ".hidden/a.png"):
        picture(tmp_path / name)
    listing = list_folder(tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in listing.paths] == [
        "cat/z.jpg",
        "dog/a.png",
        "dog/b.png",
    ]
    assert listing.classes == ("cat", "dog")
    assert listing.labels is not None
    assert listing.labels.tolist() == [0, 1, 1]


def test_a_folder_with_pictures_of_its_own_is_flat_unless_classes_are_asked_for(tmp_path: Path) -> None:
    picture(tmp_path / "one.png")
    for name in ("cat", "dog"):
        picture(tmp_path / name / "two.png")
    assert list_folder(tmp_path).labels is None
    assert len(list_folder(tmp_path, labelled=False).paths) == 1
    assert list_folder(tmp_path, labelled=True).classes == ("cat", "dog")


def test_what_holds_no_classes_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least two classes; it holds none"):
        list_folder(tmp_path, labelled=True)
    picture(tmp_path / "cat" / "1.png")
    with pytest.raises(ValueError, match="only one, cat"):
        list_folder(tmp_path, labelled=True)
    (tmp_path / "dog").mkdir()
    with pytest.raises(ImageFileError, match="dog holds no picture"):
        list_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match="no nowhere"):
        list_folder(tmp_path / "nowhere")
    with pytest.raises(ImageFileError, match="is a file"):
        list_folder(tmp_path / "cat" / "1.png")


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_every_picture_comes_once_and_in_order_but_for_those_that_are_damaged(
    tmp_path: Path, batch_size: int
) -> None:
    paths = [picture(tmp_path / f"{i:02}.png", i / 20) for i in range(20)]
    paths[4].write_bytes(b"")
    paths[11].write_bytes(paths[11].read_bytes()[:45])
    paths[19].unlink()
    skipped = []
    batches = list(read_batches(paths, 5, batch_size=batch_size, skipped=skipped))
    places = np.concatenate([where for where, _ in batches])
    assert places.tolist() == [i for i in range(20) if i not in (4, 11, 19)]
    assert all(len(where) == batch_size for where, _ in batches[:-1])
    images = np.concatenate([x for _, x in batches])
    assert images.shape == (17, 5, 5, 3)
    np.testing.assert_allclose(images[:, 2, 2, 0], places / 20, atol=1 / 255)
    assert [bad.path for bad in skipped] == [paths[4], paths[11], paths[19]]
    assert "empty" in skipped[0].reason


def test_reading_may_stop_early(tmp_path: Path) -> None:
    paths = [picture(tmp_path / f"{i}.png") for i in range(9)]
    batches = read_batches(paths, (4, 6), batch_size=2, skipped=[])
    assert next(batches)[1].shape == (2, 4, 6, 3)
    batches.close()
