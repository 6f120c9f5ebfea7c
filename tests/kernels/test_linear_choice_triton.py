"""The Triton kernels of the choice of linear transforms against numpy: on a GPU, or interpreted on the CPU."""

from __future__ import annotations

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported
pytest.importorskip("triton")
from transform_choices import SCALES, check_choice, check_update, make_candidate

from convexadam.kernels.linear_choice import triton

pytestmark = pytest.mark.filterwarnings("ignore:.*TRITON_DEFAULT_FP_FUSION")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("active", [True, False])
def test_an_update_errs_no_more_than_torch(scale: str, active: bool) -> None:
    check_update(triton, scale, active=active, moves=3.0, device=DEVICE)


@pytest.mark.parametrize("by_mean", [True, False])
@pytest.mark.parametrize("covered", [1.0, 0.6, 0.2])
def test_a_choice_errs_no_more_than_torch(covered: float, by_mean: bool) -> None:
    for model, level in ((-1, 0.6), (-1, 0.7), (0, 0.7), (1, 0.8)):
        best, other = make_candidate(0, model), make_candidate(0, 2, covered=covered, level=level)
        check_choice(triton, best, other, by_mean=by_mean, device=DEVICE)


@pytest.mark.parametrize(("model", "scale"), [(-1, 1.1), (1, 9.0), (1, -1.0)])
def test_no_plausible_fit_errs_no_more_than_torch(model: int, scale: float) -> None:
    best, other = make_candidate(0, -1), make_candidate(0, model, level=0.1, scale=scale)
    assert not check_choice(triton, best, other, device=DEVICE)


def test_the_mean_errs_no_more_than_rounding_explains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton, "_BLOCK", 64)  # several blocks
    given = make_candidate(0, 1, covered=0.6)
    weight = given.weight.double().numpy()
    expected = 1 + (weight * (given.values.double().numpy() - 1)).sum()
    found = triton.compute_mean(given.values.to(DEVICE), given.weight.to(DEVICE))
    assert found.dtype == torch.float64
    assert float(found) == pytest.approx(expected, rel=1e-12)
