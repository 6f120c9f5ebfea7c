"""Inverses of displacement fields."""

from __future__ import annotations

import math

import numpy as np
import torch

from convexadam._typing import Field, Float, Tensor, Triple
from convexadam.geometry.grid import Grid
from convexadam.geometry.resample import linear_part, voxel_positions
from convexadam.kernels.warp import sample_linear

_CLOSE = 1e-3
"""Distance, in voxels, from what is wanted that ends the search."""

_FLAT = 1e-4
"""Local volume change below which a Newton step means nothing."""

_PLAIN_STEPS, _NEWTON_STEPS = 8, 40

_FITTED = 24
"""Voxels along each axis, at most, of which the affine motion is taken."""

_CHUNK_VOXELS = 2**20
"""Points in flight at a time: each needs about 50 numbers."""


@torch.no_grad()
def inverse_field(disp_mm: Field, grid: Grid, onto: Grid) -> tuple[Field, float]:
    """Displacements ``v`` in mm at the voxels of ``onto`` with ``v(y) = -u(y + v(y))``, and the residual in mm.

    Each voxel on its own, from the better of ``-u(y)`` and the inverse of the affine motion that fits the field best:
    fixed-point steps (Chen, Lu, Chen, Ruchala and Olivera, Medical Physics 2008) as long as each
    halves what is left, then Newton's, shortened where they would not improve. So the field may change by more than a
    voxel from one to the next, as in a large rotation or expansion, if only it does not fold.

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
    result = disp_vox.new_empty((3, *onto.shape))
    residual_mm, overall = 0.0, _affine_inverse(disp_vox)
    rows = max(1, _CHUNK_VOXELS // math.prod(onto.shape[1:]))
    for first in range(0, onto.shape[0], rows):
        last = min(first + rows, onto.shape[0])
        targets = voxel_positions(onto, first, last, grid, None, disp_vox).flatten(1)
        sources, off = _solved(disp_vox, targets, linear_part(overall, targets) + targets.new_tensor(overall[:3, 3:]))
        result[:, first:last] = linear_part(grid.affine, sources - targets).reshape(3, -1, *onto.shape[1:])
        off_mm = _squared(linear_part(grid.affine, off)).sqrt()
        residual_mm = max(residual_mm, float((off_mm * _between_centres(sources, grid.shape)).max()))
    return result, residual_mm


def _affine_inverse(disp: Field) -> np.ndarray:
    """4x4 inverse of the affine motion that is closest to ``x + u(x)`` at some voxels; else the identity."""
    steps = [math.ceil(n / _FITTED) for n in disp.shape[1:]]
    part = disp[:, :: steps[0], :: steps[1], :: steps[2]]
    places = np.indices(part.shape[1:]).reshape(3, -1) * np.array(steps)[:, None]
    known = np.concatenate([places, np.ones_like(places[:1])]).T.astype(np.float64)
    motion = np.eye(4)
    motion[:3] += np.linalg.lstsq(known, part.reshape(3, -1).T.cpu().double().numpy())[0].T
    return np.linalg.inv(motion) if np.linalg.det(motion) > _FLAT else np.eye(4)


def _solved(
    disp: Field, targets: Float[Tensor, "3 n"], guess: Float[Tensor, "3 n"]
) -> tuple[Float[Tensor, "3 n"], Float[Tensor, "3 n"]]:
    """Points ``x`` that ``x + u(x)`` takes to the targets, and by how much it misses them; all in voxels."""
    points = targets - _read(disp, targets)
    off = points + _read(disp, points) - targets
    points, off, _ = _improved(disp, targets, points, off, guess, least=1)
    for _ in range(_PLAIN_STEPS):
        wanting = _squared(off) > _CLOSE**2
        points, off, better = _improved(disp, targets, points, off, points - off, least=0.5)
        if not bool((better & wanting).any()):
            break
    index = (_squared(off) > _CLOSE**2).nonzero()[:, 0]
    x, missed, wanted, length = points[:, index], off[:, index], targets[:, index], torch.ones_like(off[0, index])
    for _ in range(_NEWTON_STEPS):
        if not len(index):
            break
        step = length * _newton_step(disp, x, missed)
        x, missed, better = _improved(disp, wanted, x, missed, x + step, least=1)
        length = torch.where(better, (2 * length).clamp_max(1), length / 4)
        points[:, index], off[:, index] = x, missed
        wanting = _squared(missed) > _CLOSE**2
        index, length = index[wanting], length[wanting]
        x, missed, wanted = x[:, wanting], missed[:, wanting], wanted[:, wanting]
    return points, off


def _improved(
    disp: Field,
    targets: Float[Tensor, "3 n"],
    points: Float[Tensor, "3 n"],
    off: Float[Tensor, "3 n"],
    trial: Float[Tensor, "3 n"],
    *,
    least: float,
) -> tuple[Float[Tensor, "3 n"], Float[Tensor, "3 n"], Tensor]:
    """Move to the trial points where they miss the targets by less than ``least`` of what it was."""
    found = trial + _read(disp, trial) - targets
    better = _squared(found) < least**2 * _squared(off)
    return torch.where(better, trial, points), torch.where(better, found, off), better


def _newton_step(disp: Field, points: Float[Tensor, "3 n"], off: Float[Tensor, "3 n"]) -> Float[Tensor, "3 n"]:
    """Step ``-J^-1 off``, with the Jacobian of ``x + u(x)`` by differences over a voxel; half a plain one in folds."""
    columns = []
    for axis in range(3):
        half = torch.zeros_like(points[:, :1])
        half[axis] = 0.5
        columns.append(_read(disp, points + half) - _read(disp, points - half) + 2 * half)
    a, b, c = columns
    normal = torch.linalg.cross(b, c, dim=0)
    volume = (a * normal).sum(0)
    rows = normal, torch.linalg.cross(c, a, dim=0), torch.linalg.cross(a, b, dim=0)
    solution = torch.stack([(row * off).sum(0) for row in rows])
    regular = volume > _FLAT
    return -torch.where(regular, solution / torch.where(regular, volume, 1), off / 2)


def _between_centres(points: Float[Tensor, "3 n"], shape: Triple) -> Tensor:
    i, j, k = ((points[a] >= 0) & (points[a] <= n - 1) for a, n in enumerate(shape))
    return i & j & k


def _read(disp: Field, points: Float[Tensor, "3 n"]) -> Float[Tensor, "3 n"]:
    return sample_linear(disp, points[:, :, None, None])[:, :, 0, 0]


def _squared(vectors: Float[Tensor, "3 n"]) -> Float[Tensor, " n"]:
    return vectors.square().sum(0)
