"""What one stage of a registration compares, on one grid of control points."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import torch

from convexadam._typing import Channels, Field, Float, Guide, Tensor, Triple, Volume
from convexadam.kernels.landmarks import LandmarkPairs
from convexadam.kernels.resize import pool, resample_control_points, scale_to_control_points, scale_to_voxels

_WHOLE = 0.999
"""Share of voxels with weight from which on a control point is complete."""


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
    """

    fixed: Channels
    moving: Channels
    fixed_weight: Volume | None = None
    moving_weight: Volume | None = None
    fixed_guide: Guide | None = None
    moving_guide: Guide | None = None
    landmarks: LandmarkPairs | None = None
    reverse_landmarks: LandmarkPairs | None = None
    spacing: Triple = (1, 1, 1)

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
    pooled, share = (pool(w[None], spacing)[0] for w in (weight, (weight > 0).to(weight.dtype)))
    complete = torch.where(share > _WHOLE, pooled, 0.0)
    return complete if bool((complete > 0).any()) else pooled
