"""The table of ours beside the peers: `python -m benchmarks [NAME ...] [--turns N] [--json FILE]`.

Each of the files named has `rows(turns)`. What the table was measured with stands above it.
"""

import argparse
import json
import os
from importlib import import_module
from pathlib import Path

import jax

import vizsynth
from benchmarks.timing import Row, print_rows, rate

NAMES = (
    *("image_gradient", "trunk", "style", "residual", "maps", "occlusion", "ablation_cam", "pgd", "deepfool"),
    *("pictures", "curves"),
)


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Ours beside the peers.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which ones [all]: {', '.join(NAMES)}")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the numbers go as well")
    chosen = parser.parse_args()
    if unknown := sorted(set(chosen.names) - set(NAMES)):
        parser.error(f"there is no table of {unknown[0]}; there are: {', '.join(NAMES)}")
    if chosen.turns < 1:
        parser.error(f"--turns must be at least 1, not {chosen.turns}")

    vizsynth.keep_memory()  # of both sides
    found: list[Row] = []
    for name in chosen.names or NAMES:
        print(f"{name} ...", flush=True)
        found += import_module(f"benchmarks.{name}").rows(chosen.turns)
    speed = rate()
    print(f"\nmatrix products: {speed / 1e9:.0f} GFLOP/s")
    print_rows(found)
    if chosen.json:
        record = {
            "device": jax.devices()[0].device_kind,
            "cores": os.cpu_count(),
            "jax": jax.__version__,
            "matrix_products_per_second": speed,
            "rows": [r._asdict() for r in found],
        }
        chosen.json.parent.mkdir(parents=True, exist_ok=True)
        chosen.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
