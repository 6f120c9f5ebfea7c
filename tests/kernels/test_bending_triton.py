"""The Triton kernels of the bending energy against torch in float64: on a GPU, or interpreted on the CPU."""

from __future__ import annotations

import os

import oracles
import pytest
import torch
from budget import assert_within_budget

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported
pytest.importorskip("triton")

from convexadam.kernels.bending import reference
from convexadam.kernels.bending.triton import bending, bending_gradient

pytestmark = pytest.mark.filterwarnings("ignore:.*TRITON_DEFAULT_FP_FUSION")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPES = [(1, 1, 1), (1, 7, 5), (2, 3, 70), (4, 6, 3), (5, 6, 9)]

Shape = tuple[int, int, int]


def _field(shape: Shape, seed: int = 0) -> torch.Tensor:
    return oracles.noise(3, *shape, seed=seed, dtype=torch.float32).to(DEVICE)


@pytest.mark.parametrize("shape", SHAPES)
def test_errs_no_more_than_torch(shape: Shape) -> None:
    nodes = shape[0] * shape[1] * shape[2]
    assert_within_budget(bending, reference.bending, _field(shape))
    # gradients about as large as the field
    assert_within_budget(bending_gradient, reference.bending_gradient, _field(shape), weight=nodes / 28)


def test_affine_displacements_are_free() -> None:
    field = torch.from_numpy(oracles.indices((5, 6, 9))).float().to(DEVICE)
    value, gradient = bending(0.75 * field - 3, weight=1000.0)
    assert value == 0
    assert not gradient.any()


def test_adds_where_it_is_told() -> None:
    field, before = _field((3, 4, 5)), _field((3, 4, 5), 1)
    gradient = bending_gradient(field)
    for add_to in (before.clone(), before.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)):
        assert bending(field.transpose(1, 2).contiguous().transpose(1, 2), add_to=add_to)[1] is add_to
        torch.testing.assert_close(add_to, before + gradient, rtol=1e-6, atol=1e-6)
