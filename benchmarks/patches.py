"""Does memory grow with the number of images that patches are searched in?

For each number of images a fresh process makes a stream of them, searches it with `vizsynth.top_patches`, and
tells the most memory that it ever held; the patches of a stream that is the longer one shuffled are the same.

    python -m benchmarks.patches [--images 5000 50000]
"""

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

import vizsynth
from vizsynth.models import sequential
from vizsynth.models.sequential import Conv, GlobalMean, MaxPool, ReLU

SIZE, BATCH, K = 32, 64, 9
STACK = (Conv(16, 5), ReLU(), MaxPool(2), Conv(32, 3), ReLU(), GlobalMean())
LAYER = "relu2"
MOST = 1.2  # times the memory of the shortest stream


def image(number: int) -> np.ndarray:
    """Return an image of soft stripes and noise that depends on its number alone."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    angle, frequency, phase = rng.uniform(0, np.pi), rng.uniform(1, 9), rng.uniform(0, 2 * np.pi, 3)
    wave = np.sin(2 * np.pi * frequency * (x * np.cos(angle) + y * np.sin(angle))[..., None] + phase)
    return np.clip(0.5 + 0.4 * wave + rng.normal(0, 0.05, (SIZE, SIZE, 3)), 0, 1).astype(np.float32)


def stream(order: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for begin in range(0, len(order), BATCH):
        indices = order[begin : begin + BATCH]
        yield indices, np.stack([image(int(i)) for i in indices])


def search(count: int, *, shuffled: bool) -> dict[str, Any]:
    """Search one stream, and tell what it took."""
    net = sequential(STACK, (SIZE, SIZE, 3), key=jax.random.key(0))
    order = np.random.default_rng(0).permutation(count) if shuffled else np.arange(count)
    began = time.perf_counter()
    found = jax.block_until_ready(vizsynth.top_patches(net, stream(order), layer=LAYER, k=K))
    return {
        "images": count,
        "shuffled": shuffled,
        "seconds": time.perf_counter() - began,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "patches": hashlib.sha256(b"".join(np.asarray(a).tobytes() for a in found)).hexdigest()[:16],
    }


def in_a_process(count: int, *, shuffled: bool) -> dict[str, Any]:
    code = f"import json, benchmarks.patches as b; print(json.dumps(b.search({count}, shuffled={shuffled})))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(ran.stdout)


def run(counts: Sequence[int]) -> bool:
    """Print a row a stream; return whether memory and patches are as they must be."""
    runs = [(count, False) for count in counts] + [(max(counts), True)]
    print("  images  order      peak MiB   seconds  images/s  patches")
    rows = []
    for count, shuffled in runs:
        row = in_a_process(count, shuffled=shuffled)
        rows.append(row)
        order = "shuffled" if shuffled else "as it is"
        seconds, peak = row["seconds"], row["peak_mib"]
        line = f"{count:8}  {order}  {peak:9.0f}  {seconds:8.1f}  {count / seconds:8.0f}  {row['patches']}"
        print(line, flush=True)
    peaks = [row["peak_mib"] for row in rows]
    ratio = max(peaks) / peaks[0]
    same = rows[-1]["patches"] == rows[-2]["patches"]
    print(f"most memory over that of {counts[0]} images: {ratio:.3f} (at most {MOST} is wanted)")
    print(f"patches of the shuffled stream are the same to the last bit: {same}")
    return ratio <= MOST and same


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, nargs="+", default=(5_000, 50_000))
    raise SystemExit(0 if run(sorted(parser.parse_args().images)) else 1)


if __name__ == "__main__":
    main()
