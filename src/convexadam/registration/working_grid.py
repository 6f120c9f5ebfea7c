"""The grid that both images are resampled to before anything else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

from convexadam._arguments import check_arguments
from convexadam._checks import check_count, check_number
from convexadam.errors import ConfigError
from convexadam.geometry import Grid
from convexadam.geometry.grid import axes_with_extent, mean_side_mm, sides_mm, with_cubes

_MOST_PER_VOXEL = 100
"""Voxels of a working grid for each one of the fixed image."""

_FINEST = 0.1
"""Smallest voxel of a working grid, as a share of the finest spacing of the fixed image."""


@runtime_checkable
class WorkingGrid(Protocol):
    """Chooses the working grid."""

    def __call__(self, fixed: Grid) -> Grid:
        """Return the working grid for the grid of the fixed image; its axes are in R, A, S order."""
        ...


@final
@dataclass(frozen=True, kw_only=True)
class NativeGrid:
    """The voxels of the fixed image, with axes in R, A, S order.

    Examples
    --------
    >>> from convexadam import NativeGrid, preset
    >>> import dataclasses
    >>> dataclasses.replace(preset("default"), grid=NativeGrid()).grid
    NativeGrid()
    """

    @check_arguments
    def __call__(self, fixed: Grid) -> Grid:
        """Return the working grid for a fixed grid."""
        return fixed.canonical()


@final
@dataclass(frozen=True, kw_only=True)
class IsotropicGrid:
    """Cubic voxels over the field of view of the fixed image, with axes in R, A, S order; squares for a 2-D image.

    Spacings, search radii and smoothing in voxels are then the same length along each axis.

    Attributes
    ----------
    spacing_mm
        Edge of a voxel in mm, from a tenth of the finest spacing of the fixed image to half its longest side; ``None``
        takes the finest spacing.
    max_voxels
        Upper bound of the number of voxels; a finer grid is coarsened to it and, without ``spacing_mm``, to 100 voxels
        for each one of the fixed image.
    max_anisotropy
        Ratio of the coarsest to the finest spacing up to which the voxels of the fixed image are used as they are, at
        least 1: interpolation between slices blurs more than cubic voxels gain. Ignored if ``spacing_mm`` is given.

    Raises
    ------
    ConfigError
        If a setting is not positive, ``max_voxels`` is not whole, or ``max_anisotropy`` is below 1.

    Examples
    --------
    >>> from convexadam import IsotropicGrid, RegistrationConfig
    >>> RegistrationConfig(grid=IsotropicGrid(spacing_mm=1.5)).grid.spacing_mm
    1.5
    """

    spacing_mm: float | None = None
    max_voxels: int = 24_000_000
    max_anisotropy: float = 1.0

    def __post_init__(self) -> None:
        if self.spacing_mm is not None:
            check_number(self.spacing_mm, "spacing_mm", above=True)
        check_count(self.max_voxels, "max_voxels", least=1)
        check_number(self.max_anisotropy, "max_anisotropy", least=1.0)

    @check_arguments
    def __call__(self, fixed: Grid) -> Grid:
        """Return the working grid for a fixed grid."""
        self._check_spacing(fixed)
        canonical, most = fixed.canonical(), self.max_voxels
        if self.spacing_mm is None:
            most = min(most, _MOST_PER_VOXEL * fixed.n_voxels)
        sides = sides_mm(canonical)
        edge = self.spacing_mm or min(sides)
        anisotropy = max(sides) / min(sides)
        fits = canonical.n_voxels <= most
        if fits and self.spacing_mm is None and anisotropy <= self.max_anisotropy:
            return canonical
        edge = max(edge, mean_side_mm(canonical) / most ** (1 / len(sides)))
        if fits and all(abs(s / edge - 1) < 1e-3 for s in sides):
            return canonical
        grid = with_cubes(canonical, edge)
        while grid.n_voxels > most:  # rounding to whole voxels along each axis may exceed the bound
            edge *= 1.002
            grid = with_cubes(canonical, edge)
        return grid

    def _check_spacing(self, fixed: Grid) -> None:
        """Raise if ``spacing_mm`` would interpolate far more than there is, or leave a single voxel."""
        if self.spacing_mm is None:
            return
        sides = sides_mm(fixed)
        finest = min(sides) * _FINEST
        coarsest = max(fixed.shape[axis] * fixed.spacing_mm[axis] for axis in axes_with_extent(fixed)) / 2
        if not finest <= self.spacing_mm <= max(coarsest, *sides):
            raise ConfigError(
                f"grid.spacing_mm must be from {finest:.3g} to {coarsest:.3g} for this fixed image, a tenth of its "
                f"voxels to half its longest side, got {self.spacing_mm:g}; omit it for the voxels of the fixed image"
            )
