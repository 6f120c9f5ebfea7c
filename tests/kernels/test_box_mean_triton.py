"""The Triton kernel of the mean of neighbours against torch: on a GPU, or interpreted on the CPU."""

from __future__ import annotations

import os

import oracles
import pytest
import torch
from budget import assert_within_budget

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported
pytest.importorskip("triton")

from convexadam.kernels.box_mean import reference, triton

pytestmark = pytest.mark.filterwarnings("ignore:.*TRITON_DEFAULT_FP_FUSION")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 5), (3, 5, 33)])
def test_errs_no_more_than_torch(shape: tuple[int, int, int]) -> None:
    assert_within_budget(triton.box_mean, reference.box_mean, oracles.noise(3, *shape, dtype=torch.float32).to(DEVICE))


def test_a_field_that_is_not_contiguous() -> None:
    field = oracles.noise(2, 4, 3, 6, dtype=torch.float32).to(DEVICE)[..., ::2].transpose(1, 2)
    assert torch.equal(triton.box_mean(field), triton.box_mean(field.contiguous()))
