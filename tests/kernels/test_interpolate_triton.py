"""The Triton kernel of the interpolation against torch in float64: on a GPU, or interpreted on the CPU."""

from __future__ import annotations

import os

import oracles
import pytest
import torch
from budget import assert_within_budget

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported
pytest.importorskip("triton")

from convexadam.kernels.interpolate import reference
from convexadam.kernels.interpolate.triton import interpolate

pytestmark = pytest.mark.filterwarnings("ignore:.*TRITON_DEFAULT_FP_FUSION")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPES = [(1, 1, 1), (1, 7, 5), (2, 3, 40), (7, 17, 9)]

Shape = tuple[int, int, int]
Positions = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def _field(channels: int, shape: Shape) -> torch.Tensor:
    return oracles.noise(channels, *shape, dtype=torch.float32).to(DEVICE)


def _positions(shape: Shape, count: Shape = (5, 6, 35)) -> Positions:
    """Anywhere in and around a volume, in any order, and some on its samples."""
    found = []
    for axis, (n, m) in enumerate(zip(shape, count, strict=True)):
        where = oracles.uniform(m, seed=axis, low=-2, high=n + 1)
        where[:3] = torch.tensor([0.0, n - 1, (n - 1) // 2])[: len(where)]
        found.append(where)
    return found[0], found[1], found[2]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("channels", [1, 3])
def test_errs_no_more_than_torch(shape: Shape, channels: int) -> None:
    assert_within_budget(interpolate, reference.interpolate, _field(channels, shape), _positions(shape))


@pytest.mark.parametrize("count", [(1, 1, 1), (20, 1, 3)])
def test_any_number_of_positions(count: Shape) -> None:
    field = _field(3, (5, 7, 6))
    assert_within_budget(interpolate, reference.interpolate, field, _positions((5, 7, 6), count))


def test_positions_keep_their_digits() -> None:
    # in float32 a position of 5000.3 is wrong by 1e-4 already
    ramp = torch.zeros(1, 8000, 1, 1, device=DEVICE)
    ramp[0, :, 0, 0] = torch.arange(8000, device=DEVICE) % 2
    where = torch.arange(5000, 5010, dtype=torch.float64) + 0.3
    zero = torch.zeros(1, dtype=torch.float64)
    found = interpolate(ramp, (where, zero, zero))[0, :, 0, 0].cpu()
    torch.testing.assert_close(found, torch.tensor([0.3, 0.7]).repeat(5), rtol=0, atol=1e-6)


def test_non_contiguous_field() -> None:
    field = _field(3, (7, 5, 6)).transpose(1, 3)
    assert_within_budget(interpolate, reference.interpolate, field, _positions((6, 5, 7)))
