"""When a minimisation ends."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convexadam.continuous.convergence import Convergence


def _iterations(values: list[float], most: int, tolerance: float) -> int:
    """Number of iterations, if the value at the beginning of the n-th is ``values[n - 1]``."""
    convergence = Convergence(most, tolerance)
    for number in convergence:
        assert number == convergence.count
        if convergence.due:
            convergence.record(values[number - 1])
    return convergence.count


@pytest.mark.parametrize("most", [0, 1, 5, 6, 23])
def test_without_tolerance_all_iterations_run_and_no_value_is_due(most: int) -> None:
    convergence = Convergence(most, 0.0)
    assert not convergence.monitored
    assert [convergence.due for _ in convergence] == [False] * most


@pytest.mark.parametrize("most", [0, 1, 5, 6, 23])
def test_at_most_the_given_number_of_iterations_runs(most: int) -> None:
    assert _iterations([2.0**-n for n in range(most)], most, 1e-3) == most


def test_the_value_is_due_at_the_beginning_and_every_five_iterations() -> None:
    convergence = Convergence(17, 0.1)
    assert convergence.monitored
    assert [n for n in convergence if convergence.due] == [1, 6, 11, 16]


@pytest.mark.parametrize(("fall", "runs"), [(0.0, 6), (0.0099, 6), (0.0101, 40), (-0.5, 6), (0.5, 40)])
def test_ends_once_five_iterations_lower_the_value_by_less_than_the_tolerance(fall: float, runs: int) -> None:
    # the decrease counts relative to the previous value recorded
    assert _iterations([(1 - fall) ** (n // 5) for n in range(40)], 40, 0.01) == runs
    assert _iterations([1e-9 * (1 - fall) ** (n // 5) for n in range(40)], 40, 0.01) == runs


def test_ends_after_the_value_has_fallen_for_a_while() -> None:
    falling = [2.0**-n for n in range(13)]
    assert _iterations(falling + [falling[-1]] * 20, 40, 0.01) == 21  # the values at 16 and 21 are equal


def test_negative_values() -> None:
    assert _iterations([-1.0 - n for n in range(20)], 20, 0.01) == 20
    assert _iterations([-1.0 + n for n in range(20)], 20, 0.01) == 6


def test_nan_does_not_end_it() -> None:
    assert _iterations([math.nan] * 20, 20, 0.01) == 20


def test_iterating_again_continues_the_count() -> None:
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
