"""Target registration error on an oblique, anisotropic grid."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError

from convexadam.errors import InputError
from convexadam.geometry import DisplacementField, Grid
from convexadam.metrics import tre


def oblique_grid() -> Grid:
    turn, tilt = np.deg2rad(20), np.deg2rad(-35)
    about_z = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x * (1.2, 0.8, 2.5)
    affine[:3, 3] = (-40, 13, 7)
    return Grid((7, 9, 6), affine)


def test_before() -> None:
    fixed = torch.tensor([[0.0, 0, 0], [1, 2, 3]])
    moving = torch.tensor([[2.0, 3, 6], [1, 2, 3]])
    found = tre(fixed, moving)
    assert found.dtype == torch.float64
    assert found.tolist() == [7.0, 0.0]


def test_the_true_transform_leaves_no_error() -> None:
    grid = oblique_grid()
    index = torch.stack(torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in grid.shape), indexing="ij"))
    matrix = torch.tensor([[0.02, 0.1, 0], [-0.05, 0.03, 0.04], [0, 0.06, -0.02]], dtype=torch.float64)
    field = torch.einsum("ab,bijk->aijk", matrix, index) + torch.tensor([0.5, -1, 2.0]).reshape(3, 1, 1, 1)
    transform = DisplacementField.from_voxels(field, grid)  # linear in x, so that interpolation is exact
    generator = torch.Generator().manual_seed(0)
    fixed_vox = torch.rand(20, 3, generator=generator, dtype=torch.float64) * (torch.tensor(grid.shape) - 1)
    moving_vox = fixed_vox + fixed_vox @ matrix.T + torch.tensor([0.5, -1, 2.0])
    wrong_mm = torch.tensor([0.3, -0.4, 1.2], dtype=torch.float64)
    found = tre(grid.index_to_world(fixed_vox), grid.index_to_world(moving_vox) + wrong_mm, transform)
    torch.testing.assert_close(found, torch.full((20,), 1.3, dtype=torch.float64))


def test_refusals() -> None:
    points = torch.rand(4, 3)
    with pytest.raises((InputError, TypeCheckError)):
        tre(points, points[:3])
    with pytest.raises((InputError, TypeCheckError)):
        tre(points[:, :2], points[:, :2])
    with pytest.raises(InputError, match="at least one landmark, got none"):
        tre(points[:0], points[:0])
    broken = points.clone()
    broken[2, 1] = torch.nan
    with pytest.raises(InputError, match="must be finite, got NaN"):
        tre(points, broken)
