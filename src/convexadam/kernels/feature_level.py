"""What one stage of a registration compares, on one grid of control points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import final

import torch

from convexadam._typing import AxisWeights, Field, Float, Guide, Tensor, Triple, Volume
from convexadam.kernels import block_mean
from convexadam.kernels.feature_range import measure_range
from convexadam.kernels.landmarks import LandmarkPairs
from convexadam.kernels.resize import resample_control_points, scale_to_control_points, scale_to_voxels
from convexadam.kernels.warp_ssd import FeatureMap, FeatureRows, unpack


@final
@dataclass(frozen=True, kw_only=True)
class FeatureRange:
    """What the values of two feature maps decide on, as numbers on the host.

    Attributes
    ----------
    largest
        Largest absolute value; NaN if any value is.
    span
        Norm, over channels, of the difference between the largest and the smallest value of both maps.
    contrast
        Whether a channel of each map varies where there is weight; without contrast nothing can be matched.
    weighted
        Whether some control point has weight, in each image.
    overlap
        Whether some control point has weight in both images.
    """

    largest: float
    span: float
    contrast: bool
    weighted: bool
    overlap: bool


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureLevel:
    """Features of both images on control points ``spacing`` voxels apart, and all that belongs to them.

    Attributes
    ----------
    fixed, moving
        Features ``[c, i, j, k]``.
    fixed_weight, moving_weight
        Weight of each control point, ``[i, j, k]``, not negative; ``None`` for 1 everywhere.
    fixed_guide, moving_guide
        What a `convexadam.continuous.BilateralSmoothing` preserves the edges of, ``[c, i, j, k]``.
    landmarks, reverse_landmarks
        Pairs of landmarks, fixed to moving and moving to fixed.
    spacing
        Distance of the control points, in voxels of the working grid.
    known_range
        Of the features, if it was measured; see `measure_ranges`.
    restrict_deformation
        Weight of motion along each axis, in [0, 1], 0 to forbid it; see `convexadam.RegistrationConfig`.
    """

    fixed: FeatureMap
    moving: FeatureMap
    fixed_weight: Volume | None = None
    moving_weight: Volume | None = None
    fixed_guide: Guide | None = None
    moving_guide: Guide | None = None
    landmarks: LandmarkPairs | None = None
    reverse_landmarks: LandmarkPairs | None = None
    spacing: Triple = (1, 1, 1)
    known_range: FeatureRange | None = None
    restrict_deformation: AxisWeights = (1.0, 1.0, 1.0)

    @cached_property
    def range(self) -> FeatureRange:
        """Range of the features; measured, for which a GPU is waited for, unless it is known."""
        return self.known_range or measure_ranges([self])[0]

    @property
    def shape(self) -> Triple:
        """Control points along each axis."""
        i, j, k = self.fixed.shape[1:]
        return i, j, k

    @property
    def weights(self) -> tuple[Volume | None, Volume | None]:
        """Both weights."""
        return self.fixed_weight, self.moving_weight

    def zero_displacement(self) -> Field:
        """Return zeros, ``[3, i, j, k]``."""
        if isinstance(self.fixed, FeatureRows):
            return torch.zeros((3, *self.shape), dtype=torch.float32, device=self.fixed.device)
        return self.fixed.new_zeros((3, *self.shape))

    def swap(self) -> FeatureLevel:
        """Return the same with the roles of the two images exchanged."""
        return FeatureLevel(
            fixed=self.moving,
            moving=self.fixed,
            fixed_weight=self.moving_weight,
            moving_weight=self.fixed_weight,
            fixed_guide=self.moving_guide,
            moving_guide=self.fixed_guide,
            landmarks=self.reverse_landmarks,
            reverse_landmarks=self.landmarks,
            spacing=self.spacing,
            known_range=self.known_range,
            restrict_deformation=self.restrict_deformation,
        )


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class ForwardBackward:
    """Displacements in both directions, in units of their control points.

    Attributes
    ----------
    forward
        Fixed to moving, ``[3, i, j, k]``.
    backward
        Moving to fixed; ``None`` if it was not estimated.
    spacing
        Distance of the control points, in voxels of the working grid.
    """

    forward: Field
    backward: Field | None = None
    spacing: Triple = (1, 1, 1)

    def resample(self, spacing: Triple, shape: Triple) -> ForwardBackward:
        """Interpolate linearly at other control points, and convert to their units.

        Parameters
        ----------
        spacing
            Of the new control points, in voxels.
        shape
            Of the working grid, in voxels.
        """
        if spacing == self.spacing:
            return self
        forward, backward = (
            None
            if field is None
            else scale_to_control_points(
                resample_control_points(scale_to_voxels(field, self.spacing), self.spacing, spacing, shape), spacing
            )
            for field in (self.forward, self.backward)
        )
        assert forward is not None
        return replace(self, forward=forward, backward=backward, spacing=spacing)


def complete_weight(weight: Volume, spacing: Triple) -> Float[Tensor, "a b d"]:
    """Weight of each control point: 0 unless all its voxels have some, because a partial mean lies off its centre.

    If a mask is so thin that no control point is complete, partial ones count.
    """
    return weight if spacing == (1, 1, 1) else block_mean.complete_weight(weight, spacing)


def measure_ranges(levels: Sequence[FeatureLevel], others: Sequence[FeatureLevel] = ()) -> list[FeatureRange]:
    """Measure the range of the features of several levels; a GPU is waited for once.

    Of ``others`` only the largest value counts, as if it were one of the first level.
    """
    return read_ranges(compute_ranges(levels, others).tolist(), len(levels))


def compute_ranges(levels: Sequence[FeatureLevel], others: Sequence[FeatureLevel] = ()) -> Float[Tensor, " n"]:
    """Compute what `read_ranges` returns, on the device: six numbers of each level, and the others' largest values."""
    measured = [
        measure_range(unpack(level.fixed), unpack(level.moving), level.fixed_weight, level.moving_weight)
        for level in levels
    ]
    return torch.cat([*measured, *(largest_value(other).double().reshape(1) for other in others)])


def read_ranges(numbers: Sequence[float], levels: int) -> list[FeatureRange]:
    """Return the ranges of so many levels from the numbers of `compute_ranges`."""
    found = [list(numbers[n : n + 5]) for n in range(0, 6 * levels, 6)]
    found[0][0] = max([found[0][0], *numbers[6 * levels :]], key=lambda size: (math.isnan(size), size))
    return [
        FeatureRange(largest=largest, span=span, contrast=contrast > 0, weighted=weighted > 0, overlap=overlap > 0)
        for largest, span, contrast, weighted, overlap in found
    ]


def largest_value(level: FeatureLevel) -> Float[Tensor, ""]:
    """Largest absolute value of both maps, on the device; NaN if any value is."""
    if isinstance(level.fixed, FeatureRows) and level.fixed.largest is not None:
        return level.fixed.largest
    maps = [unpack(f) for f in (level.fixed, level.moving)]
    if maps[0].is_cuda:
        return torch.maximum(*(torch.linalg.vector_norm(features.detach(), torch.inf) for features in maps))
    in_memory_order = (f if f.is_contiguous() else f.movedim(0, -1) for f in maps)  # faster
    return torch.stack([end for features in in_memory_order for end in torch.aminmax(features)]).abs().amax()
