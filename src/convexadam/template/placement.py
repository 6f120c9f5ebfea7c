"""Where scans lie before they are registered, and the grid of their template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from convexadam.errors import InputError
from convexadam.geometry import Affine, Grid, Transform
from convexadam.io import ScanFiles, read_image
from convexadam.io.reading import StrPath
from convexadam.template.average import FOREGROUND, scale_intensity

_MARGIN = 0.1
"""Margin around the largest scan, as a fraction of its extent."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where scans lie before they are registered."""

    grid: Grid
    transforms: dict[str, Transform]


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
    middle = np.mean(centres, axis=0)
    if start is None:
        step = np.array(spacing_mm if spacing_mm is not None else np.median(spacings, axis=0), dtype=float)
        half = np.ceil(np.max(extents, axis=0) * (1 + _MARGIN) / step)
        affine = np.diag([*step, 1.0])
        affine[:3, 3] = middle - half * step
        n = [int(2 * h) + 1 for h in half]
        grid = Grid((n[0], n[1], n[2]), affine)
    else:
        grid = read_image(start).canonical().grid
    transforms: dict[str, Transform] = {}
    for scan, centre in zip(group, centres, strict=True):
        shift = np.eye(4)
        shift[:3, 3] = centre - middle
        transforms[scan.id] = Affine(shift)
    return Placement(grid=grid, transforms=transforms)
