"""The mean shape of a group: averages of linear maps and of displacements, and the update that removes them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from convexadam._typing import Field, Volume
from convexadam.geometry import Affine, DisplacementField, Grid, Image, Transform, compose, resample
from convexadam.geometry.linear_maps import average_affines, fit_affine

_LARGE = 2**20
"""Voxels of a grid up to which displacements are averaged at each of them."""


@dataclass(frozen=True, kw_only=True)
class ShapeUpdate:
    """Difference of a template from the mean shape of its scans.

    Attributes
    ----------
    transform
        From the template with the mean shape to the present one, on its grid.
    mean_mm, largest_mm
        Displacement that it removes beyond the linear one, in mm, over the weight of the template.
    linear_mm
        Mean displacement of the linear mean.
    """

    transform: Transform
    mean_mm: float
    largest_mm: float
    linear_mm: float


class ShapeAverage:
    """Sums of the linear maps and of the displacements of transforms from a template to its scans.

    A transform is ``T_i = A_i (id + u_i)``, with ``A_i`` fitted over the template. The mean shape is reached from a
    point ``x`` of the template by ``U = A (id + u)``, where ``A`` is the log-Euclidean mean of the ``A_i`` and ``u``
    the mean of the ``u_i``. So ``U^-1`` leads from a template with the mean shape to the present one. Displacements are
    averaged at every second voxel of large grids.
    """

    def __init__(self, grid: Grid, weight: Volume, *, symmetric: bool = False) -> None:
        self._grid, self._weight, self._symmetric = grid, weight, symmetric
        self._nodes = _coarsen(grid)
        self._sum = torch.zeros((3, *self._nodes.shape), dtype=torch.float64, device="cpu")
        self._affines = list[Affine]()

    def add(self, transform: Transform) -> None:
        """Add the transform from the template to a scan."""
        affine = fit_affine(transform, self._grid, self._weight)
        self._affines.append(affine)
        if not isinstance(transform, Affine):
            residual = compose(transform, affine.inverse()).to_displacement_field(self._nodes)
            self._sum += residual.disp_mm.double().cpu()

    def find_update(self) -> ShapeUpdate:
        """Return the update to the mean shape."""
        mean = self._sum / len(self._affines)
        affine = average_affines(self._affines)
        if self._symmetric:
            mean = 0.5 * (mean + mirror_field(mean))
            affine = average_affines([affine, _mirror_affine(affine, self._grid)])
        length = mean.square().sum(0).sqrt()
        points = affine.to_displacement_field(self._nodes).disp_mm.double().square().sum(0).sqrt()
        inside = resample(Image(self._weight[None].float(), self._grid), self._nodes, fill_value=0).data[0] > 0
        transform: Transform = affine.inverse()
        if bool(length.any()):
            field = DisplacementField(mean.float(), self._nodes)
            transform = compose(transform, field.inverse()).to_displacement_field(self._grid)
        return ShapeUpdate(
            transform=transform,
            mean_mm=float(length[inside].mean()),
            largest_mm=float(length[inside].max()),
            linear_mm=float(points[inside].mean()),
        )


def _coarsen(grid: Grid) -> Grid:
    """Return a grid with the same ends and, if it is large, half as many steps along each axis."""
    steps = [n // 2 if math.prod(grid.shape) > _LARGE else n - 1 for n in grid.shape]
    scale = [(n - 1) / step if step else 1.0 for n, step in zip(grid.shape, steps, strict=True)]
    i, j, k = (step + 1 for step in steps)
    return Grid((i, j, k), grid.affine @ np.diag([*scale, 1.0]), grid.space_code)


def mirror_field(field: Field) -> Field:
    """Mirror displacements of a grid whose first axis is left to right, about its middle."""
    mirrored = field.flip(1)
    mirrored[0] *= -1
    return mirrored


def _mirror_affine(affine: Affine, grid: Grid) -> Affine:
    middle = float(
        grid.index_to_world(torch.tensor([[(n - 1) / 2 for n in grid.shape]], dtype=torch.float64, device="cpu"))[0, 0]
    )
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = 2 * middle
    return Affine(flip @ affine.matrix @ flip)
