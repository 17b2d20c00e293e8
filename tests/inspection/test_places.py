import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vizsynth.inspection.places import strongest_places


@given(st.integers(0, 99), st.integers(1, 9), st.integers(0, 3))
def test_each_is_the_largest_that_is_not_near_those_before(seed: int, count: int, apart: int) -> None:
    values = np.random.default_rng(seed).normal(size=(6, 9))
    left, expected = values.copy(), []
    while len(expected) < count and left.max() > 0:
        row, column = (int(n) for n in np.argwhere(left == left.max())[0])
        expected.append((row, column))
        for r in range(6):
            for c in range(9):
                if (r, c) == (row, column) or (abs(r - row) <= apart and abs(c - column) <= apart):
                    left[r, c] = -1
    assert strongest_places(values, count, apart=apart) == expected


def test_a_dead_channel_answers_nowhere() -> None:
    assert strongest_places(np.zeros((3, 3)), 2) == []


@pytest.mark.parametrize("wrong", [{"count": 0}, {"count": 1, "apart": -1}])
def test_what_cannot_be_is_told(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="count must be at least 1 and apart at least 0"):
        strongest_places(np.ones((3, 3)), **wrong)
