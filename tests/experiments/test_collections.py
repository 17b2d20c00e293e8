"""The figures of neighbours, planes and masks, quickly made."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import embedding, nearest_neighbors, segmentation
from experiments.photo_crops import CLASSES, photo_crops

MADE: dict[str, tuple[Callable[..., Any], set[str]]] = {
    "nearest_neighbors": (nearest_neighbors.run, {"photos.png", "digits.png"}),
    "segmentation": (segmentation.run, {"photos.png", "planted.png"}),
    "embedding": (
        embedding.run,
        {f"{name}_{what}.png" for name in ("photos", "digits") for what in ("pca", "tsne", "grid")},
    ),
}


@pytest.mark.parametrize("name", MADE)
def test_it_is_made_with_its_record_and_caption(name: str, tmp_path: Path) -> None:
    run, pictures = MADE[name]
    run(tmp_path, quick=True)
    assert {path.name for path in tmp_path.iterdir()} == {*pictures, f"{name}.json", "caption.md"}
    assert json.loads((tmp_path / f"{name}.json").read_text())
    assert "(" in (tmp_path / "caption.md").read_text()


def test_halves_have_no_pixel_in_common_and_every_class_comes_in_turn() -> None:
    left, right = (photo_crops(0, 20, half=half, size=24) for half in ("left", "right"))
    assert left.labels.tolist() == [*range(len(CLASSES))] * 2
    assert left.images.shape == (20, 24, 24, 3)
    assert not np.array_equal(left.images, right.images)
    np.testing.assert_array_equal(left.images, photo_crops(0, 20, half="left", size=24).images)
