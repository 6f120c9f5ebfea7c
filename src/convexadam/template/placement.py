"""Where scans lie before they are registered, and the grid of their template."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from convexadam.errors import InputError
from convexadam.geometry import Affine, Grid, Transform, compose
from convexadam.io import ScanFiles, read_image, read_transform
from convexadam.io.reading import StrPath
from convexadam.template.average import FOREGROUND, scale_intensity

_MARGIN = 0.05
"""Margin around the largest scan, as a fraction of its extent, beyond one voxel."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where scans lie before they are registered."""

    grid: Grid
    scans: dict[str, AlignedScan]


@dataclass(frozen=True, kw_only=True)
class AlignedScan:
    """A transform from the template to a scan, which is in a file unless it is affine.

    Attributes
    ----------
    transform
        From the template before the last update of its shape.
    update
        From the template to that.
    """

    transform: Affine | Path
    update: Transform = field(default_factory=Affine)

    def read(self) -> Transform:
        """Return the transform; a field is read anew each time, so that memory does not grow with the group."""
        transform = read_transform(self.transform) if isinstance(self.transform, Path) else self.transform
        return compose(self.update, transform)


def place_scans(
    group: Sequence[ScanFiles], spacing_mm: tuple[float, float, float] | None, start: StrPath | None
) -> Placement:
    """Align the centres of mass of all scans, on a grid along R, A and S that holds the largest of them."""
    centres, extents, spacings = list[np.ndarray](), list[np.ndarray](), list[tuple[float, ...]]()
    for scan in group:
        image = scale_intensity(read_image(scan.image)).canonical()
        inside = (image.data[0] > FOREGROUND).nonzero().double()
        if len(inside) == 0:
            raise InputError(f"scans must have foreground, got a constant image {scan.image}; remove it")
        weights = image.data[0][image.data[0] > FOREGROUND].double()[:, None]
        points = image.grid.index_to_world(inside)
        centres.append(((points * weights).sum(0) / weights.sum()).numpy())
        extents.append(np.abs(points.numpy() - centres[-1]).max(0))
        spacings.append(image.grid.spacing_mm)
    middle = np.array([math.fsum(axis) for axis in zip(*centres, strict=True)]) / len(centres)  # exact in any order
    if start is None:
        step = np.array(spacing_mm if spacing_mm is not None else np.median(spacings, axis=0), dtype=float)
        half = np.ceil(np.max(extents, axis=0) * (1 + _MARGIN) / step) + (np.max(extents, axis=0) > 0)
        affine = np.diag([*step, 1.0])
        affine[:3, 3] = middle - half * step
        n = [int(2 * h) + 1 for h in half]
        grid = Grid((n[0], n[1], n[2]), affine)
    else:
        grid = read_image(start).canonical().grid
    scans = dict[str, AlignedScan]()
    for scan, centre in zip(group, centres, strict=True):
        shift = np.eye(4)
        shift[:3, 3] = centre - middle
        scans[scan.id] = AlignedScan(transform=Affine(shift))
    return Placement(grid=grid, scans=scans)
