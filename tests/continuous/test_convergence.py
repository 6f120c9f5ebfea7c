"""When a minimisation ends."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convexadam.continuous.convergence import Convergence


def _iterations(values: list[float], most: int, tolerance: float) -> int:
    """How many iterations begin, where the value at the beginning of the n-th is ``values[n - 1]``."""
    convergence = Convergence(most, tolerance)
    for number in convergence:
        assert number == convergence.count
        if convergence.due:
            convergence.saw(values[number - 1])
    return convergence.count


@pytest.mark.parametrize("most", [0, 1, 5, 6, 23])
def test_without_tolerance_all_iterations_run_and_nobody_looks(most: int) -> None:
    convergence, looked = Convergence(most, 0.0), []
    assert not convergence.watched
    for _ in convergence:
        looked.append(convergence.due)
    assert looked == [False] * most


@pytest.mark.parametrize("most", [0, 1, 5, 6, 23])
def test_no_more_than_asked_for(most: int) -> None:
    assert _iterations([2.0**-n for n in range(most)], most, 1e-3) == most


def test_the_value_is_looked_at_at_the_beginning_and_every_five_iterations() -> None:
    convergence = Convergence(17, 0.1)
    assert convergence.watched
    assert [n for n in convergence if convergence.due] == [1, 6, 11, 16]


@pytest.mark.parametrize(("fall", "runs"), [(0.0, 6), (0.0099, 6), (0.0101, 40), (-0.5, 6), (0.5, 40)])
def test_ends_where_five_iterations_lower_it_by_less_than_the_tolerance(fall: float, runs: int) -> None:
    # what counts is the fall as a share of the value before, in the fifth of each five
    assert _iterations([(1 - fall) ** (n // 5) for n in range(40)], 40, 0.01) == runs
    assert _iterations([1e-9 * (1 - fall) ** (n // 5) for n in range(40)], 40, 0.01) == runs


def test_it_may_fall_for_a_while_first() -> None:
    falling = [2.0**-n for n in range(13)]
    assert _iterations(falling + [falling[-1]] * 20, 40, 0.01) == 21  # the looks at 16 and 21 see the same


def test_below_zero_as_well() -> None:
    assert _iterations([-1.0 - n for n in range(20)], 20, 0.01) == 20
    assert _iterations([-1.0 + n for n in range(20)], 20, 0.01) == 6


def test_what_is_no_number_ends_nothing() -> None:
    assert _iterations([math.nan] * 20, 20, 0.01) == 20


def test_goes_on_where_it_was_left() -> None:
    convergence = Convergence(7, 0.0)
    assert next(iter(convergence)) == 1
    assert list(convergence) == [2, 3, 4, 5, 6, 7]
    assert list(convergence) == []


@settings(deadline=None, max_examples=100, derandomize=True)
@given(
    values=st.lists(st.floats(0.5, 2.0), min_size=30, max_size=30),
    tolerance=st.floats(0.01, 0.5),
    most=st.integers(0, 30),
)
def test_equals_a_naive_search(values: list[float], tolerance: float, most: int) -> None:
    ends = [n for n in range(6, 31, 5) if values[n - 6] - values[n - 1] < tolerance * values[n - 6]]
    assert _iterations(values, most, tolerance) == min([most, *ends])


@pytest.mark.parametrize("marks", [(), (3,), (1, 4, 9), (0, 4, 4, 12)])
def test_marks_are_passed_once_as_many_iterations_are_done(marks: tuple[int, ...]) -> None:
    passed: list[tuple[int, int]] = []
    done = 0
    convergence = Convergence(9, 0.0, marks=marks, passed=lambda mark: passed.append((mark, done)))
    for count in convergence:
        done = count
    expected = [(mark, mark) for mark in sorted({*marks} & {*range(1, 10)})]
    assert passed == expected

    passed.clear()
    done = 0
    convergence = Convergence(9, 0.0, marks=marks, passed=lambda mark: passed.append((mark, done)))
    for length in convergence.stretches():
        done += length
    assert passed == expected
    assert done == convergence.count == 9


def test_no_mark_after_the_end() -> None:
    passed: list[int] = []
    convergence = Convergence(40, 0.01, marks=(4, 6, 30), passed=passed.append)
    for _ in convergence:
        if convergence.due:
            convergence.saw(1.0)
    assert convergence.count == 6
    assert passed == [4, 6]
