"""Inversion of a displacement field in torch, all points at the same time."""

from __future__ import annotations

import torch

from convexadam._typing import Field, Float, Tensor
from convexadam.kernels.warp import sample_linear

CLOSE = 1e-3
"""Residual in voxels at which a point has converged."""

FLAT = 1e-4
"""Jacobian determinant below which Newton steps are not used."""

PLAIN_STEPS, NEWTON_STEPS = 8, 40


def origins(
    displacement: Field, targets: Float[Tensor, "3 n"], guess: Float[Tensor, "3 n"]
) -> tuple[Float[Tensor, "3 n"], Float[Tensor, "3 n"]]:
    """See the package."""
    points = targets - _interpolate(displacement, targets)
    residual = points + _interpolate(displacement, points) - targets
    points, residual, _ = _accept_if_better(displacement, targets, points, residual, guess, least=1.0)
    for _ in range(PLAIN_STEPS):
        unsolved = _squared_norm(residual) > CLOSE**2
        points, residual, better = _accept_if_better(
            displacement, targets, points, residual, points - residual, least=0.5
        )
        if not bool((better & unsolved).any()):
            break
    index = (_squared_norm(residual) > CLOSE**2).nonzero()[:, 0]
    x, x_residual, x_target, length = (
        points[:, index],
        residual[:, index],
        targets[:, index],
        torch.ones_like(residual[0, index]),
    )
    for _ in range(NEWTON_STEPS):
        if not len(index):
            break
        step = length * _newton_step(displacement, x, x_residual)
        x, x_residual, better = _accept_if_better(displacement, x_target, x, x_residual, x + step, least=1.0)
        length = torch.where(better, (2 * length).clamp_max(1), length / 4)
        points[:, index], residual[:, index] = x, x_residual
        unsolved = _squared_norm(x_residual) > CLOSE**2
        index, length = index[unsolved], length[unsolved]
        x, x_residual, x_target = x[:, unsolved], x_residual[:, unsolved], x_target[:, unsolved]
    return points, residual


def _accept_if_better(
    disp: Field,
    targets: Float[Tensor, "3 n"],
    points: Float[Tensor, "3 n"],
    residual: Float[Tensor, "3 n"],
    trial: Float[Tensor, "3 n"],
    *,
    least: float,
) -> tuple[Float[Tensor, "3 n"], Float[Tensor, "3 n"], Tensor]:
    """Accept the trial points whose residual is less than ``least`` times the present one."""
    trial_residual = trial + _interpolate(disp, trial) - targets
    better = _squared_norm(trial_residual) < least**2 * _squared_norm(residual)
    return torch.where(better, trial, points), torch.where(better, trial_residual, residual), better


def _newton_step(disp: Field, points: Float[Tensor, "3 n"], residual: Float[Tensor, "3 n"]) -> Float[Tensor, "3 n"]:
    """Compute ``-J^-1 r``, with ``J`` the Jacobian of ``x + u(x)`` by differences over a voxel; ``-r / 2`` in folds."""
    columns = []
    for axis in range(3):
        half = torch.zeros_like(points[:, :1])
        half[axis] = 0.5
        columns.append(_interpolate(disp, points + half) - _interpolate(disp, points - half) + 2 * half)
    a, b, c = columns
    normal = torch.linalg.cross(b, c, dim=0)
    volume = (a * normal).sum(0)
    rows = normal, torch.linalg.cross(c, a, dim=0), torch.linalg.cross(a, b, dim=0)
    solution = torch.stack([(row * residual).sum(0) for row in rows])
    regular = volume > FLAT
    return -torch.where(regular, solution / torch.where(regular, volume, 1), residual / 2)


def _interpolate(disp: Field, points: Float[Tensor, "3 n"]) -> Float[Tensor, "3 n"]:
    return sample_linear(disp, points[:, :, None, None])[:, :, 0, 0]


def _squared_norm(vectors: Float[Tensor, "3 n"]) -> Float[Tensor, " n"]:
    return vectors.square().sum(0)
