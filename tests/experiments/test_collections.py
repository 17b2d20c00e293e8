"""The figures of neighbours, planes and masks, quickly made."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import embedding, nearest_neighbors, segmentation
from vizsynth.files import read_image

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
    assert {"photos"} < set(json.loads((tmp_path / f"{name}.json").read_text()))
    assert len((tmp_path / "caption.md").read_text()) > 100
    for picture in pictures:
        assert np.asarray(read_image(tmp_path / picture)).std() > 0.05
