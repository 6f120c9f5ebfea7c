"""Inverses of displacement fields."""

from __future__ import annotations

import math

import numpy as np
import torch

from convexadam._typing import Field, Float, Tensor, Triple
from convexadam.geometry.grid import Grid
from convexadam.geometry.resample import linear_part, voxel_positions
from convexadam.kernels import compiled_for_float32
from convexadam.kernels.invert import origins

_SINGULAR = 1e-4
"""Volume change below which the affine motion means nothing."""

_FITTED = 24
"""Voxels along each axis, at most, of which the affine motion is taken."""

_CHUNK_VOXELS = 2**20
"""Points in flight at a time: each needs about 50 numbers."""


@torch.no_grad()
def inverse_field(disp_mm: Field, grid: Grid, onto: Grid) -> tuple[Field, float]:
    """Displacements ``v`` in mm at the voxels of ``onto`` with ``v(y) = -u(y + v(y))``, and the residual in mm.

    Each voxel on its own, as `origins` describes it; its guess is the inverse of the affine motion that fits the field
    best.

    Parameters
    ----------
    disp_mm
        ``u``, ``[3, i, j, k]`` in mm on ``grid``; edge values hold outside. No gradient flows through.
    grid
        Where ``u`` is known.
    onto
        Where the inverse is wanted.

    Returns
    -------
    ``v``, ``[3, a, b, d]``, and the largest ``|u(x) + x - y|`` of the voxels ``y`` of ``onto`` that come from a place
    ``x = y + v(y)`` between the outer centres of ``grid``: only there the field is more than a guess. 0 where there is
    none.
    """
    disp_vox = linear_part(np.linalg.inv(grid.affine), disp_mm)
    disp_vox = disp_vox.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)  # what is read together lies together
    result = disp_vox.new_empty((3, *onto.shape))
    residual_mm, overall = 0.0, _affine_inverse(disp_vox)
    rows = max(1, _CHUNK_VOXELS // math.prod(onto.shape[1:]))
    for first in range(0, onto.shape[0], rows):
        last = min(first + rows, onto.shape[0])
        targets = voxel_positions(onto, first, last, grid, None, disp_vox).flatten(1)
        guess = linear_part(overall, targets) + targets.new_tensor(overall[:3, 3:])
        with compiled_for_float32(disp_vox):
            sources, off = origins(disp_vox, targets, guess)
        result[:, first:last] = linear_part(grid.affine, sources - targets).reshape(3, -1, *onto.shape[1:])
        off_mm = linear_part(grid.affine, off).norm(dim=0)
        residual_mm = max(residual_mm, float((off_mm * _between_centres(sources, grid.shape)).max()))
    return result, residual_mm


def linear_fit(disp: Field) -> np.ndarray:
    """4x4 map of voxel indices to displacements, in their unit, that fits best at some voxels; its last row is 0."""
    steps = [math.ceil(n / _FITTED) for n in disp.shape[1:]]
    part = disp[:, :: steps[0], :: steps[1], :: steps[2]]
    places = np.indices(part.shape[1:]).reshape(3, -1) * np.array(steps)[:, None]
    known = np.concatenate([places, np.ones_like(places[:1])]).T.astype(np.float64)
    fit = np.zeros((4, 4))
    fit[:3] = np.linalg.lstsq(known, part.reshape(3, -1).T.cpu().double().numpy())[0].T
    return fit


def _affine_inverse(disp_vox: Field) -> np.ndarray:
    """4x4 inverse of the affine motion that is closest to ``x + u(x)``; else the identity."""
    motion = np.eye(4) + linear_fit(disp_vox)
    return np.linalg.inv(motion) if np.linalg.det(motion) > _SINGULAR else np.eye(4)


def _between_centres(points: Float[Tensor, "3 n"], shape: Triple) -> Tensor:
    i, j, k = ((points[a] >= 0) & (points[a] <= n - 1) for a, n in enumerate(shape))
    return i & j & k
