"""The crops that patches are found in, and where they lie in their photos."""

from pathlib import Path

import numpy as np

from experiments import patches
from vizsynth.files import read_image


def test_a_crop_depends_on_its_number_and_the_seed_alone() -> None:
    one = patches.crop(17, 0, 32)
    np.testing.assert_array_equal(one, patches.crop(17, 0, 32))
    assert np.abs(one - patches.crop(17, 1, 32)).max() > 0.01
    stream = list(patches.crops(20, 0, 32))
    np.testing.assert_array_equal(stream[1][1][1], one)
    assert [len(indices) for indices, _ in stream] == [16, 4]
    scales = {patches.origin(i, 0)[1][2] - patches.origin(i, 0)[1][0] for i in range(0, 39, 13)}
    assert len(scales) == 3


def test_patches_of_one_place_are_drawn_once() -> None:
    boxes = np.asarray([[0, 0, 8, 8], [3, 3, 11, 11], [4, 0, 12, 8], [0, 0, 8, 8], [1, 40, 5, 44]], float)
    photos = [Path("a"), Path("a"), Path("a"), Path("b"), Path("a")]
    found = list(zip(photos, boxes, strict=True))
    assert patches.apart(found, 9) == [0, 2, 3, 4]
    assert patches.apart(found, 2) == [0, 2]


def test_a_patch_is_found_again_in_its_photo() -> None:
    """What the crop shows in a box is what the photo shows there."""
    number, size = 0, 64
    path, (left, top, right, _) = patches.origin(number, 0)
    found, box = patches.placed(number, np.asarray([16, 32, 32, 64]), 0, size)
    assert found == path
    scale = (right - left) / size
    np.testing.assert_allclose(box, [top + 16 * scale, left + 32 * scale, top + 32 * scale, right])
    photo = np.asarray(read_image(path))
    y0, x0, y1, x1 = np.round(box).astype(int)
    inside = photo[y0:y1, x0:x1].mean((0, 1))
    np.testing.assert_allclose(inside, patches.crop(number, 0, size)[16:32, 32:].mean((0, 1)), atol=0.03)
