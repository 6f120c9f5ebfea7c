"""One resolution level of the linear alignment: both images on a coarse isotropic grid."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
import torch

from convexadam._typing import Channels, Field, Float, Tensor, Triple, Volume
from convexadam.discrete import ConvexSearch
from convexadam.errors import ConfigError
from convexadam.features import Features, extract_features, receptive_radius
from convexadam.geometry import Grid, Image
from convexadam.geometry.grid import axes_with_extent, mean_side_mm, sides_mm, with_cubes
from convexadam.geometry.resample import resample
from convexadam.geometry.tensors import quantiles
from convexadam.geometry.to_grid import block_average, fill_outside_mask, weight_on_grid
from convexadam.kernels._device import send
from convexadam.kernels.dissimilarity import measure_dissimilarity
from convexadam.kernels.feature_level import FeatureLevel
from convexadam.kernels.resample_affine import resample_affine
from convexadam.kernels.resize import pool_weight
from convexadam.kernels.structure import sum_differences
from convexadam.linear.centres import centre_offset
from convexadam.linear.restriction import Restriction

SPACING = 2
"""Spacing of the control points in voxels of the level; less along an axis with fewer voxels."""

_MIN_STRUCTURE = 0.1
"""Structure of a control point, as a share of the 95th percentile, below which it is ignored."""


@final
@dataclass(frozen=True, kw_only=True)
class LinearLevel:
    """Features of the fixed image at one level, and the moving image from which features are extracted anew.

    Attributes
    ----------
    grid
        Isotropic grid of the level (of squares, for one slice), over the field of view of the fixed image.
    features
        Extractor for both images.
    search
        Search for the displacement of each control point.
    fixed, fixed_weight
        Features of the fixed image at the control points, and their weight.
    structure
        Weight of each control point by how much its features differ from those of its neighbours; see
        `compute_structure`.
    moving, moving_mask
        The moving image and its mask at about the resolution of the level, in moving space.
    coarse_fixed, fixed_mask
        The fixed image and its mask at that resolution.
    spacing
        Spacing of the control points in voxels of ``grid``.
    restriction
        Axes along which points may move.
    """

    grid: Grid
    features: Features
    search: ConvexSearch
    fixed: Channels
    fixed_weight: Volume | None
    structure: Volume
    moving: Image
    moving_mask: Image | None
    coarse_fixed: Image
    fixed_mask: Image | None
    spacing: Triple
    restriction: Restriction

    @classmethod
    def prepare(
        cls,
        fixed: Image,
        moving: Image,
        features: Features,
        voxels: int,
        *,
        radius: int,
        masks: tuple[Image | None, Image | None],
        restriction: Restriction,
    ) -> LinearLevel:
        """Resample both images to a level of about ``voxels`` voxels, and extract the features of the fixed one.

        ``radius`` is the search radius in control points.
        """
        grid = make_isotropic_grid(fixed.grid, voxels)
        a, b, c = (min(SPACING, n) for n in grid.shape)
        side_mm = min(sides_mm(grid))
        weight = weight_on_grid(fixed, masks[0], grid, receptive_radius(features))
        fixed_mask, moving_mask = (None if mask is None else block_average(mask, side_mm) for mask in masks)
        radius_mm = receptive_radius(features) * side_mm
        coarse_fixed, coarse_moving = (
            fill_outside_mask(block_average(image, side_mm, mask), coarse_mask, radius_mm)
            for image, mask, coarse_mask in zip((fixed, moving), masks, (fixed_mask, moving_mask), strict=True)
        )
        image = resample(coarse_fixed, grid, mode="linear")
        fixed_features = extract_features(features, image, ((a, b, c),), weight=weight)[0]
        fixed_weight = pool_weight(weight, (a, b, c))
        return cls(
            grid=grid,
            features=features,
            search=ConvexSearch(spacing=SPACING, radius=radius, window="ball", inverse_consistency=0),
            fixed=fixed_features,
            fixed_weight=fixed_weight,
            structure=compute_structure(fixed_features, fixed_weight),
            moving=coarse_moving,
            moving_mask=moving_mask,
            coarse_fixed=coarse_fixed,
            fixed_mask=fixed_mask,
            spacing=(a, b, c),
            restriction=restriction,
        )

    @property
    def spacing_mm(self) -> float:
        """Largest spacing of the control points in mm."""
        return max(self.spacing[axis] * self.grid.spacing_mm[axis] for axis in axes_with_extent(self.grid))

    @property
    def side_mm(self) -> float:
        """Edge of the voxels in mm."""
        return min(sides_mm(self.grid))

    @cached_property
    def centre_offset_mm(self) -> np.ndarray:
        """Centre of mass of the moving image minus that of the fixed image, ``(3,)``."""
        return centre_offset(self.coarse_fixed, self.moving, (self.fixed_mask, self.moving_mask))

    @property
    def control_affine(self) -> Float[Tensor, "4 4"]:
        """From indices of the control points to mm, on the device."""
        return self._matrices[0]

    @property
    def corners_mm(self) -> Float[Tensor, "8 4"]:
        """The outermost control points in mm, and a 1 each, on the device."""
        return self._matrices[1]

    @cached_property
    def _matrices(self) -> list[Float[Tensor, "_ 4"]]:
        """What does not change, sent at once.

        `control_affine`, `corners_mm`, the map from voxels of the level to mm, and those from mm to indices of the
        moving image and of its mask.
        """
        control = self.grid.pool(self.spacing).affine
        ends = [(0.0, n - 1.0) for n in self.fixed.shape[1:]]
        corners = np.array([(*index, 1.0) for index in itertools.product(*ends)]) @ control.T
        images = [self.moving] if self.moving_mask is None else [self.moving, self.moving_mask]
        every = [control, corners, self.grid.affine, *(np.linalg.inv(image.grid.affine) for image in images)]
        return list(torch.split(self.send(np.concatenate(every)), [len(matrix) for matrix in every]))

    def send(self, numbers: np.ndarray) -> Tensor:
        """Copy float64 numbers to the device."""
        return send(torch.from_numpy(np.array(numbers)), self.fixed.new_empty(0, dtype=torch.float64))

    def find_matches(self, moving: Channels, weight: Volume | None) -> tuple[Field, Volume]:
        """Search the displacement of each control point, given features of the resampled moving image and their weight.

        Returns
        -------
        Displacements in control points, ``[3, i, j, k]``, and the weight of each in a fit.
        """
        _, radius = self.search.control_grid(self.grid.shape)
        a, b, c = (1.0 if w else 0.0 for w in self.restriction.weights)
        level = FeatureLevel(
            fixed=self.fixed,
            moving=moving,
            fixed_weight=self.fixed_weight,
            moving_weight=weight,
            restrict_deformation=(a, b, c),
        )
        disp = self.search.search_features(level, radius).forward
        return disp, self.structure if weight is None else self.structure * (weight > 0.5)

    def compute_dissimilarity(self, moving: Channels, weight: Volume | None) -> tuple[Volume, Volume]:
        """Compare the fixed image with the resampled moving image, weighted by the structure."""
        return measure_dissimilarity(self.fixed, moving, self.structure, weight)

    def extract_moving_features(self, matrix: Float[Tensor, "4 4"]) -> tuple[Channels, Volume | None]:
        """Return the features of the moving image resampled with a matrix, and their weight."""
        margin = receptive_radius(self.features)
        weight: Volume | None
        if matrix.is_cuda:
            data, weight = self._resample_on_device(matrix, margin)
        else:
            reference = Grid(self.grid.shape, matrix.numpy() @ self.grid.affine)
            weight = weight_on_grid(self.moving, self.moving_mask, reference, margin)
            data = resample(self.moving, reference, mode="linear").data
        features = extract_features(self.features, Image(data, self.grid), (self.spacing,), weight=weight)[0]
        if len(features) != len(self.fixed):
            raise ConfigError(
                f"features must have as many channels for both images, got {len(self.fixed)} and {len(features)} from "
                f"{self.features!r}; pass images of as many channels"
            )
        return features, pool_weight(weight, self.spacing)

    def _resample_on_device(self, matrix: Float[Tensor, "4 4"], margin: int) -> tuple[Channels, Volume]:
        """Resample with a matrix that the host does not know."""
        mask = self.moving_mask
        _, _, grid_map, to_index, *mask_index = self._matrices
        return resample_affine(
            self.moving.data,
            (to_index, matrix, grid_map),
            self.grid.shape,
            fill_value=self._lowest,
            margin=margin,
            mask=None if mask is None else mask.data[0],
            mask_index=mask_index[0] if mask_index else None,
        )

    @cached_property
    def _lowest(self) -> Float[Tensor, ""]:
        """Lowest value of the moving image."""
        return self.moving.data.min()


def make_isotropic_grid(grid: Grid, voxels: int) -> Grid:
    """Return an isotropic grid of about ``voxels`` voxels over the same field of view.

    Its spacing is at least the smallest spacing of ``grid``. A single slice has as many voxels along each axis as a
    volume of ``voxels`` would have.
    """
    side_mm = max(mean_side_mm(grid) / voxels ** (1 / 3), min(sides_mm(grid)))
    return with_cubes(grid.canonical(), side_mm)


def compute_structure(features: Channels, weight: Volume | None) -> Volume:
    """Return how much the features of each control point differ from its six neighbours, in [0, 1].

    It is 0 in homogeneous regions such as the background, where a displacement is not determined.
    """
    total = sum_differences(features, weight)
    scale = quantiles(total.flatten()[:: max(1, total.numel() // 1_000_000)], (0.95,))[0]
    structure = total.div_(scale.masked_fill(scale <= 0, 1.0)).clamp_(max=1)
    return torch.threshold_(structure, _MIN_STRUCTURE, 0.0)
