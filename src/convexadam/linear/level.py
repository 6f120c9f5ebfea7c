"""One level of the pre-alignment: both images on a coarse cubic grid."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np
import torch

from convexadam._typing import Channels, Triple, Volume
from convexadam.discrete import ConvexSearch
from convexadam.features import Features, pooled_features, reach_of
from convexadam.geometry import Grid, Image
from convexadam.geometry.onto_grid import evidence, hidden, shrunk
from convexadam.geometry.resample import resample
from convexadam.kernels.resize import pool_weight
from convexadam.linear.starts import centre_of_content

_CELL = 2
"""Voxels along an edge of a cell, as far as there are that many."""

_TINY = 1e-12

_STRUCTURED = 0.1
"""Structure of a cell, as a share of the 95th percentile, from which on it counts."""


@final
@dataclass(frozen=True, kw_only=True)
class Seen:
    """Two images under a transform.

    Attributes
    ----------
    apart
        Feature difference of each cell, ``[i, j, k]``, as a share of that of cells that have nothing to do with each
        other.
    met
        Weight of each cell: 0 where the moving image is not seen; the weights of all cells would sum up to 1.
    """

    apart: Volume
    met: Volume

    def difference(self) -> float:
        """Mean difference, where what is not seen counts as having nothing to do with the other image."""
        return float((self.met * self.apart).sum() + 1 - self.met.sum())

    def better_than(self, other: Seen, gain: float) -> bool:
        """Whether the difference is smaller, by that share of it, where both see the moving image.

        If that is less than half of what one of them sees, unseen cells count as well.
        """
        both = torch.minimum(self.met, other.met)
        if both.sum() < max(float(self.met.sum()), float(other.met.sum())) / 2:
            return self.difference() < (1 - gain) * other.difference()
        return bool((both * self.apart).sum() < (1 - gain) * (both * other.apart).sum())


@final
@dataclass(frozen=True, kw_only=True)
class LinearLevel:
    """The fixed features of a level, and the moving image that is described anew for each transform."""

    grid: Grid
    features: Features
    search: ConvexSearch
    fixed: Channels
    fixed_weight: Volume | None
    structure: Volume
    moving: Image
    moving_mask: Image | None
    contents_mm: np.ndarray
    cell: Triple

    @classmethod
    def of(
        cls,
        fixed: Image,
        moving: Image,
        features: Features,
        voxels: int,
        *,
        radius: int,
        masks: tuple[Image | None, Image | None],
    ) -> LinearLevel:
        """Bring both images to about that many cubic voxels; the moving one stays where it lies."""
        grid = cubic(fixed.grid, voxels)
        a, b, c = (min(_CELL, n) for n in grid.shape)
        side = grid.spacing_mm[0]
        weight = evidence(fixed, masks[0], grid, reach_of(features))
        here, there = (None if mask is None else shrunk(mask, side) for mask in masks)
        reach_mm = reach_of(features) * side
        small, small_moving = (
            hidden(shrunk(image, side, mask), share, reach_mm)
            for image, mask, share in zip((fixed, moving), masks, (here, there), strict=True)
        )
        image = resample(small, grid, mode="linear")
        described = pooled_features(features, image, ((a, b, c),), weight=weight)[0]
        shares = pool_weight(weight, (a, b, c))
        return cls(
            grid=grid,
            features=features,
            search=ConvexSearch(spacing=_CELL, radius=radius, window="ball", inverse_consistency=0),
            fixed=described,
            fixed_weight=shares,
            structure=structure(described, shares),
            moving=small_moving,
            moving_mask=there,
            contents_mm=centre_of_content(small_moving, there) - centre_of_content(small, here),
            cell=(a, b, c),
        )

    @property
    def cell_mm(self) -> float:
        """Longest edge of a cell."""
        return max(n * s for n, s in zip(self.cell, self.grid.spacing_mm, strict=True))

    def matches(self, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Cells, where the search finds them under a transform (as points of fixed space), and their weights."""
        moving, weight = self._moved(matrix)
        _, radius = self.search.nodes(self.grid.shape)
        found, _ = self.search.on_cells(
            self.fixed, moving, radius, fixed_weight=self.fixed_weight, moving_weight=weight
        )
        cells = self.grid.pooled(self.cell)
        index = np.indices(cells.shape).reshape(3, -1).T
        moved = index + found.reshape(3, -1).T.double().cpu().numpy()
        met = self.structure if weight is None else self.structure * (weight > 0.5)
        return _to_mm(cells, index), _to_mm(cells, moved), met.flatten().double().cpu().numpy()

    def seen(self, matrix: np.ndarray) -> Seen:
        """How alike the images are under a transform; structured cells count most."""
        moving, weight = self._moved(matrix)
        share = self.structure / self.structure.sum().clamp_min(_TINY)
        met = share if weight is None else share * weight
        part = met / met.sum().clamp_min(_TINY)
        middle, other = _mean(self.fixed, share), _mean(moving, part)
        spread = (share * (self.fixed - middle).square().sum(0)).sum() + (part * (moving - other).square().sum(0)).sum()
        unrelated = spread + (middle - other).square().sum()
        return Seen(apart=(self.fixed - moving).square().sum(0) / unrelated.clamp_min(_TINY), met=met)

    def _moved(self, matrix: np.ndarray) -> tuple[Channels, Volume | None]:
        onto = Grid(self.grid.shape, matrix @ self.grid.affine)
        weight = evidence(self.moving, self.moving_mask, onto, reach_of(self.features))
        image = Image(resample(self.moving, onto, mode="linear").data, self.grid)
        described = pooled_features(self.features, image, (self.cell,), weight=weight)[0]
        return described, pool_weight(weight, self.cell)


def cubic(grid: Grid, voxels: int) -> Grid:
    """Return a grid over the same box with about that many cubic voxels, none finer than the finest spacing."""
    volume_mm3 = math.prod(n * s for n, s in zip(grid.shape, grid.spacing_mm, strict=True))
    side = max((volume_mm3 / voxels) ** (1 / 3), min(grid.spacing_mm))
    return grid.canonical().with_spacing((side, side, side))


def structure(features: Channels, weight: Volume | None) -> Volume:
    """How much a cell differs from its six neighbours, in [0, 1]: 0 in the background, where nothing can be found."""
    total = torch.zeros_like(features[0])
    known = torch.ones_like(total) if weight is None else (weight > 0).to(total.dtype)
    for axis in range(1, 4):
        n = features.shape[axis]
        if n == 1:
            continue
        both = known.narrow(axis - 1, 1, n - 1) * known.narrow(axis - 1, 0, n - 1)
        steps = features.diff(dim=axis).square().sum(0) * both
        total.narrow(axis - 1, 1, n - 1).add_(steps)
        total.narrow(axis - 1, 0, n - 1).add_(steps)
    large = float(torch.quantile(total.flatten()[:: max(1, total.numel() // 1_000_000)], 0.95))
    share = total / large if large > 0 else total.clamp(max=1)
    return torch.where(share > _STRUCTURED, share.clamp(max=1), torch.zeros_like(share)) * known


def _mean(features: Channels, share: Volume) -> Channels:
    return (features * share).sum((1, 2, 3), keepdim=True)


def _to_mm(grid: Grid, index: np.ndarray) -> np.ndarray:
    return np.asarray(index @ grid.affine[:3, :3].T + grid.affine[:3, 3])
