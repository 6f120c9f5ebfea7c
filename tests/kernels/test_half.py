"""Costs in 16 bits: each of the bit patterns that a cost can have, and the numbers between them."""

from __future__ import annotations

import numpy as np
import pytest

from convexadam.kernels import _half

FINITE = np.arange(0x7C00, dtype=np.uint16)
"""Bits of all float16 numbers that are neither negative nor infinite."""


def _written(values: np.ndarray) -> np.ndarray:
    bits = np.empty(len(values), np.uint16)
    for n, value in enumerate(values):
        _half.write(bits, n, value)
    return bits


def test_every_number_is_read_exactly() -> None:
    found = [_half.read(FINITE, n) for n in range(len(FINITE))]
    np.testing.assert_array_equal(np.array(found, np.float32), FINITE.view(np.float16).astype(np.float32))


def test_every_number_is_written_exactly() -> None:
    np.testing.assert_array_equal(_written(FINITE.view(np.float16).astype(np.float32)), FINITE)


@pytest.mark.parametrize("share", [0.25, 0.49, 0.51, 0.75])
def test_what_lies_between_goes_to_the_nearest(share: float) -> None:
    numbers = FINITE.view(np.float16).astype(np.float64)
    between = (numbers[:-1] + share * np.diff(numbers)).astype(np.float32)
    np.testing.assert_array_equal(_written(between), FINITE[:-1] + (share > 0.5))


@pytest.mark.parametrize("value", [65504.0, 65505.0, 65519.0, 65520.0, 1e6, 3e38])
def test_finite_costs_stay_finite(value: float) -> None:
    assert _written(np.array([value], np.float32)).tolist() == [0x7BFF]


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_what_is_not_finite_is_infinite(value: float) -> None:
    assert _written(np.array([value], np.float32)).tolist() == [0x7C00]
    for kind in (np.float32, np.float16):
        costs = np.array([1.0, value], kind)
        costs = costs.view(np.uint16) if kind is np.float16 else costs
        assert [bool(_half.infinite(costs, n)) for n in (0, 1)] == [False, True]


def test_single_precision_stays_what_it_is() -> None:
    costs = np.zeros(3, np.float32)
    for n, value in enumerate((0.1, 7e4, 1e-30)):
        _half.write(costs, n, np.float32(value))
        assert _half.read(costs, n) == np.float32(value)
    assert not any(_half.infinite(costs, n) for n in range(3))
