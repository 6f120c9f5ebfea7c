"""Result of a registration that is linear alone: its matrix, and diagnostics that need no displacement field."""

from __future__ import annotations

import warnings

import numpy as np
import torch

from convexadam.geometry import Affine, Grid
from convexadam.geometry.to_grid import weight_on_grid
from convexadam.linear import LinearFit
from convexadam.registration.inputs import ImagePair, RegistrationInputs

_POINTS = 32
"""Points along an axis over which displacements are averaged."""


def measure_linear(inputs: RegistrationInputs, masks: ImagePair, fit: LinearFit) -> dict[str, float]:
    """Return the diagnostics of `RegistrationResult` for a linear transform, and warn if none was accepted.

    ``masks`` are those given or estimated.

    Warns
    -----
    UserWarning
        If no transform better than the initial one was found.
    """
    if not fit.accepted:
        warnings.warn(
            "the linear alignment found no transform better than the initial one, which is the result; check that the "
            "images overlap and show the same anatomy, or pass an initial_transform near the solution",
            stacklevel=3,
        )
    grid, transform = inputs.fixed.grid, fit.transform
    determinant = float(np.linalg.det(transform.matrix[:3, :3]))
    weights = (
        weight_on_grid(inputs.fixed, masks[0], grid, 0),
        weight_on_grid(inputs.moving, masks[1], Grid(grid.shape, transform.matrix @ grid.affine), 0),
    )
    compared = torch.ones((), dtype=torch.float32, device=inputs.fixed.data.device)
    for weight in weights:
        compared = compared if weight is None else compared * (weight > 0)
    diagnostics = {
        "dissimilarity_before": fit.dissimilarity_before,
        "dissimilarity_after": fit.dissimilarity_after,
        "overlap_percent": 100 * float(compared.mean(dtype=torch.float64)),
        "folded_percent": 100.0 * (determinant <= 0),
        "jacobian_min": determinant,
        "jacobian_max": determinant,
        "displacement_mean_mm": float(np.mean(_measure_displacements(transform, grid, _POINTS))),
        "displacement_max_mm": float(np.max(_measure_displacements(transform, grid, 2))),  # it is at a corner
        "repaired_voxels": 0,
        "repaired_largest_mm": 0.0,
    }
    return diagnostics | ({} if inputs.landmarks is None else inputs.landmarks.summary(transform))


def _measure_displacements(transform: Affine, grid: Grid, count: int) -> np.ndarray:
    """Return the lengths of the displacements in mm at a lattice of points from the first to the last voxels."""
    axes = [np.linspace(0, n - 1, min(n, count)) for n in grid.shape]
    index = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    points = index @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    difference = transform.matrix - np.eye(4)
    return np.asarray(np.linalg.norm(points @ difference[:3, :3].T + difference[:3, 3], axis=1))
