"""The figures of a page that was made, each with its record, its caption and pictures that show something.

`VIZSYNTH_PAGE=out/index.html` names the page (or several, as in PATH); to make one takes minutes:
`python -m experiments --quick`.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest

import vizsynth
from vizsynth.files import read_image

GIVEN = [Path(path) for path in os.environ.get("VIZSYNTH_PAGE", "").split(os.pathsep) if path]
MADE = [made.parent for page in GIVEN for made in sorted(page.parent.glob("*/made.json"))]

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("folder", MADE, ids=lambda folder: folder.name)
def test_a_figure_has_its_record_its_caption_and_its_pictures(folder: Path) -> None:
    record = json.loads((folder / f"{folder.name}.json").read_text())
    assert record and record.get("seed", 0) == 0
    assert len((folder / "caption.md").read_text()) > 100
    pictures = sorted(folder.rglob("*.png"))
    assert pictures
    flat = [str(path) for path in pictures if np.asarray(read_image(path)).std() <= 0.01]
    assert not flat
    for weights in folder.glob("*.safetensors"):
        if weights.stem == "stylizer":
            assert len(vizsynth.models.load_stylizer(weights).styles) > 1
            continue
        net = vizsynth.load(weights)
        assert net.labels is None or len(net.labels) == net.num_classes


@pytest.mark.parametrize("folder", [folder for folder in MADE if folder.name == "keras_vgg16"])
def test_a_keras_file_computes_what_was_built(folder: Path) -> None:
    record = json.loads((folder / "keras_vgg16.json").read_text())
    assert record["layer"] == "conv5_3"
    assert record["largest_difference_from_what_was_built"] < 1e-3
    assert record["logits"]["chelsea"] > max(record["logits"]["astronaut"], record["logits"]["coffee"])
