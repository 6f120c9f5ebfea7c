"""A step of Fisher scoring in torch against numpy and scipy."""

from __future__ import annotations

import pytest
from fisher_scoring import CASES, check_judgement, check_proposal

from convexadam.kernels.scoring_step import reference


@pytest.mark.parametrize(("model", "size"), CASES)
def test_steps_solve_for_the_gradient(model: str, size: float) -> None:
    check_proposal(reference, model, size)


@pytest.mark.parametrize(("model", "size"), CASES)
@pytest.mark.parametrize("rises", [True, False])
def test_a_step_that_lowers_the_value_is_rejected(model: str, size: float, rises: bool) -> None:
    check_judgement(reference, model, size, rises=rises)
