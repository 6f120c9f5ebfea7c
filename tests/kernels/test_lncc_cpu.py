"""The local correlation of the CPU, its gradient and its blocks against torch in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from budget import assert_within_budget
from compiled import SHAPES, Shape, gaps, noise, on_cpu

from convexadam.kernels.lncc import correlated, reference


def _calls(fixed: torch.Tensor, moving: torch.Tensor, u: torch.Tensor, *, radius: int, **options: Any) -> Any:
    value, gradient = correlated(fixed, moving, radius=radius, **options)(u, diffusion=0.3)
    return value, gradient * u[0].numel()


def _reference(fixed: torch.Tensor, moving: torch.Tensor, u: torch.Tensor, *, radius: int, **options: Any) -> Any:
    value, gradient = reference.Correlation(fixed, moving, radius=radius, **options)(u, diffusion=0.3)
    return value, gradient * u[0].numel()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("radius", [1, 2, 8])
@pytest.mark.parametrize("weighted", [False, True])
def test_errs_no_more_than_torch(shape: Shape, radius: int, weighted: bool) -> None:
    weights = {"fixed_weight": gaps(*shape, seed=3), "moving_weight": gaps(*shape, seed=5)} if weighted else {}
    pair, u = (noise(2, *shape), noise(2, *shape, seed=1)), 1.5 * noise(3, *shape, seed=2)
    assert_within_budget(on_cpu(_calls), _reference, *pair, u, radius=radius, floor=0.1, **weights)
