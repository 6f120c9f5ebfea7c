"""The Triton kernel of the coverage against torch: on a GPU, or interpreted on the CPU."""

from __future__ import annotations

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported
pytest.importorskip("triton")
from convexadam.kernels.coverage import reference, triton

pytestmark = pytest.mark.filterwarnings("ignore:.*TRITON_DEFAULT_FP_FUSION")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

MAPS = [
    [[1.3, 0.0, 0.0, -2.01], [0.0, -0.8, 0.0, 7.02], [0.0, 0.0, 1.1, 0.3]],
    [[1.3, 0.4, 0.1, -2.01], [0.2, -0.8, 0.0, 7.02], [0.1, 0.3, 1.1, -0.3]],
]


@pytest.mark.parametrize("rows", MAPS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (9, 11, 7), (3, 2, 130)])
def test_errs_no_more_than_torch(rows: list[list[float]], shape: tuple[int, int, int]) -> None:
    like = torch.empty(0, device=DEVICE)
    limits = [(-0.501, 6.501), (0.25, 8.3), (-0.501, 90.25)]
    expected = reference.cover(rows, limits, shape, like=like)
    assert torch.equal(triton.cover(rows, limits, shape, like=like), expected)
    if shape == (9, 11, 7):
        assert 0 < expected.mean() < 1
