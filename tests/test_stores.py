"""Stores: what is written is there whoever dies when, each image once; other runs are refused."""

import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vizsynth import stores
from vizsynth.stores import StoreError, Writer, check_store, create_store, open_store

NAMES = [f"{i:02}.png" for i in range(10)]
ORIGIN = {"method": "grad-cam", "options": {"samples": 3}, "size": 64, "weights": "a" * 64}


def one(*shape: int, dtype: Any = "float32") -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


RESULTS = {"maps": one(3, 2), "labels": one(dtype="int32")}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    create_store(path, origin=ORIGIN, names=NAMES, results=RESULTS)
    return path


def result(i: int) -> dict[str, Any]:
    return {"maps": np.full((3, 2), i, np.float32), "labels": np.int32(i)}


def write(writer: Writer, *indices: int) -> None:
    writer.write(indices, {name: [result(i)[name] for i in indices] for name in RESULTS})


# Written and read --------------------------------------------------------------------


def test_what_is_written_is_read(store: Path) -> None:
    with Writer(store) as writer:
        write(writer, 3, 1)
        writer.broken(2, "no picture")
        assert writer.finished == 3
        assert list(writer.missing()) == [0, 4, 5, 6, 7, 8, 9]
        there = open_store(store)  # while it is written
    assert there.names == tuple(NAMES)
    assert there.origin == ORIGIN
    assert np.flatnonzero(there.done).tolist() == [1, 3]
    assert there.broken == {"02.png": "no picture"}
    maps, labels = (np.asarray(there.arrays[name]) for name in ("maps", "labels"))
    assert (maps[[1, 3]] == np.asarray([1, 3])[:, None, None]).all()
    assert np.isnan(maps[[0, 2, *range(4, 10)]]).all(), "what is not done does not pass for a result"
    assert labels.tolist() == [-1, 1, -1, 3, -1, -1, -1, -1, -1, -1]


def test_an_array_is_plain_zarr_with_a_chunk_an_image(store: Path) -> None:
    import tensorstore as ts

    with Writer(store) as writer:
        write(writer, 4)
    kvstore = {"driver": "file", "path": str(store / "maps")}
    array = ts.open({"driver": "zarr3", "kvstore": kvstore}).result()
    assert (array[4].read().result() == 4).all()
    assert array.chunk_layout.write_chunk.shape == (1, 3, 2)
    metadata = json.loads((store / "maps" / "zarr.json").read_text())
    assert metadata["zarr_format"] == 3
    assert sorted(p.name for p in (store / "maps").iterdir()) == ["c.4.0.0", "zarr.json"]


@pytest.mark.parametrize(
    ("dtype", "nothing"),
    [
        ("float32", np.nan),
        ("float64", np.nan),
        ("bfloat16", np.nan),
        ("int32", -1),
        ("uint8", 0),
        ("bool", 0),
    ],
)
def test_every_precision_is_kept(tmp_path: Path, dtype: str, nothing: float) -> None:
    kind = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    create_store(tmp_path, origin={}, names=["a", "b"], results={"x": one(2, dtype=kind)})
    values = np.asarray([[0, 1]], kind)
    with Writer(tmp_path) as writer:
        writer.write([0], {"x": values})
    found = np.asarray(open_store(tmp_path).arrays["x"])
    assert found.dtype == kind
    assert (found[0] == values[0]).all()
    np.testing.assert_array_equal(found[1].astype(np.float64), nothing)


def test_a_damaged_chunk_is_noticed(store: Path) -> None:
    with Writer(store) as writer:
        write(writer, 4)
    chunk = store / "maps" / "c.4.0.0"
    chunk.write_bytes(b"\1" + chunk.read_bytes()[1:])
    with pytest.raises(ValueError, match="Digest mismatch"):
        np.asarray(open_store(store).arrays["maps"][4])


# Shared ------------------------------------------------------------------------------


@given(count=st.integers(0, 40), processes=st.integers(1, 7), done=st.sets(st.integers(0, 39)))
def test_each_process_begins_with_its_share_and_goes_on_with_the_others(
    count: int, processes: int, done: set[int]
) -> None:
    """Shares are disjoint, together all that is missing; the order of each has all of it once."""
    writers = []
    for process in range(processes):
        writer = Writer.__new__(Writer)
        writer.names, writer.process, writer.processes = ("",) * count, process, processes
        writer._seen = stores._Journals(Path("nowhere"), [""] * count)
        for i in done & set(range(count)):
            writer._seen.state[i] = stores._DONE
        writers.append(writer)
    missing = [i for i in range(count) if i not in done]
    first: list[int] = []
    for process, writer in enumerate(writers):
        order = list(writer.missing())
        assert sorted(order) == missing
        own = [i for i in missing if i % processes == process]
        assert order[: len(own)] == own
        first += own
    assert sorted(first) == missing


def test_writers_see_what_others_have_done(store: Path) -> None:
    with Writer(store, process=0, processes=2) as first, Writer(store, process=1, processes=2) as second:
        order = second.missing()
        assert next(order) == 1
        write(first, 0, 2, 3, 5, 8)
        write(second, 1)
        assert [next(order), next(order)] == [7, 9], "the rest of its own"
        assert sorted(order) == [4, 6], "then the other's"
        assert second.finished == 6


def test_those_who_come_to_the_same_rest_take_it_in_other_orders(tmp_path: Path) -> None:
    names = [f"{i:03}" for i in range(300)]
    create_store(tmp_path, origin={}, names=names, results={"x": one()})
    orders = []
    for process in range(2):
        with Writer(tmp_path, process=process, processes=3) as writer:
            orders.append([i for i in writer.missing() if i % 3 == 2][:30])
    assert len({*orders[0]} & {*orders[1]}) < 20


def test_another_number_of_processes_goes_on(store: Path) -> None:
    with Writer(store, process=2, processes=3) as writer:
        write(writer, 2, 5)
    for process in range(2):
        with Writer(store, process=process, processes=2) as writer:
            write(writer, *(i for i in writer.missing() if i % 2 == process))
    assert open_store(store).done.all()


def test_what_was_broken_is_tried_again(store: Path) -> None:
    with Writer(store) as writer:
        writer.broken(2, "cut off")
        assert 2 not in list(writer.missing())
    assert open_store(store).broken == {"02.png": "cut off"}
    with Writer(store) as writer:
        assert 2 in list(writer.missing())
        write(writer, 2)
    there = open_store(store)
    assert there.done[2] and there.broken == {}


def test_a_writer_that_did_nothing_leaves_no_journal(store: Path) -> None:
    with Writer(store):
        pass
    assert list(store.glob("journal*")) == []


@pytest.mark.parametrize(("process", "processes"), [(2, 2), (-1, 2), (0, 0)])
def test_a_process_is_one_of_them(store: Path, process: int, processes: int) -> None:
    with pytest.raises(ValueError, match="process must be one of"):
        Writer(store, process=process, processes=processes)


# Deaths ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "torn",
    [
        b'{"index": 5, "name": "05.png", "done": tr',
        b'{"index": 5, "name": "05.png", "done": true}',  # whole, but for its end of line
        b"\0\0\0\0\n",
        b'{"index": 99, "name": "05.png", "done": true}\n',
        b'{"index": "5", "done": true}\n',
        b'{"index": 5}\n',
        b"[5]\n",
    ],
)
def test_a_line_that_is_not_whole_counts_for_nothing(store: Path, torn: bytes) -> None:
    with Writer(store) as writer:
        write(writer, 4)
    journal = next(store.glob("journal*"))
    journal.write_bytes(journal.read_bytes() + torn)
    assert np.flatnonzero(open_store(store).done).tolist() == [4]
    with Writer(store) as writer:
        assert 5 in list(writer.missing())
        write(writer, 5)
    assert np.flatnonzero(open_store(store).done).tolist() == [4, 5]


def test_a_line_that_is_being_written_is_read_when_it_is_whole(store: Path) -> None:
    journal = store / "journal-1-of-2-other.jsonl"
    text = b'{"index": 5, "name": "05.png", "done": true}\n'
    with Writer(store) as writer:
        journal.write_bytes(text[:20])
        write(writer, 0)
        assert 5 in list(writer.missing())
        journal.write_bytes(text)
        write(writer, 1)
        assert 5 not in list(writer.missing())


DIES = """
import os, sys
import numpy as np
from vizsynth.stores import Writer
writer = Writer(sys.argv[1])
def write(i):
    writer.write([i], {"maps": np.full((1, 3, 2), i, np.float32), "labels": np.full(1, i, np.int32)})
write(0)
journal, writer._note = writer._note, lambda lines: os.kill(os.getpid(), 9)  # the chunks are there, no line
write(1)
"""


def test_a_death_between_chunk_and_journal_loses_nothing(store: Path) -> None:
    ran = subprocess.run([sys.executable, "-c", DIES, str(store)], capture_output=True, text=True)
    assert ran.returncode == -9, ran.stderr
    assert np.flatnonzero(open_store(store).done).tolist() == [0]
    with Writer(store) as writer:
        assert list(writer.missing()) == [*range(1, 10)]
        write(writer, *writer.missing())
    there = open_store(store)
    assert there.done.all()
    assert np.asarray(there.arrays["labels"]).tolist() == [*range(10)]


def test_the_line_comes_after_the_chunks(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Writer(store) as writer:
        monkeypatch.setattr(
            writer, "_note", lambda lines: seen.append(sorted(p.name for p in (store / "maps").iterdir()))
        )
        seen: list[list[str]] = []
        write(writer, 7)
    assert seen == [["c.7.0.0", "zarr.json"]]


# Begun -------------------------------------------------------------------------------


def test_of_several_that_begin_at_once_one_does(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(4) as pool:
        begun = pool.starmap(begin, [(str(tmp_path / "store"), i) for i in range(8)])
    assert sum(begun) == 1
    assert open_store(tmp_path / "store").origin == {"by": begun.index(True)}
    assert not list((tmp_path / "store").glob(".*")), "nothing is left over"


def begin(path: str, number: int) -> bool:
    try:
        create_store(path, origin={"by": number}, names=NAMES, results=RESULTS)
    except StoreError as error:
        assert "holds a store" in str(error)
        return False
    return True


def test_it_is_waited_for(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="start process 0"):
        stores.wait_for_store(tmp_path / "store", seconds=0.05)
    create_store(tmp_path / "store", origin=ORIGIN, names=NAMES, results=RESULTS)
    stores.wait_for_store(tmp_path / "store", seconds=0.0)


def test_arrays_that_were_not_made_are_made_by_who_writes(store: Path) -> None:
    """A death just after the manifest was written."""
    import shutil

    shutil.rmtree(store / "maps")
    assert np.isnan(np.asarray(open_store(store).arrays["maps"])).all()
    with Writer(store) as writer:
        write(writer, 1)
    assert (np.asarray(open_store(store).arrays["maps"][1]) == 1).all()


def test_arrays_that_are_not_the_manifests_are_not_written_to(store: Path) -> None:
    metadata = json.loads((store / "maps" / "zarr.json").read_text())
    (store / "maps" / "zarr.json").write_text(json.dumps(metadata | {"shape": [10, 3, 3]}))
    with pytest.raises(StoreError, match="cannot be opened"):
        Writer(store)


@pytest.mark.parametrize("names", [["b", "a"], ["a", "a"]])
def test_names_are_sorted_and_different(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(StoreError, match="sorted"):
        create_store(tmp_path / "store", origin={}, names=names, results=RESULTS)
    assert not (tmp_path / "store").exists()


# Refused -----------------------------------------------------------------------------


def test_the_same_run_is_taken(store: Path) -> None:
    check_store(store, origin=ORIGIN, names=NAMES, results=RESULTS)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"method": "gradient"}, 'method is "grad-cam" there, "gradient" now'),
        ({"options": {"samples": 4}}, "options.samples is 3 there, 4 now"),
        ({"size": 65, "method": "rise"}, 'method is "grad-cam" there, "rise" now; size is 64 there, 65 now'),
        ({"weights": "b" * 64}, 'weights is "aaaaaaa'),
        ({"seed": 0}, "seed is null there, 0 now"),
    ],
)
def test_another_run_is_refused_with_what_differs(store: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(StoreError) as refused:
        check_store(store, origin=ORIGIN | changed, names=NAMES)
    assert message in str(refused.value)
    assert "holds another run" in str(refused.value) and "another folder" in str(refused.value)


def test_other_files_are_refused_by_name(store: Path) -> None:
    names = sorted([*NAMES[1:], "x.png", *(f"y{i}.png" for i in range(3))])
    with pytest.raises(StoreError) as refused:
        check_store(store, origin=ORIGIN, names=names)
    assert "4 added (x.png, y0.png, y1.png, ...), 1 removed (00.png)" in str(refused.value)
    assert "restore them" in str(refused.value)
    with pytest.raises(StoreError, match=r"1 added \(x\.png\), 1 removed \(00\.png\)"):
        check_store(store, origin=ORIGIN, names=[*NAMES[1:], "x.png"])


def test_other_arrays_are_refused(store: Path) -> None:
    with pytest.raises(StoreError, match="its arrays are"):
        check_store(store, origin=ORIGIN, names=NAMES, results={"maps": one(4, 2)})
    with Writer(store) as writer, pytest.raises(ValueError, match=r"has the arrays \['labels', 'maps'\]"):
        writer.write([0], {"maps": np.zeros((1, 3, 2))})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "holds no store"),
        ("{", "damaged"),
        ("[]", "damaged"),
        ('{"format": 99}', "of format 99; this version reads format 1"),
    ],
)
def test_what_is_no_store_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "manifest.json").write_text(text)
    for use in (open_store, Writer):
        with pytest.raises(StoreError, match=message):
            use(tmp_path)
    stores.remove_store(tmp_path / "nowhere")


def test_removing_leaves_what_is_not_the_stores(store: Path) -> None:
    with Writer(store) as writer:
        write(writer, 1)
    (store / "mine.txt").write_text("mine")
    stores.remove_store(store)
    assert [path.name for path in store.iterdir()] == ["mine.txt"]
    stores.remove_store(store)
    assert (store / "mine.txt").exists()


@pytest.fixture
def _no_tensorstore(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "tensorstore", None)
    yield


@pytest.mark.usefixtures("_no_tensorstore")
def test_without_tensorstore_the_extra_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'vizsynth\[store\]'"):
        create_store(tmp_path / "store", origin={}, names=NAMES, results=RESULTS)
    assert os.listdir(tmp_path) == []


def test_the_digest_tells_weights_apart() -> None:
    net = {"conv": {"kernel": np.arange(6.0).reshape(2, 3)}, "bias": np.zeros(2)}
    same = {"bias": np.zeros(2), "conv": {"kernel": np.arange(6.0).reshape(2, 3)}}
    assert stores.digest(net) == stores.digest(same)
    others = [
        {"conv": {"kernel": np.arange(6.0).reshape(3, 2)}, "bias": np.zeros(2)},
        {"conv": {"weight": np.arange(6.0).reshape(2, 3)}, "bias": np.zeros(2)},
        {"conv": {"kernel": np.arange(6.0).reshape(2, 3)}, "bias": np.zeros(2, np.float32)},
        {"conv": {"kernel": np.arange(6.0).reshape(2, 3)}, "bias": np.asarray([0, 1e-9])},
    ]
    assert len({stores.digest(tree) for tree in (net, *others)}) == 5


# What is not the store's --------------------------------------------------------------


def changed(store: Path, **changes: Any) -> dict[str, Any]:
    record = json.loads((store / "manifest.json").read_text())
    (store / "manifest.json").write_text(json.dumps(record | changes))
    return record


@pytest.mark.parametrize("name", ["../victim", "..", "", ".", "maps/../../victim", "/tmp/victim", "a\\b"])
def test_a_name_in_a_manifest_leads_nowhere_else(store: Path, name: str) -> None:
    victim = store.parent / "victim"
    victim.mkdir()
    (victim / "zarr.json").write_text("precious")
    arrays = changed(store)["arrays"]
    changed(store, arrays={name: arrays["maps"]})
    for use in (stores.remove_store, open_store, Writer, stores.arrays_of):
        with pytest.raises(StoreError, match="no store's, or it is damaged"):
            use(store)
    assert (victim / "zarr.json").read_text() == "precious" and (store / "manifest.json").exists()
    with pytest.raises(StoreError, match="cannot be called"):
        create_store(store.parent / "new", origin={}, names=NAMES, results={name: one()})


@pytest.mark.parametrize(
    "changes",
    [
        {"arrays": []},
        {"arrays": {"maps": 3}},
        {"arrays": {"maps": {"shape": [10, -1], "dtype": "float32"}}},
        {"arrays": {"maps": {"shape": [11, 2], "dtype": "float32"}}},
        {"arrays": {"maps": {"shape": [10, "2"], "dtype": "float32"}}},
        {"arrays": {"maps": {"shape": [10, 2], "dtype": "float33"}}},
        {"names": "0123456789"},
        {"names": [3] * 10},
        {"origin": None},
        {"format": None},
    ],
)
def test_a_manifest_that_is_not_sound_is_refused(store: Path, changes: dict[str, Any]) -> None:
    changed(store, **changes)
    with pytest.raises(StoreError, match="damaged"):
        open_store(store)


def test_an_array_that_is_a_link_is_refused(store: Path) -> None:
    (store / "maps").rename(store.parent / "theirs")
    (store / "maps").symlink_to(store.parent / "theirs")
    for use in (stores.remove_store, open_store, Writer):
        with pytest.raises(StoreError, match="damaged"):
            use(store)
    assert (store.parent / "theirs" / "zarr.json").exists()


def test_somebody_elses_manifest_stays(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"name": "a page of the web"}')
    with pytest.raises(StoreError, match="no store's"):
        stores.remove_store(tmp_path)
    with pytest.raises(StoreError, match="holds a store"):
        create_store(tmp_path, origin={}, names=NAMES, results=RESULTS)
    assert os.listdir(tmp_path) == ["manifest.json"]


def test_removing_takes_chunks_and_journals_of_its_own_alone(store: Path) -> None:
    with Writer(store) as writer:
        write(writer, 1)
    theirs = {
        "maps/mine.txt": "mine",
        "journal-2024.jsonl": '{"index": 1, "name": "01.png", "done": true}\n',
        "journal-1-of-2-x.jsonl": '{"index": 1, "name": "of another store", "done": true}\n',
    }
    for name, text in theirs.items():
        (store / name).write_text(text)
    (store.parent / "elsewhere").write_text('{"index": 2, "name": "02.png", "done": true}\n')
    (store / "journal-0-of-1-y.jsonl").symlink_to(store.parent / "elsewhere")
    assert np.flatnonzero(open_store(store).done).tolist() == [1], "nor are they read"
    stores.remove_store(store)
    left = sorted(str(p.relative_to(store)) for p in store.rglob("*") if p.is_file())
    assert left == sorted([*theirs, "journal-0-of-1-y.jsonl"])
    create_store(store, origin=ORIGIN, names=NAMES, results=RESULTS)  # beside them
    assert not open_store(store).done.any()


def test_an_array_does_not_begin_in_another(store: Path) -> None:
    (store / "manifest.json").unlink()
    with pytest.raises(StoreError, match="maps is there already"):
        create_store(store, origin=ORIGIN, names=NAMES, results=RESULTS)
    assert (store / "maps" / "zarr.json").exists() and not (store / "manifest.json").exists()


@pytest.mark.parametrize("line", ['{"index": 5.0, "name": "05.png", "done": true}', "[" * 100_000, "3"])
def test_an_odd_line_counts_for_nothing(store: Path, line: str) -> None:
    (store / "journal-0-of-1-z.jsonl").write_text(f"{line}\n")
    assert not open_store(store).done.any()


def test_a_full_disk_is_told_as_that(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing:
        def __getitem__(self, _: int) -> "Failing":
            return self

        write = dtype = property(lambda self: self)
        numpy_dtype = np.dtype("float32")

        def __call__(self, _: Any) -> "Failing":
            return self

        def result(self) -> None:
            raise ValueError("RESOURCE_EXHAUSTED: Error writing c.1: No space left on device")

    with Writer(store) as writer:
        writer._arrays = {"maps": Failing(), "labels": Failing()}
        with pytest.raises(OSError, match=r"cannot write into the store in .*: No space left"):
            write(writer, 1)
    assert not open_store(store).done.any()
