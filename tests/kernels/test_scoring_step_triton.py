"""The Triton kernels of a step of Fisher scoring against numpy and scipy: on a GPU, or interpreted on the CPU."""

from __future__ import annotations

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported
pytest.importorskip("triton")
from fisher_scoring import CASES, check_judgement, check_proposal

from convexadam.kernels.scoring_step import triton

pytestmark = pytest.mark.filterwarnings("ignore:.*TRITON_DEFAULT_FP_FUSION")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize(("model", "size"), CASES)
def test_a_step_errs_no_more_than_torch(model: str, size: float) -> None:
    check_proposal(triton, model, size, DEVICE)


@pytest.mark.parametrize(("model", "size"), CASES)
@pytest.mark.parametrize("rises", [True, False])
def test_a_judgement_errs_no_more_than_torch(model: str, size: float, rises: bool) -> None:
    check_judgement(triton, model, size, rises=rises, device=DEVICE)
