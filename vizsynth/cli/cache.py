"""Where compiled programs are kept between runs of the command line."""

import hashlib
import os
import platform
import warnings
from pathlib import Path


def use_cache() -> None:
    """Let JAX, which is not imported yet, keep its compiled programs on disk.

    Nothing here fails: without a folder that can be written to, every run compiles for itself.
    Settings of JAX that the user has made stay.
    """
    folder = cache_folder()
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if not os.access(folder, os.W_OK | os.X_OK):
        return
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    for verb in ("reading", "writing"):  # a full disk, or another run: the program is compiled again
        warnings.filterwarnings("ignore", message=f"Error {verb} persistent compilation cache entry")


def cache_folder() -> Path | None:
    """Return the folder for compiled programs, or None where none are to be kept."""
    chosen = os.environ.get("VIZSYNTH_CACHE", "")
    if chosen.lower() == "off":
        return None
    try:
        base = Path(chosen or os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    except RuntimeError:  # there is no home
        return None
    return (base if chosen else base / "vizsynth") / f"programs-{_processor()}"


def _processor() -> str:
    """Return a short name of this kind of processor.

    A program compiled for one may not run on another, and homes are shared between machines.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        features = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        features = platform.processor()
    return hashlib.sha256(f"{platform.machine()} {features}".encode()).hexdigest()[:8]
