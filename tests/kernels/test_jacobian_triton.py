"""The Triton kernel of Jacobian determinants against torch in float64: on a GPU, or interpreted on the CPU."""

from __future__ import annotations

import os

import oracles
import pytest
import torch
from budget import assert_within_budget

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported
pytest.importorskip("triton")

from convexadam.kernels.jacobian import reference
from convexadam.kernels.jacobian.triton import jacobian_determinant

pytestmark = pytest.mark.filterwarnings("ignore:.*TRITON_DEFAULT_FP_FUSION")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPES = [(1, 1, 1), (1, 7, 5), (2, 3, 70), (5, 6, 9), (2, 2, 1)]

Shape = tuple[int, int, int]


def _field(shape: Shape) -> torch.Tensor:
    return oracles.noise(3, *shape, dtype=torch.float32).to(DEVICE)


@pytest.mark.parametrize("shape", SHAPES)
def test_errs_no_more_than_torch(shape: Shape) -> None:
    assert_within_budget(jacobian_determinant, reference.jacobian_determinant, _field(shape))


def test_translations_change_no_volume() -> None:
    assert torch.equal(jacobian_determinant(torch.full((3, 4, 5, 6), 3.0, device=DEVICE)).cpu(), torch.ones(4, 5, 6))


def test_a_non_contiguous_field() -> None:
    field = _field((4, 6, 5)).transpose(1, 2)
    assert_within_budget(jacobian_determinant, reference.jacobian_determinant, field)
