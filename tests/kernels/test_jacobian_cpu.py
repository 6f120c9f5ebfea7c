"""Jacobian determinants of the CPU against torch in float64."""

from __future__ import annotations

import oracles
import pytest
import torch
from budget import assert_within_budget
from compiled import NODES, SHAPES, Shape, noise, on_cpu, scattered

from convexadam.kernels.jacobian import jacobian_determinant, reference


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("shape", [*SHAPES, (2, 2, 2), (3, 2, 1), (2, 1, 3), NODES])
def test_errs_no_more_than_torch(shape: Shape) -> None:
    assert_within_budget(on_cpu(jacobian_determinant), reference.jacobian_determinant, noise(3, *shape))


@pytest.mark.parametrize("shape", SHAPES)
def test_no_displacement_changes_no_volume(shape: Shape) -> None:
    for shift in (0.0, 3.0):
        assert torch.equal(on_cpu(jacobian_determinant)(torch.full((3, *shape), shift)), torch.ones(shape))


def test_of_a_linear_map_is_its_determinant() -> None:
    matrix = torch.tensor([[0.25, -0.5, 0.125], [0.5, -0.25, 1.0], [0.0, 2.0, -1.5]])
    where = torch.from_numpy(oracles.indices((4, 5, 6))).float()
    field = torch.einsum("ab,bijk->aijk", matrix, where)  # without rounding
    expected = torch.linalg.det((torch.eye(3) + matrix).double()).float()
    found = on_cpu(jacobian_determinant)(field)
    torch.testing.assert_close(found, expected.expand(4, 5, 6), rtol=0, atol=1e-6)


@pytest.mark.usefixtures("threads")
def test_a_non_contiguous_field() -> None:
    field = scattered(noise(3, 7, 9, 8))
    assert not field.is_contiguous()
    before = field.clone()
    assert_within_budget(on_cpu(jacobian_determinant), reference.jacobian_determinant, field)
    assert torch.equal(field, before)
