"""The table: `python -m benchmarks [NAME ...] [--peers] [--turns N] [--json FILE] [--page FILE]`.

Each of the files named has `rows(turns, peers)`, or `figures(turns)` where nothing stands beside it, and
runs in a process of its own, so that the most memory it held is told apart. Without `--peers` ours are timed
alone, and nothing but vizsynth is needed: what an accelerator's speed is measured by. With it, each stands
beside its peers in one run; `bash benchmarks/peers.sh` makes the environment for that. Of a JSON FILE that is
there, written in the same environment, what is not measured again is kept.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

NAMES = (
    *("image_gradient", "trunk", "style", "residual", "maps", "occlusion", "ablation_cam", "pgd", "deepfool"),
    *("pictures", "curves", "kept_memory", "large_images"),
)
FIGURES = ("errors", "startup")
"""What has a table of its own."""
ALL = (*NAMES, *FIGURES)
PEERS = ("torch", "captum", "grad-cam", "torchcam", "torchattacks", "foolbox")
IMPORT = (
    "import time; t = time.perf_counter(); import vizsynth; vizsynth.load; print(time.perf_counter() - t)"
)


def measured(name: str, turns: int, peers: bool) -> dict[str, Any]:
    """Return the rows of one benchmark, and the speed of matrix products and the most memory beside them."""
    import jax

    from benchmarks.timing import rate

    module, before = import_module(f"benchmarks.{name}"), rate()
    found: dict[str, Any] = (
        {"rows": [], "figures": module.figures(turns)}
        if name in FIGURES
        else {"rows": [row._asdict() for row in module.rows(turns, peers)]}
    )
    return {
        **found,
        "matrix_products_per_second": max(before, rate()),
        "most_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "device": jax.devices()[0].device_kind,
    }


def apart(name: str, turns: int, peers: bool) -> dict[str, Any]:
    """Return what a benchmark measures in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "told.json"
        command = [sys.executable, "-m", "benchmarks", name, "--turns", str(turns), "--one", str(told)]
        began = time.perf_counter()
        subprocess.run([*command, *(["--peers"] if peers else [])], check=True)
        return {"name": name, **json.loads(told.read_text()), "seconds": time.perf_counter() - began}


def versions(names: Sequence[str]) -> dict[str, str]:
    """Return the versions of those packages that are there."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def page(record: dict[str, Any]) -> str:
    """Return all that was measured as a page of Markdown."""
    from benchmarks.timing import Row, grid, table

    told = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    rows = [Row(**row) for one in record["benchmarks"] for row in one["rows"]]
    command = f"python -m benchmarks{' --peers' if record['peers'] else ''} --page FILE"
    lines = [
        "# Benchmarks",
        "",
        f"Written by `{command}`: {record['device']}, {record['cores']} cores; {told}.",
        "",
        "The ratio is the peer's time over ours, turn by turn: above 1 we win. *Apart* is how far the",
        "results are from each other, of their norm; *compiling* is by how much our first call is longer",
        "than those that follow. GFLOP/s count what direct convolutions would take, so that faster",
        "algorithms may exceed the rate of matrix products. Memory that is freed goes back to the system on",
        "both sides, as by default; where it is kept, that is said. `import vizsynth` and the first of its",
        f"names take {record['import']:.2f} s.",
        "",
        table(rows),
        "",
        "| in one process | matrix products, GFLOP/s | most memory, GiB | seconds |",
        "|---|---|---|---|",
    ]
    for one in record["benchmarks"]:
        speed, memory = one["matrix_products_per_second"] / 1e9, one["most_memory"] / 2**30
        lines.append(f"| {one['name']} | {speed:.0f} | {memory:.2f} | {one['seconds']:.0f} |")
    for one in record["benchmarks"]:
        module = import_module(f"benchmarks.{one['name']}")
        title, _, text = (module.__doc__ or "").partition("\n")
        lines += ["", f"## {title}", "", text.strip()]
        if "figures" in one:
            lines += ["", grid(module.HEAD, one["figures"])]
    return "\n".join(lines) + "\n"


def kept(path: Path | None, record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what a file tells of each benchmark, if it was written in this environment."""
    if path is None or not path.exists():
        return {}
    earlier = json.loads(path.read_text())
    if any(earlier[name] != record[name] for name in ("peers", "cores", "versions")):
        return {}
    return {one["name"]: one for one in earlier["benchmarks"]}


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Ours, and beside the peers.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which ones [all]: {', '.join(ALL)}")
    parser.add_argument("--peers", action="store_true", help="beside the peers (bash benchmarks/peers.sh)")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the numbers go as well")
    parser.add_argument("--page", type=Path, metavar="FILE", help="where the table goes as well")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if unknown := sorted(set(chosen.names) - set(ALL)):
        parser.error(f"there is no table of {unknown[0]}; there are: {', '.join(ALL)}")
    if chosen.turns < 1:
        parser.error(f"--turns must be at least 1, not {chosen.turns}")
    if chosen.peers and (missing := sorted(set(PEERS) - set(versions(PEERS)))):
        parser.error(f"{', '.join(missing)} are not installed: bash benchmarks/peers.sh installs the peers")
    if chosen.one:
        (name,) = chosen.names
        chosen.one.write_text(json.dumps(measured(name, chosen.turns, chosen.peers)))
        return

    imports = [
        float(subprocess.run([sys.executable, "-c", IMPORT], check=True, stdout=subprocess.PIPE).stdout)
        for _ in range(3)
    ]
    record: dict[str, Any] = {"peers": chosen.peers, "cores": os.cpu_count(), "import": sorted(imports)[1]}
    record["versions"] = versions(("vizsynth", "jax", *(PEERS if chosen.peers else ())))
    found = kept(chosen.json, record)
    for name in chosen.names or ALL:
        print(f"{name} ...", file=sys.stderr, flush=True)
        found[name] = apart(name, chosen.turns, chosen.peers)
        record["benchmarks"] = [found[name] for name in ALL if name in found]
        record["device"] = found[name]["device"]
        for path, text in ((chosen.json, json.dumps(record, indent=2) + "\n"), (chosen.page, page(record))):
            if path:  # after each: what was measured is kept if the next one fails
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
    print(page(record))


if __name__ == "__main__":
    main()
