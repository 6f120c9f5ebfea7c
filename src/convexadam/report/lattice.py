"""A pair on a coarse lattice of fixed space, where similarity is measured for its quality."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import final

import torch

from convexadam._typing import Channels, Field, Float, Shaped, Tensor, Triple, Volume
from convexadam.geometry import Grid, Image, Transform
from convexadam.geometry.resample import resample
from convexadam.geometry.tensors import quantiles
from convexadam.geometry.to_grid import block_average
from convexadam.kernels.mind_ssc import mind_ssc
from convexadam.metrics.local_correlation import LEAST_SHARE, has_structure, square_correlation, window_mean

_POINTS = 80_000
"""Points of the lattice: 3.5 mm apart for a head, so that each measure takes a fraction of a second."""

_FEWEST = 24
"""Points along the longest axis at least, so that windows and shifts fit."""

_SHIFTS = (1, 2, 4)
"""Shifts in points, along each axis and both ways, at which the similarity of a window is compared."""

_TIE = 1e-6
"""Relative difference of distances that rounding may cause."""


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class LatticePair:
    """A fixed image, and a moving image where the headers and where a transform put it, at points of fixed space.

    Attributes
    ----------
    grid
        The points, at most as dense as the voxels of the fixed image.
    fixed, before, after
        Float32, smoothed to the spacing of the points.
    fixed_weight, before_weight, after_weight
        1 where a point lies in the field of view of the image, and in its mask; else 0.
    disp_mm
        ``T(x) - x`` at the points, in mm along R, A and S.
    """

    grid: Grid
    fixed: Volume
    before: Volume
    after: Volume
    fixed_weight: Volume
    before_weight: Volume
    after_weight: Volume
    disp_mm: Field

    @classmethod
    def sample(
        cls, transform: Transform, fixed: Image, moving: Image, masks: tuple[Image | None, Image | None]
    ) -> LatticePair:
        """Sample the first channel of both images."""
        grid = _coarsen(fixed.grid)
        side_mm = max(grid.spacing_mm)
        near, far = (block_average(_first_channel(image), side_mm) for image in (fixed, moving))
        disp_mm = transform.displacement_on(grid, None, near.data.new_empty(0))
        inside = Image(torch.ones_like(moving.data[:1], dtype=torch.float32), moving.grid)
        weights = [_sample_mask(masks[0], grid, None) * torch.ones_like(disp_mm[0])]
        for shift in (None, disp_mm):
            covered = resample(inside, grid, mode="linear", fill_value=0.0, disp_mm=shift).data[0] > 0.5
            weights.append(covered.float() * _sample_mask(masks[1], grid, shift))
        return cls(
            grid=grid,
            fixed=resample(near, grid, mode="linear").data[0],
            before=resample(far, grid, mode="linear").data[0],
            after=resample(far, grid, mode="linear", disp_mm=disp_mm).data[0],
            fixed_weight=weights[0],
            before_weight=weights[1],
            after_weight=weights[2],
            disp_mm=disp_mm,
        )

    @cached_property
    def structure(self) -> Shaped[Tensor, "i j k"]:
        """Return where the fixed image, within its mask, has structure that could be compared."""
        return has_structure(self.fixed, self.fixed_weight) & (self.fixed_weight > 0)

    def similarity(self, moving: Volume, weight: Volume) -> Float[Tensor, ""]:
        """Return the mean squared local correlation where the fixed image has structure; 0 outside the field of view.

        It is the share of the variance of a window that a linear function of the other window explains, in [0, 1], and
        holds for two contrasts as far as windows show two tissues.
        """
        squared = square_correlation(self.fixed, moving, self.fixed_weight * weight)
        return squared[self.structure].double().mean()

    def shuffle_similarity(self) -> Float[Tensor, ""]:
        """Return the similarity to the moved image rolled by half the lattice: the level of unrelated anatomy."""
        i, j, k = (n // 2 for n in self.grid.shape)
        shifts = [shift for shift in product((0, i), (0, j), (0, k)) if any(shift)]
        mine = self.structure
        moved = self.after, self.after_weight, has_structure(self.after, self.after_weight) & (self.after_weight > 0)
        values = []
        for shift in shifts:
            rolled, weight, structure = (torch.roll(volume, shift, (0, 1, 2)) for volume in moved)
            squared = square_correlation(self.fixed, rolled, self.fixed_weight * weight)
            values.append(squared[mine & structure].double())
        return torch.cat(values).mean()

    def residuals_mm(self) -> Float[Tensor, " n"]:
        """Return how far from ``T(x)`` the moved image matches the fixed window best, at points with structure.

        Windows of MIND-SSC descriptors are compared at shifts along the axes, without a regulariser, so that this holds
        for two contrasts and does not depend on how smooth ``T`` is.
        """
        compared = self.structure & (self.after_weight > 0)
        fixed, moved = (mind_ssc(volume, radius=1, dilation=1) for volume in (self.fixed, self.after))
        best = _descriptor_distance(fixed, moved, self.fixed_weight * self.after_weight) * (1 - _TIE)
        distance_mm = torch.zeros_like(best)
        for shift, length_mm in _list_shifts(self.grid):
            weight = self.fixed_weight * _shift(self.after_weight[None], shift)[0]
            distance = _descriptor_distance(fixed, _shift(moved, shift), weight)
            better = distance < best
            best = torch.where(better, distance, best)
            distance_mm = torch.where(better, torch.full_like(best, length_mm), distance_mm)
        return distance_mm[compared].double()


def _descriptor_distance(fixed: Channels, moving: Channels, weight: Volume) -> Volume:
    """Return the mean squared difference of descriptors in windows; infinite where hardly any of a window compares."""
    sums = window_mean(torch.stack([weight * (fixed - moving).square_().mean(0), weight]))
    return torch.where(sums[1] > LEAST_SHARE, sums[0] / sums[1].clamp_min(LEAST_SHARE), torch.inf)


def _list_shifts(grid: Grid) -> Iterator[tuple[Triple, float]]:
    for axis, points, sign in product(range(3), _SHIFTS, (-1, 1)):
        if points < grid.shape[axis] // 2:
            shift = [0, 0, 0]
            shift[axis] = sign * points
            yield (shift[0], shift[1], shift[2]), points * grid.spacing_mm[axis]


def _shift(values: Channels, shift: Triple) -> Channels:
    """Shift volumes by whole points; 0 enters."""
    result = torch.zeros_like(values)
    sizes = list(zip(shift, values.shape[1:], strict=True))
    target = [slice(max(s, 0), n + min(s, 0)) for s, n in sizes]
    source = [slice(max(-s, 0), n + min(-s, 0)) for s, n in sizes]
    result[:, *target] = values[:, *source]
    return result


def _coarsen(grid: Grid) -> Grid:
    """Return a grid over the same field of view with cubic voxels, as far as the voxels are that fine."""
    canonical = grid.canonical()
    lengths = [n * s for n, s in zip(canonical.shape, canonical.spacing_mm, strict=True)]
    side = min((math.prod(lengths) / _POINTS) ** (1 / 3), max(lengths) / _FEWEST)
    i, j, k = (max(side, s) for s in canonical.spacing_mm)
    return canonical.with_spacing((i, j, k))


def _first_channel(image: Image) -> Image:
    return Image(image.data[:1].detach(), image.grid)


def _sample_mask(mask: Image | None, grid: Grid, disp_mm: Field | None) -> Tensor:
    if mask is None:
        return torch.ones((), dtype=torch.float32, device="cpu")  # goes with any device
    return (resample(mask, grid, mode="nearest", fill_value=0, disp_mm=disp_mm).data[0] > 0).float()


def pool_quantiles(values: Tensor, shares: Iterable[float]) -> list[float]:
    """Return quantiles of at most a million of the values, evenly spread; NaN for none."""
    shares = list(shares)
    if not values.numel():
        return [math.nan] * len(shares)
    some = values.flatten()[:: max(1, values.numel() // 1_000_000)].double()
    return [float(q) for q in quantiles(some, shares)]
