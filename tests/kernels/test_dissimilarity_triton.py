"""The Triton kernels of the dissimilarity against torch in float64: on a GPU, or interpreted on the CPU."""

from __future__ import annotations

import os

import oracles
import pytest
import torch
from budget import assert_within_budget

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported
pytest.importorskip("triton")
from convexadam.kernels.dissimilarity import reference
from convexadam.kernels.dissimilarity.triton import measure_dissimilarity

pytestmark = pytest.mark.filterwarnings("ignore:.*TRITON_DEFAULT_FP_FUSION")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("channels", "shape"), [(1, (1, 1, 2)), (12, (9, 8, 7))])
def test_errs_no_more_than_torch(channels: int, shape: tuple[int, int, int], weighted: bool) -> None:
    fixed, moving = (oracles.noise(channels, *shape, seed=n, dtype=torch.float32).to(DEVICE) for n in range(2))
    structure, weight = (oracles.uniform(*shape, seed=n, low=0).float().to(DEVICE) for n in range(2))
    arguments = fixed + 2, moving, structure, weight if weighted else None
    assert_within_budget(measure_dissimilarity, reference.measure_dissimilarity, *arguments)


@pytest.mark.parametrize("none", ["structure", "weight"])
def test_without_weight_errs_no_more_than_torch(none: str) -> None:
    features = oracles.uniform(3, 4, 5, 6, low=0.5).float().to(DEVICE)
    ones = torch.ones(4, 5, 6, device=DEVICE)
    arguments = (0 * ones, ones) if none == "structure" else (ones, 0 * ones)
    found = measure_dissimilarity(features, 2 * features, *arguments)
    expected = reference.measure_dissimilarity(features, 2 * features, *arguments)
    assert torch.equal(found[1], expected[1])
    torch.testing.assert_close(found[0], expected[0], rtol=1e-4, atol=0)
