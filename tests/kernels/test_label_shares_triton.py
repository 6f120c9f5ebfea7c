"""The Triton kernel of the shares of labels against torch: on a GPU, or interpreted on the CPU."""

from __future__ import annotations

import os

import oracles
import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported
pytest.importorskip("triton")

from convexadam.kernels.label_shares import reference, triton

pytestmark = pytest.mark.filterwarnings("ignore:.*TRITON_DEFAULT_FP_FUSION")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64])
@pytest.mark.parametrize(("shape", "spacing"), [((1, 1, 1), (1, 1, 1)), ((7, 5, 13), (2, 1, 3))])
@pytest.mark.parametrize("weighted", [False, True])
def test_errs_no_more_than_rounding_explains(
    shape: tuple[int, int, int], spacing: tuple[int, int, int], weighted: bool, dtype: torch.dtype
) -> None:
    values = [1, 4, 200 if dtype == torch.uint8 else 300]
    numbers = torch.tensor([0, *values])
    labels = numbers[(oracles.uniform(*shape) * 4).long()].to(dtype).to(DEVICE)
    weight = (oracles.uniform(*shape, seed=1).float() - 0.5).clamp_min(0).to(DEVICE) if weighted else None
    found = triton.pool_one_hot(labels, values, spacing, weight=weight)
    expected = reference.pool_one_hot(labels, values, spacing, weight=weight)
    assert found.movedim(0, 3).is_contiguous()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)  # of at most six summands
