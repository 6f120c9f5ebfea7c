"""The Triton kernel of differences from neighbours against torch in float64: on a GPU, or interpreted on the CPU."""

from __future__ import annotations

import os

import oracles
import pytest
import torch
from budget import assert_within_budget

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported
pytest.importorskip("triton")
from convexadam.kernels.structure import reference
from convexadam.kernels.structure.triton import sum_differences

pytestmark = pytest.mark.filterwarnings("ignore:.*TRITON_DEFAULT_FP_FUSION")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("channels", "shape"), [(1, (1, 1, 2)), (3, (5, 7, 35))])
def test_errs_no_more_than_torch(channels: int, shape: tuple[int, int, int], weighted: bool) -> None:
    features = oracles.noise(channels, *shape, dtype=torch.float32).to(DEVICE)
    weight = oracles.uniform(*shape, low=0).float().to(DEVICE)
    weight[weight < 0.3] = 0
    assert_within_budget(sum_differences, reference.sum_differences, features, weight if weighted else None)
