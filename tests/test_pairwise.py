"""Cases that hold every pair of values."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from pairwise import pairwise


@pytest.mark.parametrize("parameters", [("ab", [1, 2, 3], [None, True]), ("abcd", range(4), range(4), range(2), "xy")])
def test_each_pair_of_values_is_there_and_cases_are_few(parameters: tuple[Any, ...]) -> None:
    cases = pairwise(*parameters)
    for one, other in itertools.combinations(range(len(parameters)), 2):
        found = {(case[one], case[other]) for case in cases}
        assert found == set(itertools.product(parameters[one], parameters[other]))
    sizes = sorted(len(list(parameter)) for parameter in parameters)
    assert sizes[-1] * sizes[-2] <= len(cases) <= 1.5 * sizes[-1] * sizes[-2]


def test_two_parameters_give_their_product() -> None:
    assert sorted(pairwise([1, 2], "ab")) == sorted(itertools.product([1, 2], "ab"))
