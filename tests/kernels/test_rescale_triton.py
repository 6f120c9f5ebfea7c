"""The Triton kernel of the scaling of intensities against torch in float64: on a GPU, or interpreted on the CPU."""

from __future__ import annotations

import os

import oracles
import pytest
import torch
from budget import assert_within_budget

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported
pytest.importorskip("triton")
from convexadam.kernels.rescale import reference, triton

pytestmark = pytest.mark.filterwarnings("ignore:.*TRITON_DEFAULT_FP_FUSION")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 7, 9), (13, 17, 19)])
def test_errs_no_more_than_torch(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int, int]) -> None:
    monkeypatch.setattr(triton, "_PARTS", 2)  # of several blocks
    data = oracles.noise(2, *shape, dtype=torch.float32).to(DEVICE)
    data[1] = 3e38 * data[1].sign()
    assert_within_budget(triton.rescale, reference.rescale, data)


def test_a_constant_errs_no_more_than_torch() -> None:
    found = triton.rescale(torch.full((1, 3, 4, 5), 7.5, device=DEVICE))
    assert torch.equal(found, torch.zeros_like(found))
