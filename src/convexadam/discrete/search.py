"""The discrete stage: cost volume, coupled convex optimisation, inverse consistency."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch

from convexadam._axes import Unit, checked_count, checked_number, checked_unit, per_axis, spacing_in_voxels
from convexadam._typing import Channels, Field, PerAxis, Tensor, Triple, Volume
from convexadam.discrete.coupled_convex import THETAS, coupled_convex
from convexadam.discrete.inverse_consistency import make_inverse_consistent
from convexadam.errors import ConfigError
from convexadam.kernels.cost_volume import (
    feature_distances,
    fill_without_evidence,
    mean_over_neighbours,
    reverse_cost,
)
from convexadam.kernels.resize import nodes_to_voxels, pool


@final
@dataclass(frozen=True, kw_only=True)
class ConvexSearch:
    """Coupled-convex search over all displacements within ``radius`` cells of ``spacing`` voxels.

    Attributes
    ----------
    spacing
        Size of a cell: one number or one for each axis, in ``unit``.
    radius
        Largest displacement: in cells where ``unit`` is ``"voxel"``, in mm where it is ``"mm"``. One number or
        one for each axis.
    unit
        ``"voxel"`` or ``"mm"``, the unit of ``spacing`` (and of ``radius``, see there).
    subcell
        Refine each choice to a fraction of a cell by a parabola; the published search takes whole cells.
    inverse_consistency
        Iterations that make the forward and backward search agree; 0 searches forward only.
    thetas
        Coupling weights, in feature cost per squared cell.

    Raises
    ------
    ConfigError
        If a setting is out of range.

    Notes
    -----
    Siebert, Hansen, Heinrich, "Fast 3D registration with accurate optimisation and little learning for
    Learn2Reg 2021"; the steps are those of `coupled_convex` and `make_inverse_consistent`.
    """

    spacing: PerAxis = 6
    radius: PerAxis = 4
    unit: Unit = "voxel"
    subcell: bool = True
    inverse_consistency: int = 15
    thetas: tuple[float, ...] = THETAS

    def __post_init__(self) -> None:
        checked_unit(self.unit)
        least = 1.0 if self.unit == "voxel" else 1e-3
        whole = [*per_axis(self.spacing, "spacing", least=least), *per_axis(self.radius, "radius", least=least)]
        if self.unit == "voxel" and any(v != int(v) for v in whole):
            raise ConfigError(
                f"spacing and radius are whole numbers where the unit is 'voxel', but {self.spacing!r} and "
                f"{self.radius!r} came; round them, or set unit='mm'"
            )
        checked_count(self.inverse_consistency, "inverse_consistency")
        if not isinstance(self.thetas, tuple) or not isinstance(self.subcell, bool):
            raise ConfigError(f"thetas is a tuple and subcell a bool, but {self.thetas!r} and {self.subcell!r} came")
        for theta in self.thetas:
            checked_number(theta, "each of thetas")

    def nodes(self, shape: Triple, voxel_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> tuple[Triple, Triple]:
        """Cell size in voxels and search radius in cells, for a volume of ``shape`` with voxels of ``voxel_mm``."""
        spacing = spacing_in_voxels(self.spacing, self.unit, voxel_mm, shape)
        reach = per_axis(self.radius, "radius", least=0)
        if self.unit == "mm":
            i, j, k = (math.ceil(r / (s * mm) - 1e-6) for r, s, mm in zip(reach, spacing, voxel_mm, strict=True))
        else:
            i, j, k = (int(r) for r in reach)
        cells = [n // s for n, s in zip(shape, spacing, strict=True)]
        return spacing, (min(i, cells[0] - 1), min(j, cells[1] - 1), min(k, cells[2] - 1))

    def __call__(
        self,
        fixed: Channels,
        moving: Channels,
        *,
        fixed_weight: Volume | None = None,
        moving_weight: Volume | None = None,
        voxel_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
    ) -> Field:
        """Find a field that maps fixed to moving.

        Parameters
        ----------
        fixed, moving
            Features ``[c, i, j, k]`` of one shape, at full resolution.
        fixed_weight, moving_weight
            Evidence of each voxel, ``[i, j, k]``, not negative; 1 where ``None``.
        voxel_mm
            Size of a voxel; only used where ``unit`` is ``"mm"``.

        Returns
        -------
        Displacements ``[3, i, j, k]`` in voxels, at full resolution.
        """
        shape: Triple = (fixed.shape[1], fixed.shape[2], fixed.shape[3])
        spacing, radius = self.nodes(shape, voxel_mm)
        weights = _pooled_weight(fixed_weight, spacing), _pooled_weight(moving_weight, spacing)
        distances = feature_distances(
            pool(fixed, spacing, weight=fixed_weight), pool(moving, spacing, weight=moving_weight), radius
        )
        reverse = reverse_cost(distances) if self.inverse_consistency else None
        field = self._field(distances, *weights)
        if reverse is not None:
            backward = self._field(reverse, *reversed(weights))
            field, _ = make_inverse_consistent(field, backward, iterations=self.inverse_consistency)
        scale = torch.tensor(spacing, dtype=field.dtype, device=field.device).reshape(3, 1, 1, 1)
        return nodes_to_voxels(field * scale, spacing, shape)

    def _field(self, distances: Tensor, weight_here: Tensor | None, weight_there: Tensor | None) -> Field:
        """Displacements in cells from costs that are overwritten."""
        costs = mean_over_neighbours(distances, fixed_weight=weight_here, moving_weight=weight_there)
        return coupled_convex(fill_without_evidence(costs), thetas=self.thetas, subcell=self.subcell)


def _pooled_weight(weight: Volume | None, spacing: Triple) -> Tensor | None:
    return None if weight is None else pool(weight[None], spacing)[0]
