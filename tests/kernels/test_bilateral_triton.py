"""The Triton kernel of the edge-preserving smoothing against torch in float64: on a GPU, or interpreted on the CPU."""

from __future__ import annotations

import os
from typing import Any

import oracles
import pytest
import torch
from budget import assert_within_budget

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported
pytest.importorskip("triton")
from pairwise import pairwise

from convexadam.kernels.bilateral import reference
from convexadam.kernels.bilateral.triton import bilateral

pytestmark = pytest.mark.filterwarnings("ignore:.*TRITON_DEFAULT_FP_FUSION")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPES = [(1, 1, 1), (1, 7, 5), (2, 3, 40), (3, 5, 6)]

Shape = tuple[int, int, int]


def _noise(channels: int, shape: Shape, seed: int = 0) -> torch.Tensor:
    return oracles.noise(channels, *shape, seed=seed, dtype=torch.float32).to(DEVICE)


def _options(radius: int, sigma_field: float | None) -> dict[str, Any]:
    return {"radius": radius, "sigma": 1.1, "sigma_guide": 0.7, "sigma_field": sigma_field}


def _is_long(shape: Shape, radius: int) -> bool:
    return radius > 1 and min(shape) > 1


@pytest.mark.parametrize(
    ("shape", "radius", "sigma_field"),
    [
        pytest.param(shape, radius, sigma, marks=[pytest.mark.long] * _is_long(shape, radius))
        for shape, radius, sigma in pairwise(SHAPES, [1, 2], [None, 1.3])
    ],
)
def test_errs_no_more_than_torch(shape: Shape, radius: int, sigma_field: float | None) -> None:
    given = _noise(3, shape), _noise(2, shape, 1)
    assert_within_budget(bilateral, reference.bilateral, *given, **_options(radius, sigma_field))


def test_constants_are_kept_to_the_last_digit() -> None:
    field = torch.tensor([1.7, -20.3, 0.1], device=DEVICE).reshape(3, 1, 1, 1).expand(3, 4, 5, 6)
    assert torch.equal(bilateral(field, _noise(1, (4, 5, 6)), **_options(1, 0.5)), field)


def test_non_contiguous_inputs_and_output() -> None:
    field, guide = _noise(3, (3, 4, 5)).transpose(1, 2), _noise(2, (3, 4, 5), 1).transpose(1, 2)
    out = torch.empty(4, 3, 5, 3, device=DEVICE).movedim(-1, 0)
    assert not any(t.is_contiguous() for t in (field, guide, out))
    assert_within_budget(bilateral, reference.bilateral, field, guide, **_options(1, None))
    assert bilateral(field, guide, **_options(1, None), out=out) is out
    assert torch.equal(out, bilateral(field, guide, **_options(1, None)))
