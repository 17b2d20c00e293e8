"""Labelled images for training: in memory, or from a source.

Orders and splits are pure functions of a key: a killed training, resumed, sees the same batches.
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Int, Shaped

from vizsynth.types import Key


@runtime_checkable
class Source(Protocol):
    """Labelled images that are read batch by batch, such as a folder larger than memory."""

    @property
    def labels(self) -> np.ndarray: ...  # noqa: D102

    @property
    def classes(self) -> tuple[str, ...]: ...  # noqa: D102

    def read(self, indices: Any, /) -> tuple[np.ndarray, np.ndarray]:
        """Return the images `[b, h, w, 3]`, uint8 or float in [0, 1], and their labels `[b]`."""
        ...

    def take(self, indices: Any, /) -> "Source":
        """Return a source of these images alone."""
        ...


class Examples(NamedTuple):
    """Labelled images in memory."""

    images: Shaped[np.ndarray, "n h w 3"]
    """uint8, or float in [0, 1]."""
    labels: Int[np.ndarray, " n"]
    classes: tuple[str, ...]
    """The names of the classes; a label is an index of it."""

    def read(self, indices: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return some of the images and their labels."""
        return self.images[indices], self.labels[indices]

    def take(self, indices: Any) -> "Examples":
        """Return some of the examples, with all class names."""
        return Examples(self.images[indices], self.labels[indices], self.classes)


class Parts(NamedTuple):
    """The two parts of a data set."""

    training: Any
    held_out: Any


def split(data: Source, share: float, *, key: Key) -> Parts:
    """Hold out a share of each class.

    Args:
        data: `Examples`, or any source.
        share: in (0, 1); each part has at least one example of each class.

    Returns:
        The parts, each in the order of `data`.

    Raises:
        ValueError: the share is not in (0, 1), or a class has one example.

    >>> import jax
    >>> data = Examples(np.zeros((10, 4, 4, 3), np.uint8), np.arange(10) % 2, ("even", "odd"))
    >>> parts = split(data, 0.4, key=jax.random.key(0))
    >>> [np.bincount(part.labels).tolist() for part in parts]
    [[3, 3], [2, 2]]
    """
    if not 0 < share < 1:
        raise ValueError(f"the share that is held out must lie between 0 and 1, not {share}")
    labels = np.asarray(data.labels)
    drawn = np.asarray(jax.random.permutation(key, len(labels)))
    held_out = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        mine = drawn[labels[drawn] == label]
        if len(mine) < 2:
            name = data.classes[label] if label < len(data.classes) else label
            raise ValueError(f"class {name} has one image: give it more, so that one can be held out")
        held_out[mine[: min(max(1, round(share * len(mine))), len(mine) - 1)]] = True
    return Parts(data.take(np.flatnonzero(~held_out)), data.take(np.flatnonzero(held_out)))


def order(key: Key, epoch: int, n: int) -> Int[np.ndarray, " n"]:
    """Return the order of an epoch's examples: a function of the key and the epoch alone.

    >>> import jax
    >>> order(jax.random.key(0), 3, 5).tolist() == order(jax.random.key(0), 3, 5).tolist()
    True
    """
    return np.asarray(jax.random.permutation(jax.random.fold_in(key, epoch), n))


def check(data: Any, net: Any, name: str = "data") -> None:
    """Check that a network can be trained on a data set.

    Raises:
        TypeError: `data` is not a source, or its labels or images have the wrong type.
        ValueError: there is no example, the network has no classes, a label is outside them, or the images
            are not `[n, h, w, 3]`.
    """
    if not isinstance(data, Source):
        raise TypeError(
            f"{name} must be labelled images, training.Examples(images, labels, classes) or a source of "
            f"them (vizsynth.datasets), not {type(data).__name__}"
        )
    labels = np.asarray(data.labels)
    if labels.ndim != 1 or not len(labels):
        raise ValueError(f"{name} must have one label per image, at least one; its labels are {labels.shape}")
    if not np.issubdtype(labels.dtype, np.integer):
        raise TypeError(f"the labels of {name} must be integers, not {labels.dtype}")
    classes = getattr(net, "num_classes", None)
    if classes is None or classes < 2:
        raise ValueError(
            f"net must be a classifier of two or more classes, not of {classes}: "
            "vizsynth.models.with_classes(net, names, key=...) gives it a head of random weights"
        )
    if labels.min() < 0 or labels.max() >= classes:
        wrong = sorted({int(v) for v in labels if not 0 <= v < classes})
        shown = ", ".join(map(str, wrong[:5])) + (", ..." if len(wrong) > 5 else "")
        raise ValueError(
            f"{name} has labels ({shown}) outside the network's {classes} classes 0..{classes - 1}: "
            "mend them, or give the network more classes"
        )
    if isinstance(data, Examples):
        images = data.images
        if images.ndim != 4 or images.shape[-1] != 3 or len(images) != len(labels):
            raise ValueError(
                f"the images of {name} must be [{len(labels)}, h, w, 3], one per label, not {images.shape}"
            )
        if images.dtype != np.uint8 and not np.issubdtype(images.dtype, np.floating):
            raise TypeError(f"the images of {name} must be uint8, or float in [0, 1], not {images.dtype}")
