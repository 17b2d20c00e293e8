"""How long does the command line take to begin, the first time and after that?

`vizsynth explain PHOTO` in processes of its own: with an empty cache of compiled programs, and again. Each is
told apart into the start of Python, imports, tracing, compiling (or reading what was compiled before) and the
rest, which is the work itself.

Less than 5 s was wanted of the second time. Two fifths of it are the work (the maps, and pictures compressed
as PNG) and modules that the first network brings, a quarter is tracing, which the cache of compiled programs
does not spare.

    python -m benchmarks.startup [--turns 7]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.timing import grid

PHOTO = Path(__file__).parent.parent / "experiments" / "photos" / "chelsea.jpg"
HEAD = "vizsynth explain"
PROGRAM = """
import json, sys, time
began = time.perf_counter()
from vizsynth.cli import main
from vizsynth.cli.cache import use_cache
use_cache()
import jax, vizsynth
seconds = {"import": time.perf_counter() - began, "trace": 0.0, "compile": 0.0}
def note(event, duration, **_):
    if event.endswith("jaxpr_trace_duration") or event.endswith("to_mlir_module_duration"):
        seconds["trace"] += duration
    elif event.endswith("backend_compile_duration"):
        seconds["compile"] += duration
jax.monitoring.register_event_duration_secs_listener(note)
began = time.perf_counter()
try:
    main(sys.argv[2:])
except SystemExit:
    pass
seconds["work"] = time.perf_counter() - began - seconds["trace"] - seconds["compile"]
open(sys.argv[1], "w").write(json.dumps(seconds))
"""


def explained(cache: Path, out: Path) -> dict[str, float]:
    """Return where the seconds of one command went."""
    report = out / "seconds.json"
    command = [sys.executable, "-c", PROGRAM, str(report), "explain", str(PHOTO), "--quiet"]
    began = time.perf_counter()
    subprocess.run(
        [*command, "--overwrite", "-o", str(out / "maps")],
        env={**os.environ, "VIZSYNTH_CACHE": str(cache)},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    whole = time.perf_counter() - began
    parts: dict[str, float] = json.loads(report.read_text())
    return {"whole": whole, "python": whole - sum(parts.values()), **parts}


def figures(turns: int = 7) -> dict[str, dict[str, str]]:
    """Return the medians of the seconds, the first time and after that."""
    first, again = [], []
    for _ in range(turns):
        with tempfile.TemporaryDirectory() as folder:
            cache, out = Path(folder) / "cache", Path(folder) / "out"
            out.mkdir()
            first.append(explained(cache, out))
            again.append(explained(cache, out))
    return {
        title: {name: f"{statistics.median(run[name] for run in runs):.2f} s" for name in runs[0]}
        for title, runs in (("the first time", first), ("after that", again))
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="What a command takes to begin.")
    parser.add_argument("--turns", type=int, default=7)
    print(grid(HEAD, figures(parser.parse_args().turns)))


if __name__ == "__main__":
    main()
