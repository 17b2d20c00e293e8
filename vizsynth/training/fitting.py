"""Fit a classifier: cross entropy by stochastic gradient descent, with resumable steps.

Step t takes the batch B_t of its epoch's order, augments each image x by a(x; ξ) with a key folded from the
run's key, the epoch and the image, and descends along the gradient of

    L = (1 / |B_t|) Σ_{(x, y) ∈ B_t} −log softmax(net(a(x; ξ)))_y

with respect to the weights that are not frozen. Batch normalization takes the batch's statistics
(`vizsynth.training.statistics`). Order, augmentation and learning rate are functions of the key and of t: a
killed training resumes from its last checkpoint to the same history, bit for bit.
"""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from vizsynth import ascent
from vizsynth import ops as arithmetic
from vizsynth.core.chunks import check_count
from vizsynth.core.entry import as_pytree, check_key
from vizsynth.core.work import WorkFolder
from vizsynth.training import data as examples
from vizsynth.training import freezing
from vizsynth.training.history import Record, best_epoch, is_over, records, write_history
from vizsynth.training.predictions import as_float, dtype_of, logits_of, predict, read_ahead
from vizsynth.training.schedules import Optimizer, Schedule, adamw, cosine, rates
from vizsynth.training.statistics import Statistics, in_training, with_statistics
from vizsynth.transforms import none, transformed
from vizsynth.types import Key

HISTORY = "history.json"


class Tally(NamedTuple):
    """Sums over the steps of the current epoch."""

    loss: Float[Array, ""]
    correct: Float[Array, ""]
    examples: Float[Array, ""]


class State(NamedTuple):
    """The state of a training between two steps."""

    net: Any
    memory: Any
    """The state of the optimizer."""
    tally: Tally
    step: Int[Array, ""]
    """The number of steps taken."""
    best: Any
    """The network of the best epoch; None without validation."""
    history: Float[Array, "epochs fields"]
    """The records, without their epochs; NaN for a missing value."""


class Progress(NamedTuple):
    """The progress of a training."""

    step: int
    """The number of steps taken, also by earlier runs of this training."""
    steps: int
    epoch: int
    """The epoch of the step, from 1."""
    loss: Any
    """The mean of the epoch so far: an array that may still be computed."""
    history: tuple[Record, ...]


class Fitted(NamedTuple):
    """The result of a training."""

    net: Any
    """The network of the best epoch on `validation`; without validation, the last one."""
    history: tuple[Record, ...]
    best: Record | None
    """The record of `net`'s epoch; None before the first epoch ends."""
    finished: bool
    """Whether all epochs are done, or `patience` ended it; False if `watch` did."""
    state: State


class Diverged(FloatingPointError):
    """The loss became NaN or infinite."""


# One step ---------------------------------------------------------------------------


class _Moving(NamedTuple):
    """The part of the state that a step changes; its memory is donated."""

    net: Any
    memory: Any
    tally: Tally
    step: Int[Array, ""]


def _weights(net: Any, frozen: Sequence[str]) -> list[Array]:
    leaves = jax.tree.leaves(net)
    return [leaf for leaf, yes in zip(leaves, freezing.trainable(net, frozen), strict=True) if yes]


def _with_weights(net: Any, weights: Sequence[Array], frozen: Sequence[str]) -> Any:
    leaves, structure = jax.tree.flatten(net)
    given = iter(weights)
    chosen = freezing.trainable(net, frozen)
    return jax.tree.unflatten(
        structure, [next(given) if yes else leaf for leaf, yes in zip(leaves, chosen, strict=True)]
    )


@partial(jax.jit, static_argnames=("optimizer", "frozen"), donate_argnames=("moving",))
def _step(
    moving: _Moving,
    images: Array,
    labels: Array,
    indices: Array,
    key: Key,
    learning_rate: Array,
    weight_decay: Array,
    augment: Any,
    *,
    optimizer: Optimizer,
    frozen: tuple[str, ...],
) -> _Moving:
    net = moving.net
    dtype = dtype_of(net)
    keys = jax.vmap(partial(jax.random.fold_in, key))(indices)
    x = transformed(augment, keys, as_float(images, dtype))

    def loss(weights: list[Array]) -> tuple[Array, tuple[dict[str, Statistics], Array]]:
        seen: dict[str, Statistics] = {}
        ops = in_training(arithmetic.fast, seen, fixed=freezing.norms(net, frozen))
        logits = _with_weights(net, weights, frozen)(x, ops=ops).astype(dtype)
        each = optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)
        return each.mean(), (seen, (logits.argmax(axis=-1).astype(labels.dtype) == labels).sum())

    weights = _weights(net, frozen)
    (value, (seen, correct)), gradient = jax.value_and_grad(loss, has_aux=True)(weights)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        updates, memory = optimizer(learning_rate, weight_decay).update(gradient, moving.memory, weights)
        weights = [w + u.astype(w.dtype) for w, u in zip(weights, cast(list[Array], updates), strict=True)]
    net = with_statistics(_with_weights(net, weights, frozen), seen)
    size = jnp.asarray(len(labels), dtype)
    tally = Tally(
        moving.tally.loss + value * size,
        moving.tally.correct + correct.astype(dtype),
        moving.tally.examples + size,
    )
    return _Moving(net, memory, tally, moving.step + 1)


# The training -----------------------------------------------------------------------


def _check_fit(
    net: Any,
    data: Any,
    validation: Any,
    key: Any,
    frozen: Sequence[str],
    patience: int | None,
    numbers: Mapping[str, Any],
) -> None:
    examples.check(data, net)
    if validation is not None:
        examples.check(validation, net, "validation")
        if tuple(validation.classes) != tuple(data.classes):
            raise ValueError(f"validation has the classes {validation.classes}, data has {data.classes}")
    if len(np.unique(data.labels)) < 2:
        raise ValueError("all images are of one class: give images of two classes or more")
    check_key(key)
    for name in ("epochs", "batch_size"):
        check_count(numbers[name], name)
    if not numbers["learning_rate"] > 0 or not np.isfinite(numbers["learning_rate"]):
        raise ValueError(f"learning_rate must be above 0, not {numbers['learning_rate']}")
    if not numbers["weight_decay"] >= 0 or not np.isfinite(numbers["weight_decay"]):
        raise ValueError(f"weight_decay must be at least 0, not {numbers['weight_decay']}")
    if patience is not None:
        check_count(patience, "patience")
        if validation is None:
            raise ValueError("patience needs validation: training.split(data, 0.1, key=...) holds some out")
    freezing.check(net, frozen)
    images, _ = data.read(np.arange(1))
    # Raises if the images are too small.
    jax.eval_shape(logits_of, net, jax.ShapeDtypeStruct(images.shape, images.dtype))


def fit(
    net: Any,
    data: Any,
    *,
    key: Key,
    validation: Any = None,
    epochs: int = 10,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-4,
    optimizer: Optimizer = adamw,
    schedule: Schedule = cosine,
    augment: Any = none,
    frozen: Sequence[str] = (),
    patience: int | None = None,
    folder: str | Path | None = None,
    origin: Mapping[str, Any] | None = None,
    save_every: float = 30.0,
    watch: Callable[[Progress], bool | None] | None = None,
) -> Fitted:
    """Minimize E_{x,y} [−log softmax(net_w(a(x)))_y] over the weights w; return another network.

    Each epoch takes the examples in a new order, in whole batches; it leaves out the remainder.

    Args:
        net: a classifier of two or more classes. Its batch normalization is trained with it: for fine-tuning,
            load the network by `vizsynth.load(..., folded=False)`; `vizsynth.models.with_classes` gives it a
            head for other classes.
        data: labelled images: `Examples`, or any source (`vizsynth.datasets`).
        validation: labelled images that are not trained on. The epoch of the highest accuracy on them gives
            the returned network.
        epochs: the number of passes through the examples.
        batch_size: images per step, at most all of them. Another number gives another result.
        learning_rate: the peak of the schedule.
        weight_decay: of kernels; biases and normalizations do not decay.
        optimizer: `optimizer(learning_rate, weight_decay)`, such as `training.adamw` and `training.sgd`.
        schedule: `schedule(learning_rate, steps)` over all epochs, such as `training.cosine`, `constant`,
            `one_cycle`, `stairs`.
        augment: changes each training image, `(key, image) -> image` (`vizsynth.transforms`). Its key depends
            on `key`, the epoch and the image alone.
        frozen: layers, or beginnings of their names, whose weights and statistics stay fixed.
            `training.up_to(net, layer)` names a layer and those before it.
        patience: stop after so many epochs without a better one on `validation`.
        folder: for checkpoints and `history.json`. A training resumes from its own checkpoint in the folder,
            to the same result, bit for bit.
        origin: anything else that defines this training, as JSON; a checkpoint with another origin is
            refused.
        save_every: seconds between two checkpoints, at least; 0 saves after each step. The last epoch, and a
            training that `watch` stops, are always saved.
        watch: called after each step; if it returns True, the training is saved and ends.

    Returns:
        The network, a record per epoch, and the state.
        Batch normalization is not folded: `vizsynth.models.fold_batch_norm` does that.

    Raises:
        TypeError, ValueError: there are no labelled images or only one class, a label is outside the classes,
        a
            frozen layer does not exist, or the folder holds another training.
        FileExistsError: the folder holds the `history.json` of another training.
        Diverged: the loss became NaN or infinite. The last checkpoint stays.

    Example:
        >>> import jax, numpy as np, vizsynth
        >>> from vizsynth.models.sequential import Dense, GlobalMean
        >>> images = np.repeat(np.uint8([0, 255] * 8), 48).reshape(16, 4, 4, 3)
        >>> data = vizsynth.Examples(images, np.arange(16) % 2, ("dark", "light"))
        >>> net = vizsynth.models.sequential([GlobalMean(), Dense(2)], (4, 4, 3), key=jax.random.key(0))
        >>> options = {"epochs": 30, "batch_size": 8, "learning_rate": 0.1}
        >>> fitted = vizsynth.fit(net, data, key=jax.random.key(1), **options)
        >>> vizsynth.predict(fitted.net, data).accuracy, len(fitted.history)
        (1.0, 30)
    """
    frozen = tuple(frozen)
    numbers = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
    numbers |= {"weight_decay": weight_decay}
    _check_fit(net, data, validation, key, frozen, patience, numbers)
    augment = as_pytree(augment)
    n = len(data.labels)
    size = min(batch_size, n)
    per_epoch = n // size
    steps = per_epoch * epochs
    rate = np.asarray(rates(schedule, learning_rate, steps))
    order_key, augment_key = jax.random.split(key)
    dtype = dtype_of(net)

    def begin() -> State:
        start = jax.tree.map(jnp.copy, net)
        memory = optimizer(jnp.zeros((), dtype), jnp.zeros((), dtype)).init(_weights(start, frozen))
        history = jnp.full((epochs, len(Record._fields) - 1), jnp.nan, dtype)
        best = None if validation is None else jax.tree.map(jnp.copy, start)
        return State(start, memory, _nothing(dtype), jnp.zeros((), jnp.int32), best, history)

    told = {**numbers, "frozen": frozen, "patience": patience, **dict(origin or {})}
    told |= {"optimizer": _name(optimizer), "schedule": _name(schedule), "augment": repr(augment)}
    told |= {"key": np.asarray(jax.random.key_data(key)).tolist(), "examples": _digest(data)}
    told |= {"validation": None if validation is None else _digest(validation)}
    work = None if folder is None else WorkFolder(folder)
    if work is not None:
        work.check(told, [HISTORY])
    if folder is not None and ascent.has_checkpoint(folder):
        state = ascent.restore(folder, jax.eval_shape(begin))
    else:
        state = begin()

    def save(state: State) -> None:
        nonlocal saved
        if work is not None:
            ascent.save(work.path, state, told)
            write_history(work.claim(HISTORY), records(state.history))
            saved = time.monotonic()

    saved = time.monotonic()
    history = records(state.history)
    stopped = False
    while not is_over(history, epochs, patience) and not stopped:
        epoch, first = len(history), int(state.step) % per_epoch
        places = _batches(order_key, epoch, n, size)
        this_key = jax.random.fold_in(augment_key, epoch)
        batches = read_ahead(data, places[first:])
        for i, (images, labels) in enumerate(batches, start=epoch * per_epoch + first):
            moving = _step(
                _Moving(state.net, state.memory, state.tally, state.step),
                images,
                labels.astype(np.int32),
                places[i % per_epoch].astype(np.int32),
                this_key,
                jnp.asarray(rate[i], dtype),
                jnp.asarray(weight_decay, dtype),
                augment,
                optimizer=optimizer,
                frozen=frozen,
            )
            state = state._replace(**moving._asdict())
            mean = state.tally.loss / state.tally.examples
            if (i + 1) % per_epoch == 0:
                state = _end_epoch(state, epoch, float(rate[i]), validation, batch_size)
                history = records(state.history)
            stopped = watch is not None and bool(watch(Progress(i + 1, steps, epoch + 1, mean, history)))
            over = is_over(history, epochs, patience)
            if over or stopped or time.monotonic() - saved >= save_every:
                if not np.isfinite(float(mean)):
                    raise _diverged(epoch + 1)
                save(state)
            if stopped:
                batches.close()
                break
    best = best_epoch(history)
    net = state.net if best is None or state.best is None else state.best
    return Fitted(net, history, best, is_over(history, epochs, patience), state)


def _batches(key: Key, epoch: int, n: int, batch_size: int) -> Int[np.ndarray, "batches b"]:
    """Return the indices of each whole batch of an epoch."""
    return examples.order(key, epoch, n)[: n // batch_size * batch_size].reshape(-1, batch_size)


def _end_epoch(state: State, epoch: int, rate: float, validation: Any, batch_size: int) -> State:
    loss, correct, count = (float(v) for v in state.tally)
    if not np.isfinite(loss):
        raise _diverged(epoch + 1)
    row = [rate, loss / count, correct / count, np.nan, np.nan]
    if validation is not None:
        found = predict(state.net, validation, batch_size=batch_size)
        row[3:] = [found.loss, found.accuracy]
    dtype = state.history.dtype
    history = state.history.at[epoch].set(jnp.asarray(row, dtype))
    best = state.best
    chosen = best_epoch(records(history))
    if validation is not None and chosen is not None and chosen.epoch == epoch + 1:
        best = jax.tree.map(jnp.copy, state.net)
    return state._replace(history=history, best=best, tally=_nothing(dtype))


def _diverged(epoch: int) -> Diverged:
    return Diverged(f"the loss became NaN or infinite in epoch {epoch}: give a smaller learning rate")


def _nothing(dtype: Any) -> Tally:
    return Tally(*(jnp.zeros((), dtype) for _ in Tally._fields))


def _name(function: Any) -> str:
    return getattr(function, "__qualname__", repr(function))


def _digest(data: Any) -> str:
    """Return a digest of the labels, the classes and the first images."""
    first, _ = data.read(np.arange(min(8, len(data.labels))))
    parts = (np.asarray(data.labels, np.int64), np.ascontiguousarray(first))
    text = b"".join(part.tobytes() for part in parts) + "\0".join(data.classes).encode(errors="surrogatepass")
    return hashlib.sha256(text).hexdigest()
