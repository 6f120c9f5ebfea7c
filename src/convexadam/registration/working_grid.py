"""The grid that both images are resampled to before anything else."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

from convexadam._checks import check_count, check_number
from convexadam.geometry import Grid


@runtime_checkable
class WorkingGrid(Protocol):
    """Chooses the working grid."""

    def __call__(self, fixed: Grid) -> Grid:
        """Return the working grid for the grid of the fixed image; its axes are in R, A, S order."""
        ...


@final
@dataclass(frozen=True, kw_only=True)
class NativeGrid:
    """The voxels of the fixed image, with axes in R, A, S order."""

    def __call__(self, fixed: Grid) -> Grid:
        """Return the working grid for a fixed grid."""
        return fixed.canonical()


@final
@dataclass(frozen=True, kw_only=True)
class IsotropicGrid:
    """Cubic voxels over the field of view of the fixed image, with axes in R, A, S order.

    Spacings, search radii and smoothing in voxels are then the same length along each axis.

    Attributes
    ----------
    spacing_mm
        Edge of a voxel in mm; ``None`` takes the finest spacing of the fixed image.
    max_voxels
        Upper bound of the number of voxels; a finer grid is coarsened to it.
    max_anisotropy
        Ratio of the coarsest to the finest spacing up to which the voxels of the fixed image are used as they are, at
        least 1: interpolation between slices blurs more than cubic voxels gain. Ignored if ``spacing_mm`` is given.

    Raises
    ------
    ConfigError
        If a setting is not positive, ``max_voxels`` is not whole, or ``max_anisotropy`` is below 1.
    """

    spacing_mm: float | None = None
    max_voxels: int = 24_000_000
    max_anisotropy: float = 1.0

    def __post_init__(self) -> None:
        if self.spacing_mm is not None:
            check_number(self.spacing_mm, "spacing_mm", above=True)
        check_count(self.max_voxels, "max_voxels", least=1)
        check_number(self.max_anisotropy, "max_anisotropy", least=1.0)

    def __call__(self, fixed: Grid) -> Grid:
        """Return the working grid for a fixed grid."""
        canonical = fixed.canonical()
        edge = self.spacing_mm or min(fixed.spacing_mm)
        volume_mm3 = math.prod(n * s for n, s in zip(canonical.shape, canonical.spacing_mm, strict=True))
        anisotropy = max(fixed.spacing_mm) / min(fixed.spacing_mm)
        fits = canonical.n_voxels <= self.max_voxels
        if fits and self.spacing_mm is None and anisotropy <= self.max_anisotropy:
            return canonical
        edge = max(edge, (volume_mm3 / self.max_voxels) ** (1 / 3))
        if fits and all(abs(s / edge - 1) < 1e-3 for s in canonical.spacing_mm):
            return canonical
        grid = canonical.with_spacing((edge, edge, edge))
        while grid.n_voxels > self.max_voxels:  # rounding to whole voxels along each axis may exceed the bound
            edge *= 1.002
            grid = canonical.with_spacing((edge, edge, edge))
        return grid
