"""Gradient ascent: the loop of all synthesis.

Each step is x ← x + update(∇ₓ J(x; ξ_t)), where the update is an optax transformation and ξ_t is the run's
key folded with the step. A run of many steps is one compiled scan. Its `State` holds everything between two
steps, so a run in chunks, or saved and resumed, equals an uninterrupted run bit for bit.

optax descends: its transformations get the gradient of −J. As extra arguments they get the raw gradient
(`grad`), the value, and a function that evaluates −J (for line searches).
"""

import io
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from vizsynth.core.atomic import full_disk, full_disk_told
from vizsynth.core.chunks import each
from vizsynth.core.paths import utf8_path
from vizsynth.core.work import WorkFolder
from vizsynth.types import Key, Synthesis

Objective = Callable[[Any, Key], Float[Array, ""]]
"""J(params, key), which is maximized. Each step has its own key."""


class State(NamedTuple):
    """The state of a run between two steps."""

    params: Any
    """The optimized values."""
    memory: Any
    """The optimizer's state."""
    key: Key
    step: Int[Array, ""]
    """The number of steps so far."""


class Diverged(FloatingPointError):
    """A run met NaN or infinity at `step`; `last` is the result before it."""

    def __init__(self, step: int, cause: str, last: Synthesis) -> None:
        super().__init__(f"step {step} gave NaN or infinity: {cause}; the picture of the step before is kept")
        self.step = step
        self.last = last


def init(params: Any, optimizer: optax.GradientTransformation, *, key: Key) -> State:
    """Return the state before the first step.

    >>> import optax
    >>> state = init(jnp.zeros(3), optax.sgd(0.1), key=jax.random.key(0))
    >>> int(state.step)
    0
    """
    return State(params, optimizer.init(params), key, jnp.zeros((), jnp.int32))


def run(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    state: State,
    steps: int,
    *,
    stochastic: bool = True,
) -> tuple[State, Float[Array, " steps"]]:
    """Take `steps` steps; return the new state and the objective before each of them.

    If the objective, the gradient or the next parameters are not finite, the run stops changing: the state
    stays that before this step, and the trace is NaN from there on.

    Args:
        objective: J(params, key).
        optimizer: an optax transformation, line searches included.
        state: the state before these steps.
        steps: the number of steps.
        stochastic: whether J depends on its key. If not, a line search passes its last value and gradient
            on to the next step, which saves one evaluation per step.

    >>> import optax
    >>> sgd = optax.sgd(0.25)
    >>> state = init(jnp.asarray(4.0), sgd, key=jax.random.key(0))
    >>> state, trace = run(lambda x, key: -(x**2), sgd, state, 3)
    >>> trace.tolist(), float(state.params)
    ([-16.0, -4.0, -1.0], 0.5)
    """
    optimizer = optax.with_extra_args_support(optimizer)

    def step(state: State, _: None) -> tuple[State, Array]:
        key = jax.random.fold_in(state.key, state.step)

        def loss(params: Any) -> Array:
            return -objective(params, key)

        if stochastic:
            value, grad = jax.value_and_grad(loss)(state.params)
        else:
            value, grad = _value_and_grad(loss, state)
        # optax mixes integers and floats.
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            updates, memory = optimizer.update(
                grad, state.memory, state.params, value=value, grad=grad, value_fn=loss
            )
            params = optax.apply_updates(state.params, updates)
        good = _finite((value, grad, params))
        after = State(params, memory, state.key, state.step + 1)
        kept = jax.tree.map(lambda new, old: jnp.where(good, new, old), _raw(after), _raw(state))
        kept = kept._replace(key=state.key)
        return kept, jnp.where(good, -value, jnp.full_like(value, jnp.nan))

    return jax.lax.scan(step, state, None, length=steps)


def run_each(
    one: Callable[[Any], tuple[State, Array]], runs: Any, batch_size: int | None = None
) -> tuple[State, Float[Array, "n steps"]]:
    """Return `one(run)` of each run, stacked: `batch_size` together, by default all.

    Runs with a line search go one after another: together, each would take the evaluations of the slowest,
    and compute every branch.

    Args:
        one: takes a run's state, or a tuple of it and other values of this run.
        runs: the same, `[n, ...]`.
        batch_size: the number of runs computed together.
    """
    state = runs if isinstance(runs, State) else runs[0]
    # A resumed run must compile to the same program as a fresh one: the computation of the first state must
    # not fuse with the steps.
    runs = jax.lax.optimization_barrier(runs)
    together = 1 if _search(state.memory) else batch_size or state.step.shape[0]
    return each(one, runs, together)


def _search(memory: Any) -> bool:
    """Tell whether an optimizer's state belongs to a line search."""
    return bool(optax.tree.get_all_with_path(memory, "num_linesearch_steps"))


def _value_and_grad(loss: Callable[[Any], Array], state: State) -> tuple[Array, Any]:
    """Return the loss and its gradient, from the line search's state if it has them."""
    try:
        known = optax.tree.get(state.memory, "value") is not None
    except KeyError:  # several values
        known = False
    if not known:
        return jax.value_and_grad(loss)(state.params)
    value, grad = optax.value_and_grad_from_state(loss)(state.params, state=state.memory)
    return jnp.asarray(value), grad


def _raw(state: State) -> State:
    return state._replace(key=None)


def _finite(tree: Any) -> Bool[Array, ""]:
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]).all()


# In chunks, on the host ---------------------------------------------------------


def chunks(
    take: Callable[[Any, int], Synthesis],
    *,
    steps: int,
    every: int,
    folder: str | Path | None = None,
    origin: Mapping[str, Any] | None = None,
    keep: Callable[[Synthesis], Mapping[str, np.ndarray]] | None = None,
) -> Iterator[Synthesis]:
    """Run a synthesis in chunks; give the picture, the chunk's trace and the state after each.

    Between chunks the host may show progress, keep frames, or stop. With a folder, each chunk's state is
    saved there before it is given out, and a run that finds one there goes on from it: it then ends bit
    for bit as one that was not interrupted, however it was. The trace of all steps so far is saved beside
    the state: `beside(folder)["trace"]`.

    Args:
        take: `take(state, steps)`, for instance
            `lambda state, steps: vizsynth.visualize_class(net, 281, key=key, steps=steps, state=state)`;
            the state of a run that has not begun is None.
        steps: how many in all, those of an interrupted run included.
        every: how many a chunk. Chunks of another length compile another program.
        folder: where the state is saved (and looked for).
        origin: what makes this run what it is (settings, seed), as JSON: a state that was saved by
            a run of another origin is refused.
        keep: `keep(result)` returns arrays by name that are saved beside the state of a result.

    Raises:
        ValueError: steps or every below 1; a folder that holds the state of another run.
        Diverged: NaN or infinity; the last good picture is in the exception, and its state is saved.
        OSError: the state cannot be saved; the one before it stays.
    """
    for name, value in (("steps", steps), ("every", every)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    state = None
    done = 0
    kept: dict[str, np.ndarray] = {}
    if folder is not None:
        WorkFolder(folder).check(origin)
        if has_checkpoint(folder):
            state = restore(folder, jax.eval_shape(lambda: take(None, 1).state))
            kept = beside(folder)
            done = _steps_of(state)
            if done >= steps:
                yield take(state, 0)
    while done < steps:
        count = min(every, steps - done)
        result = jax.block_until_ready(take(state, count))
        reached = _steps_of(result.state)
        trace = np.asarray(result.trace)
        good = bool(np.isfinite(trace).all())
        if folder is not None:
            new = trace if good else trace[..., : reached - done]
            kept["trace"] = np.concatenate([kept["trace"], new], axis=-1) if "trace" in kept else new
            if good and keep is not None:
                kept |= keep(result)
            save(folder, result.state, origin, kept)
        if not good:
            raise Diverged(reached, _cause(result), result)
        state, done = result.state, done + count
        yield result


def _steps_of(state: Any) -> int:
    """Return the least number of steps that any picture of a run has taken."""
    return int(np.min(np.asarray(state.step)))


def _cause(result: Synthesis) -> str:
    finite = np.asarray(result.trace)
    finite = np.abs(finite[np.isfinite(finite)])
    if finite.size == 0:
        return "the objective is not finite at the start: check the weights, the target and the first picture"
    if finite[-1] > 1e3 * max(finite[0], 1e-3):
        return "the objective grew without bound: give a smaller learning rate"
    return "the step was too long, or a penalty too strong: give a smaller learning rate or weight"


# Saving and taking up again --------------------------------------------------------

FILE = 8192  # bytes that a file takes beside what is in it, at most
_STATE = "state"  # in a checkpoint's folder; what is beside it are files of arrays


def save(
    folder: str | Path,
    state: Any,
    origin: Mapping[str, Any] | None = None,
    beside: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write a run's state into a folder. The state before it is there until this one is whole.

    `run.json` in the folder names what is the run's own there; nothing else is touched.

    Args:
        folder: of the run alone, or one that holds other things too; it is made.
        state: a pytree of arrays that has `step`.
        origin: what makes the run what it is, as JSON.
        beside: arrays by name that belong to this state; the function `beside` returns them.

    Raises:
        ValueError: the folder holds another run.
        OSError: it cannot be written, for instance as the disk is full; the state before it stays.

    >>> import tempfile
    >>> import optax
    >>> state = init(jnp.ones(3), optax.adam(0.1), key=jax.random.key(0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(folder, state)
    ...     restore(folder, state).params.tolist()
    [1.0, 1.0, 1.0]
    """
    import orbax.checkpoint as ocp  # seconds to import: only who saves waits for it

    work = WorkFolder(Path(folder).absolute())
    work.begin(origin)
    place = work.claim_new(f"step-{_steps_of(state)}")
    try:
        with full_disk_told(f"cannot save the run in {folder}"), _unlogged():
            place.mkdir()
            for name, array in (beside or {}).items():
                (place / f"{name}.npy").write_bytes(_encoded(array))
            _check_room(place, state)
            with ocp.StandardCheckpointer() as checkpointer:
                checkpointer.save(utf8_path(place / _STATE), _without_keys(state))
            work.tell({"checkpoint": place.name})  # from here on it is the run's state
    except BaseException:
        if _checkpoint(folder) != place:
            with suppress(OSError):
                work.remove(place.name)
        raise
    for name in work.names():
        if name != place.name and name.startswith("step-"):
            work.remove(name)


def restore(folder: str | Path, like: Any) -> Any:
    """Return the state that was saved last, in the shapes and kinds of `like`."""
    import orbax.checkpoint as ocp

    path = _checkpoint(folder)
    if path is None:
        raise FileNotFoundError(f"{folder} holds no saved run")
    plain = jax.eval_shape(_without_keys, like)
    saved = utf8_path(path / _STATE)
    with ocp.StandardCheckpointer() as checkpointer:
        # Asked before anything is read: a reading that fails half way leaves tasks behind.
        there: Any = checkpointer.metadata(saved)
        if _kinds(there.item_metadata.tree) != _kinds(plain):
            raise ValueError(f"{folder} holds the state of another run: its arrays are others")
        try:
            read = checkpointer.restore(saved, plain)
        except (ValueError, KeyError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{folder} holds the state of another run: {reason}") from None
    return _with_keys(read, like)


def beside(folder: str | Path) -> dict[str, np.ndarray]:
    """Return the arrays that were saved beside the last state, by name; `trace` is that of `chunks`.

    Raises:
        ValueError: one of them is damaged.

    >>> import tempfile
    >>> import optax
    >>> state = init(jnp.ones(3), optax.sgd(0.1), key=jax.random.key(0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(folder, state, beside={"seen": np.asarray(["a.png"])})
    ...     beside(folder)["seen"].tolist()
    ['a.png']
    """
    place = _checkpoint(folder)
    found = {}
    for path in sorted(place.glob("*.npy")) if place is not None else ():
        try:  # mapped first: what the file says of its size is then compared with its size
            found[path.stem] = np.array(np.lib.format.open_memmap(path, mode="r"))
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} is damaged: {error}; begin the run in another folder") from None
    return found


def _encoded(array: np.ndarray) -> bytes:
    array = np.asarray(array)
    file = io.BytesIO()
    np.save(
        file, array.astype(np.float32) if array.dtype.kind == "V" else array, allow_pickle=False
    )  # bfloat16
    return file.getvalue()


def _kinds(tree: Any) -> list[tuple[tuple[int, ...], str]]:
    """Return the shapes and precisions of all arrays, whatever they are called."""
    return sorted((tuple(leaf.shape), str(np.dtype(leaf.dtype))) for leaf in jax.tree.leaves(tree))


def has_checkpoint(folder: str | Path) -> bool:
    """Tell whether there is a run to take up again."""
    return _checkpoint(folder) is not None


def check_origin(folder: str | Path, origin: Mapping[str, Any] | None) -> None:
    """Raise unless the run saved in a folder is of the given origin."""
    WorkFolder(folder).check_origin(origin)


def _checkpoint(folder: str | Path) -> Path | None:
    """Return the folder of the state that was saved last."""
    work = WorkFolder(Path(folder).absolute())
    name = work.told().get("checkpoint")
    if name not in work.names():
        return None
    place = work.path / name
    return place if not place.is_symlink() and (place / _STATE).is_dir() else None


def _check_room(place: Path, state: Any) -> None:
    """Raise if there is no room for a state. Orbax would notice half way, and leave threads behind."""
    leaves = jax.tree.leaves(state)
    count = sum(getattr(leaf, "nbytes", 8) for leaf in leaves) + FILE * (len(leaves) + 16)
    path = place / "room"
    try:
        with path.open("xb") as file:
            os.posix_fallocate(file.fileno(), 0, count)
    except (AttributeError, OSError) as error:  # a system that cannot: Orbax will say
        if full_disk(error) is not None:
            raise
    path.unlink(missing_ok=True)


@contextmanager
def _unlogged() -> Iterator[None]:
    """Keep Orbax from logging what it raises as well, traceback after traceback."""
    logger, silent = logging.getLogger("absl"), lambda record: False
    logger.addFilter(silent)
    try:
        yield
    finally:
        logger.removeFilter(silent)


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _without_keys(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jax.random.key_data(leaf) if _is_key(leaf) else leaf, tree)


def _with_keys(tree: Any, like: Any) -> Any:
    return jax.tree.map(
        lambda leaf, kind: jax.random.wrap_key_data(leaf) if _is_key(kind) else leaf, tree, like
    )
