"""The Triton kernel of resampling by a linear map against torch in float64: on a GPU, or interpreted on the CPU."""

from __future__ import annotations

import os

import oracles
import pytest
import torch
from budget import assert_within_budget

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported
pytest.importorskip("triton")
from convexadam.kernels.resample_affine import reference
from convexadam.kernels.resample_affine.triton import resample_affine

pytestmark = pytest.mark.filterwarnings("ignore:.*TRITON_DEFAULT_FP_FUSION")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

Shape = tuple[int, int, int]


def _map(seed: int) -> torch.Tensor:
    """A map whose results are both inside and outside a volume."""
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3] += 0.2 * oracles.noise(3, 4, seed=seed)
    matrix[:3, 3] -= 1.3
    return matrix.to(DEVICE)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("shape", "source", "channels"), [((5, 7, 9), (9, 7, 8), 1), ((1, 4, 33), (3, 1, 17), 2)])
def test_errs_no_more_than_torch(shape: Shape, source: Shape, channels: int, masked: bool) -> None:
    volume = oracles.noise(channels, *source, dtype=torch.float32).to(DEVICE)
    mask = oracles.uniform(4, 6, 5, low=0).float().to(DEVICE) if masked else None
    fill = torch.tensor(-2.0, device=DEVICE)
    maps = _map(1), _map(3) / _map(3)[3, 3], _map(4), _map(2)
    maps = tuple(m.lerp(torch.eye(4, dtype=m.dtype, device=m.device), 0.5) for m in maps)
    assert_within_budget(resample_affine, reference.resample_affine, volume, mask, maps, shape, fill, 1)
