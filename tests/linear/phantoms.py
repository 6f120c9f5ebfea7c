"""Pairs of phantoms, one of them turned, scaled and shifted by a known amount."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from convexadam import Affine, Grid, Image
from convexadam.data import phantom_pair
from convexadam.geometry import resample
from convexadam.kernels.trimmed_fit import fit_weighted

CONTRASTS = [("ct", "t1"), ("t1", "t2"), ("ct", "t2"), ("t1", "ct"), ("t2", "t1")]


@dataclass(frozen=True)
class Case:
    fixed: Image
    moving: Image
    points_mm: np.ndarray
    """Voxels of organs in fixed space."""
    truth: np.ndarray
    """Linear part of the whole transform."""

    @property
    def voxel_mm(self) -> float:
        return max(self.fixed.grid.spacing_mm)

    def error_mm(self, transform: Affine) -> float:
        difference = (transform.matrix - self.truth)[:3]
        return float(np.linalg.norm(self.points_mm @ difference[:, :3].T + difference[:, 3], axis=1).mean())


def rotation_matrix(axis: np.ndarray, degrees: float) -> np.ndarray:
    """Rotation about an axis (Rodrigues' formula)."""
    x, y, z = axis / np.linalg.norm(axis)
    cross, angle = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]), math.radians(degrees)
    return np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross


def case(
    seed: int,
    *,
    shape: tuple[int, int, int] = (96, 80, 72),
    displacement_mm: float = 0.0,
    same_box: bool = True,
    rotation_degrees: float = 30.0,
    shift_mm: float = 60.0,
    scale: float = 0.15,
) -> Case:
    """Draw an amount up to each of the given ones.

    ``same_box``: the moving scan has the fixed one's field of view, and so loses what was moved out of it; otherwise
    the field of view goes along.
    """
    rng = np.random.default_rng(seed)
    pair = phantom_pair(shape, contrasts=CONTRASTS[seed % 5], displacement_mm=displacement_mm, seed=seed)
    linear, grid = np.eye(4), pair.moving.grid
    linear[:3, :3] = rotation_matrix(rng.normal(size=3), rng.uniform(0, rotation_degrees)) * rng.uniform(
        1 - scale, 1 + scale
    )
    direction = rng.normal(size=3)
    linear[:3, 3] = direction / np.linalg.norm(direction) * rng.uniform(0, shift_mm)
    moving = Image(pair.moving.data, Grid(grid.shape, linear @ grid.affine))
    if same_box:
        moving = resample(moving, grid, mode="linear")
    inside = np.argwhere(pair.fixed_labels.data[0].numpy() > 0)
    points = inside @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    moved = points + pair.disp_vox.numpy()[:, *inside.T].T @ grid.affine[:3, :3].T
    within = fit_weighted(points, moved, np.ones(len(points)), model="affine")
    return Case(fixed=pair.fixed, moving=moving, points_mm=points, truth=linear @ within)
