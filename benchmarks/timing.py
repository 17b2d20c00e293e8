"""Timing of compiled functions side by side."""

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
