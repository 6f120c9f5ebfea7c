"""The Triton kernel of the interpolation at any positions against torch in float64: on a GPU, or interpreted."""

from __future__ import annotations

import os
from functools import partial

import oracles
import pytest
import torch
from budget import assert_within_budget

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported
pytest.importorskip("triton")

from convexadam.kernels.warp import reference
from convexadam.kernels.warp.triton import sample_linear

pytestmark = pytest.mark.filterwarnings("ignore:.*TRITON_DEFAULT_FP_FUSION")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

Shape = tuple[int, int, int]


def _volume(channels: int, shape: Shape) -> torch.Tensor:
    return oracles.noise(channels, *shape, dtype=torch.float32).to(DEVICE)


def _positions(shape: Shape, to: Shape) -> torch.Tensor:
    """In and around a volume."""
    where = [oracles.uniform(*to, seed=axis, low=-2, high=n + 1) for axis, n in enumerate(shape)]
    return torch.stack(where).float().to(DEVICE)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 5), (7, 9, 4)])
@pytest.mark.parametrize(("channels", "to"), [(1, (1, 1, 1)), (3, (5, 3, 23)), (12, (2, 3, 4))])
def test_errs_no_more_than_torch(shape: Shape, channels: int, to: Shape) -> None:
    assert_within_budget(sample_linear, reference.sample_linear, _volume(channels, shape), _positions(shape, to))


def test_samples_are_read_as_they_are() -> None:
    volume = _volume(2, (4, 5, 6))
    positions = reference.identity_positions((4, 5, 6), like=volume)
    # the last sample of an axis is the one before it and a whole step: a difference and a sum for each axis
    allowed = 3 * 2 * torch.finfo(torch.float32).eps * volume.abs().max().item()
    torch.testing.assert_close(sample_linear(volume, positions), volume, rtol=0, atol=allowed)


def test_far_outside_the_edge_value_is_read() -> None:
    volume = _volume(2, (4, 5, 6))
    positions = torch.tensor([[-1e9, 1e9], [-1e9, 1e9], [1e9, -1e9]], device=DEVICE).reshape(3, 1, 1, 2)
    allowed = 3 * 2 * torch.finfo(torch.float32).eps * volume.abs().max().item()
    expected = torch.stack([volume[:, 0, 0, -1], volume[:, -1, -1, 0]], -1).reshape(2, 1, 1, 2)
    torch.testing.assert_close(sample_linear(volume, positions), expected, rtol=0, atol=allowed)


def test_non_contiguous_inputs() -> None:
    volume, positions = _volume(3, (6, 5, 4)).transpose(1, 3), _positions((4, 5, 6), (3, 7, 5)).transpose(2, 3)
    assert not any(t.is_contiguous() for t in (volume, positions))
    assert_within_budget(sample_linear, reference.sample_linear, volume, positions)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 5), (7, 9, 4)])
def test_displaced_points_errs_no_more_than_torch(shape: Shape) -> None:
    displacement = 3 * oracles.noise(3, *shape, seed=1, dtype=torch.float32).to(DEVICE)
    displaced = partial(sample_linear, displaced=True)
    assert_within_budget(displaced, reference.compose, _volume(2, shape), displacement)
