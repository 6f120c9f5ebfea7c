"""What the settings of all components may be."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from convexadam._axes import per_axis
from convexadam._checks import check_count, check_number
from convexadam.errors import ConfigError


@pytest.mark.parametrize("value", [2, 2.0, np.int8(2), np.float32(2), Fraction(2), (2, np.int64(2), 2.0)])
def test_one_value_or_a_tuple_of_three(value: Any) -> None:
    found = per_axis(value, "spacing", least=1)
    assert found == (2.0, 2.0, 2.0)
    assert all(type(v) is float for v in found)


@pytest.mark.parametrize("value", [[2, 2, 2], np.array([2, 2, 2]), (2, 2), True, "2", None, 0.5, math.nan, (2, 2, 0)])
def test_what_is_neither(value: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"spacing must be one number or a tuple of three \(one per axis\), .*at least 1, got"
    ):
        per_axis(value, "spacing", least=1)


@pytest.mark.parametrize("value", [True, "2", None, math.nan, math.inf, -0.5, (1.0,)])
def test_numbers(value: Any) -> None:
    check_number(np.float32(0), "weight")
    check_number(np.int64(1), "weight", above=True)
    with pytest.raises(ConfigError, match="weight must be a finite number of at least 0, got"):
        check_number(value, "weight")
    with pytest.raises(ConfigError, match="weight must be a finite number above 0, got"):
        check_number(0.0, "weight", above=True)


@pytest.mark.parametrize("value", [True, "2", None, 2.0, -1])
def test_counts(value: Any) -> None:
    check_count(np.uint8(0), "passes")
    with pytest.raises(ConfigError, match="passes must be a whole number of at least 0, got"):
        check_count(value, "passes")
