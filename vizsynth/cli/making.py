"""What the commands that make pictures step by step share: progress, frames, interruption, resumption."""

import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np

from vizsynth.cli import common
from vizsynth.core.texts import printable

STATE, FRAMES = "state", "frames"
CHUNKS = 16  # how often, in a run, progress is shown and the state saved

every = click.option(
    "--every", type=click.IntRange(1), metavar="STEPS", help="Keep a frame so often, in DIR/frames."
)
resume = click.option("--resume", is_flag=True, help="Go on with the run that was stopped in DIR.")
side = click.option(
    "--size", type=click.IntRange(33, 4096), default=224, metavar="PIXELS",
    help="The side of the pictures [224].",
)  # fmt: skip


def steps(default: int, what: str = "How many steps") -> Callable[[Any], Any]:
    """Return the option for a number of steps."""
    return click.option(
        "--steps", type=click.IntRange(1, 1_000_000), default=default, help=f"{what} [{default}]."
    )


class Made(NamedTuple):
    """What there is at the end of a run, however it ended."""

    images: np.ndarray
    trace: np.ndarray
    """The objective at each step that this run took."""
    steps: int
    """How many steps were taken, those of a run before included."""
    state: Any
    frames: list[str]
    """The frames that were kept, as paths in the folder."""
    stopped: str | None
    """Why it ended before its last step, if it did."""


class Stopped(click.ClickException):
    """A run ended before its last step; what there is was written."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]


def chunk_size(steps: int, every: int | None) -> int:
    """Return how many steps to take at once: all chunks alike, so that they are one program."""
    if every is not None:
        return min(every, steps)
    least = -(-steps // CHUNKS)
    return next((n for n in range(least, 2 * least) if steps % n == 0), least)


def check_state(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Check that what an earlier run left in the folder is wanted, or not there.

    Raises:
        BadInput: there is nothing to go on with; there is, and nobody said what to do with it.
    """
    from vizsynth.ascent import has_checkpoint

    states = folder / STATE
    left = any(map(has_checkpoint, (states, *states.glob("*"))))  # a run, or several that have names
    if resume and not left:
        raise common.BadInput(f"{folder} holds no run that was stopped; leave out --resume to begin one")
    if left and not resume and not overwrite:
        raise common.BadInput(
            f"{folder} holds a run that was stopped: --resume goes on with it, --overwrite begins anew"
        )


def make(
    take: Callable[[Any, int], Any],
    *,
    what: str,
    steps: int,
    every: int | None,
    folder: Path,
    origin: Mapping[str, Any],
    resume: bool,
    quiet: bool,
    show: Callable[[Any], np.ndarray] | None = None,
    name: str = "",
    until: Callable[[Any], bool] = lambda state: False,
) -> Made:
    """Run to the end, to an interruption, or to NaN; return what there is then.

    Args:
        take: `take(state, steps)` as `vizsynth.ascent.chunks` has it.
        what: the name beside the bar.
        steps: how many in all.
        every: how many lie between two frames; None keeps none.
        folder: the state is saved in a folder of it.
        origin: what makes the run what it is.
        resume: whether to go on with a run there; else it is begun anew.
        quiet: whether to show nothing.
        show: makes the picture of a frame; by default the images side by side.
        name: of the run among others in the folder.
        until: tells of a state whether there is nothing left to do.
    """
    from vizsynth import ascent
    from vizsynth.figures import grid
    from vizsynth.files import write_image

    saved = folder / STATE / name if name else folder / STATE
    if not resume:
        shutil.rmtree(saved, ignore_errors=True)
    last, stopped, traces, frames = None, None, [], []
    try:
        with bar(what, steps, quiet) as advance, patient() as asked_to_stop:
            chunks = ascent.chunks(
                take, steps=steps, every=chunk_size(steps, every), folder=saved, origin=origin
            )
            for last in chunks:
                traces.append(np.asarray(last.trace))
                done = _steps(last)
                if every is not None:
                    picture = show(last) if show is not None else grid(list(np.asarray(last.images)))
                    frames.append(f"{FRAMES}/{name + '-' if name else ''}{done:06d}.png")
                    write_image(folder / frames[-1], picture)
                advance(done, traces[-1])
                if until(last.state):
                    break
                if asked_to_stop() and done < steps:
                    raise KeyboardInterrupt
    except KeyboardInterrupt:
        if last is None:
            raise
        stopped = f"interrupted at step {_steps(last)} of {steps}; --resume goes on from there"
    except ascent.Diverged as error:
        last, stopped = error.last, str(error)
    if last is None:
        raise click.ClickException("the run gave no picture")
    images, trace = np.asarray(last.images), np.concatenate(traces, axis=1) if traces else np.zeros((1, 0))
    return Made(images, trace, _steps(last), last.state, frames, stopped)


@contextmanager
def patient() -> Iterator[Callable[[], bool]]:
    """Let a first Ctrl-C wait until what is being computed and saved is whole; a second one stops at once.

    Gives a function that tells whether there was one. What saves a state has event loops of its own, which
    would swallow the signal.
    """
    asked = False

    def remember(*_: Any) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        common.say("")  # behind what the terminal shows of Ctrl-C
        common.say("stopping after these steps; Ctrl-C again stops at once")

    try:
        before = signal.signal(signal.SIGINT, remember)
    except ValueError:  # not the main thread: signals go elsewhere
        yield lambda: False
        return
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)


def _steps(result: Any) -> int:
    return int(np.min(np.asarray(result.state.step)))


def finish(folder: Path, made: Sequence[Made]) -> None:
    """Forget the saved state of a run that is done; or say how one that is not can be gone on with."""
    for one in made:
        if one.stopped is not None:
            diverged = not one.stopped.startswith("interrupted")
            raise Stopped(one.stopped, 1 if diverged else 130)
    shutil.rmtree(folder / STATE, ignore_errors=True)


@contextmanager
def bar(
    what: str, steps: int, quiet: bool, unit: str = "steps", *, begun: int = 0, rate: bool = False
) -> Iterator[Callable[[int, np.ndarray], None]]:
    """Give a function to call with the steps done and the trace since: a bar, or a line at the end.

    `begun` were done before; with `rate` the bar tells how many are done a second, too.
    """
    what = printable(what)
    if quiet:
        yield lambda done, trace: None
        return
    if not sys.stderr.isatty():
        common.say(f"{what}: {steps} {unit} (compiling takes some seconds the first time) ...")
        yield lambda done, trace: None
        return
    common.need_extra("tqdm")
    from tqdm import tqdm

    speed = ", {rate_noinv_fmt}" if rate else ""
    layout = "{desc} {bar:20} {n_fmt}/{total_fmt} " + unit + speed + ", {remaining} left{postfix}"
    with tqdm(
        total=steps, initial=begun, file=sys.stderr, leave=False, bar_format=layout,
        desc=f"{what}: compiling", unit=f" {unit}",
    ) as bar:  # fmt: skip

        def advance(done: int, trace: np.ndarray) -> None:
            bar.set_description_str(what)
            if trace.size:
                bar.set_postfix_str(f"objective {trace[:, -1].mean():.4g}")
            bar.n = done
            bar.refresh()

        yield advance


def objective_summary(trace: np.ndarray) -> dict[str, Any]:
    """Return the first, best and last objective of each picture, for numbers.json."""
    if trace.shape[1] == 0:
        return {}
    kept = np.where(np.isfinite(trace), trace, np.nan)
    return {
        "first": [float(v) for v in np.nan_to_num(kept[:, 0])],
        "best": [float(v) for v in np.nan_to_num(np.nanmax(np.where(np.isnan(kept), -np.inf, kept), axis=1))],
        "last": [float(v) for v in np.nan_to_num(kept[:, -1])],
    }
