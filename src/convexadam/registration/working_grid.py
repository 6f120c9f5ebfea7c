"""The grid that both volumes are brought to before anything else."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias, final

from convexadam._axes import checked_count, checked_number
from convexadam.geometry import Grid


@final
@dataclass(frozen=True, kw_only=True)
class GivenGrid:
    """The fixed image's own voxels, with axes in R, A, S order; the moving image is resampled where it differs."""

    def __call__(self, fixed: Grid) -> Grid:
        """Return the working grid for a fixed grid."""
        return fixed.canonical()


@final
@dataclass(frozen=True, kw_only=True)
class IsotropicGrid:
    """Cubic voxels over the fixed image's box, with axes in R, A, S order.

    Cells, search ranges and smoothing then mean the same along every axis.

    Attributes
    ----------
    spacing_mm
        Side of a voxel in mm; ``None`` takes the finest spacing of the fixed image.
    max_voxels
        Upper bound of the number of voxels; a finer grid is coarsened to it.
    keep
        Anisotropy (coarsest over finest spacing) up to which the fixed image's own voxels are kept, at least 1: between
        slices little further apart than pixels, interpolation blurs more than cubic voxels gain. Has no part where
        ``spacing_mm`` is given.

    Raises
    ------
    ConfigError
        If a setting is no positive number, ``max_voxels`` is not whole, or ``keep`` is below 1.
    """

    spacing_mm: float | None = None
    max_voxels: int = 24_000_000
    keep: float = 1.0

    def __post_init__(self) -> None:
        if self.spacing_mm is not None:
            checked_number(self.spacing_mm, "spacing_mm", above=True)
        checked_count(self.max_voxels, "max_voxels", least=1)
        checked_number(self.keep, "keep", least=1.0)

    def __call__(self, fixed: Grid) -> Grid:
        """Return the working grid for a fixed grid."""
        canonical = fixed.canonical()
        side = self.spacing_mm or min(fixed.spacing_mm)
        volume_mm3 = math.prod(n * s for n, s in zip(canonical.shape, canonical.spacing_mm, strict=True))
        anisotropy = max(fixed.spacing_mm) / min(fixed.spacing_mm)
        if self.spacing_mm is None and anisotropy <= self.keep and canonical.n_voxels <= self.max_voxels:
            return canonical
        side = max(side, (volume_mm3 / self.max_voxels) ** (1 / 3))
        if all(abs(s / side - 1) < 1e-3 for s in canonical.spacing_mm) and canonical.n_voxels <= self.max_voxels:
            return canonical
        grid = canonical.with_spacing((side, side, side))
        while grid.n_voxels > self.max_voxels:  # numbers of voxels are rounded, on each axis
            side *= 1.002
            grid = canonical.with_spacing((side, side, side))
        return grid


WorkingGrid: TypeAlias = GivenGrid | IsotropicGrid
