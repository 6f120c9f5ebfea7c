"""The choice of linear transforms against numpy."""

from __future__ import annotations

import pytest
from transform_choices import SCALES, check_choice, check_update, make_candidate

from convexadam.kernels.linear_choice import reference


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("active", [True, False])
def test_an_update_is_applied(scale: str, active: bool) -> None:
    check_update(reference, scale, active=active, moves=3.0)


@pytest.mark.parametrize(
    ("model", "level", "kept"), [(-1, 0.6, True), (-1, 0.7, False), (0, 0.7, True), (1, 0.8, False)]
)
def test_the_better_one_is_kept(model: int, level: float, kept: bool) -> None:
    best, other = make_candidate(0, model), make_candidate(0, 2, level=level)
    assert check_choice(reference, best, other) is kept


def test_without_overlap_means_are_compared() -> None:
    best, other = make_candidate(0, -1), make_candidate(2, 1, covered=0.2, level=0.1)
    assert not check_choice(reference, best, other)  # most of it has the value 1
    assert check_choice(reference, make_candidate(0, -1, covered=0.1), make_candidate(2, 1, level=0.1))
    best, other = make_candidate(0, -1), make_candidate(2, 1, covered=0.6, level=0.5)
    assert check_choice(reference, best, other)
    assert not check_choice(reference, best, other, by_mean=True)


def test_what_is_no_fit_or_not_plausible_is_not_kept() -> None:
    best = make_candidate(0, -1)
    assert not check_choice(reference, best, make_candidate(0, -1, level=0.1))
    assert not check_choice(reference, best, make_candidate(0, 1, level=0.1, scale=9.0))
    assert not check_choice(reference, best, make_candidate(0, 1, level=0.1, scale=-1.0))
