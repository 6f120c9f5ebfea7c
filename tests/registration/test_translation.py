"""A translation is found, in the interior and at the border.

The shifts are whole numbers of control points (2 working voxels), for which interpolation is exact: the error is that
of the method. `test_between_control_points_the_error_is_that_of_interpolation` has another shift.
"""

from __future__ import annotations

import pytest
import torch
from textures import affine, indices, shifted_pair
from torch import Tensor

from convexadam import Grid, RegistrationConfig, preset, register

INTERIOR = 0.02  # voxels
BORDER = 0.1
MARGIN = 10  # voxels from the edge of either image: features have a radius of 3, half a control point is 1, smoothing 3

CASES = {
    "odd sizes": ((61, 53, 47), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (6.0, -4.0, 2.0), (6.0, 16.0)),
    "oblique": ((47, 61, 53), (1.0, 1.0, 1.0), (0.2, -0.1, 0.3), (-4.0, 2.0, 6.0), (6.0, 16.0)),
    "oblique, anisotropic": ((47, 51, 33), (1.2, 1.2, 2.4), (0.2, -0.1, 0.3), (4.0, -4.0, 2.0), (16.0, 40.0)),
}


def errors(
    name: str, config: RegistrationConfig, shift: tuple[float, float, float] | None = None
) -> tuple[Tensor, Tensor]:
    """Length of the error in voxels, in the interior and wherever the volumes overlap."""
    shape, spacing, angles, default_shift, wavelengths = CASES[name]
    shift = shift or default_shift
    grid = Grid(shape, affine(spacing, angles))
    fixed, moving = shifted_pair(grid, shift, wavelengths)
    found = register(fixed, moving, config).transform.to_voxels()
    error = (found - torch.tensor(shift).reshape(3, 1, 1, 1)).norm(dim=0)
    fixed_vox = indices(grid)
    moving_vox = fixed_vox + torch.tensor(shift)
    last = torch.tensor(shape) - 1

    def within(points: Tensor, margin: int) -> Tensor:
        return ((points >= margin) & (points <= last - margin)).all(-1)

    return error[within(fixed_vox, MARGIN) & within(moving_vox, MARGIN)], error[within(moving_vox, 0)]


@pytest.mark.parametrize("name", CASES)
def test_translation_with_the_default_preset(name: str) -> None:
    interior, overlap = errors(name, preset())
    assert len(interior) > 1000
    assert float(interior.max()) < INTERIOR
    assert float(overlap.max()) < BORDER


def test_translation_with_the_published_preset() -> None:
    """The published form leaves a ripple of the spline's width, without a bias, and is accurate at the border."""
    interior, overlap = errors("odd sizes", preset("published"))
    assert float(interior.mean()) < INTERIOR
    assert float(interior.max()) < 0.1
    assert float(overlap.max()) < 0.2


def test_between_control_points_the_error_is_that_of_interpolation() -> None:
    """Linear interpolation blurs between control points, which biases a shift towards the nearest one by a tenth."""
    interior, overlap = errors("odd sizes", preset(), shift=(2.4, -3.7, 1.3))
    assert float(interior.mean()) < 0.25
    assert float(interior.max()) < 0.5
    assert float(overlap.max()) < 0.5
