"""Inversion of displacement fields."""

from __future__ import annotations

import math

import numpy as np
import torch

from convexadam._typing import Field, Float, Tensor, Triple
from convexadam.geometry.grid import Grid
from convexadam.geometry.resample import transform_vectors, voxel_positions
from convexadam.kernels import compiled_for_float32
from convexadam.kernels._device import chunk_size, send
from convexadam.kernels.invert import origins

_SINGULAR = 1e-4
"""Determinant below which the fitted affine motion is not used as the initial guess."""

_FIT_VOXELS = 24
"""Largest number of voxels along each axis to which the affine motion is fitted."""

_CHUNK_VOXELS = {"cpu": 2**20, "gpu": 2**23}
"""Points per chunk; the solver in torch holds about 50 numbers for each."""


@torch.no_grad()
def invert_field(disp_mm: Field, grid: Grid, reference: Grid, *, tolerance_mm: float) -> tuple[Field, float, int]:
    """Solve ``v(y) = -u(y + v(y))`` at the voxels of ``reference``; return ``v`` and how large its residuals are.

    Each voxel is solved independently by `origins`, starting at the inverse of the least-squares affine motion.

    Parameters
    ----------
    disp_mm
        ``u``, ``[3, i, j, k]`` in mm on ``grid``; edge values are repeated outside. Not differentiable.
    grid
        The grid of ``u``.
    reference
        The grid of ``v``.
    tolerance_mm
        Residual above which a voxel counts as wrong.

    Returns
    -------
    ``v``, ``[3, a, b, d]``, and the largest ``|x + u(x) - y|`` over the voxels ``y`` whose origin ``x = y + v(y)`` is
    between the outer voxel centres of ``grid``, beyond which ``u`` is extrapolated; 0 if there is no such voxel. Last,
    how many of these voxels are wrong.
    """
    disp_vox = transform_vectors(np.linalg.inv(grid.affine), disp_mm)
    disp_vox = (
        disp_vox.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)
    )  # the three components of a voxel are adjacent in memory, which the solver reads together
    result = disp_vox.new_empty((3, *reference.shape))
    errors_mm, overall = [], _invert_affine_part(disp_vox)
    rows = max(1, chunk_size(disp_vox, **_CHUNK_VOXELS) // math.prod(reference.shape[1:]))
    for first in range(0, reference.shape[0], rows):
        last = min(first + rows, reference.shape[0])
        targets = voxel_positions(reference, first, last, grid, None, disp_vox).flatten(1)
        guess = transform_vectors(overall, targets) + send(torch.from_numpy(overall[:3, 3:]), targets)
        with compiled_for_float32(disp_vox):
            sources, off = origins(disp_vox, targets, guess)
        result[:, first:last] = transform_vectors(grid.affine, sources - targets).reshape(3, -1, *reference.shape[1:])
        off_mm = transform_vectors(grid.affine, off).norm(dim=0)
        off_mm = off_mm * _is_between_centres(sources, grid.shape)
        errors_mm.append(torch.stack([off_mm.max(), (off_mm > tolerance_mm).sum(dtype=off_mm.dtype)]))
    largest, wrong = zip(*torch.stack(errors_mm).tolist(), strict=True)
    return result, max(largest), int(sum(wrong))


def fit_linear_displacement(disp: Field) -> np.ndarray:
    """Fit an affine map of voxel indices to displacements by least squares on a subset of voxels; 4x4, last row 0."""
    steps = [math.ceil(n / _FIT_VOXELS) for n in disp.shape[1:]]
    part = disp[:, :: steps[0], :: steps[1], :: steps[2]]
    indices = np.indices(part.shape[1:]).reshape(3, -1) * np.array(steps)[:, None]
    design = np.concatenate([indices, np.ones_like(indices[:1])]).T.astype(np.float64)
    fit = np.zeros((4, 4))
    fit[:3] = np.linalg.lstsq(design, part.reshape(3, -1).T.cpu().double().numpy())[0].T
    return fit


def _invert_affine_part(disp_vox: Field) -> np.ndarray:
    """Return the 4x4 inverse of the least-squares affine motion; the identity if that is singular or mirrors."""
    motion = np.eye(4) + fit_linear_displacement(disp_vox)
    return np.linalg.inv(motion) if np.linalg.det(motion) > _SINGULAR else np.eye(4)


def _is_between_centres(points: Float[Tensor, "3 n"], shape: Triple) -> Tensor:
    i, j, k = ((points[a] >= 0) & (points[a] <= n - 1) for a, n in enumerate(shape))
    return i & j & k
