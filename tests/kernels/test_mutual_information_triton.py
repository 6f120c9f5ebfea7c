"""The Triton kernels of mutual information against torch in float64: on a GPU, or interpreted on the CPU."""

from __future__ import annotations

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported
pytest.importorskip("triton")
from dependent_images import SHAPES, make_case

from convexadam.kernels.mutual_information import MutualInformation, reference, triton

pytestmark = pytest.mark.filterwarnings("ignore:.*TRITON_DEFAULT_FP_FUSION")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

Shapes = tuple[tuple[int, int, int], tuple[int, int, int]]


def compare(case: tuple[torch.Tensor, ...], used: torch.Tensor | None) -> None:
    """Allow twice the error of the reference in float32, as for the kernel of the CPU."""
    points, fixed, moving, *matrices = (each.to(DEVICE) for each in case)
    used = None if used is None else used.to(DEVICE)
    exact = MutualInformation(*reference.mutual_information(points, fixed, moving, *matrices, used))
    single = tuple(each.float() for each in (points, fixed, moving))
    plain, fused = (
        MutualInformation(*module.mutual_information(*single, *matrices, used)) for module in (reference, triton)
    )
    for name in MutualInformation._fields:
        found, expected = getattr(fused, name), getattr(exact, name)
        assert found.shape == expected.shape
        error, allowed = ((each - expected).abs().max() for each in (found, getattr(plain, name)))
        assert error <= 2 * allowed + 1e-5 * expected.abs().max() + 1e-6, name


@pytest.mark.parametrize("shapes", SHAPES)
def test_errs_no_more_than_torch(shapes: Shapes) -> None:
    compare(make_case(shapes, count=40), used=None)


@pytest.mark.parametrize("count", [1, 33, 100])
def test_several_samples_at_a_time(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(triton, "_PARTS", 2)
    used = torch.rand(count, generator=torch.Generator().manual_seed(0)) < 0.6
    used[0] = True
    compare(make_case(SHAPES[0], count=count), used)


def test_without_samples_all_is_zero() -> None:
    points, fixed, moving, *matrices = (each.to(DEVICE) for each in make_case(SHAPES[0], count=50))
    single = tuple(each.float() for each in (points, fixed, moving))
    for module in (reference, triton):
        for found in module.mutual_information(*single, *matrices, torch.zeros(50, dtype=torch.bool, device=DEVICE)):
            assert not found.any()
