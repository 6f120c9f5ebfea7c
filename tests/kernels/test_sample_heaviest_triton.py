"""The Triton kernel that samples labels against torch: on a GPU, or interpreted on the CPU."""

from __future__ import annotations

import os

import oracles
import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported
pytest.importorskip("triton")

from convexadam.geometry.sampling import sample_label
from convexadam.kernels.warp import triton
from convexadam.kernels.warp.triton import sample_heaviest

pytestmark = pytest.mark.filterwarnings("ignore:.*TRITON_DEFAULT_FP_FUSION")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 2), (5, 4, 7)])
def test_equals_torch(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    if min(shape) == 1:  # one program; else two
        monkeypatch.setattr(triton, "_BLOCK", 512)
    labels = (oracles.uniform(2, *shape) * 4).to(dtype)
    # inside and outside, and halves, where weights are equal
    positions = (oracles.uniform(3, 6, 7, 8, seed=1, low=-1, high=max(shape)) * 4).round().float() / 4 + 0.01
    found = sample_heaviest(labels.to(DEVICE), positions.to(DEVICE), tie=1e-3)
    assert found.dtype == dtype
    assert torch.equal(found.cpu(), sample_label(labels, None, positions))
