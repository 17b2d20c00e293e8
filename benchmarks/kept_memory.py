"""What changes where the C library keeps the memory that is freed, for both sides?

The rows of `benchmarks.image_gradient` and `benchmarks.curves` once more, after `vizsynth.keep_memory()`. It
holds for all that the process allocates, so PyTorch has its maps from kept memory as well. A third of the
turns asked for are taken.

    python -m benchmarks.kept_memory [--turns 7] [--peers]

A program of ours takes its memory once a call, PyTorch each map by itself: in a loop that is one program
there is less for us to gain than for PyTorch. By the state of the machine's memory a gradient takes the same
or up to a fifth less, and eight at once took from a sixth less to a tenth more: the ratios tell, which are
taken within a run, not the seconds of two runs.
"""

import vizsynth
from benchmarks import curves, image_gradient
from benchmarks.timing import Row, alone


def rows(turns: int = 7, peers: bool = False) -> list[Row]:
    """Return both tables."""
    vizsynth.keep_memory()
    turns = max(1, turns // 3)
    found = image_gradient.rows(turns, peers) + curves.rows(turns, peers)
    return [row._replace(work=f"{row.work}, memory kept") for row in found]


if __name__ == "__main__":
    alone(rows, "With kept memory.")
