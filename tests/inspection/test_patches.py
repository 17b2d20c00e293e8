"""The strongest patches, against sorting everything; in any order, in batches of any size, taken up again."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import Subject, tiny

import vizsynth
from vizsynth.inspection.patches import Patches, map_layers, merged
from vizsynth.models import sequential
from vizsynth.models.sequential import Conv, Flatten, MaxPool, ReLU

N, SIZE, K = 23, (9, 8), 4
LAYER = "relu2"
STACK = (Conv(4, 3), ReLU(), MaxPool(2), Conv(5, 3, stride=2), ReLU(), Flatten())


def whole_numbers() -> Any:
    """Return a network of small whole weights: sums are exact, and many activations are equal."""
    net = sequential(STACK, (*SIZE, 3), key=jax.random.key(0))
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.integers(-1, 2, leaf.shape), jnp.float32), net)


NET = whole_numbers()
IMAGES = np.random.default_rng(2).integers(0, 2, (N, *SIZE, 3)).astype(np.float32)
ACTIVATIONS = np.asarray(vizsynth.features(NET, jnp.asarray(IMAGES), [LAYER])[LAYER])


def sorted_out(activations: np.ndarray, k: int) -> list[list[tuple[float, int, int, int]]]:
    """Return (activation, image, row, column) of the k strongest of each channel, by sorting all."""
    found = []
    for c in range(activations.shape[-1]):
        best = []
        for i, A in enumerate(activations[..., c]):
            y, x = next((y, x) for y, x in np.ndindex(A.shape) if A[y, x] == A.max())
            best.append((float(A.max()), i, y, x))
        found.append(sorted(best, key=lambda one: (-one[0], one[1]))[:k])
    return found


def listed(patches: Patches) -> list[list[tuple[float, int, int, int]]]:
    v, i, y, x = (np.asarray(a) for a in patches)
    return [
        [
            (float(v[c, j]), int(i[c, j]), int(y[c, j]), int(x[c, j]))
            for j in range(v.shape[1])
            if i[c, j] >= 0
        ]
        for c in range(v.shape[0])
    ]


def batches(order: Any, sizes: list[int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the images in an order, in batches of the sizes, over and over."""
    order, turn = list(order), 0
    while order:
        size = sizes[turn % len(sizes)]
        part, order, turn = order[:size], order[size:], turn + 1
        yield np.asarray(part), IMAGES[part]


def test_the_numbers_are_as_hard_as_they_should_be() -> None:
    """Ties at the last place among images, and ties among an image's positions."""
    best = ACTIVATIONS.max((1, 2))
    ordered = np.sort(best, axis=0)[::-1]
    assert (ordered[K - 1] == ordered[K]).sum() >= 2
    assert ((best[:, None, None] == ACTIVATIONS).sum((1, 2)) > 1).mean() > 0.2


@given(st.permutations(range(N)), st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(0, N))
def test_neither_order_nor_batches_nor_a_pause_change_them(
    order: list[int], sizes: list[int], pause: int
) -> None:
    expected = sorted_out(ACTIVATIONS, K)
    start = vizsynth.no_patches(NET, LAYER, SIZE, k=K)
    for part in (order[:pause], order[pause:]):  # what is between the parts is all that is kept
        if part:
            start = vizsynth.top_patches(NET, batches(part, sizes), layer=LAYER, patches=start)
            start = Patches(*(jnp.asarray(np.asarray(a)) for a in start))
    assert listed(start) == expected


def test_real_numbers_in_any_order(subject: Subject) -> None:
    """To the last bit where batches are of one size; other sizes round otherwise."""
    images = np.asarray(subject.images(9, seed=5))
    order = np.random.default_rng(0).permutation(9)

    def found(order: np.ndarray, size: int) -> Patches:
        parts = (order[i : i + size] for i in range(0, 9, size))
        stream = ((part, images[part]) for part in parts)
        return vizsynth.top_patches(subject.net, stream, layer=subject.middle, k=3)

    one = found(np.arange(9), 4)
    for a, b in zip(one, found(order, 4), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(one.values, found(order, 9).values, rtol=1e-3, atol=1e-5)


def test_there_may_be_fewer_images_than_places() -> None:
    found = vizsynth.top_patches(NET, batches(range(3), [2]), layer=LAYER, k=5)
    assert listed(found) == sorted_out(ACTIVATIONS[:3], 5)
    assert (np.asarray(found.images)[:, 3:] == -1).all()
    assert (np.asarray(found.values)[:, 3:] == -np.inf).all()
    boxes = vizsynth.patch_boxes(NET, found, layer=LAYER, image_size=SIZE)
    assert (boxes[:, 3:] == 0).all() and (boxes[:, :3, 2:] > boxes[:, :3, :2]).all()


def test_what_is_not_a_number_is_not_taken() -> None:
    A = np.array([[1.0, np.nan], [np.nan, np.nan], [3.0, 2.0]], np.float32)[:, :, None, None]
    empty = Patches(jnp.full((1, 2), -jnp.inf), *(jnp.full((1, 2), -1, jnp.int32) for _ in range(3)))
    found = merged(empty, jnp.asarray(A), jnp.arange(3))
    assert listed(found) == [[(3.0, 2, 0, 0)]]


def test_a_filled_batch_is_one_program() -> None:
    compiled = vizsynth.update_patches.compiled  # type: ignore[attr-defined]
    vizsynth.top_patches(NET, batches(range(N), [8]), layer="relu1", k=3)
    count = compiled._cache_size()
    vizsynth.top_patches(NET, batches(range(N), [8, 3, 5]), layer="relu1", k=3)
    assert compiled._cache_size() == count


def test_boxes_are_receptive_fields() -> None:
    net = tiny("squeezenet").net
    size = (42, 37)
    images = np.random.default_rng(0).random((3, *size, 3), np.float32)
    found = vizsynth.top_patches(net, [(np.arange(3), images)], layer="fire2", k=2)
    boxes = vizsynth.patch_boxes(net, found, layer="fire2", image_size=size)
    for c in range(0, boxes.shape[0], 9):
        for j in range(2):
            at = (int(found.rows[c, j]), int(found.columns[c, j]), c)
            assert tuple(boxes[c, j]) == vizsynth.receptive_field(net, "fire2", at, size)


def test_the_patch_is_all_that_the_neuron_sees() -> None:
    """What lies outside the box may be anything."""
    found = vizsynth.top_patches(NET, batches(range(N), [N]), layer=LAYER, k=1)
    boxes = vizsynth.patch_boxes(NET, found, layer=LAYER, image_size=SIZE)
    for c in range(boxes.shape[0]):
        top, left, bottom, right = boxes[c, 0]
        alone = np.full((1, *SIZE, 3), 0.25, np.float32)
        image = IMAGES[int(found.images[c, 0])]
        alone[0, top:bottom, left:right] = image[top:bottom, left:right]
        A = vizsynth.features(NET, jnp.asarray(alone), [LAYER])[LAYER]
        assert A[0, found.rows[c, 0], found.columns[c, 0], c] == found.values[c, 0]


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_other_precisions(dtype: str, x64: None) -> None:
    net = jax.tree.map(lambda leaf: leaf.astype(dtype), NET)
    stream = [(np.arange(N), jnp.asarray(IMAGES, dtype))]
    found = vizsynth.top_patches(net, stream, layer="relu1", k=K)
    assert found.values.dtype == dtype
    A = np.asarray(vizsynth.features(net, stream[0][1], ["relu1"])["relu1"], np.float64)
    assert listed(found) == sorted_out(A, K)


def test_layers_of_maps() -> None:
    assert map_layers(NET, SIZE) == {
        "conv1": (9, 8, 4), "relu1": (9, 8, 4), "pool1": (4, 4, 4), "conv2": (2, 2, 5), "relu2": (2, 2, 5),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer": "relu9"}, "no layer 'relu9'; its layers are: conv1, relu1"),
        ({"layer": "logits"}, "logits has no maps.*: conv1, relu1, pool1, conv2, relu2"),
        ({"image_size": (1, 1)}, "too small"),
        ({"k": 0}, "k must be a positive integer"),
    ],
)
def test_what_cannot_be_searched_is_said(arguments: dict[str, Any], message: str) -> None:
    wanted = {"layer": LAYER, "image_size": SIZE, "k": 2} | arguments
    with pytest.raises(ValueError, match=message):
        vizsynth.no_patches(NET, wanted["layer"], wanted["image_size"], k=wanted["k"])


def test_patches_of_another_layer_or_wrong_indices_are_refused() -> None:
    start = vizsynth.no_patches(NET, "relu1", SIZE, k=2)
    images = jnp.asarray(IMAGES[:2])
    with pytest.raises(ValueError, match="patches are of 4 channels, but relu2 has 5"):
        vizsynth.update_patches(NET, images, patches=start, layer=LAYER, indices=np.arange(2))
    with pytest.raises(ValueError, match="indices must be 2 whole numbers"):
        vizsynth.update_patches(NET, images, patches=start, layer="relu1", indices=np.arange(3))
    with pytest.raises(ValueError, match="indices lie in 0"):
        vizsynth.update_patches(NET, images, patches=start, layer="relu1", indices=np.array([0, -2]))
    with pytest.raises(ValueError, match="no image in the stream"):
        vizsynth.top_patches(NET, [], layer=LAYER)
    with pytest.raises(ValueError, match="not of relu2"):
        vizsynth.patch_boxes(NET, start, layer=LAYER, image_size=SIZE)
