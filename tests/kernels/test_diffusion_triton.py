"""The Triton kernel of the diffusion energy against torch in float64: on a GPU, or interpreted on the CPU."""

from __future__ import annotations

import os

import oracles
import pytest
import torch
from budget import assert_within_budget

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported
pytest.importorskip("triton")

from convexadam.kernels.diffusion import reference
from convexadam.kernels.diffusion.triton import diffusion, diffusion_gradient

pytestmark = pytest.mark.filterwarnings("ignore:.*TRITON_DEFAULT_FP_FUSION")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPES = [(1, 1, 1), (1, 7, 5), (2, 3, 70), (5, 6, 9)]

Shape = tuple[int, int, int]


def _field(shape: Shape, seed: int = 0) -> torch.Tensor:
    return oracles.noise(3, *shape, seed=seed, dtype=torch.float32).to(DEVICE)


@pytest.mark.parametrize("shape", SHAPES)
def test_errs_no_more_than_torch(shape: Shape) -> None:
    nodes = shape[0] * shape[1] * shape[2]
    assert_within_budget(diffusion, reference.diffusion, _field(shape))
    # gradients about as large as the field
    assert_within_budget(diffusion_gradient, reference.diffusion_gradient, _field(shape), weight=nodes / 4)


def test_adds_where_it_is_told() -> None:
    field, before = _field((3, 4, 5)), _field((3, 4, 5), 1)
    gradient = diffusion_gradient(field, weight=20.0)
    for add_to in (before.clone(), before.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)):
        assert diffusion(field.transpose(1, 2).contiguous().transpose(1, 2), weight=20.0, add_to=add_to)[1] is add_to
        torch.testing.assert_close(add_to, before + gradient, rtol=1e-6, atol=1e-6)
