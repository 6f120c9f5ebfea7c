"""Landmarks that guide a registration: how, and where they lie on the working grid."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any, final

import torch

from convexadam._axes import checked_number
from convexadam._typing import Float, Points, Shaped, Tensor, Triple
from convexadam.errors import InputError
from convexadam.geometry import Affine, DisplacementField, Grid, Transform
from convexadam.io.landmarks import read_landmarks
from convexadam.kernels.pairs import Pairs


@final
@dataclass(frozen=True, kw_only=True)
class LandmarkGuide:
    """How much pairs of landmarks have to say beside the image, in the search and in the refinement.

    Each pair costs ``w |u(p) - (q - p)|^2``, with ``u(p)`` the Gaussian mean of the displacement around ``p``, and
    distances counted in nodes, as in all costs. They are guides, no constraints: the field comes as close as image
    and smoothness let it.

    Attributes
    ----------
    weight
        How much the nodes at a point heed it, in multiples of what a node heeds the image on average: of the mean
        curvature of the similarity, or of the excess of the mean over the least cost in a search. 0 leaves the
        landmarks out.
    sigma_mm
        Standard deviation of the Gaussian that spreads each point; 0 takes the nodes around it alone.
    outlier_mm
        Distance at which a pair costs half as much as it would without a limit: a pair that is far more off than that
        pulls less and less (Geman and McClure, Bulletin of the ISI 1987), so that wrong ones do no harm. What the
        search has to bring nearer must not be longer. ``None`` trusts all pairs.

    Raises
    ------
    ConfigError
        If a setting is out of range.
    """

    weight: float = 1.0
    sigma_mm: float = 5.0
    outlier_mm: float | None = None

    def __post_init__(self) -> None:
        checked_number(self.weight, "weight")
        checked_number(self.sigma_mm, "sigma_mm")
        if self.outlier_mm is not None:
            checked_number(self.outlier_mm, "outlier_mm", above=True)


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Landmarks:
    """Pairs of points in mm RAS+, float64 on the CPU, within the fixed image; ``outside`` counts those left out."""

    fixed_mm: Points
    moving_mm: Points
    weights: Float[Tensor, " n"]
    outside: int

    def on_grid(
        self, settings: LandmarkGuide, grid: Grid, start: Transform, grids: tuple[Grid, Grid]
    ) -> PlacedGuide | None:
        """Bring the pairs to a working grid, moving points back through the start; ``grids`` are those of the images.

        ``None`` where nothing has any weight.
        """
        weights = settings.weight * self.weights
        counted = weights > 0
        if not bool(counted.any()):
            return None
        back = _inverse(start, grids).warp_points(self.moving_mm[counted], space="mm").cpu().double()
        return PlacedGuide(
            fixed=grid.to_voxels(self.fixed_mm[counted]),
            moving=grid.to_voxels(back),
            weights=weights[counted],
            settings=settings,
            grid=grid,
        )

    def described(self, transform: Transform) -> dict[str, float]:
        """How many pairs there are, and how far the transform leaves them apart."""
        found = transform.warp_points(self.fixed_mm, space="mm").cpu().double()
        apart_mm = (found - self.moving_mm).norm(dim=1)
        return {
            "landmarks_used": float((self.weights > 0).sum()),
            "landmarks_outside": float(self.outside),
            "landmark_error_mean_mm": float(apart_mm.mean()),
            "landmark_error_max_mm": float(apart_mm.max()),
        }


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class PlacedGuide:
    """Pairs of points in voxels of the working grid."""

    fixed: Points
    moving: Points
    weights: Float[Tensor, " n"]
    settings: LandmarkGuide
    grid: Grid

    def swapped(self) -> PlacedGuide | None:
        """Return the other way round; points that lie outside the grid are left out."""
        kept = _inside(self.moving, self.grid.shape)
        if not bool(kept.any()):
            return None
        return PlacedGuide(
            fixed=self.moving[kept],
            moving=self.fixed[kept],
            weights=self.weights[kept],
            settings=self.settings,
            grid=self.grid,
        )

    def on_nodes(self, spacing: Triple) -> Pairs:
        """Count the pairs in nodes ``spacing`` voxels apart."""
        per_node = torch.tensor(spacing, dtype=torch.float64, device="cpu")
        i, j, k = (n * mm for n, mm in zip(spacing, self.grid.spacing_mm, strict=True))
        outlier_mm = math.inf if self.settings.outlier_mm is None else self.settings.outlier_mm
        sigma_mm = self.settings.sigma_mm
        return Pairs(
            points=(self.fixed - (per_node - 1) / 2) / per_node,
            displacements=(self.moving - self.fixed) / per_node,
            weights=self.weights,
            sigma=(sigma_mm / i, sigma_mm / j, sigma_mm / k),
            outlier=outlier_mm / (i * j * k) ** (1 / 3),
        )


def checked_landmarks(fixed: Any, moving: Any, weights: Any, grids: tuple[Grid, Grid]) -> Landmarks | None:
    """Turn two lists of points, or files of them, into pairs, or say why not; ``grids`` are those of the images."""
    if fixed is None and moving is None and weights is None:
        return None
    if fixed is None or moving is None:
        raise InputError(
            "landmarks are pairs, but only one of fixed_landmarks and moving_landmarks came"
            if fixed is not None or moving is not None
            else "landmark_weights came without landmarks; pass fixed_landmarks and moving_landmarks as well"
        )
    fixed_mm, moving_mm = _points(fixed, grids[0], "fixed"), _points(moving, grids[1], "moving")
    if len(fixed_mm) != len(moving_mm):
        raise InputError(
            f"landmarks are pairs, row by row, but {len(fixed_mm)} fixed and {len(moving_mm)} moving ones came"
        )
    each = torch.ones(len(fixed_mm), dtype=torch.float64, device="cpu") if weights is None else _numbers(weights)
    if each.shape != (len(fixed_mm),) or not bool((each.isfinite() & (each >= 0)).all()):
        raise InputError(
            f"landmark_weights are {len(fixed_mm)} finite numbers of at least 0, one for each pair, but "
            f"{tuple(each.shape)} came" + (f", the least of them {float(each.min()):g}" if each.numel() else "")
        )
    inside = _inside(grids[0].to_voxels(fixed_mm), grids[0].shape)
    if not bool(inside.any()):
        raise InputError(
            f"none of the {len(fixed_mm)} fixed landmarks lies within the fixed image; they are in mm RAS+ "
            "(grid.to_mm takes voxel indices there, and ITK and Slicer files hold LPS: flip the first two signs)"
        )
    return Landmarks(
        fixed_mm=fixed_mm[inside],
        moving_mm=moving_mm[inside],
        weights=each[inside],
        outside=int((~inside).sum()),
    )


def _points(value: Any, grid: Grid, name: str) -> Points:
    """Return points in mm RAS+; files hold indices of their own image."""
    if isinstance(value, (str, os.PathLike)):
        return grid.to_mm(read_landmarks(value))
    points = _numbers(value)
    if points.ndim != 2 or points.shape[1] != 3 or not len(points):
        raise InputError(f"{name}_landmarks are points (n, 3) in mm RAS+, but the shape {tuple(points.shape)} came")
    if not bool(points.isfinite().all()):
        raise InputError(f"{name}_landmarks hold NaN or Inf; leave such pairs out of both lists")
    return points


def _numbers(value: Any) -> Tensor:
    try:
        return torch.as_tensor(value, device="cpu").detach().double()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"landmarks are a tensor or array of numbers, or the path of a file, but a {type(value).__name__} came"
        ) from error


def _inside(points_vox: Points, shape: Triple) -> Shaped[Tensor, " n"]:
    last = torch.tensor(shape, dtype=torch.float64, device="cpu") - 0.5
    return ((points_vox >= -0.5) & (points_vox <= last)).all(1)


def _inverse(start: Transform, grids: tuple[Grid, Grid]) -> Transform:
    """Return the inverse of a start; that of one that bends is known all over the moving image."""
    if isinstance(start, Affine):
        return start.inverse()
    field = start if isinstance(start, DisplacementField) else start.resample_onto(grids[0])
    return field.inverse(grids[1])
