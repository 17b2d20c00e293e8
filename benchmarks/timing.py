"""Timing of compiled functions side by side."""

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vizsynth import ops

LONG = 3.0  # seconds


class Times(NamedTuple):
    """Seconds of each turn, of each of the things compared."""

    seconds: dict[str, list[float]]
    first: dict[str, float]
    """Seconds of the first call, which compiles."""

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
    """Time each call once a turn, after it has compiled; the order changes from turn to turn.

    Just before it is timed, each is called once more and that is thrown away, as what ran before it (another
    program, the caches' contents) would be counted otherwise. What takes seconds is not: that is warm soon.
    """
    first = {}
    for name, call in calls.items():
        start = time.perf_counter()
        jax.block_until_ready(call())
        first[name] = time.perf_counter() - start
    names = list(calls)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(turns):
        for name in names if turn % 2 == 0 else names[::-1]:
            if min([first[name], *seconds[name]]) < LONG:
                jax.block_until_ready(calls[name]())
            start = time.perf_counter()
            jax.block_until_ready(calls[name]())
            seconds[name].append(time.perf_counter() - start)
    return Times(seconds, first)


class Row(NamedTuple):
    """One line of the table: ours, beside a peer or alone."""

    work: str
    peer: str
    """Whom it stands beside; empty where it stands alone."""
    ours: float
    """Seconds, the median."""
    theirs: float | None
    ratio: float | None
    """Theirs over ours: the median over the turns."""
    low: float | None
    high: float | None
    turns: int
    error: float | None
    """How far the results are apart, relative to their norm."""
    compiling: float
    """By how many seconds our first call took longer than those that followed: tracing and compiling."""
    rate: float | None
    """Floating point operations a second of ours, those counted that direct convolutions take."""


def compare(
    work: str,
    ours: Callable[[], Any],
    peers: Mapping[str, Callable[[], Any]],
    *,
    turns: int,
    of: int = 1,
    errors: Mapping[str, Callable[[], float]] | None = None,
    flops: float | None = None,
) -> list[Row]:
    """Return a line of the table for each peer; without any, a line of ours alone.

    Args:
        work: what is done.
        ours: does it.
        peers: do it.
        turns: how often each is timed.
        of: how many pieces of work one call of ours does.
        errors: for each peer how far its result is from ours; computed at the end.
        flops: floating point operations of one piece of work, by direct convolutions.
    """
    times = side_by_side({"ours": ours, **peers}, turns=turns)
    seconds = times.median("ours")
    compiling = max(0.0, times.first["ours"] - seconds)
    rate = None if flops is None else of * flops / seconds
    if not peers:
        return [Row(work, "", seconds / of, None, None, None, None, turns, None, compiling, rate)]
    found = []
    for peer in peers:
        ratios = [of * ratio for ratio in times.ratios(peer, "ours")]
        error = errors[peer]() if errors and peer in errors else None
        found.append(
            Row(
                work,
                peer,
                seconds / of,
                times.median(peer),
                statistics.median(ratios),
                min(ratios),
                max(ratios),
                turns,
                error,
                compiling,
                rate,
            )
        )
    return found


def forward_flops(net: Any, size: tuple[int, int], *, until: str | None = None) -> float:
    """Return the floating point operations of a forward pass of one image, by direct convolutions.

    The gradient with respect to the image takes as many again.
    """
    from vizsynth.taps import run

    def passed(net: Any, images: jax.Array) -> Any:
        if until is None:
            return net(images, ops=ops.plain)
        return run(net, images, (until,), ops=ops.plain)[1][until]

    images = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    cost: Any = jax.jit(passed).lower(net, images).cost_analysis()
    return float(cost["flops"])


def table(rows: Sequence[Row]) -> str:
    """Return rows as a table in Markdown."""
    lines = ["| work | beside | ours | theirs | ratio (least to greatest) | apart | compiling | GFLOP/s |"]
    lines.append("|" + "---|" * 8)
    for r in rows:
        theirs = "" if r.theirs is None else f"{r.theirs:.3f} s"
        ratio = (
            f"{r.turns} turns"
            if r.ratio is None
            else f"**{r.ratio:.2f}** ({r.low:.2f} to {r.high:.2f}, {r.turns} turns)"
        )
        error = "" if r.error is None else f"{r.error:.0e}"
        rate = "" if r.rate is None else f"{r.rate / 1e9:.0f}"
        lines.append(
            f"| {r.work} | {r.peer} | {r.ours:.3f} s | {theirs} | {ratio} | {error} "
            f"| {r.compiling:.1f} s | {rate} |"
        )
    return "\n".join(lines)


def grid(head: str, figures: Mapping[str, Mapping[str, str]]) -> str:
    """Return named rows of named figures as a table in Markdown."""
    columns = list(next(iter(figures.values())))
    lines = [f"| {head} | {' | '.join(columns)} |", "|" + "---|" * (len(columns) + 1)]
    lines += [f"| {name} | {' | '.join(found[c] for c in columns)} |" for name, found in figures.items()]
    return "\n".join(lines)


def alone(rows: Callable[[int, bool], list[Row]], description: str) -> None:
    """Run one benchmark by itself: its command line, what it is measured with, its table."""
    import argparse

    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--peers", action="store_true", help="beside the peers (benchmarks/peers.sh)")
    chosen = parser.parse_args()
    print(f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores, jax {jax.__version__}")
    print(f"matrix products: {rate() / 1e9:.0f} GFLOP/s\n\n{table(rows(chosen.turns, chosen.peers))}")


def rate(n: int = 2048) -> float:
    """Return the floating point operations a second of a matrix product here: what one can hope for."""
    x = jax.random.normal(jax.random.key(0), (n, n))
    product = jax.jit(lambda x: x @ x)
    times = side_by_side({"product": lambda: product(x)}, turns=7)
    return 2 * n**3 / min(times.seconds["product"])
