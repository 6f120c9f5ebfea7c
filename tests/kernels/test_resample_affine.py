"""Resampling by a linear map against `convexadam.geometry`, which knows the map on the host."""

from __future__ import annotations

import numpy as np
import oracles
import pytest
import torch

from convexadam import Grid, Image
from convexadam.geometry import resample
from convexadam.geometry.to_grid import weight_on_grid
from convexadam.kernels.resample_affine import resample_affine


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("margin", [0, 1, 9])
def test_equals_resampling_on_a_grid(masked: bool, margin: int) -> None:
    matrix = np.array([[0.9, 0.2, 0, 2], [-0.1, 1.1, 0.1, -3], [0, 0.1, 1.3, 1], [0, 0, 0, 1]])
    image = Image(oracles.noise(2, 9, 10, 17, dtype=torch.float32), Grid((9, 10, 17), np.diag([2.0, 1, 1, 1])))
    mask = Image(oracles.uniform(1, 6, 5, 8).float(), Grid((6, 5, 8), np.diag([3.0, 2, 2, 1])))
    reference = Grid((8, 11, 6), matrix)
    to_index = [torch.tensor(np.linalg.inv(grid.affine)) for grid in (image.grid, mask.grid)]
    transform = torch.tensor([[1.0, 0.1, 0, 1], [0, 0.9, 0, 0], [0.2, 0, 1, -2], [0, 0, 0, 1]], dtype=torch.float64)
    grid_map = torch.linalg.inv(transform) @ torch.tensor(matrix)
    values, weight = resample_affine(
        image.data,
        (to_index[0], transform, grid_map),
        reference.shape,
        fill_value=image.data.min(),
        margin=margin,
        mask=mask.data[0] if masked else None,
        mask_index=to_index[1],
    )
    torch.testing.assert_close(values, resample(image, reference, mode="linear").data, rtol=0, atol=1e-5)
    expected = weight_on_grid(image, mask if masked else None, reference, margin)
    assert expected is not None
    torch.testing.assert_close(weight, expected, rtol=0, atol=1e-5)
