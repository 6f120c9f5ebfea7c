"""The Triton kernel of inversion against the one of the CPU: on a GPU, or interpreted on the CPU."""

from __future__ import annotations

import os

import numpy as np
import oracles
import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported
pytest.importorskip("triton")

from convexadam import use_backend
from convexadam.kernels.invert import origins as on_cpu
from convexadam.kernels.invert.reference import CLOSE
from convexadam.kernels.invert.triton import origins

pytestmark = pytest.mark.filterwarnings("ignore:.*TRITON_DEFAULT_FP_FUSION")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPE = (5, 6, 4)


def _solve(field: torch.Tensor, targets: torch.Tensor, guess: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    points, residuals = origins(*(t.to(DEVICE) for t in (field, targets, guess)))
    return points.cpu(), residuals.cpu()


def _targets(field: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    points = oracles.uniform(3, count, low=-1, high=5)
    moved = points + torch.from_numpy(oracles.trilinear(field.double().numpy(), points.numpy()))
    return points.float(), moved.float()


@pytest.mark.parametrize("count", [1, 200])
def test_gentle_fields_are_inverted(count: int) -> None:
    field = (0.1 * oracles.uniform(3, *SHAPE, low=-1, high=1)).float()
    points, targets = _targets(field, count)
    found, residuals = _solve(field, targets, targets)
    assert residuals.norm(dim=0).max() <= CLOSE
    torch.testing.assert_close(found, points, rtol=0, atol=3 * CLOSE)
    missed = found.double().numpy() + oracles.trilinear(field.double().numpy(), found.double().numpy())
    np.testing.assert_allclose(residuals.numpy(), missed - targets.double().numpy(), rtol=0, atol=1e-5)


def test_steep_and_folded_fields_as_on_the_cpu() -> None:
    # expands by a factor of 3 along one axis, where plain steps diverge; folds along another one
    where = torch.from_numpy(oracles.indices(SHAPE)).float()
    field = torch.stack([2.0 * where[0], -1.5 * where[1] * (where[1] > 3), 0.2 * where[2]])
    targets = oracles.uniform(3, 60, low=0, high=9).float()
    guess = targets / 3
    points, residuals = _solve(field, targets, guess)
    with use_backend("cpu"):
        expected, left = on_cpu(field, targets, guess)
    solved = left.norm(dim=0) <= CLOSE
    assert 0.2 < solved.float().mean() < 1  # the case is not trivial
    assert torch.equal(residuals.norm(dim=0) <= CLOSE, solved)
    torch.testing.assert_close(points[:, solved], expected[:, solved], rtol=0, atol=5 * CLOSE)


def test_no_points() -> None:
    points, residuals = _solve(torch.zeros(3, *SHAPE), torch.zeros(3, 0), torch.zeros(3, 0))
    assert points.shape == residuals.shape == (3, 0)
