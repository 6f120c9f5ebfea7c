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
from convexadam.geometry.onto_grid import evidence, on_grid
from convexadam.geometry.resample import resample
from convexadam.kernels.resize import pool_weight

_CELL = 2
"""Voxels along an edge of a cell, as far as there are that many."""

_TINY = 1e-12

_STRUCTURED = 0.1
"""Structure of a cell, as a share of the 95th percentile, from which on it counts."""


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
        described = pooled_features(features, on_grid(fixed, grid), ((a, b, c),), weight=weight)[0]
        shares = pool_weight(weight, (a, b, c))
        return cls(
            grid=grid,
            features=features,
            search=ConvexSearch(spacing=_CELL, radius=radius, window="ball", inverse_consistency=0),
            fixed=described,
            fixed_weight=shares,
            structure=structure(described, shares),
            moving=shrunk(moving, side),
            moving_mask=None if masks[1] is None else shrunk(Image((masks[1].data > 0).float(), masks[1].grid), side),
            cell=(a, b, c),
        )

    def matches(self, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Cells, where the search finds them under a transform (as points of fixed space), and their weights."""
        moving, weight = self._moved(matrix)
        _, radius = self.search.nodes(self.grid.shape)
        found = self.search.on_cells(self.fixed, moving, radius, fixed_weight=self.fixed_weight, moving_weight=weight)
        cells = self.grid.pooled(self.cell)
        index = np.indices(cells.shape).reshape(3, -1).T
        moved = index + found.reshape(3, -1).T.double().cpu().numpy()
        met = self.structure if weight is None else self.structure * (weight > 0.5)
        return _to_mm(cells, index), _to_mm(cells, moved), met.flatten().double().cpu().numpy()

    def difference(self, matrix: np.ndarray) -> float:
        """Feature difference under a transform, as a share of that of cells which have nothing to do with each other.

        Cells that leave the moving field of view count as such. Structured cells count most.
        """
        moving, weight = self._moved(matrix)
        share = self.structure / self.structure.sum().clamp_min(_TINY)
        met = share if weight is None else share * weight
        part = met / met.sum().clamp_min(_TINY)
        middle, other = (_mean(self.fixed, share), _mean(moving, part))
        spread = (share * (self.fixed - middle).square().sum(0)).sum() + (part * (moving - other).square().sum(0)).sum()
        unrelated = spread + (middle - other).square().sum()
        total = (met * (self.fixed - moving).square().sum(0)).sum() + unrelated * (1 - met.sum())
        return float(total / unrelated.clamp_min(_TINY))

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


def shrunk(image: Image, side_mm: float) -> Image:
    """Return an image with voxels no finer than ``side_mm``, smoothed accordingly, in floating point."""
    image = image.canonical()
    data = image.data if image.data.is_floating_point() else image.data.float()
    i, j, k = (max(s, side_mm) for s in image.grid.spacing_mm)
    return resample(Image(data, image.grid), image.grid.with_spacing((i, j, k)), mode="linear", antialias=True)


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
