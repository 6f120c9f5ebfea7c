"""Points at which the images are compared, spread evenly over the field of view."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from convexadam._typing import Float, Shaped, Tensor
from convexadam.geometry import Grid, Image
from convexadam.geometry.resample import resample
from convexadam.geometry.to_grid import select_mask_mode
from convexadam.kernels._device import send
from convexadam.kernels.warp import sample_nearest

_CELLS = 32
"""Number of parts of the field of view along each axis, by which the points are ordered."""

_EDGE = 1e-3
"""Voxels outside the outer voxel centres that are taken for rounding."""

_LARGEST_INSET = 1 / 16
"""Largest distance from the edge, as a share of the image."""


def draw_points(grid: Grid, count: int, like: Tensor) -> Float[Tensor, "3 n"]:
    """Return points in mm, float64, spread evenly over the field of view."""
    last = torch.tensor(grid.shape, dtype=torch.float64, device="cpu")[:, None] - 1
    return _map_points(send(torch.from_numpy(grid.affine.copy()), like), send(last * _draw_shares(count), like))


@lru_cache(maxsize=4)
def _draw_shares(count: int) -> Float[Tensor, "3 n"]:
    """Return points in a cube, along each axis in [0, 1].

    They follow an additive recurrence of low discrepancy (Roberts, 2018, after Korobov), off the voxel centres, so that
    interpolation smooths both images alike at any transform. Points that are close to each other follow each other:
    their voxels are in the cache together.
    """
    root = 1.2207440846057596  # of x^4 = x + 1
    steps = np.array([[root**-1], [root**-2], [root**-3]])
    share = (0.5 + np.arange(1, count + 1) * steps) % 1.0
    cells = np.array([_CELLS**2, _CELLS, 1.0]) @ np.floor(share * _CELLS)
    return torch.from_numpy(share[:, np.argsort(cells.astype(np.uint16), kind="stable")])  # which counts 16 bits


def _map_points(matrix: Float[Tensor, "4 4"], points: Float[Tensor, "3 n"]) -> Float[Tensor, "3 n"]:
    return torch.addmm(matrix[:3, 3:], matrix[:3, :3], points)


def have_data(
    grid: Grid, mask: Image | None, points: Float[Tensor, "3 n"], matrix: Float[Tensor, "4 4"], inset_mm: float
) -> Shaped[Tensor, " n"]:
    """Return which points a matrix maps into a grid, at a distance from the outer voxel centres, and into the mask.

    Along an axis with one voxel, into that voxel.
    """
    last = np.array(grid.shape) - 1.0
    inset = np.minimum(inset_mm / np.array(grid.spacing_mm), _LARGEST_INSET * last)
    reach = np.where(last == 0, 0.5, last / 2 - inset + _EDGE)
    to_index = np.linalg.inv(grid.affine)
    to_box = to_index.copy()  # what has data is within -1 and 1
    to_box[:3] = (to_index[:3] - np.outer(last / 2, (0, 0, 0, 1))) / reach[:, None]
    inside: Tensor = _map_points(send(torch.from_numpy(to_box), points) @ matrix, points).abs().amax(0) <= 1
    if mask is None:
        return inside
    index = _map_points(send(torch.from_numpy(to_index), points) @ matrix, points)
    weight = sample_nearest(
        resample(mask, grid, mode=select_mask_mode(mask), fill_value=0.0).data, index[..., None, None]
    )
    return inside & (weight[0, :, 0, 0] > 0.5)
