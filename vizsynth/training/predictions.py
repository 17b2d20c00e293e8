"""Predict the classes of labelled images."""

from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vizsynth.core.chunks import check_count
from vizsynth.core.entry import as_network
from vizsynth.training import data as examples
from vizsynth.training.statistics import at_least_single

AHEAD = 2  # batches read during a step


class Predictions(NamedTuple):
    """A network's logits for labelled images."""

    logits: Float[np.ndarray, "n classes"]
    labels: Int[np.ndarray, " n"]
    """The true labels."""

    @property
    def loss(self) -> float:
        """The mean cross entropy."""
        wide = self.logits.astype(np.float64)
        top = wide.max(axis=1, keepdims=True)
        log_total = np.log(np.exp(wide - top).sum(axis=1)) + top[:, 0]
        return float((log_total - wide[np.arange(len(wide)), self.labels]).mean())

    @property
    def correct(self) -> np.ndarray:
        """Whether each image is classified correctly."""
        return self.logits.argmax(axis=1) == self.labels

    @property
    def accuracy(self) -> float:
        """The share of correct images."""
        return float(self.correct.mean())


def dtype_of(net: Any) -> Any:
    """Return the precision of a network's training: that of its weights, at least single."""
    found = [leaf.dtype for leaf in jax.tree.leaves(net) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return at_least_single(found[0]) if found else jnp.dtype(jnp.float32)


def as_float(images: Array, dtype: Any) -> Array:
    """Return bytes or floats as floats in [0, 1]."""
    return images.astype(dtype) / 255 if images.dtype == jnp.uint8 else images.astype(dtype)


@jax.jit
def logits_of(net: Any, images: Array) -> Array:
    """Return the logits of images that are bytes or floats."""
    return net(as_float(images, dtype_of(net)))


def predict(net: Any, data: Any, *, batch_size: int = 64) -> Predictions:
    """Return a network's logits for labelled images, with their `.accuracy` and `.loss`.

    Args:
        data: `Examples`, or any source of labelled images.

    Returns:
        The logits and the true labels.

    Raises:
        TypeError, ValueError: `data` is not labelled images, or a label is outside the network's classes.

    Example:
        >>> import jax, numpy as np, vizsynth
        >>> from vizsynth.models.sequential import Dense, GlobalMean
        >>> net = vizsynth.models.sequential([GlobalMean(), Dense(2)], (4, 4, 3), key=jax.random.key(0))
        >>> data = vizsynth.Examples(np.zeros((3, 4, 4, 3), np.uint8), np.array([0, 1, 1]), ("a", "b"))
        >>> vizsynth.predict(net, data).logits.shape
        (3, 2)
    """
    check_count(batch_size, "batch_size")
    examples.check(data, net)
    net = as_network(net)
    n = len(data.labels)
    places = [np.arange(n)[i : i + batch_size] for i in range(0, n, batch_size)]
    logits, labels = [], []
    for images, true in read_ahead(data, places):
        padding = ((0, min(batch_size, n) - len(images)), *[(0, 0)] * 3)  # one program for all batches
        logits.append(np.asarray(logits_of(net, np.pad(images, padding)))[: len(images)])
        labels.append(true)
    return Predictions(np.concatenate(logits), np.concatenate(labels))


def read_ahead(
    data: Any, places: Sequence[np.ndarray] | np.ndarray
) -> Generator[tuple[np.ndarray, np.ndarray], None, None]:
    """Yield the batches at these indices; a thread reads the next ones."""
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as reader:
        coming = [reader.submit(data.read, at) for at in places[:AHEAD]]
        try:
            for i in range(len(places)):
                images, labels = coming.pop(0).result()
                if i + AHEAD < len(places):
                    coming.append(reader.submit(data.read, places[i + AHEAD]))
                yield np.asarray(images), np.asarray(labels)
        finally:
            reader.shutdown(wait=True, cancel_futures=True)
