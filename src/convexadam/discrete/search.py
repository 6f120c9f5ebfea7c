"""The discrete stage: cost volume, coupled convex optimisation, inverse consistency."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, final

import numpy as np
import torch

from convexadam._arguments import check_arguments
from convexadam._axes import Unit, check_unit, check_whole_voxels, per_axis, spacing_in_voxels
from convexadam._checks import (
    check_axis_weights,
    check_choice,
    check_count,
    check_flag,
    check_length,
    check_number,
    show,
)
from convexadam._typing import AxisWeights, Channels, Field, Float, PerAxis, Tensor, Triple, Volume
from convexadam.discrete.coupled_convex import COUPLING_WEIGHTS, coupled_convex
from convexadam.errors import ConfigError
from convexadam.kernels import backend_for
from convexadam.kernels._device import send_constant
from convexadam.kernels._precision import full_precision
from convexadam.kernels.cost_volume import Window, cost_volume
from convexadam.kernels.feature_level import FeatureLevel, ForwardBackward
from convexadam.kernels.feature_range import measure_range
from convexadam.kernels.inverse_consistency import MOST_ITERATIONS, estimate_inverse, make_inverse_consistent
from convexadam.kernels.landmarks import add_landmark_costs
from convexadam.kernels.resize import control_points_to_voxels, pool, pool_weight, scale_to_voxels
from convexadam.kernels.warp import add_step, identity_positions, sample_displaced, sample_linear
from convexadam.kernels.warp_ssd import overlap_weight, tensor_of, unpack

_SQRT_MAX_COST = 128.0
"""Costs stay below its square, well within float16."""

_MOST_COUPLINGS = 1000

_make_window = lru_cache(maxsize=8)(Window)
"""The tables of a window take as long as a small search with it."""

_CHANNELS_AT_ONCE = 4
"""Channels that are warped together: sampling all of them at once would double the memory of the features."""


@final
@dataclass(frozen=True, kw_only=True)
class ConvexSearch:
    """Coupled-convex search over all displacements of a coarse grid of control points, up to ``radius``.

    Attributes
    ----------
    spacing
        Spacing of the control points: one number or one for each axis, in ``unit``.
    radius
        Largest displacement: in control points if ``unit`` is ``"voxel"``, in mm if it is ``"mm"``. One number or
        one for each axis.
    window
        ``"box"`` tries all displacements up to ``radius`` along each axis, as published; ``"ball"`` omits the
        corners, which more than halves their number.
    unit
        ``"voxel"`` or ``"mm"``, the unit of ``spacing`` (and of ``radius``, see there).
    parabolic_fit
        Refine each choice to a fraction of a control point by a parabola; the published search takes whole ones.
    inverse_consistency
        Iterations that make the forward and backward displacements inverse of each other; 0 searches forward only.
    coupling_weights
        ``theta`` of the coupling, weak to strong, in feature cost per squared control point.

    Raises
    ------
    ConfigError
        If a setting is out of range.

    Notes
    -----
    Siebert, Hansen, Heinrich, "Fast 3D registration with accurate optimisation and little learning for
    Learn2Reg 2021"; the steps are those of `coupled_convex` and `make_inverse_consistent`.

    Examples
    --------
    >>> import torch
    >>> from convexadam import ConvexSearch
    >>> fixed = torch.rand(2, 20, 20, 20, generator=torch.Generator().manual_seed(0))
    >>> moving = fixed.roll(4, dims=1)  # content moves by 4 voxels along i
    >>> disp_vox = ConvexSearch(spacing=4, radius=2)(fixed, moving)
    >>> round(disp_vox[0, 8:12, 8:12, 8:12].mean().item())
    4
    """

    spacing: PerAxis = 6
    radius: PerAxis = 4
    window: Literal["box", "ball"] = "box"
    unit: Unit = "voxel"
    parabolic_fit: bool = True
    inverse_consistency: int = 15
    coupling_weights: tuple[float, ...] = COUPLING_WEIGHTS

    def __post_init__(self) -> None:
        check_unit(self.unit)
        for name in ("spacing", "radius"):
            check_whole_voxels(getattr(self, name), name, self.unit)
        check_count(self.inverse_consistency, "inverse_consistency", most=MOST_ITERATIONS)
        check_choice(self.window, "window", ("box", "ball"))
        check_flag(self.parabolic_fit, "parabolic_fit")
        if not isinstance(self.coupling_weights, tuple):
            raise ConfigError(f"coupling_weights must be a tuple of numbers, got {show(self.coupling_weights)}")
        check_length(self.coupling_weights, "coupling_weights", most=_MOST_COUPLINGS)
        for weight in self.coupling_weights:
            check_number(weight, "each of coupling_weights")

    @check_arguments
    def control_grid(
        self, shape: Triple, voxel_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    ) -> tuple[Triple, Triple]:
        """Spacing in voxels and radius in control points, for a volume of ``shape`` with voxels of ``voxel_mm``."""
        spacing = spacing_in_voxels(self.spacing, self.unit, voxel_mm, shape)
        radius = per_axis(self.radius, "radius", least=0)
        if self.unit == "mm":
            i, j, k = (math.ceil(r / (s * mm) - 1e-6) for r, s, mm in zip(radius, spacing, voxel_mm, strict=True))
        else:
            i, j, k = (int(r) for r in radius)
        count = [n // s for n, s in zip(shape, spacing, strict=True)]
        return spacing, (min(i, count[0] - 1), min(j, count[1] - 1), min(k, count[2] - 1))

    @full_precision
    @check_arguments
    def __call__(
        self,
        fixed: Channels,
        moving: Channels,
        *,
        fixed_weight: Volume | None = None,
        moving_weight: Volume | None = None,
        voxel_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
        restrict_deformation: AxisWeights = (1.0, 1.0, 1.0),
    ) -> Field:
        """Estimate a displacement from fixed to moving.

        Parameters
        ----------
        fixed, moving
            Features ``[c, i, j, k]`` of one shape, at full resolution.
        fixed_weight, moving_weight
            Weight of each voxel, ``[i, j, k]``, not negative; ``None`` for 1 everywhere.
        voxel_mm
            Size of a voxel; only used where ``unit`` is ``"mm"``.
        restrict_deformation
            Weight ``w`` of motion along each axis, in [0, 1]. Offsets along an axis of weight 0 are not tried; others
            cost ``(1 / w - 1) theta d^2``, with the largest ``theta`` of ``coupling_weights``.

        Returns
        -------
        Displacement ``[3, i, j, k]`` in voxels, at full resolution.
        """
        check_axis_weights(restrict_deformation, "restrict_deformation")
        shape: Triple = (fixed.shape[1], fixed.shape[2], fixed.shape[3])
        spacing, radius = self.control_grid(shape, voxel_mm)
        features = FeatureLevel(
            fixed=pool(fixed, spacing, weight=fixed_weight),
            moving=pool(moving, spacing, weight=moving_weight),
            fixed_weight=pool_weight(fixed_weight, spacing),
            moving_weight=pool_weight(moving_weight, spacing),
            spacing=spacing,
            restrict_deformation=restrict_deformation,
        )
        displacement = self.search_features(features, radius).forward
        return control_points_to_voxels(scale_to_voxels(displacement, spacing), spacing, shape)

    @full_precision
    @check_arguments
    def search_features(
        self, features: FeatureLevel, radius: Triple, *, start: ForwardBackward | None = None
    ) -> ForwardBackward:
        """Estimate displacements on the control points.

        Parameters
        ----------
        features
            Of the control points, with landmarks if there are any.
        radius
            Largest displacement along each axis, in control points.
        start
            Displacements of an earlier search, on these control points: the search covers ``radius`` around them.

        Returns
        -------
        Displacements in control points; ``backward`` is ``None`` without ``inverse_consistency``.
        """
        if any(not 0 <= r < max(n, 1) for r, n in zip(radius, features.shape, strict=True)):
            raise ConfigError(
                f"radius must be at least 0 and less than the control points along each axis, {features.shape}, got "
                f"{show(radius)}; see control_grid"
            )
        a, b, c = (r if w else 0 for r, w in zip(radius, features.restrict_deformation, strict=True))
        radius = (a, b, c)
        forward = self._search(features, radius, None if start is None else start.forward)
        if not self.inverse_consistency:
            return ForwardBackward(forward=forward, spacing=features.spacing)
        backward_start = None if start is None else start.backward
        if start is not None and backward_start is None:
            backward_start = estimate_inverse(start.forward)
        backward = self._search(features.swap(), radius, backward_start)
        forward, backward = make_inverse_consistent(forward, backward, iterations=self.inverse_consistency)
        return ForwardBackward(forward=forward, backward=backward, spacing=features.spacing)

    def _search(self, features: FeatureLevel, radius: Triple, start: Field | None) -> Field:
        """Search from fixed to moving, around a start if there is one."""
        window = _make_window(radius, ball=self.window == "ball")
        fixed, moving, moving_weight = unpack(features.fixed), unpack(features.moving), features.moving_weight
        half = backend_for(fixed, moving, *features.weights) != "reference"
        scale, unit = _find_scale(features)
        if start is not None:
            moving, moving_weight = _warp(moving, moving_weight, start)
        costs = cost_volume(
            fixed,
            moving,
            window,
            fixed_weight=features.fixed_weight,
            moving_weight=moving_weight,
            scale=scale,
            unit=unit,
            dtype=torch.float16 if half else None,
        )
        if features.landmarks is not None:
            add_landmark_costs(
                costs, window, features.landmarks if start is None else features.landmarks.relative_to(start)
            )
        if any(0 < w < 1 for w in features.restrict_deformation):
            theta = scale**2 * max(self.coupling_weights, default=0.0)
            _add_stiffness(costs, window, features.restrict_deformation, theta, unit)
        found = coupled_convex(
            costs,
            window,
            coupling_weights=tuple(weight * scale**2 for weight in self.coupling_weights),
            unit=unit,
            parabolic_fit=self.parabolic_fit,
        )
        return found if start is None else add_step(start, found)


def _add_stiffness(
    costs: Float[Tensor, "n i j k"],
    window: Window,
    weights: AxisWeights,
    theta: float,
    unit: Float[Tensor, ""] | None,
) -> None:
    """Add ``theta (1 / w - 1) d^2`` for each axis, in place; costs beyond half precision are clamped to it."""
    stiffness = np.array([theta * (1 / w - 1) if w else 0.0 for w in weights])
    added = send_constant(torch.from_numpy(window.table**2 @ stiffness), costs.new_empty(0, dtype=torch.float32))
    added = (added if unit is None else added * unit.float().square()).clamp_max(torch.finfo(costs.dtype).max / 2)
    costs.add_(added.to(costs.dtype)[:, None, None, None])


def _warp(features: Channels, weight: Volume | None, displacement: Field) -> tuple[Channels, Volume]:
    """Features and weight warped by a displacement."""
    if features.is_cuda:  # where samples are all that is stored
        return sample_displaced(features, displacement), overlap_weight(displacement, None, weight)
    shape: Triple = (features.shape[1], features.shape[2], features.shape[3])
    positions = displacement + identity_positions(shape, like=displacement)
    warped = torch.empty_like(features)
    for first in range(0, len(features), _CHANNELS_AT_ONCE):
        last = first + _CHANNELS_AT_ONCE
        warped[first:last] = sample_linear(features[first:last].contiguous(), positions)
    return warped, overlap_weight(displacement, None, weight)


def _find_scale(features: FeatureLevel) -> tuple[float, Float[Tensor, ""] | None]:
    """Return factors of features with which costs fill the range of float16: powers of two, which are exact.

    Costs and coupling weights grow by the square of their product, which leaves every argmin unchanged. The second one
    is on a GPU, where the range of features is not known to the host.
    """
    if features.known_range is None and backend_for(tensor_of(features.fixed), *features.weights) == "triton":
        return _SQRT_MAX_COST, measure_range(unpack(features.fixed), unpack(features.moving), *features.weights)[5]
    largest = features.range.span
    return 2.0 ** math.floor(math.log2(_SQRT_MAX_COST / largest)) if largest > 0 else 1.0, None
