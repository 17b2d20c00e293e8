"""Break the package on purpose, one edit at a time, and see which test notices.

    python tools/mutations.py [--all] [NAME ...]

Each mutation is a fault that people make: a sign, a wrong axis, a lost key, a check left out. The working
tree is copied to a temporary folder; there a mutation is made, the tests that should notice it are run up
to the first failure, and it is taken back. A failure counts only if the test passes without the mutation. One
whose old text is in no file exactly once does not apply; files that have moved are found by their names.
Compiled programs are kept from one mutation to the next: they are found by what they compute.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PYTEST = ("-m", "pytest", "-n", "0", "-x", "-q", "-p", "no:cacheprovider")
WHOLE = ("tests", "vizsynth", "--ignore=tests/parity")  # without PyTorch and the peers, as most people test
LIMIT, WHOLE_LIMIT = 3600, 6 * 3600  # seconds, also where others keep the processors busy
FAILED = re.compile(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", re.MULTILINE)


class Mutation(NamedTuple):
    """One edit of one file, and where it should be noticed."""

    name: str
    file: str
    """In the package; or, where it is not there, any one other that has the old text."""
    old: str
    new: str
    tests: tuple[str, ...]
    """Files, the likeliest first."""


MUTATIONS = (
    # Maps and their sums
    Mutation(
        "grad-cam-sum-for-mean",
        "maps/grad_cam.py",
        "dy_dA.mean(axis=(1, 2))",
        "dy_dA.sum(axis=(1, 2))",
        ("tests/maps/test_class_activation_maps.py",),
    ),
    Mutation(
        "integrated-gradients-baseline",
        "maps/integrated_gradients.py",
        "    return (images - start) * integral\n",
        "    return images * integral\n",
        ("tests/maps/test_integrated_gradients.py",),
    ),
    Mutation(
        "lrp-box-upside-down",
        "rules.py",
        "(-low, _positive(w)), (-high, _negative(w))",
        "(-high, _positive(w)), (-low, _negative(w))",
        ("tests/maps/test_lrp.py",),
    ),
    Mutation(
        "chunks-counts-one-too-many",
        "core/chunks.py",
        "(jnp.arange(chunks * size) < count)",
        "(jnp.arange(chunks * size) <= count)",
        ("tests/maps/test_smooth_grad.py", "tests/maps/test_rise.py"),
    ),
    Mutation(
        "occlusion-reach-too-short",
        "replay/incremental.py",
        "-((window - 1 - self.starts - padding[0]) // stride)",
        "-((window - 2 - self.starts - padding[0]) // stride)",
        ("tests/maps/test_occlusion.py",),
    ),
    Mutation(
        "ablation-statistics-of-channel-0",
        "replay/ablation.py",
        "[of_channel(values, x.channel) for values in statistics]",
        "[values[:1] for values in statistics]",
        (
            "tests/replay/test_ablation.py",
            "tests/programs/test_adapt.py",
            "tests/maps/test_class_activation_maps.py",
        ),
    ),
    # Arithmetic
    Mutation(
        "max-pool-tie-to-the-last",
        "cpu/pooling.py",
        "larger = other > best",
        "larger = other >= best",
        ("tests/test_ops.py",),
    ),
    Mutation(
        "convolution-phases-transposed",
        "cpu/convolution.py",
        "            for r, (top, bottom) in enumerate(_taps_of(rows, kh))\n"
        "            for c, (left, right) in enumerate(_taps_of(cols, kw))\n",
        "            for c, (left, right) in enumerate(_taps_of(cols, kw))\n"
        "            for r, (top, bottom) in enumerate(_taps_of(rows, kh))\n",
        ("tests/test_ops.py",),
    ),
    Mutation(
        "winograd-forward-for-backward",
        "cpu/convolution.py",
        "winograd.Kernel(kernel.gradient, kernel.plain, kernel.backward, kernel.forward)",
        "winograd.Kernel(kernel.gradient, kernel.plain, kernel.forward, kernel.backward)",
        ("tests/cpu/test_winograd.py",),
    ),
    # Vocabulary
    Mutation(
        "neuron-middle-of-wrong-axis",
        "scores.py",
        "x = values.shape[2] // 2 if self.x is None",
        "x = values.shape[1] // 2 if self.x is None",
        (
            "tests/test_scores.py",
            "tests/maps/test_input_maps.py",
            "tests/synthesis/features/test_visualization.py",
        ),
    ),
    Mutation(
        "tap-recorded-too-early",
        "taps.py",
        "        value = tap(name, value)\n        if name in wanted:\n            into[name] = value\n"
        "        return value\n",
        "        if name in wanted:\n            into[name] = value\n        return tap(name, value)\n",
        ("tests/test_taps.py",),
    ),
    Mutation(
        "entry-label-one-too-large",
        "core/entry.py",
        "if values.min() < 0 or values.max() >= classes:",
        "if values.min() < 0 or values.max() > classes:",
        ("tests/core/test_entry.py",),
    ),
    # Pictures and how they are optimized
    Mutation(
        "transforms-one-key-for-all",
        "transforms.py",
        "image = transform(jax.random.fold_in(key, i), image)",
        "image = transform(key, image)",
        ("tests/test_transforms.py",),
    ),
    Mutation(
        "updates-blur-a-step-early",
        "updates.py",
        "(state.updates % jnp.maximum(period, 1) == 0)",
        "((state.updates + 1) % jnp.maximum(period, 1) == 0)",
        ("tests/test_updates.py",),
    ),
    Mutation(
        "priors-blur-not-held-fixed",
        "priors.py",
        "jax.lax.stop_gradient(_small_blur(images))",
        "_small_blur(images)",
        ("tests/test_priors.py",),
    ),
    Mutation(
        "fourier-shorter-side",
        "parametrizations.py",
        "lowest = 1 / max(size)",
        "lowest = 1 / min(size)",
        ("tests/test_parametrizations.py",),
    ),
    Mutation(
        "ascent-resumed-from-step-0",
        "ascent.py",
        "        done = _steps_of(state)\n",
        "        done = 0\n",
        ("tests/synthesis/test_ascent.py",),
    ),
    # Attacks
    Mutation(
        "pgd-static-step-size",
        "synthesis/attacks/pgd.py",
        '_STATIC = ("steps", "targeted"',
        '_STATIC = ("step_size", "steps", "targeted"',
        ("tests/synthesis/attacks/test_attacks_common.py",),
    ),
    Mutation(
        "attacks-one-draw-for-all-steps",
        "synthesis/attacks/adversarial.py",
        "keys_now = jax.vmap(jax.random.fold_in, (0, None))(keys, t)",
        "keys_now = keys",
        ("tests/synthesis/attacks/test_gradient_attacks.py",),
    ),
    Mutation(
        "deepfool-no-margin",
        "synthesis/attacks/deepfool.py",
        "length = distance + jnp.asarray(margin, distance.dtype)",
        "length = distance",
        ("tests/synthesis/attacks/test_deepfool.py",),
    ),
    # Style, texture, quilting
    Mutation(
        "gram-n-for-n-squared",
        "synthesis/texture/gatys.py",
        "jnp.asarray(4 * found.shape[0] ** 2, found.dtype)",
        "jnp.asarray(4 * found.shape[0], found.dtype)",
        ("tests/synthesis/texture/test_texture.py",),
    ),
    Mutation(
        "style-odd-spectrum",
        "synthesis/style/gatys.py",
        "low, high = (rows + 1) // 2, rows // 2",
        "low, high = rows // 2, (rows + 1) // 2",
        ("tests/synthesis/style/test_style.py",),
    ),
    Mutation(
        "quilting-corner-counted-twice",
        "synthesis/texture/quilting.py",
        "total = total - jnp.where(left & above, e[:v, :v], nothing)",
        "total = total - nothing",
        ("tests/synthesis/texture/test_quilting.py",),
    ),
    # Sizes, devices
    Mutation(
        "fields-padding-of-the-rows",
        "replay/fields.py",
        "self.columns.through(window[1], strides[1], padding[1])",
        "self.columns.through(window[1], strides[1], padding[0])",
        ("tests/replay/test_fields.py",),
    ),
    Mutation(
        "rows-far-neighbours-in-reverse",
        "devices/rows.py",
        "above.insert(0, _sent(",
        "above.append(_sent(",
        ("tests/devices/test_rows.py",),
    ),
    # Measures and inspection
    Mutation(
        "deletion-one-pixel-more",
        "evaluation/insertion_deletion.py",
        "(rank < count)[..., None], after, before",
        "(rank <= count)[..., None], after, before",
        ("tests/evaluation/test_insertion_deletion.py",),
    ),
    Mutation(
        "neighbours-last-chunk-not-cut",
        "inspection/neighbours.py",
        "outside = (places[None] >= n) | (places[None] == own[:, None])",
        "outside = places[None] == own[:, None]",
        ("tests/inspection/test_neighbours.py",),
    ),
    # Weights and their names
    Mutation(
        "pickle-order-ignored",
        "models/io/formats.py",
        'order="F" if fortran else "C"',
        'order="C"',
        ("tests/models/io/test_formats.py", "tests/datasets/test_archives.py"),
    ),
    Mutation(
        "weights-some-nan-let-in",
        "models/io/weights.py",
        "np.isfinite(tensor).all()",
        "np.isfinite(tensor).any()",
        ("tests/models/io/test_weights.py",),
    ),
    Mutation(
        "names-no-first-projection",
        "models/names.py",
        "if b == 0 and (stage > 1 or inputs != outputs):",
        "if b == 0 and stage > 1:",
        ("tests/models/io/test_names.py", "tests/models/io/test_load.py"),
    ),
    Mutation(
        "load-of-another-network",
        "models/io/load.py",
        "        if network not in (None, record.network):\n",
        "        if network is None and record.network is None:\n",
        ("tests/models/io/test_load.py",),
    ),
    # Training and its data
    Mutation(
        "training-one-draw-for-all-epochs",
        "training/fitting.py",
        "this_key = jax.random.fold_in(augment_key, epoch)",
        "this_key = augment_key",
        ("tests/training/test_fitting.py",),
    ),
    Mutation(
        "cifar-rows-for-columns",
        "datasets/cifar.py",
        "planes.transpose(0, 2, 3, 1)",
        "planes.transpose(0, 3, 2, 1)",
        ("tests/datasets/test_archives.py",),
    ),
    # Figures, command line, networks of others
    Mutation(
        "grid-height-for-width",
        "figures.py",
        "(i % columns) * (w + pad))",
        "(i % columns) * (h + pad))",
        ("tests/test_figures.py",),
    ),
    Mutation(
        "command-line-sign-lost",
        "cli/methods.py",
        "else jnp.abs(maps).max(axis=-1)",
        "else maps.max(axis=-1)",
        ("tests/cli/test_evaluate.py", "tests/cli/test_explain.py"),
    ),
    Mutation(
        "adapt-sign-of-a-difference",
        "programs/interpret.py",
        "factor, offset = -factor, constant - offset",
        "factor, offset = factor, constant - offset",
        ("tests/programs/test_adapt.py",),
    ),
)


def copied(folder: Path) -> None:
    """Copy the working tree as git sees it: without what it ignores."""
    listing = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)


def failing(folder: Path, tests: tuple[str, ...], limit: float) -> str | None:
    """Run tests in a folder; return what failed first, or why there was no answer; None if all passed."""
    # Bytecode is told from newer text by seconds and length, which a mutation may leave as they were.
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "300"}
    running = subprocess.Popen(
        [sys.executable, *PYTEST, *tests],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said = running.communicate(timeout=limit)[0]
    except BaseException as error:
        os.killpg(running.pid, signal.SIGKILL)  # and what the tests have started
        running.wait()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        return f"(no end within {limit:.0f} s)"
    if running.returncode in (0, 5):  # 5: no test was chosen
        return None
    found = FAILED.search(said)
    return found[1] if found else f"(pytest ended with {running.returncode})"


def place(mutation: Mutation, folder: Path) -> Path | None:
    """Return the file that has the old text once: the one that is named, or the only one of the package."""

    def once(path: Path) -> bool:
        return path.is_file() and path.read_text(encoding="utf-8").count(mutation.old) == 1

    named = folder / "vizsynth" / mutation.file
    if once(named):
        return named
    others = [path for path in sorted((folder / "vizsynth").rglob("*.py")) if once(path)]
    return others[0] if len(others) == 1 else None


def test_file(name: str, folder: Path) -> str | None:
    """Return a file of tests that is named, or the only one of its name elsewhere."""
    if (folder / name).exists():
        return name
    others = sorted((folder / "tests").rglob(Path(name).name))
    return str(others[0].relative_to(folder)) if len(others) == 1 else None


def verdict(mutation: Mutation, folder: Path, passing: set[str], *, whole: bool) -> str:
    """Return what notices a mutation."""
    path = place(mutation, folder)
    if path is None:
        return "does not apply"
    text = path.read_text(encoding="utf-8")
    there = tuple(filter(None, (test_file(test, folder) for test in mutation.tests)))
    runs = [(there, LIMIT)] if there else []
    runs += [(WHOLE, WHOLE_LIMIT)] if whole else []
    for tests, limit in runs:
        path.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
        try:
            test = failing(folder, tests, limit)
        finally:
            path.write_text(text, encoding="utf-8")
        if test is None:
            continue
        if test.startswith("("):
            return f"UNKNOWN {test}"
        if test not in passing and failing(folder, (test,), LIMIT) is not None:
            return f"UNKNOWN (fails without it, too: {test})"
        passing.add(test)
        return test
    return "NOT CAUGHT"


def main() -> int:
    """Make the mutations and print what noticed each; return 1 unless all that apply were noticed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="mutations whose names begin so [all]")
    parser.add_argument("--all", action="store_true", help="run all tests where the named files see nothing")
    given = parser.parse_args()
    chosen = [m for m in MUTATIONS if not given.names or m.name.startswith(tuple(given.names))]
    if not chosen:
        parser.error(f"no mutation is called so; there are: {', '.join(m.name for m in MUTATIONS)}")
    counts = {"caught": 0, "does not apply": 0, "NOT CAUGHT": 0, "UNKNOWN": 0}
    passing: set[str] = set()
    print(f"{'mutation':38}{'file':34}{'seconds':>8}  caught by", flush=True)
    with tempfile.TemporaryDirectory(prefix="mutations-") as work:
        copied(Path(work))
        for mutation in chosen:
            began = time.monotonic()
            found = verdict(mutation, Path(work), passing, whole=given.all)
            seconds = time.monotonic() - began
            print(f"{mutation.name:38}{mutation.file:34}{seconds:8.0f}  {found}", flush=True)
            counts[next((kind for kind in counts if found.startswith(kind)), "caught")] += 1
    print(", ".join(f"{count} {kind}" for kind, count in counts.items()))
    return int(counts["caught"] + counts["does not apply"] < len(chosen))


if __name__ == "__main__":
    sys.exit(main())
