"""Does memory grow with the number of files that `vizsynth map` goes through?

A folder of many small pictures, one in a hundred broken, is mapped while the memory of the process is
sampled. All that can be read is in the store at the end, and the broken files are listed. Flat: the most
memory in the last quarter of the run is hardly more than in the second (in the first, programs are
compiled).

    python -m benchmarks.folders [--images 20000]
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.kills import fill, started
from vizsynth import stores

MOST = 1.1  # times the memory of the second quarter
SECONDS = 0.2  # between two samples


def resident(process: int) -> float:
    """Return the MiB of memory that a process holds."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0  # it has ended


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=20_000)
    count = parser.parse_args().images
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        folder, store = root / "pictures", root / "store"
        folder.mkdir()
        broken = fill(folder, count)
        print(f"{count} files are written, {broken} of them broken", flush=True)
        began = time.monotonic()
        process = started(folder, store, root / "log", "--method", "grad-cam", "--batch-size", "32")
        samples: list[float] = []
        while process.poll() is None:
            samples.append(resident(process.pid))
            time.sleep(SECONDS)
        seconds = time.monotonic() - began
        print((root / "log").read_text().strip(), flush=True)
        if process.returncode:
            raise SystemExit(1)
        there = stores.open_store(store)
        right = int(there.done.sum()) == count - broken and len(there.broken) == broken
        labels = np.asarray(there.arrays["labels"])
        right &= bool(((labels >= 0) == there.done).all())
    quarters = [max(part) for part in np.array_split(np.asarray(samples), 4)]
    print(f"{seconds:.0f} s, {count / seconds:.0f} files a second")
    print("most memory in each quarter of the run, MiB:", ", ".join(f"{q:.0f}" for q in quarters))
    ratio = quarters[3] / quarters[1]
    print(f"the last over the second: {ratio:.3f} (at most {MOST} is wanted)")
    print(f"{count - broken} images done, {broken} broken files listed: {right}")
    raise SystemExit(0 if right and ratio <= MOST else 1)


if __name__ == "__main__":
    main()
