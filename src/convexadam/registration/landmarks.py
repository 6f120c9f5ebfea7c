"""Landmarks that support a registration: how much they weigh, and where they lie on the working grid."""

from __future__ import annotations

import math
import os
import warnings
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch

from convexadam._checks import check_number, show
from convexadam._typing import Float, Points, Shaped, Tensor, Triple
from convexadam.errors import InputError
from convexadam.geometry import Affine, DisplacementField, Grid, Transform
from convexadam.geometry.grid import mean_side_mm
from convexadam.geometry.tensors import to_matrix
from convexadam.io.landmarks import read_landmarks_mm
from convexadam.kernels.landmarks import LandmarkPairs

_SIGMA = 1 / 40
"""Standard deviation of the Gaussians, as a share of the mean side of the field of view."""

_MOST_PAIRS, _MOST_CONTROL_POINTS = 20_000, 2**24


@final
@dataclass(frozen=True, kw_only=True)
class LandmarkTerm:
    """How much pairs of landmarks weigh beside the similarity, in the search and in the refinement.

    Each pair costs ``w |u(p) - (q - p)|^2``, with ``u(p)`` the Gaussian mean of the displacement around ``p``, and
    distances in control points. The pairs are no constraints: the displacement fits them as closely as the similarity
    and smoothness permit.

    Attributes
    ----------
    weight
        Weight of a landmark for the control points around it, in multiples of that of the similarity: of its mean
        curvature or, in a search, of the mean excess of the costs over the smallest one. 0 ignores the landmarks.
    sigma_mm
        Standard deviation of the Gaussian around each landmark; 0 uses the nearest control points only, and ``None``
        takes a 40th of the mean side of the working grid's field of view (5 mm for a head).
    robust_scale_mm
        Distance at which the cost of a pair is half its squared distance; pairs that are farther off pull less and
        less (Geman and McClure, Bulletin of the ISI 1987), so that wrong pairs do little harm. It must exceed the
        distances that the search has to bridge. ``None`` trusts all pairs.

    Raises
    ------
    ConfigError
        If a setting is out of range.

    Examples
    --------
    >>> import torch
    >>> from convexadam import LandmarkTerm, RegistrationConfig, register
    >>> volume = torch.rand(16, 16, 16, generator=torch.Generator().manual_seed(0))
    >>> points = torch.tensor([[5.0, 8.0, 8.0], [10.0, 8.0, 8.0]])
    >>> config = RegistrationConfig(landmarks=LandmarkTerm(weight=10.0), linear=None)
    >>> result = register(volume, volume, config, fixed_landmarks=points, moving_landmarks=points)
    >>> result.diagnostics["landmarks_used"]
    2.0
    """

    weight: float = 1.0
    sigma_mm: float | None = None
    robust_scale_mm: float | None = None

    def __post_init__(self) -> None:
        check_number(self.weight, "weight")
        if self.sigma_mm is not None:
            check_number(self.sigma_mm, "sigma_mm")
        if self.robust_scale_mm is not None:
            check_number(self.robust_scale_mm, "robust_scale_mm", above=True)


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Landmarks:
    """Pairs of points in mm RAS+, float64 on the CPU, within the fixed image; ``outside`` counts those left out."""

    fixed_mm: Points
    moving_mm: Points
    weights: Float[Tensor, " n"]
    outside: int

    def to_working_grid(
        self, term: LandmarkTerm, grid: Grid, start: Transform, grids: tuple[Grid, Grid]
    ) -> WorkingLandmarks | None:
        """Return the pairs in voxels of a working grid, or ``None`` if all weights are 0.

        Moving points are mapped back through the start; ``grids`` are those of the images.
        """
        weights = term.weight * self.weights
        used = weights > 0
        if not bool(used.any()):
            return None
        fixed_mm, moving_mm, weights = _merge_equal(self.fixed_mm[used], self.moving_mm[used], weights[used])
        moving_mm = _invert_start(start, grids).warp_points(moving_mm, space="mm").cpu().double()
        return WorkingLandmarks(
            fixed=grid.world_to_index(fixed_mm),
            moving=grid.world_to_index(moving_mm),
            weights=weights,
            term=term,
            grid=grid,
        )

    def summary(self, transform: Transform) -> dict[str, float]:
        """Return how many pairs there are, and their distance after a transform."""
        mapped = transform.warp_points(self.fixed_mm, space="mm").cpu().double()
        error_mm = (mapped - self.moving_mm).norm(dim=1)
        return {
            "landmarks_used": float((self.weights > 0).sum()),
            "landmarks_outside": float(self.outside),
            "landmark_error_mean_mm": float(error_mm.mean()),
            "landmark_error_max_mm": float(error_mm.max()),
        }


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class WorkingLandmarks:
    """Pairs of points in voxels of the working grid."""

    fixed: Points
    moving: Points
    weights: Float[Tensor, " n"]
    term: LandmarkTerm
    grid: Grid

    def swap(self) -> WorkingLandmarks | None:
        """Return the pairs from moving to fixed; points outside the grid are left out."""
        inside = _is_inside(self.moving, self.grid.shape)
        if not bool(inside.any()):
            return None
        return WorkingLandmarks(
            fixed=self.moving[inside],
            moving=self.fixed[inside],
            weights=self.weights[inside],
            term=self.term,
            grid=self.grid,
        )

    def to_control_points(self, spacing: Triple) -> LandmarkPairs:
        """Return the pairs in units of control points ``spacing`` voxels apart."""
        per_axis = torch.tensor(spacing, dtype=torch.float64, device="cpu")
        i, j, k = (n * mm for n, mm in zip(spacing, self.grid.spacing_mm, strict=True))
        robust_scale_mm = math.inf if self.term.robust_scale_mm is None else self.term.robust_scale_mm
        sigma_mm = _SIGMA * mean_side_mm(self.grid) if self.term.sigma_mm is None else self.term.sigma_mm
        # a wider Gaussian would be as good as constant, and its table endless
        a, b, c = (n / s / 2 for n, s in zip(self.grid.shape, spacing, strict=True))
        sigma = min(sigma_mm / i, a), min(sigma_mm / j, b), min(sigma_mm / k, c)
        _check_reach(len(self.fixed), sigma)
        return LandmarkPairs(
            points=(self.fixed - (per_axis - 1) / 2) / per_axis,
            displacements=(self.moving - self.fixed) / per_axis,
            weights=self.weights,
            sigma=sigma,
            robust_scale=robust_scale_mm / (i * j * k) ** (1 / 3),
        )


def parse_landmarks(fixed: Any, moving: Any, weights: Any, grids: tuple[Grid, Grid]) -> Landmarks | None:
    """Return pairs of two lists of points or files; ``grids`` are those of the images.

    Raises
    ------
    InputError
        If they are no pairs of finite points, or none lies within the fixed image.
    """
    if fixed is None and moving is None and weights is None:
        return None
    if fixed is None or moving is None:
        given = "landmark_weights" if fixed is moving else "fixed_landmarks" if moving is None else "moving_landmarks"
        raise InputError(f"fixed_landmarks and moving_landmarks must be given together, got {given} alone; pass both")
    fixed_mm, moving_mm = parse_points_mm(fixed, grids[0], "fixed"), parse_points_mm(moving, grids[1], "moving")
    if len(fixed_mm) != len(moving_mm):
        raise InputError(
            f"fixed_landmarks and moving_landmarks must be pairs, row by row, got {len(fixed_mm)} and "
            f"{len(moving_mm)} points; remove those without a partner"
        )
    n = len(fixed_mm)
    each = _parse_numbers(np.ones(n) if weights is None else weights, "landmark_weights")
    if each.shape != (n,) or not bool((each.isfinite() & (each >= 0)).all()):
        smallest = f" and values from {float(each.min()):g} to {float(each.max()):g}" if each.numel() else ""
        raise InputError(
            f"landmark_weights must be {n} finite numbers of at least 0, one for each pair, got shape "
            f"{tuple(each.shape)}{smallest}"
        )
    inside = _is_inside(grids[0].world_to_index(fixed_mm), grids[0].shape)
    if not bool(inside.any()):
        raise InputError(
            f"fixed_landmarks must lie within the fixed image, got {n} points outside; they are in mm RAS+ "
            "(convert voxel indices with grid.index_to_world; ITK and Slicer files hold LPS: flip the first two signs)"
        )
    _warn_of_far_points(moving_mm[inside], grids[1])
    return Landmarks(
        fixed_mm=fixed_mm[inside],
        moving_mm=moving_mm[inside],
        weights=each[inside],
        outside=int((~inside).sum()),
    )


def _warn_of_far_points(points_mm: Points, grid: Grid) -> None:
    """Warn of moving points that lie farther from the moving image than its size."""
    index, size = grid.world_to_index(points_mm), torch.tensor(grid.shape, dtype=torch.float64, device="cpu")
    outside = torch.maximum(-index, index - (size - 1)) / size
    far = int((outside.amax(1) > 1).sum())
    if far:
        warnings.warn(
            f"{far} of {len(points_mm)} moving_landmarks lie outside the moving image by more than its size, up to "
            f"{float(outside.max()):.3g} times; they were used as they are; check that they are in mm RAS+ of the "
            "moving image",
            stacklevel=4,
        )


def parse_points_mm(value: Any, grid: Grid, name: str) -> Points:
    """Return points in mm RAS+; files hold indices of their own image, or mm (Slicer)."""
    if isinstance(value, (str, os.PathLike)):
        return read_landmarks_mm(value, grid)
    points = _parse_numbers(value, f"{name}_landmarks")
    if points.ndim != 2 or points.shape[1] != 3 or not len(points):
        raise InputError(f"{name}_landmarks must be points (n, 3) in mm RAS+, got shape {tuple(points.shape)}")
    if not bool(points.isfinite().all()):
        raise InputError(f"{name}_landmarks must be finite, got NaN or Inf; remove such pairs from both lists")
    return points


def _parse_numbers(value: Any, name: str) -> Tensor:
    try:
        return torch.from_numpy(to_matrix(value))
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"{name} must be a tensor or array of real numbers, or the path of a file, got {show(value)}"
        ) from error


def _merge_equal(fixed: Points, moving: Points, weights: Tensor) -> tuple[Points, Points, Tensor]:
    """Merge pairs that are equal, whose weights add up; without any, nothing changes."""
    pairs, numbers = torch.unique(torch.cat([fixed, moving], 1), dim=0, return_inverse=True)
    if len(pairs) == len(fixed):
        return fixed, moving, weights
    total = weights.new_zeros(len(pairs)).index_add_(0, numbers, weights)
    return pairs[:, :3].contiguous(), pairs[:, 3:].contiguous(), total


def _check_reach(count: int, sigma: tuple[float, float, float]) -> None:
    """Raise if the tables of all landmarks together would be endless."""
    if count > _MOST_PAIRS:
        raise InputError(f"landmarks must be at most {_MOST_PAIRS} different pairs, got {count}; pass fewer of them")
    around = math.prod(2 * math.ceil(2 * s) + 2 for s in sigma)
    if count * around > _MOST_CONTROL_POINTS:
        raise InputError(
            f"landmarks must reach at most {_MOST_CONTROL_POINTS} control points altogether, got {count} with "
            f"{around} each; pass fewer landmarks, or lower landmarks.sigma_mm"
        )


def _is_inside(points_vox: Points, shape: Triple) -> Shaped[Tensor, " n"]:
    last = torch.tensor(shape, dtype=torch.float64, device="cpu") - 0.5
    return ((points_vox >= -0.5) & (points_vox <= last)).all(1)


def _invert_start(start: Transform, grids: tuple[Grid, Grid]) -> Transform:
    """Return the inverse of a start; of a displacement field on the grid of the moving image."""
    if isinstance(start, Affine):
        return start.inverse()
    field = start if isinstance(start, DisplacementField) else start.to_displacement_field(grids[0])
    return field.inverse(grids[1])
