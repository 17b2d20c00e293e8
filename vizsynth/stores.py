"""A store of results, one an image, that several processes write at once and any may leave at any moment.

A folder:

    manifest.json        what makes the run: its settings, the names of its files, its arrays; written once
    NAME/                an array `[files, ...]` of results, Zarr 3, a chunk an image
    journal-....jsonl    one a process that wrote: a line for each image that is done, or why it is broken

The place of an image is that of its name among the sorted names, so that none can be there twice. No two
images share a chunk, so writers need not wait for each other. A line of a journal is written after its
chunks are on the disk, so what a journal says is true whenever the process dies; a last line that was cut
off counts for nothing.

Whoever begins reads all journals and does what is missing: first its own share (the images i with i mod N =
P), then what others have not done, each in another order. So a process that dies leaves nothing undone as
long as one lives, and it does not matter whether there are as many now as there were before. Two may then,
once in a while, compute the same image; it has one place, and both write the same there.
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

# A journal is JSON with "backslashreplace": JSON's own escapes of what in a file's name is not UTF-8.
MANIFEST = "manifest.json"
JOURNAL = re.compile(r"journal-\d+-of-\d+-[\w-]+\.jsonl")
CHUNK = re.compile(r"(zarr\.json|c(\.\d+)*)(\.__lock)?")  # with the name that a chunk has while it is written
LINE = 1 << 20  # bytes of a journal's line, at most
FORMAT = 1
NAMED = 3  # files of a list that messages name
MOST_BYTES = 1 << 30  # of an image's result


class StoreError(ValueError):
    """A store that is not there, is another run's, or cannot be read."""


class Stored(NamedTuple):
    """What a store holds."""

    arrays: dict[str, Any]
    """TensorStore's arrays `[files, ...]`; `np.asarray(arrays[name][i])` reads one result. What is not done
    is NaN (-1 for integers)."""
    names: tuple[str, ...]
    """Of the files, in order."""
    done: Bool[np.ndarray, " n"]
    broken: dict[str, str]
    """The files that could not be read, and why."""
    origin: dict[str, Any]
    """The settings of the run."""


def digest(tree: Any) -> str:
    """Return what tells a network's weights, or any pytree of arrays, from all others.

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
    """Tell whether there is a store in a folder."""
    return (Path(path) / MANIFEST).exists()


def create_store(
    path: str | os.PathLike[str],
    *,
    origin: Mapping[str, Any],
    names: Sequence[str],
    results: Mapping[str, jax.ShapeDtypeStruct],
) -> None:
    """Begin a store. Of several that try at once, one succeeds.

    Args:
        path: its folder, which is made.
        origin: what makes the run what it is, as JSON: another origin is refused when it goes on.
        names: of the files, sorted.
        results: the arrays by name: the shape and dtype of one image's result.

    Raises:
        StoreError: there is one; names that are not sorted, or not all different.
        ModuleNotFoundError: there is no TensorStore.

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
        raise StoreError("the names of a store's files must be sorted, and all different")
    arrays = {
        name: {"shape": [len(names), *one.shape], "dtype": np.dtype(one.dtype).name}
        for name, one in results.items()
    }
    record = {"format": FORMAT, "origin": dict(origin), "arrays": arrays, "names": list(names)}
    if wrong := [name for name in arrays if not is_plain(name)]:
        raise StoreError(f"an array cannot be called {wrong[0]!r}: its name is that of a folder in the store")
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
    """Tell whether an array can lie in a folder that is there: nothing in it is called as its chunks are."""
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
    """Raise unless a store is of this run.

    Raises:
        StoreError: there is none; its settings, or its files, are others; the message names which.
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
            f"the files are no longer those that the store in {folder} was begun with: {', '.join(changes)}; "
            "put them back as they were, or begin a store in another folder"
        )
    if results is not None:
        arrays = {k: ([len(names), *v.shape], np.dtype(v.dtype).name) for k, v in results.items()}
        found = {k: (v["shape"], v["dtype"]) for k, v in there["arrays"].items()}
        if arrays != found:
            raise StoreError(f"{folder} holds another run: its arrays are {found}, not {arrays}")


def wait_for_store(path: str | os.PathLike[str], *, seconds: float) -> None:
    """Wait until another process has begun a store.

    Raises:
        StoreError: none has, for so many seconds.
    """
    until = time.monotonic() + seconds
    while not has_store(path):
        if time.monotonic() > until:
            raise StoreError(
                f"no store was begun in {path} for {seconds:.0f} seconds; process 0 does that: start it, too"
            )
        time.sleep(min(0.2, seconds))


def remove_store(path: str | os.PathLike[str]) -> None:
    """Remove a store, and nothing else that is in its folder, or in those of its arrays.

    Raises:
        StoreError: what is there is no store's, or damaged: nobody knows what is its own.
    """
    folder = Path(path)
    if not has_store(folder):
        return
    there = _manifest(folder)
    journals = [path for path in _journals(folder) if _is_of(path, there["names"])]
    (folder / MANIFEST).unlink()  # first: what is left is no store
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
    """Return the names of a store's arrays; none where there is no store.

    Raises:
        StoreError: what is there is no store's, or damaged.
    """
    return list(_manifest(Path(path))["arrays"]) if has_store(path) else []


def open_store(path: str | os.PathLike[str]) -> Stored:
    """Open a store for reading, also while it is written.

    Raises:
        StoreError: there is none, or one of a later version.
        ModuleNotFoundError: there is no TensorStore.
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
    """One of the processes that fill a store.

    Images that were broken before are tried again: they may have been mended.
    """

    def __init__(self, path: str | os.PathLike[str], *, process: int = 0, processes: int = 1) -> None:
        """Read what is done, and begin a journal.

        Args:
            path: of a store that was begun.
            process: which of the processes that write now, from 0.
            processes: how many there are.

        Raises:
            ValueError: a process that is none of them.
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
        """Yield the images that nobody has done so far: the own share in order, then the others' mixed."""
        count, n = len(self.names), self.processes
        yield from (i for i in range(self.process, count, n) if not self._seen.state[i])
        left = [i for i in range(count) if i % n != self.process and not self._seen.state[i]]
        # Several may come to the same rest: each in an order of its own, so that few do the same at once.
        for k in np.random.default_rng(self.process).permutation(len(left)):
            if not self._seen.state[left[k]]:
                yield left[k]

    @property
    def finished(self) -> int:
        """How many images are done, or broken, as far as is known."""
        return len(self.names) - self._seen.state.count(0)

    def write(self, indices: Sequence[int], results: Mapping[str, Any]) -> None:
        """Write the results of some images, and when they are on the disk, that they are done.

        Args:
            indices: the places of the images.
            results: by array, one an image.
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
        """Write that an image cannot be read, and why."""
        self._note([{"index": int(index), "name": self.names[index], "broken": reason}])

    def _note(self, lines: list[dict[str, Any]]) -> None:
        self._journal.write("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
        self._journal.flush()
        os.fsync(self._journal.fileno())
        self._seen.refresh()  # of the others, too

    def close(self) -> None:
        """Let go of the journal."""
        self._journal.close()
        if self._path.exists() and self._path.stat().st_size == 0:
            self._path.unlink()

    def __enter__(self) -> "Writer":
        """Return the writer."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the journal."""
        self.close()


# What is known -----------------------------------------------------------------------

_DONE, _BROKEN = 1, 2


class _Journals:
    """What all journals say, read on from where they ended when they were last read."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder, self.names = folder, names
        self.state = bytearray(len(names))  # a byte an image: 0 is missing
        self.reasons: dict[int, str] = {}
        self._read: dict[Path, int] = {}

    def refresh(self) -> None:
        for path in _journals(self.folder):
            begin = self._read.get(path, 0)
            try:
                with path.open("rb") as file:
                    file.seek(begin)
                    for line in file:
                        if not line.endswith(b"\n"):  # was cut off, or is being written
                            break
                        begin += len(line)
                        self._take(line)
            except FileNotFoundError:  # an empty one that its process has taken away
                continue
            self._read[path] = begin

    def _take(self, line: bytes) -> None:
        record = _noted(line, self.names)
        if record is None:  # a disk that failed: it is done again
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
    """Return the files that may be journals, by their names; no links."""
    found = (path for path in folder.glob("journal-*.jsonl") if JOURNAL.fullmatch(path.name))
    return sorted(path for path in found if path.is_file() and not path.is_symlink())


def _is_of(journal: Path, names: Sequence[str]) -> bool:
    """Tell whether a journal is of the store of these files: its first line says so, if it has one."""
    with journal.open("rb") as file:
        line = file.readline(LINE)
    return not line.endswith(b"\n") or _noted(line, names) is not None


def _noted(line: bytes, names: Sequence[str]) -> dict[str, Any] | None:
    """Return what a line says of an image of the store; None where it says nothing of one."""
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
        raise StoreError(f"{path} is no store's, or it is damaged; begin a store in another folder")
    try:
        _check_manifest(folder, record)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise StoreError(
            f"{path} is no store's, or it is damaged ({reason}); begin a store in another folder"
        ) from None
    return record


def _check_manifest(folder: Path, record: Mapping[str, Any]) -> None:
    """Raise unless a manifest is laid out as `create_store` does, and of nothing outside the folder."""
    names, arrays = record["names"], record["arrays"]
    if not isinstance(record["origin"], dict) or not isinstance(names, list) or not isinstance(arrays, dict):
        raise TypeError("its parts are of other kinds")
    if not all(isinstance(name, str) for name in names) or names != sorted(set(names)):
        raise ValueError("the names of its files are not sorted, or not all different")
    for name, array in arrays.items():
        shape, dtype = array["shape"], np.dtype(array["dtype"])
        if not is_plain(name) or (folder / name).is_symlink():
            raise ValueError(f"{shown(name)} is no name of an array")
        if dtype.kind not in "fiub" and not jnp.issubdtype(dtype, jnp.floating):
            raise ValueError(f"{name} holds {dtype}, no numbers")
        if not all(type(n) is int and 0 <= n <= 1 << 31 for n in shape) or shape[:1] != [len(names)]:
            raise ValueError(f"{name} has the shape {shown(shape)}, where there are {len(names)} files")
        if math.prod(shape[1:]) * dtype.itemsize > MOST_BYTES:
            raise ValueError(
                f"a result of {name} has the shape {shown(shape[1:])}, more than {MOST_BYTES:,} bytes"
            )


def _open_arrays(folder: Path, arrays: Mapping[str, Any], *, read: bool = False) -> dict[str, Any]:
    """Open all arrays; who writes makes those that are not there: the manifest says how, whoever does it."""
    ts = _tensorstore()
    opening = {}
    for name, array in arrays.items():
        dtype = np.dtype(array["dtype"])
        # What is not done must not pass for a result.
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
            # All chunks in one folder: a folder each would be several an image.
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
            "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
        }
        spec = {
            "driver": "zarr3",
            "kvstore": {"driver": "file", "path": f"{utf8_path((folder / name).absolute())}/"},
            "metadata": metadata,
            "store_data_equal_to_fill_value": True,
        }
        if read:  # also what nobody has made so far: the manifest says what it will be
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
