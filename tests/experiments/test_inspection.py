"""The figures of filters, activations and patches, quickly made."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import activations, filters, patches
from vizsynth.files import read_image

MADE = {
    "filters": (
        filters.run,
        {},
        ("squeezenet1_1.png", "squeezenet1_1_shared.png", "squeezenet1_1_second.png"),
    ),
    "activations": (
        activations.run,
        {"network": "squeezenet1_1"},
        ("relu1.png", "pool1.png", "fire2.png", "fire3.png", "layers.png", "first_channels.png"),
    ),
    "patches": (patches.run, {"network": "squeezenet1_1"}, ("relu1.png", "fire2.png")),
}


@pytest.mark.parametrize("name", MADE)
def test_it_is_made_with_its_record_and_caption(name: str, tmp_path: Path) -> None:
    run, settings, pictures = MADE[name]
    make: Callable[..., Any] = run
    make(tmp_path, quick=True, **settings)
    assert {path.name for path in tmp_path.iterdir()} == {*pictures, f"{name}.json", "caption.md"}
    assert json.loads((tmp_path / f"{name}.json").read_text())["seed"] == 0
    assert len((tmp_path / "caption.md").read_text()) > 100
    for picture in pictures:
        assert np.asarray(read_image(tmp_path / picture)).std() > 0.01


def test_a_crop_depends_on_its_number_and_the_seed_alone() -> None:
    one = patches.crop(17, 0, 32)
    np.testing.assert_array_equal(one, patches.crop(17, 0, 32))
    assert np.abs(one - patches.crop(17, 1, 32)).max() > 0.01
    stream = list(patches.crops(20, 0, 32))
    np.testing.assert_array_equal(stream[1][1][1], one)
    assert [len(indices) for indices, _ in stream] == [16, 4]
    scales = {patches.origin(i, 0)[1][2] - patches.origin(i, 0)[1][0] for i in range(0, 39, 13)}
    assert len(scales) == 3
