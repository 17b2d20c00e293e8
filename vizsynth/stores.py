"""A store of results, one per image, which several processes write at once. Any of them may die at any time.

A folder:

    manifest.json        the settings of the run, the names of its files, its arrays; written once
    NAME/                an array `[files, ...]` of results, Zarr 3, with a chunk per image
    journal-....jsonl    one per process that wrote: a line per image that is done, or broken, with the reason

The index of an image is that of its name in the sorted list, so no image is there twice. No two images share
a chunk, so writers do not wait for each other. A process writes a line to its journal after the chunks are on
disk, so the journal is true whenever the process dies; an incomplete last line is ignored.

A process reads all journals and computes missing images: first its own (i mod N = P), then those of the other
processes, each in another order. So one surviving process finishes the work of dead ones, and a resumed run
may have another number of processes. Two processes may, rarely, compute the same image; they write the same
result to the same place.
"""

import contextlib
import hashlib
import json
import math
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from vizsynth.core.atomic import full_disk_told, is_plain, read_record, sync_folder, write_atomic
from vizsynth.core.claims import shown
from vizsynth.core.paths import utf8_path

# Journals use "backslashreplace": JSON's own escapes for the parts of a file name that are not UTF-8.
MANIFEST = "manifest.json"
JOURNAL = re.compile(r"journal-\d+-of-\d+-[\w-]+\.jsonl")
CHUNK = re.compile(r"(zarr\.json|c(\.\d+)*)(\.__lock)?")  # also its name during a write
LINE = 1 << 20  # the most bytes of a journal's line
FORMAT = 1
NAMED = 3  # the most files that a message names
MOST_BYTES = 1 << 30  # per result


class StoreError(ValueError):
    """A store that does not exist, belongs to another run, or cannot be read."""


class Stored(NamedTuple):
    """The contents of a store."""

    arrays: dict[str, Any]
    """TensorStore's arrays `[files, ...]`; `np.asarray(arrays[name][i])` reads one result. Missing results
    are NaN (-1 for integers)."""
    names: tuple[str, ...]
    """The names of the files, in order."""
    done: Bool[np.ndarray, " n"]
    broken: dict[str, str]
    """The unreadable files, with the reasons."""
    origin: dict[str, Any]
    """The settings of the run."""


def digest(tree: Any) -> str:
    """Return a hash of a network's weights, or of any pytree of arrays.

    >>> digest({"kernel": np.ones(3)}) == digest({"kernel": np.ones(3)}) != digest({"kernel": np.zeros(3)})
    True
    """
    found = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        values = np.asarray(leaf)
        found.update(f"{jax.tree_util.keystr(path)} {values.dtype} {values.shape}\n".encode())
        found.update(np.ascontiguousarray(values).tobytes())
    return found.hexdigest()


def has_store(path: str | os.PathLike[str]) -> bool:
    """Tell whether a folder holds a store."""
    return (Path(path) / MANIFEST).exists()


def create_store(
    path: str | os.PathLike[str],
    *,
    origin: Mapping[str, Any],
    names: Sequence[str],
    results: Mapping[str, jax.ShapeDtypeStruct],
) -> None:
    """Create a store. If several processes try at once, one succeeds.

    Args:
        path: its folder, which is created.
        origin: the settings that define the run, as JSON; a resumed run must have the same.
        names: of the files, sorted.
        results: the arrays by name: the shape and dtype of the result of one image.

    Raises:
        StoreError: the folder holds a store, or the names are not sorted or not unique.
        ModuleNotFoundError: TensorStore is missing.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     one = jax.ShapeDtypeStruct((2, 2), "float32")
    ...     create_store(folder, origin={"method": "mean"}, names=["a", "b"], results={"maps": one})
    ...     with Writer(folder) as writer:
    ...         for i in writer.missing():
    ...             writer.write([i], {"maps": np.full((1, 2, 2), i)})
    ...     stored = open_store(folder)
    ...     np.asarray(stored.arrays["maps"][1]).tolist(), stored.done.tolist()
    ([[1.0, 1.0], [1.0, 1.0]], [True, True])
    """
    _tensorstore()
    folder = Path(path)
    if list(names) != sorted(set(names)):
        raise StoreError("the names of a store's files must be sorted and unique")
    arrays = {
        name: {"shape": [len(names), *one.shape], "dtype": np.dtype(one.dtype).name}
        for name, one in results.items()
    }
    record = {"format": FORMAT, "origin": dict(origin), "arrays": arrays, "names": list(names)}
    if wrong := [name for name in arrays if not is_plain(name)]:
        raise StoreError(f"an array cannot be called {wrong[0]!r}: its name must be a folder's")
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    taken = [name for name in arrays if os.path.lexists(folder / name) and not _is_free(folder / name)]
    if taken and not has_store(folder):
        raise StoreError(f"{folder / taken[0]} is there already; choose another folder")
    try:
        text = json.dumps(record, ensure_ascii=False, allow_nan=False)
        write_atomic(folder / MANIFEST, text, new=True, sync=True)
    except FileExistsError:
        raise StoreError(f"{folder} holds a store; open it, or choose another folder") from None
    except OSError:
        if made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise
    _open_arrays(folder, arrays)


def _is_free(place: Path) -> bool:
    """Tell whether an existing folder can take an array: nothing in it has the name of a chunk."""
    if place.is_symlink() or not place.is_dir():
        return False
    return not any(CHUNK.fullmatch(name) for name in os.listdir(place))


def check_store(
    path: str | os.PathLike[str],
    *,
    origin: Mapping[str, Any],
    names: Sequence[str],
    results: Mapping[str, jax.ShapeDtypeStruct] | None = None,
) -> None:
    """Raise unless a store belongs to this run.

    Raises:
        StoreError: there is no store, or its settings or files differ; the message names the differences.
    """
    folder = Path(path)
    there = _manifest(folder)
    ours, theirs = _flat(json.loads(json.dumps(dict(origin)))), _flat(there["origin"])
    missing = "(none)"
    if other := [k for k in sorted({*ours, *theirs}) if ours.get(k, missing) != theirs.get(k, missing)]:
        told = "; ".join(f"{k} is {_short(theirs.get(k))} there, {_short(ours.get(k))} now" for k in other)
        raise StoreError(f"{folder} holds another run: {told}; give its settings, or another folder")
    if list(names) != there["names"]:
        added, removed = sorted({*names} - {*there["names"]}), sorted({*there["names"]} - {*names})
        changes = [
            f"{len(n)} {what} ({_some(n)})" for what, n in (("added", added), ("removed", removed)) if n
        ]
        raise StoreError(
            f"the files are no longer those of the store in {folder}: {', '.join(changes)}; restore them, or "
            "choose another folder"
        )
    if results is not None:
        arrays = {k: ([len(names), *v.shape], np.dtype(v.dtype).name) for k, v in results.items()}
        found = {k: (v["shape"], v["dtype"]) for k, v in there["arrays"].items()}
        if arrays != found:
            raise StoreError(f"{folder} holds another run: its arrays are {found}, not {arrays}")


def wait_for_store(path: str | os.PathLike[str], *, seconds: float) -> None:
    """Wait until another process has created a store.

    Raises:
        StoreError: no process has within the time.
    """
    until = time.monotonic() + seconds
    while not has_store(path):
        if time.monotonic() > until:
            raise StoreError(
                f"no store was created in {path} for {seconds:.0f} seconds: start process 0, which does that"
            )
        time.sleep(min(0.2, seconds))


def remove_store(path: str | os.PathLike[str]) -> None:
    """Remove a store, and no other file in its folder or in those of its arrays.

    Raises:
        StoreError: the manifest is not a store's, or is damaged.
    """
    folder = Path(path)
    if not has_store(folder):
        return
    there = _manifest(folder)
    journals = [path for path in _journals(folder) if _is_of(path, there["names"])]
    (folder / MANIFEST).unlink()  # first: the rest is no store
    for name in there["arrays"]:
        if not (folder / name).is_symlink():
            for chunk in (folder / name).glob("*"):
                if CHUNK.fullmatch(chunk.name) and not chunk.is_dir():
                    chunk.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                (folder / name).rmdir()
    for journal in journals:
        journal.unlink(missing_ok=True)


def arrays_of(path: str | os.PathLike[str]) -> list[str]:
    """Return the names of a store's arrays; none if there is no store.

    Raises:
        StoreError: the manifest is not a store's, or is damaged.
    """
    return list(_manifest(Path(path))["arrays"]) if has_store(path) else []


def open_store(path: str | os.PathLike[str]) -> Stored:
    """Open a store for reading, also while others write.

    Raises:
        StoreError: there is no store, or one of a later version.
        ModuleNotFoundError: TensorStore is missing.
    """
    folder = Path(path)
    there = _manifest(folder)
    arrays = _open_arrays(folder, there["arrays"], read=True)
    names = tuple(there["names"])
    seen = _Journals(folder, names)
    seen.refresh()
    done = np.frombuffer(bytes(seen.state), np.uint8) == _DONE
    broken = {names[i]: reason for i, reason in sorted(seen.reasons.items()) if not done[i]}
    return Stored(arrays, names, done, broken, there["origin"])


class Writer:
    """One of the processes that fill a store. It tries broken images again."""

    def __init__(self, path: str | os.PathLike[str], *, process: int = 0, processes: int = 1) -> None:
        """Read the journals, and open a new one.

        Args:
            path: of a store.
            process: the index of this process, from 0.
            processes: the number of processes.

        Raises:
            ValueError: the index is outside the number of processes.
            StoreError: there is no store.
        """
        if not 0 <= process < processes:
            raise ValueError(f"process must be one of 0..{processes - 1}, not {process}")
        self.folder = Path(path)
        there = _manifest(self.folder)
        self.names: tuple[str, ...] = tuple(there["names"])
        self.process, self.processes = process, processes
        self._arrays = _open_arrays(self.folder, there["arrays"])
        self._seen = _Journals(self.folder, self.names)
        self._seen.refresh()
        self._seen.forget_broken()
        unique = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._path = self.folder / f"journal-{process}-of-{processes}-{unique}.jsonl"
        self._journal = self._path.open("x", encoding="utf-8", errors="backslashreplace")
        sync_folder(self.folder)

    def missing(self) -> Iterator[int]:
        """Yield the missing images: this process' own in order, then the others' at random."""
        count, n = len(self.names), self.processes
        yield from (i for i in range(self.process, count, n) if not self._seen.state[i])
        left = [i for i in range(count) if i % n != self.process and not self._seen.state[i]]
        # Each process has another order, so that few compute the same image.
        for k in np.random.default_rng(self.process).permutation(len(left)):
            if not self._seen.state[left[k]]:
                yield left[k]

    @property
    def finished(self) -> int:
        """The number of images known to be done or broken."""
        return len(self.names) - self._seen.state.count(0)

    def write(self, indices: Sequence[int], results: Mapping[str, Any]) -> None:
        """Write results, and when they are on disk, a line per image to the journal.

        Args:
            indices: of the images.
            results: by array, one per image.
        """
        if sorted(results) != sorted(self._arrays):
            raise ValueError(f"the store has the arrays {sorted(self._arrays)}, not {sorted(results)}")
        writing = [
            self._arrays[name][int(i)].write(np.asarray(value, self._arrays[name].dtype.numpy_dtype))
            for name, values in results.items()
            for i, value in zip(indices, values, strict=True)
        ]
        with full_disk_told(f"cannot write into the store in {self.folder}"):
            for one in writing:
                one.result()
        self._note([{"index": int(i), "name": self.names[i], "done": True} for i in indices])

    def broken(self, index: int, reason: str) -> None:
        """Note that an image cannot be read, with the reason."""
        self._note([{"index": int(index), "name": self.names[index], "broken": reason}])

    def _note(self, lines: list[dict[str, Any]]) -> None:
        self._journal.write("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
        self._journal.flush()
        os.fsync(self._journal.fileno())
        self._seen.refresh()  # also of the others

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()
        if self._path.exists() and self._path.stat().st_size == 0:
            self._path.unlink()

    def __enter__(self) -> "Writer":
        """Return the writer."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the journal."""
        self.close()


# Journals ----------------------------------------------------------------------------

_DONE, _BROKEN = 1, 2


class _Journals:
    """The contents of all journals; each refresh reads only the new lines."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder, self.names = folder, names
        self.state = bytearray(len(names))  # a byte per image: 0 is missing
        self.reasons: dict[int, str] = {}
        self._read: dict[Path, int] = {}

    def refresh(self) -> None:
        for path in _journals(self.folder):
            begin = self._read.get(path, 0)
            try:
                with path.open("rb") as file:
                    file.seek(begin)
                    for line in file:
                        if not line.endswith(b"\n"):  # incomplete
                            break
                        begin += len(line)
                        self._take(line)
            except FileNotFoundError:  # its process has removed it, empty
                continue
            self._read[path] = begin

    def _take(self, line: bytes) -> None:
        record = _noted(line, self.names)
        if record is None:  # damaged: the image is computed again
            return
        index, reason = record["index"], record.get("broken")
        if reason is None and record.get("done") is not True:
            return
        if reason is None:
            self.state[index] = _DONE
        elif self.state[index] != _DONE:
            self.state[index] = _BROKEN
            self.reasons[index] = str(reason)

    def forget_broken(self) -> None:
        for index in self.reasons:
            if self.state[index] == _BROKEN:
                self.state[index] = 0
        self.reasons.clear()


def _journals(folder: Path) -> list[Path]:
    """Return the files with names of journals; no links."""
    found = (path for path in folder.glob("journal-*.jsonl") if JOURNAL.fullmatch(path.name))
    return sorted(path for path in found if path.is_file() and not path.is_symlink())


def _is_of(journal: Path, names: Sequence[str]) -> bool:
    """Tell by its first line, if it has one, whether a journal belongs to the store of these files."""
    with journal.open("rb") as file:
        line = file.readline(LINE)
    return not line.endswith(b"\n") or _noted(line, names) is not None


def _noted(line: bytes, names: Sequence[str]) -> dict[str, Any] | None:
    """Parse a line; None if it names no image of the store."""
    try:
        record = json.loads(line)
        index = record["index"]
        known = type(index) is int and index >= 0 and names[index] == record["name"]
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return None
    return record if known else None


# On the disk -------------------------------------------------------------------------


def _tensorstore() -> Any:
    try:
        import tensorstore
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("stores need tensorstore: pip install 'vizsynth[store]'") from error
    return tensorstore


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not has_store(folder):
        raise StoreError(f"{folder} holds no store: there is no {MANIFEST}")
    record = read_record(path)
    known = None if record is None else record.get("format")
    if isinstance(known, int) and known != FORMAT:
        raise StoreError(f"{folder} holds a store of format {known}; this version reads format {FORMAT}")
    if record is None or known is None:
        raise StoreError(f"{path} is no store's, or it is damaged; choose another folder")
    try:
        _check_manifest(folder, record)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise StoreError(
            f"{path} is no store's, or it is damaged ({reason}); choose another folder"
        ) from None
    return record


def _check_manifest(folder: Path, record: Mapping[str, Any]) -> None:
    """Raise unless a manifest has the layout of `create_store`, and names nothing outside the folder."""
    names, arrays = record["names"], record["arrays"]
    if not isinstance(record["origin"], dict) or not isinstance(names, list) or not isinstance(arrays, dict):
        raise TypeError("its parts have other types")
    if not all(isinstance(name, str) for name in names) or names != sorted(set(names)):
        raise ValueError("the names of its files are not sorted or not unique")
    for name, array in arrays.items():
        shape, dtype = array["shape"], np.dtype(array["dtype"])
        if not is_plain(name) or (folder / name).is_symlink():
            raise ValueError(f"{shown(name)} is no name of an array")
        if dtype.kind not in "fiub" and not jnp.issubdtype(dtype, jnp.floating):
            raise ValueError(f"{name} holds {dtype}, not numbers")
        if not all(type(n) is int and 0 <= n <= 1 << 31 for n in shape) or shape[:1] != [len(names)]:
            raise ValueError(f"{name} has the shape {shown(shape)}, but there are {len(names)} files")
        if math.prod(shape[1:]) * dtype.itemsize > MOST_BYTES:
            raise ValueError(
                f"a result of {name} has the shape {shown(shape[1:])}, more than {MOST_BYTES:,} bytes"
            )


def _open_arrays(folder: Path, arrays: Mapping[str, Any], *, read: bool = False) -> dict[str, Any]:
    """Open all arrays. A writer creates missing ones by the manifest."""
    ts = _tensorstore()
    opening = {}
    for name, array in arrays.items():
        dtype = np.dtype(array["dtype"])
        # A missing result must not pass for a result.
        fill: Any = "NaN" if jnp.issubdtype(dtype, jnp.floating) else -1
        if dtype.kind in "bu":
            fill = False if dtype.kind == "b" else 0
        metadata = {
            "shape": array["shape"],
            "data_type": array["dtype"],
            "fill_value": fill,
            "chunk_grid": {
                "name": "regular",
                "configuration": {"chunk_shape": [1, *(max(1, n) for n in array["shape"][1:])]},
            },
            # All chunks in one folder: by default each image would need several folders.
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
            "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
        }
        spec = {
            "driver": "zarr3",
            "kvstore": {"driver": "file", "path": f"{utf8_path((folder / name).absolute())}/"},
            "metadata": metadata,
            "store_data_equal_to_fill_value": True,
        }
        if read:  # also arrays that no writer has created, by the manifest
            opening[name] = ts.open(spec, open=True, assume_metadata=True, read=True, write=False)
        else:
            opening[name] = ts.open(spec, open=True, create=True)
    try:
        with full_disk_told(f"cannot write into the store in {folder}"):
            return {name: one.result() for name, one in opening.items()}
    except ValueError as error:
        reason = " ".join(str(error).split())[:200]
        raise StoreError(f"{folder} holds a store that cannot be opened: {reason}") from error


# Words -------------------------------------------------------------------------------


def _flat(tree: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{above}{name}.")
        else:
            found[f"{above}{name}"] = value
    return found


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _some(names: Sequence[str]) -> str:
    told = ", ".join(names[:NAMED])
    return told if len(names) <= NAMED else f"{told}, ..."
