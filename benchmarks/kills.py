"""Does a store lose an image when the processes that fill it are killed?

Four processes map one folder. One of them, drawn at random, is killed (SIGKILL) at a random moment and begun
again with `--resume`, twenty times; then all run to their end. What is in the store is compared, to the last
bit, with what one process makes that nobody disturbs. One file in a hundred is no picture.

    python -m benchmarks.kills [--kills 20] [--processes 4] [--images 6000] [--seed 0]
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vizsynth import stores

SIDE = 64
SETTINGS = ("--size", "64", "--method", "saliency,grad-cam", "--batch-size", "8", "--quiet")


def fill(folder: Path, count: int, *, side: int = SIDE, broken_every: int = 100) -> int:
    """Write small pictures, PNG and JPEG; return how many are broken."""
    rng = np.random.default_rng(0)
    broken = 0
    for i in range(count):
        soft = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8))
        path = folder / f"{i:06}.{'png' if i % 2 else 'jpg'}"
        soft.resize((side + i % 9, side), Image.Resampling.BICUBIC).save(path)
        if i % broken_every == broken_every // 2:  # in turn cut short, empty, and something else
            broken += 1
            left = path.read_bytes()
            path.write_bytes((left[: len(left) // 2], b"", b"no picture")[broken % 3])
    return broken


def started(folder: Path, store: Path, log: Path, *arguments: object) -> subprocess.Popen[bytes]:
    from vizsynth.planted import WEIGHTS

    command = [sys.executable, "-m", "vizsynth", "map", folder, "--network", WEIGHTS, *SETTINGS, "-o", store]
    given = os.environ | {"VIZSYNTH_CACHE": str(store.parent / "cache")}
    with log.open("ab") as file:
        return subprocess.Popen([str(w) for w in (*command, *arguments)], stdout=file, stderr=file, env=given)


def disturbed(
    folder: Path, store: Path, *, count: int, kills: int, processes: int, seed: int
) -> dict[str, Any]:
    """Fill a store with processes that are killed; return what happened."""
    draw = random.Random(seed)
    log = store.parent / "log"

    def begin(i: int, *more: str) -> subprocess.Popen[bytes]:
        return started(folder, store, log, "--processes", processes, "--process", i, *more)

    def done() -> int:
        return int(stores.open_store(store).done.sum()) if stores.has_store(store) else 0

    running = [begin(i) for i in range(processes)]
    # The first while all start; then by how far the work has come, so that none comes after its end.
    moments = sorted([0, *(draw.randrange(int(0.9 * count)) for _ in range(kills - 1))])
    at, working = [], 0
    for moment in moments:
        while done() < moment:
            time.sleep(0.02)
        time.sleep(draw.uniform(0, 0.2))
        writing = {path.name.split("-")[1] for path in store.glob("journal-*.jsonl") if path.stat().st_size}
        i = draw.randrange(processes)
        if moment and draw.random() < 0.7:  # mostly one that has results, not one that only starts
            live = [k for k in range(processes) if running[k].poll() is None and str(k) in writing]
            i = draw.choice(live or [i])
        if running[i].poll() is not None:
            raise SystemExit(f"a process ended after {len(at)} kills: give more --images\n{log.read_text()}")
        mine = [p for p in store.glob(f"journal-{i}-of-*-{running[i].pid}-*.jsonl") if p.stat().st_size]
        running[i].kill()
        running[i].wait()
        working += bool(mine)
        at.append(done())
        state = "that has written" if mine else "that starts"
        print(f"kill {len(at):2}: process {i}, {state}; {at[-1]} images done", flush=True)
        running[i] = begin(i, *(["--resume"] if stores.has_store(store) else []))
    codes = [process.wait() for process in running]
    if any(codes):
        raise SystemExit(f"exit codes {codes}\n{log.read_text()}")
    journals = list(store.glob("journal-*.jsonl"))
    lines = sum(path.read_bytes().count(b"\n") for path in journals)
    return {"while_writing": working, "journals": len(journals), "lines": lines}


def same(one: Path, other: Path) -> dict[str, Any]:
    """Compare two stores."""
    a, b = stores.open_store(one), stores.open_store(other)
    arrays = {n: (np.asarray(a.arrays[n]), np.asarray(b.arrays[n])) for n in a.arrays}
    return {
        "names": a.names == b.names,
        "done": bool((a.done == b.done).all()),
        "broken": a.broken == b.broken,
        "bitwise": all(x.tobytes() == y.tobytes() for x, y in arrays.values()),
        "images": int(a.done.sum()),
        "broken_files": len(a.broken),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--images", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        folder = root / "pictures"
        folder.mkdir()
        broken = fill(folder, chosen.images)
        began = time.monotonic()
        if started(folder, root / "whole", root / "log").wait():
            raise SystemExit((root / "log").read_text())
        seconds = time.monotonic() - began
        print(f"undisturbed, one process: {seconds:.0f} s", flush=True)
        began = time.monotonic()
        found = disturbed(
            folder,
            root / "killed",
            count=chosen.images,
            kills=chosen.kills,
            processes=chosen.processes,
            seed=chosen.seed,
        )
        seconds = time.monotonic() - began
        told = same(root / "whole", root / "killed")
    again = found["lines"] - chosen.images
    print(
        f"{chosen.processes} processes, {chosen.kills} kills: {seconds:.0f} s, {found['journals']} journals"
    )
    print(f"killed while they wrote: {found['while_writing']}, while they started: the others")
    print(f"images done twice, by a thief or a second try of a broken file: {again}")
    print(f"in both stores {told['images']} images and {told['broken_files']} broken files: {told}")
    whole = all(told[name] for name in ("names", "done", "broken", "bitwise"))
    raise SystemExit(0 if whole and told["broken_files"] == broken else 1)


if __name__ == "__main__":
    main()
