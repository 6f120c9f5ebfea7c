"""Slices of volumes as pictures: planes, windows and directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias, final

import numpy as np
import torch

from convexadam._checks import show
from convexadam._typing import Field, Tensor, Triple
from convexadam.errors import InputError
from convexadam.geometry import Grid, Image, Transform, resample
from convexadam.geometry.planes import NORMAL, PLANES, take_slice
from convexadam.geometry.tensors import parse_points

Window: TypeAlias = tuple[float, float]

_VALUES = 500_000
"""Values that a window is chosen from."""


def robust_window(volume: np.ndarray) -> Window:
    """Return the values of black and white for a window that shows soft tissue with good contrast.

    The background (air, lungs in CT, zero padding) is the lowest fifth of the range of values without outliers. White
    is the 98.5th percentile of the rest. Black is the 5th percentile minus a quarter of the difference, but at least
    the minimum. NaN and Inf are ignored.
    """
    values = volume[np.isfinite(volume)].astype(np.float64)
    least, most = np.percentile(values, (0.5, 99.5))
    body = values[values > least + (most - least) / 5]
    dark, white = np.percentile(body if body.size else values, (5, 98.5))
    black = max(dark - (white - dark) / 4, values.min())
    return float(black), float(white if white > black else black + 1)


def choose_window(image: Image) -> Window:
    """Return `robust_window` of the first channel, of at most half a million voxels; 0 to 1 if none is finite."""
    values = image.data[0].detach().flatten()
    some = values[:: max(1, len(values) // _VALUES)].cpu().double().numpy()
    return robust_window(some) if np.isfinite(some).any() else (0.0, 1.0)


def to_canonical_field(disp_mm: Field, image: Image) -> np.ndarray:
    """Return the displacement on the canonical grid, in mm along its axes.

    Vectors are decomposed along the unit directions of the axes, so that the deformed grid of an oblique volume is
    drawn in the planes of its slices.
    """
    canonical = Image(disp_mm.detach().cpu().to(torch.float64), image.grid).canonical()
    directions = canonical.grid.affine[:3, :3] / np.array(canonical.grid.spacing_mm)
    components = np.tensordot(np.linalg.inv(directions), np.asarray(canonical.data), axes=1)
    return np.asarray(components)


def pixel_aspect(plane: str, spacing_mm: tuple[float, float, float]) -> float:
    """Return the ratio of height to width of a pixel of `take_slice`."""
    r, a, s = spacing_mm
    return {"axial": a / r, "coronal": s / r, "sagittal": s / a}[plane]


def apply_window(picture: np.ndarray, window: Window) -> np.ndarray:
    """Scale values from black (0) to white (1)."""
    low, high = window
    return np.asarray(np.clip((np.nan_to_num(picture, nan=low) - low) / (high - low), 0, 1))


def make_checkerboard(first: np.ndarray, second: np.ndarray, aspect: float) -> np.ndarray:
    """Combine two pictures in a checkerboard of square fields, about eight along the wider side."""
    rows, columns = np.indices(first.shape)
    field = max(first.shape[1], first.shape[0] * aspect) / 8
    odd = (np.floor(rows * aspect / field) + np.floor(columns / field)) % 2 == 1
    return np.where(odd, second, first)


@final
@dataclass(frozen=True, kw_only=True)
class Section:
    """One slice of a grid along a plane, on which images and transforms of any grid are sampled.

    Attributes
    ----------
    plane
        One of `PLANES`.
    index
        Along the normal axis of the canonical grid.
    grid
        The voxels of the slice in axis order R, A, S, and up to ``margin`` slices on either side.
    position
        Of the slice within ``grid``, along its normal axis.
    """

    plane: str
    index: int
    grid: Grid
    position: int = 0

    @classmethod
    def cut(cls, grid: Grid, plane: str, index: int | None = None, *, margin: int = 0) -> Section:
        """Cut a grid; ``index=None`` is the middle."""
        canonical, axis = grid.canonical(), NORMAL[plane]
        index = canonical.shape[axis] // 2 if index is None else index
        first, last = max(index - margin, 0), min(index + margin, canonical.shape[axis] - 1)
        shape, shift = list(canonical.shape), np.eye(4)
        shape[axis], shift[axis, 3] = last - first + 1, first
        slab = Grid((shape[0], shape[1], shape[2]), canonical.affine @ shift, canonical.space_code)
        return cls(plane=plane, index=index, grid=slab, position=index - first)

    @property
    def aspect(self) -> float:
        """Ratio of height to width of a pixel."""
        return pixel_aspect(self.plane, self.grid.spacing_mm)

    @property
    def position_mm(self) -> float:
        """Coordinate of the middle of the slice along R, A or S, whichever is closest to its normal."""
        axis, middle = NORMAL[self.plane], np.array([(n - 1) / 2 for n in self.grid.shape] + [1.0])
        middle[axis] = self.position
        return float((self.grid.affine @ middle)[axis])

    def take(self, volume: Tensor) -> np.ndarray:
        """Return the slice of a volume, or of several, on ``grid`` as pictures."""
        values = volume.detach().cpu()
        return take_slice(
            (values.double() if values.is_floating_point() else values).numpy(), self.plane, self.position
        )

    def resample(self, image: Image, transform: Transform | None = None, *, nearest: bool = False) -> Tensor:
        """Return the first channel of an image of any grid at the voxels of ``grid``, where a transform puts it."""
        first = Image(image.data[:1].detach(), image.grid)
        if transform is None:
            return resample(first, self.grid, mode="nearest" if nearest else "linear").data[0]
        return transform.warp(first, self.grid, mode="nearest" if nearest else "linear").data[0]

    def sample(self, image: Image, transform: Transform | None = None, *, nearest: bool = False) -> np.ndarray:
        """Return `resample` as a picture."""
        return self.take(self.resample(image, transform, nearest=nearest))


def list_sections(grid: Grid, *, margin: int = 0, point_mm: Sequence[float] | None = None) -> list[Section]:
    """Return a slice of each plane of at least two by two voxels: the middle one, or that closest to a point.

    Raises
    ------
    InputError
        If the point does not lie within the grid.
    """
    canonical = grid.canonical()
    shape, middle = canonical.shape, tuple(n // 2 for n in canonical.shape)
    index = middle if point_mm is None else _find_voxel(canonical, point_mm)
    return [
        Section.cut(grid, plane, index[NORMAL[plane]], margin=margin)
        for plane in PLANES
        if min(n for axis, n in enumerate(shape) if axis != NORMAL[plane]) > 1
    ]


def _find_voxel(grid: Grid, point_mm: Sequence[float]) -> Triple:
    points = parse_points([point_mm], "point_mm", finite=True)
    i, j, k = (round(float(value)) for value in grid.world_to_index(points)[0])
    if not all(0 <= at < n for at, n in zip((i, j, k), grid.shape, strict=True)):
        raise InputError(f"point_mm must lie within {grid!r}, got {show(point_mm)}; pass mm RAS+")
    return i, j, k
