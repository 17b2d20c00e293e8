"""What the commands that make pictures step by step share: progress, frames, interruption, resumption."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import click
import numpy as np

from vizsynth.cli import common
from vizsynth.cli.output import ONLY, OutputFolder, frame, is_frame
from vizsynth.core import signals
from vizsynth.core.atomic import told
from vizsynth.core.signals import Interrupted, exit_code
from vizsynth.core.texts import printable

CHUNKS = 16  # how often, in a run, progress is shown and the state saved


class Made(NamedTuple):
    """What there is at the end of a run, however it ended."""

    images: np.ndarray
    trace: np.ndarray
    """The objective at each step, those of a run before included."""
    steps: int
    """How many steps were taken, those of a run before included."""
    state: Any
    frames: list[str]
    """The frames that were kept, as paths in the folder, those of a run before included."""
    stopped: str | None
    """Why it ended before its last step, if it did."""
    code: int = 0
    """The exit code then."""

    @property
    def numbers(self) -> dict[str, Any]:
        """What numbers.json says of the run."""
        return {"steps": self.steps, "finished": self.stopped is None, "frames": self.frames}


class Stopped(click.ClickException):
    """A run ended before its last step; what there is was written."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]


def frames(
    every: int | None, steps: int, folder: OutputFolder, runs: Iterable[str] = (ONLY,)
) -> Callable[[str], bool] | None:
    """Return what tells of a name in DIR/frames whether it will be written; None where no frames are kept."""
    if every is None:
        return None
    names = set(runs)  # a run that goes on counts from where it was stopped

    def wanted(step: int) -> bool:
        return 1 <= step <= steps and (bool(folder.resume) or step % every == 0 or step == steps)

    return lambda name: is_frame(name, names, wanted)


def chunk_size(steps: int, every: int | None) -> int:
    """Return how many steps to take at once: all chunks alike, so that they are one program."""
    if every is not None:
        return min(every, steps)
    least = -(-steps // CHUNKS)
    return next((n for n in range(least, 2 * least) if steps % n == 0), least)


def make(
    take: Callable[[Any, int], Any],
    *,
    what: str,
    steps: int,
    every: int | None,
    folder: OutputFolder,
    quiet: bool,
    show: Callable[[Any], np.ndarray] | None = None,
    name: str = ONLY,
    until: Callable[[Any], bool] = lambda state: False,
) -> Made:
    """Run to the end, to an interruption, or to NaN; return what there is then.

    A frame is saved with the state before it is written: a run that is killed between the two writes it when
    it goes on.

    Args:
        take: `take(state, steps)` as `vizsynth.ascent.chunks` has it.
        what: the name beside the bar.
        steps: how many in all.
        every: how many lie between two frames; None keeps none.
        folder: where the state is saved and frames are kept; it knows whether a run there goes on.
        quiet: whether to show nothing.
        show: makes the picture of a frame; by default the images side by side.
        name: of the run among others in the folder.
        until: tells of a state whether there is nothing left to do.
    """
    from vizsynth import ascent
    from vizsynth.figures import grid

    last, stopped, code = None, None, 0
    with folder.working(name) as saved:
        before = ascent.beside(saved)  # of a run that goes on; else nothing
        traces = [before["trace"]] if "trace" in before else []
        kept = [int(step) for step in before.get("frames", ())]
        picture = before.get("frame")  # of the last of them, until it is written

        def keep(result: Any) -> dict[str, np.ndarray]:
            nonlocal picture
            done = _steps(result)
            if every is not None and done not in kept:
                kept.append(done)
                shown = show(result) if show is not None else grid(list(np.asarray(result.images)))
                picture = np.asarray(shown)
            found = {"frames": np.asarray(kept, np.int64)}
            return found if picture is None else found | {"frame": picture}

        def write_frame() -> None:
            nonlocal picture
            if picture is not None:
                folder.keep_frame(frame(kept[-1], name), picture)
                picture = None

        if kept and (folder.path / frame(kept[-1], name)).exists():
            picture = None
        try:
            with bar(what, steps, quiet) as advance, patient() as asked_to_stop:
                write_frame()
                for last in ascent.chunks(
                    take, steps=steps, every=chunk_size(steps, every), folder=saved, origin=folder.origin,
                    keep=keep,
                ):  # fmt: skip
                    traces.append(np.asarray(last.trace))
                    done = _steps(last)
                    write_frame()
                    advance(done, traces[-1])
                    if until(last.state):
                        break
                    if done < steps and (asked := asked_to_stop()):
                        raise Interrupted(asked)
        except KeyboardInterrupt as error:
            if last is None:
                raise
            stopped = f"interrupted at step {_steps(last)} of {steps}; --resume goes on from there"
            code = exit_code(error)
        except ascent.Diverged as error:
            last, stopped, code = error.last, str(error), 1
            traces = [ascent.beside(saved)["trace"]]
        except OSError as error:
            if not folder.stopped:
                raise
            raise Stopped(f"{told(error)}; --resume goes on from what was saved", 1) from error
        if last is None:
            raise click.ClickException("the run gave no picture")
    images = np.asarray(last.images)
    trace = np.concatenate(traces, axis=1) if traces else np.zeros((1, 0))
    reached = _steps(last)
    shown = [frame(step, name) for step in kept if step <= reached]
    return Made(images, trace, reached, last.state, shown, stopped, code)


@contextmanager
def patient() -> Iterator[Callable[[], Any]]:
    """Let a first Ctrl-C wait until what is being computed and saved is whole; a second one stops at once.

    SIGTERM and SIGHUP are as Ctrl-C. Gives a function that returns the signal, if there was one. What saves a
    state has event loops of its own, which would swallow the signal.
    """

    def tell() -> None:
        common.say("")  # behind what the terminal shows of Ctrl-C
        common.say("stopping after these steps; Ctrl-C again stops at once")

    with signals.patient(tell) as asked:
        yield asked


def _steps(result: Any) -> int:
    return int(np.min(np.asarray(result.state.step)))


def finish(folder: OutputFolder, made: Sequence[Made]) -> None:
    """Forget the saved state of a run that is done; or say how one that is not can be gone on with."""
    for one in made:
        if one.stopped is not None:
            raise Stopped(one.stopped, one.code)
    folder.discard()


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
