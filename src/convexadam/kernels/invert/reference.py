"""Inverse of a displacement in torch: all points at the same time."""

from __future__ import annotations

import torch

from convexadam._typing import Field, Float, Tensor
from convexadam.kernels.warp import sample_linear

CLOSE = 1e-3
"""Distance, in voxels, from what is wanted that ends the search."""

FLAT = 1e-4
"""Local volume change below which a Newton step means nothing."""

PLAIN_STEPS, NEWTON_STEPS = 8, 40


def origins(
    displacement: Field, targets: Float[Tensor, "3 n"], guess: Float[Tensor, "3 n"]
) -> tuple[Float[Tensor, "3 n"], Float[Tensor, "3 n"]]:
    """See the package."""
    points = targets - _read(displacement, targets)
    off = points + _read(displacement, points) - targets
    points, off, _ = _improved(displacement, targets, points, off, guess, least=1.0)
    for _ in range(PLAIN_STEPS):
        wanting = _squared(off) > CLOSE**2
        points, off, better = _improved(displacement, targets, points, off, points - off, least=0.5)
        if not bool((better & wanting).any()):
            break
    index = (_squared(off) > CLOSE**2).nonzero()[:, 0]
    x, missed, wanted, length = points[:, index], off[:, index], targets[:, index], torch.ones_like(off[0, index])
    for _ in range(NEWTON_STEPS):
        if not len(index):
            break
        step = length * _newton_step(displacement, x, missed)
        x, missed, better = _improved(displacement, wanted, x, missed, x + step, least=1.0)
        length = torch.where(better, (2 * length).clamp_max(1), length / 4)
        points[:, index], off[:, index] = x, missed
        wanting = _squared(missed) > CLOSE**2
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
    regular = volume > FLAT
    return -torch.where(regular, solution / torch.where(regular, volume, 1), off / 2)


def _read(disp: Field, points: Float[Tensor, "3 n"]) -> Float[Tensor, "3 n"]:
    return sample_linear(disp, points[:, :, None, None])[:, :, 0, 0]


def _squared(vectors: Float[Tensor, "3 n"]) -> Float[Tensor, " n"]:
    return vectors.square().sum(0)
