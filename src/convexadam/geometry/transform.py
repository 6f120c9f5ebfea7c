"""Transforms: maps of points of fixed space to moving space, in mm RAS+."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, final

import numpy as np
import torch

from convexadam._typing import Field, Points, Volume
from convexadam.errors import ConfigError, GeometryError, InputError
from convexadam.geometry.grid import Grid
from convexadam.geometry.image import Image
from convexadam.geometry.resample import Mode, linear_part, read_tensor, resample
from convexadam.geometry.tensors import all_finite, as_finest
from convexadam.kernels.jacobian import jacobian_determinant
from convexadam.kernels.warp import sample_linear

PointSpace: TypeAlias = Literal["mm", "lps_mm", "fixed_voxel"]


@final
@dataclass(frozen=True, eq=False)
class DisplacementField:
    """The transform ``T(x) = x + u(x)`` from fixed to moving space, given by vectors on a grid.

    Between voxels ``u`` is interpolated linearly; outside the grid the nearest edge value holds.

    Attributes
    ----------
    disp_mm
        ``[3, i, j, k]``: how far each voxel of the fixed grid moves along R, A and S, in mm. Finite.
    grid
        The fixed grid.

    Raises
    ------
    GeometryError
        If the vectors are no floating-point tensor that fits the grid, or are not finite.

    Examples
    --------
    >>> shift = DisplacementField.from_voxels(torch.ones(3, 4, 5, 6), Grid((4, 5, 6), np.diag([2.0, 2, 3, 1])))
    >>> shift.warp_points(torch.tensor([[0.0, 0.0, 0.0]]), space="mm").tolist()
    [[2.0, 2.0, 3.0]]
    """

    disp_mm: Field
    grid: Grid

    def __post_init__(self) -> None:
        _check_shape(self.disp_mm, self.grid)
        if not self.disp_mm.is_floating_point():
            raise GeometryError(f"displacements are floating-point numbers of mm, but the type is {self.disp_mm.dtype}")
        if not all_finite(self.disp_mm):
            raise GeometryError("the displacement field holds NaN or Inf; it describes no transform")

    def __repr__(self) -> str:
        """Longest displacement and grid, on one line."""
        return f"DisplacementField(up to {float(self.disp_mm.detach().norm(dim=0).max()):.3g} mm, {self.grid!r})"

    @classmethod
    def from_voxels(cls, disp_vox: Field, grid: Grid) -> DisplacementField:
        """Make a transform of displacements in voxels of ``grid``, component ``a`` along tensor axis ``a``.

        Raises
        ------
        GeometryError
            If the displacements are no real tensor ``[3, i, j, k]`` that fits the grid, or are not finite.
        """
        _check_shape(disp_vox, grid)
        return cls(linear_part(grid.affine, disp_vox), grid)

    def to_voxels(self) -> Field:
        """Displacements in voxels of the grid, ``[3, i, j, k]``, component ``a`` along tensor axis ``a``."""
        return linear_part(np.linalg.inv(self.grid.affine), self.disp_mm)

    def resample_onto(self, grid: Grid) -> DisplacementField:
        """Return the same transform with its vectors on another grid (linear interpolation, edge values outside)."""
        if grid.same_as(self.grid):
            return DisplacementField(self.disp_mm, grid)
        if grid.canonical().same_as(self.grid):  # the same voxels in another order
            axes, flips = grid.canonical_axes()
            flipped, order = [n for n, flip in enumerate(flips) if flip], [axes.index(a) for a in range(3)]
            data = self.disp_mm.new_empty((3, *grid.shape))
            for a in range(3):
                data[a] = self.disp_mm[a].flip(flipped).permute(order)
            return DisplacementField(data, grid)
        return DisplacementField(read_tensor(self.disp_mm, self.grid, grid), grid)

    def __call__(self, points_mm: Points) -> Points:
        """Map points of fixed space to moving space; ``(n, 3)`` in mm RAS+, float64 (on MPS float32)."""
        points = as_finest(points_mm, self.disp_mm.device)
        where = self.grid.to_voxels(points).T[:, :, None, None]
        moved = sample_linear(self.disp_mm, where.to(self.disp_mm.dtype))[:, :, 0, 0].T
        return points + moved

    def warp_points(self, points: Points, *, space: PointSpace) -> Points:
        """Map points of fixed space to where they are found in moving space.

        Parameters
        ----------
        points
            ``(n, 3)``, a tensor or numpy array.
        space
            What the numbers are, before and after: ``"mm"`` (RAS+), ``"lps_mm"`` (as ITK, ANTs and Slicer files have
            them) or ``"fixed_voxel"`` (continuous indices of the fixed grid; also the result is in indices
            of the *fixed* grid, which are those of the moving image only where both share one grid). There is
            no default: guessing is how landmarks go wrong.

        Returns
        -------
        ``(n, 3)`` float64 tensor (on MPS float32).

        Raises
        ------
        InputError
            If the points are not ``(n, 3)``, or hold NaN or Inf.
        ConfigError
            If there is no such space.
        """
        given = points if isinstance(points, torch.Tensor) else torch.as_tensor(points, device="cpu")
        values = as_finest(given, self.disp_mm.device)
        if values.ndim != 2 or values.shape[1] != 3:
            raise InputError(f"points are an array (n, 3), but the shape {tuple(values.shape)} came")
        if not bool(values.isfinite().all()):
            raise InputError("the points hold NaN or Inf; leave such rows out")
        if space == "mm":
            return self(values)
        if space == "lps_mm":
            flip = values.new_tensor([-1.0, -1.0, 1.0])
            return self(values * flip) * flip
        if space == "fixed_voxel":
            return self.grid.to_voxels(self(self.grid.to_mm(values)))
        raise ConfigError(f"space is 'mm', 'lps_mm' or 'fixed_voxel', but {space!r} came")

    def warp(self, image: Image, *, mode: Mode | None = None, background: float | None = None) -> Image:
        """Bring an image (or labels, or a mask) of moving space onto the fixed grid: ``moving(T(x))``.

        Parameters
        ----------
        image
            Any image in moving space, on whatever grid it has; nothing is resampled twice.
        mode
            ``"linear"``, ``"nearest"`` or ``"label"``; ``None`` takes labels for whole-number types, else linear.
        background
            Value outside the image's field of view, one that the image's type holds; ``None`` takes 0 for labels, else
            the image's smallest value.

        Returns
        -------
        An image on the fixed grid, of the same type and with as many channels.

        Raises
        ------
        ConfigError
            If there is no such mode, or the image's type does not hold the background.
        """
        return resample(image, self.grid, mode=mode, background=background, disp_mm=self.disp_mm)

    def jacobian(self) -> Volume:
        """Local volume change at each voxel, ``[i, j, k]``; <= 0 means folded."""
        return jacobian_determinant(self.to_voxels())


def _check_shape(disp: Field, grid: Grid) -> None:
    shape = (3, *grid.shape)
    if not isinstance(disp, torch.Tensor):
        raise GeometryError(
            f"a displacement field on this grid is a tensor {shape}, but a {type(disp).__name__} came; "
            "pass torch.as_tensor(...) of it, components first"
        )
    if tuple(disp.shape) != shape:
        raise GeometryError(f"a displacement field on this grid has shape {shape}, but {tuple(disp.shape)} came")
