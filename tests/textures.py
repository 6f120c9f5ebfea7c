"""Textured volumes that are functions of position, so that a shifted one is exact to the last digit."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from convexadam import Grid, Image

WAVES = 60


def texture(points_mm: Tensor, *, wavelengths_mm: tuple[float, float], seed: int = 0) -> Tensor:
    """A sum of plane waves of random direction and phase at ``[..., 3]`` positions."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(WAVES, 3, generator=generator, dtype=torch.float64)
    directions /= directions.norm(dim=1, keepdim=True)
    low, high = wavelengths_mm
    lengths = low + (high - low) * torch.rand(WAVES, 1, generator=generator, dtype=torch.float64)
    phases = 2 * math.pi * torch.rand(WAVES, generator=generator, dtype=torch.float64)
    waves = directions * (2 * math.pi / lengths)
    total = torch.zeros(points_mm.shape[:-1], dtype=torch.float64)
    for wave, phase in zip(waves, phases, strict=True):
        total += torch.cos(points_mm @ wave + phase)
    return (100 * total).float()


def positions_mm(grid: Grid) -> Tensor:
    """Where each voxel lies, ``[i, j, k, 3]``."""
    return grid.index_to_world(indices(grid).reshape(-1, 3)).reshape(*grid.shape, 3)


def indices(grid: Grid) -> Tensor:
    """Each voxel's own index, ``[i, j, k, 3]``."""
    axes = [torch.arange(n, dtype=torch.float64) for n in grid.shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)


def affine(spacing_mm: tuple[float, float, float], angles: tuple[float, float, float] = (0, 0, 0)) -> np.ndarray:
    """Voxels of a size, rotated about x, y and z (radians), somewhere in space."""
    (a, b, c), matrix = angles, np.eye(4)
    rotate_x = np.array([[1, 0, 0], [0, math.cos(a), -math.sin(a)], [0, math.sin(a), math.cos(a)]])
    rotate_y = np.array([[math.cos(b), 0, math.sin(b)], [0, 1, 0], [-math.sin(b), 0, math.cos(b)]])
    rotate_z = np.array([[math.cos(c), -math.sin(c), 0], [math.sin(c), math.cos(c), 0], [0, 0, 1]])
    matrix[:3, :3] = rotate_x @ rotate_y @ rotate_z @ np.diag(spacing_mm)
    matrix[:3, 3] = (-20, 30, 7)
    return matrix


def shifted_pair(
    grid: Grid, shift_vox: tuple[float, float, float], wavelengths_mm: tuple[float, float]
) -> tuple[Image, Image]:
    """Two textured volumes with ``moving(x + shift) == fixed(x)``, exactly."""
    where = positions_mm(grid)
    shift_mm = torch.from_numpy(grid.affine[:3, :3] @ np.array(shift_vox))
    fixed = texture(where, wavelengths_mm=wavelengths_mm)
    moving = texture(where - shift_mm, wavelengths_mm=wavelengths_mm)
    return Image(fixed[None], grid), Image(moving[None], grid)
