"""What the benchmarks say of what they timed."""

import json
import sys
from collections.abc import Callable
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

import jax
import pytest

import vizsynth
from benchmarks import __main__ as command
from benchmarks import timing
from benchmarks.timing import Row, compare, forward_flops, table
from vizsynth.models.sequential import Conv


class Clock:
    """A clock that only goes while something is called that takes its time."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def taking(self, *seconds: float) -> Callable[[], None]:
        """Return a call that takes the first of these seconds at first, and the last at last."""
        rest = list(seconds)

        def call() -> None:
            self.now += rest.pop(0) if len(rest) > 1 else rest[0]

        return call


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(timing, "time", found)
    return found


def test_a_ratio_is_the_peers_time_over_ours(clock: Clock) -> None:
    peers = {"slow": clock.taking(5, 5, 6, 4), "quick": clock.taking(1)}
    slow, quick = compare("work", clock.taking(2), peers, turns=3, errors={"quick": lambda: 0.5})
    assert (slow.peer, slow.ours, slow.theirs, slow.error) == ("slow", 2, 5, None)
    assert (slow.ratio, slow.low, slow.high) == (2.5, 2, 3)
    assert (quick.peer, quick.ratio, quick.error) == ("quick", 0.5, 0.5)


def test_several_pieces_of_work_in_one_call(clock: Clock) -> None:
    (row,) = compare("work", clock.taking(8), {"peer": clock.taking(3)}, turns=3, of=4, flops=100.0)
    assert (row.ratio, row.ours, row.rate) == (1.5, 2, 50)


def test_alone_there_is_no_ratio(clock: Clock) -> None:
    (row,) = compare("work", clock.taking(1), {}, turns=2)
    assert (row.peer, row.ratio, row.theirs) == ("", None, None)
    assert "2 turns" in table([row])


def test_what_the_first_call_takes_longer_is_compiling(clock: Clock) -> None:
    (row,) = compare("work", clock.taking(7, 2), {}, turns=3)
    assert (row.compiling, row.ours) == (5, 2)


def test_operations_are_those_of_direct_convolutions() -> None:
    net = vizsynth.models.sequential([Conv(4, 3)], (8, 8, 3), key=jax.random.key(0))
    assert forward_flops(net, (8, 8)) == pytest.approx(2 * 9 * 3 * 4 * 8 * 8, rel=0.2)  # borders, biases


@pytest.mark.parametrize("name", command.NAMES)
def test_each_may_run_without_its_peers(name: str) -> None:
    parameters = signature(import_module(f"benchmarks.{name}").rows).parameters
    assert list(parameters) == ["turns", "peers"] and parameters["peers"].default is False


def test_the_page_tells_all() -> None:
    row = Row("work", "peer", 1.0, 2.0, 2.0, 1.5, 2.5, 7, 1e-6, 3.0, 1e9)
    one = {"name": "maps", "rows": [row._asdict()], "matrix_products_per_second": 2e11, "most_memory": 2**30}
    record: dict[str, Any] = {"peers": True, "cores": 2, "device": "cpu", "import": 0.5}
    found = command.page({**record, "versions": {"jax": "1.2"}, "benchmarks": [{**one, "seconds": 9.0}]})
    assert (
        "| work | peer | 1.000 s | 2.000 s | **2.00** (1.50 to 2.50, 7 turns) | 1e-06 | 3.0 s | 1 |" in found
    )
    assert "| maps | 200 | 1.00 | 9 |" in found
    assert "jax 1.2" in found and "--peers" in found


def test_the_page_holds_tables_of_their_own() -> None:
    figures = {"direct": {"pool5": "1e-6", "logits": "2e-6"}, "prepared": {"pool5": "3e-6", "logits": "4e-6"}}
    one = {"rows": [], "matrix_products_per_second": 1, "most_memory": 1, "seconds": 9.0}
    record: dict[str, Any] = {"peers": False, "cores": 2, "device": "cpu", "import": 0.5, "versions": {}}
    found = command.page({**record, "benchmarks": [{"name": "errors", "figures": figures, **one}]})
    assert "| convolutions | pool5 | logits |\n|---|---|---|\n| direct | 1e-6 | 2e-6 |" in found


@pytest.mark.parametrize("name", command.FIGURES)
def test_figures_take_a_number_of_turns(name: str) -> None:
    assert list(signature(import_module(f"benchmarks.{name}").figures).parameters) == ["turns"]


@pytest.mark.parametrize(
    ("given", "message"), [(["nothing"], "no table of nothing"), (["maps", "--turns", "0"], "at least 1")]
)
def test_mistakes_are_told(
    given: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", *given, "--json", str(tmp_path / "told.json")])
    with pytest.raises(SystemExit):
        command.main()
    assert message in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_what_is_not_measured_again_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "told.json"
    record = {"peers": True, "cores": 2, "versions": {"jax": "1"}}
    assert command.kept(None, record) == command.kept(path, record) == {}
    path.write_text(json.dumps({**record, "benchmarks": [{"name": "maps", "seconds": 3}]}))
    assert command.kept(path, record) == {"maps": {"name": "maps", "seconds": 3}}
    assert command.kept(path, {**record, "cores": 4}) == command.kept(path, {**record, "peers": False}) == {}
