"""Timing of compiled functions side by side."""

import os
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax


class Times(NamedTuple):
    """Seconds of each turn, of each of the things compared."""

    seconds: dict[str, list[float]]

    def median(self, name: str) -> float:
        """Return the median of one."""
        return statistics.median(self.seconds[name])

    def ratios(self, name: str, over: str) -> list[float]:
        """Return the ratio of two, turn by turn."""
        pairs = zip(self.seconds[name], self.seconds[over], strict=True)
        return [a / b for a, b in pairs]

    def ratio_line(self, name: str, over: str) -> str:
        """Return the median ratio of two, and the range of it."""
        ratios = self.ratios(name, over)
        median, low, high = statistics.median(ratios), min(ratios), max(ratios)
        return f"{name} / {over}: {median:.2f} ({low:.2f} to {high:.2f}, {len(ratios)} pairs)"


def side_by_side(calls: Mapping[str, Callable[[], Any]], *, turns: int) -> Times:
    """Time each call once a turn, after it has compiled.

    In every turn one more call of the first is made and thrown away, as what ran before it (another
    program, the caches' contents) would be counted otherwise; the order changes from turn to turn.
    """
    for call in calls.values():
        jax.block_until_ready(call())
    names = list(calls)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(turns):
        order = names if turn % 2 == 0 else names[::-1]
        jax.block_until_ready(calls[order[0]]())
        for name in order:
            start = time.perf_counter()
            jax.block_until_ready(calls[name]())
            seconds[name].append(time.perf_counter() - start)
    return Times(seconds)


class Row(NamedTuple):
    """One line of the table: ours beside a peer."""

    work: str
    peer: str
    ours: float
    """Seconds, the median."""
    theirs: float
    ratio: float
    """Theirs over ours: the median over the turns."""
    low: float
    high: float
    turns: int
    error: float | None
    """How far the results are apart, relative to their norm."""


def row(
    work: str,
    peer: str,
    times: Times,
    ours: str,
    theirs: str,
    *,
    of: int = 1,
    error: float | None = None,
) -> Row:
    """Return a line of the table; `of` is how many pieces of work one call of ours does."""
    ratios = [of * ratio for ratio in times.ratios(theirs, ours)]
    return Row(
        work,
        peer,
        times.median(ours) / of,
        times.median(theirs),
        statistics.median(ratios),
        min(ratios),
        max(ratios),
        len(ratios),
        error,
    )


def print_rows(rows: list[Row]) -> None:
    """Print a table as Markdown, with the device and the versions."""
    print(f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores, jax {jax.__version__}\n")
    print("| work | peer | ours | theirs | ratio (least to greatest) | apart |")
    print("|---|---|---|---|---|---|")
    for r in rows:
        error = "" if r.error is None else f"{r.error:.0e}"
        print(
            f"| {r.work} | {r.peer} | {r.ours:.3f} s | {r.theirs:.3f} s "
            f"| {r.ratio:.2f} ({r.low:.2f} to {r.high:.2f}, {r.turns} turns) | {error} |"
        )


def rate(n: int = 2048) -> float:
    """Return the floating point operations a second of a matrix product here: what one can hope for."""
    x = jax.random.normal(jax.random.key(0), (n, n))
    product = jax.jit(lambda x: x @ x)
    times = side_by_side({"product": lambda: product(x)}, turns=7)
    return 2 * n**3 / min(times.seconds["product"])
