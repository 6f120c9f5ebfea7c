"""The discrete stage: cost volume, coupled convex optimisation, inverse consistency."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, final

import torch

from convexadam._axes import Unit, checked_count, checked_number, checked_unit, per_axis, spacing_in_voxels
from convexadam._typing import Channels, Field, PerAxis, Triple, Volume
from convexadam.discrete.coupled_convex import THETAS, coupled_convex
from convexadam.discrete.guide import add_pairs
from convexadam.discrete.inverse_consistency import make_inverse_consistent, opposite
from convexadam.errors import ConfigError
from convexadam.kernels import backend_for
from convexadam.kernels._precision import full_precision
from convexadam.kernels.cost_volume import Window, cost_volume
from convexadam.kernels.pairs import Pairs
from convexadam.kernels.resize import in_voxels, nodes_to_voxels, pool, pool_weight
from convexadam.kernels.warp import add_step, identity_positions, sample_linear
from convexadam.kernels.warp_ssd import evidence_under

_ROOT_OF_LARGEST_COST = 128.0
"""Costs stay below its square, well within float16."""


_AT_ONCE = 4
"""Channels that are moved together."""


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
    window
        ``"box"`` tries all displacements up to ``radius`` along each axis, as published; ``"ball"`` leaves out the
        corners, which more than halves their number.
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
    window: Literal["box", "ball"] = "box"
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
        if self.window not in ("box", "ball"):
            raise ConfigError(f"window is 'box' or 'ball', but {self.window!r} came")
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

    @full_precision
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
        cells, _ = self.on_cells(
            pool(fixed, spacing, weight=fixed_weight),
            pool(moving, spacing, weight=moving_weight),
            radius,
            fixed_weight=pool_weight(fixed_weight, spacing),
            moving_weight=pool_weight(moving_weight, spacing),
        )
        return nodes_to_voxels(in_voxels(cells, spacing), spacing, shape)

    @full_precision
    def on_cells(
        self,
        fixed: Channels,
        moving: Channels,
        radius: Triple,
        *,
        fixed_weight: Volume | None = None,
        moving_weight: Volume | None = None,
        start: tuple[Field, Field | None] | None = None,
        pairs: tuple[Pairs | None, Pairs | None] = (None, None),
    ) -> tuple[Field, Field | None]:
        """Find a field on the cells.

        Parameters
        ----------
        fixed, moving
            Features ``[c, i, j, k]`` of the cells, pooled.
        radius
            Largest displacement along each axis, in cells.
        fixed_weight, moving_weight
            Evidence of each cell, pooled; 1 where ``None``.
        start
            What an earlier search found, forward and backward, ``[3, i, j, k]`` in these cells: the search goes on
            from there, up to ``radius`` further. Without the second, backward goes on from the opposite of the first.
        pairs
            Corresponding points that guide the search forward and backward, on these cells.

        Returns
        -------
        Displacements ``[3, i, j, k]`` in cells, forward (fixed to moving) and backward; the second is ``None`` without
        ``inverse_consistency``.
        """
        ahead, back = (None, None) if start is None else start
        here, there = (fixed, fixed_weight), (moving, moving_weight)
        forward = self._one_way(here, there, radius, ahead, pairs[0])
        if not self.inverse_consistency:
            return forward, None
        if ahead is not None and back is None:
            back = opposite(ahead)
        backward = self._one_way(there, here, radius, back, pairs[1])
        return make_inverse_consistent(forward, backward, iterations=self.inverse_consistency)

    def _one_way(
        self,
        here: tuple[Channels, Volume | None],
        there: tuple[Channels, Volume | None],
        radius: Triple,
        start: Field | None,
        pairs: Pairs | None,
    ) -> Field:
        """Search from one map in another, as it is or as a start brings it."""
        window, gain = Window(radius, ball=self.window == "ball"), _gain(here[0], there[0])
        half = backend_for(*here, *there) != "reference"
        other = there if start is None else _moved(*there, start)
        costs = cost_volume(
            here[0] * gain,
            other[0] * gain,
            window,
            fixed_weight=here[1],
            moving_weight=other[1],
            dtype=torch.float16 if half else None,
        )
        if pairs is not None:
            add_pairs(costs, window, pairs if start is None else pairs.after(start))
        found = coupled_convex(
            costs, window, thetas=tuple(theta * gain**2 for theta in self.thetas), subcell=self.subcell
        )
        return found if start is None else add_step(start, found)


def _moved(features: Channels, weight: Volume | None, displacement: Field) -> tuple[Channels, Volume]:
    """Features and evidence as a displacement brings them, a few channels at a time."""
    shape: Triple = (features.shape[1], features.shape[2], features.shape[3])
    positions = displacement + identity_positions(shape, like=displacement)
    moved = torch.empty_like(features)
    for first in range(0, len(features), _AT_ONCE):
        moved[first : first + _AT_ONCE] = sample_linear(features[first : first + _AT_ONCE].contiguous(), positions)
    return moved, evidence_under(displacement, None, weight)


def _gain(fixed: Channels, moving: Channels) -> float:
    """Power of two to multiply features by, so that costs fill the range of float16; scaling by it is exact.

    Costs and coupling weights grow by its square: the same displacements are chosen.
    """
    ends = [torch.stack([f.flatten(1).amin(1), f.flatten(1).amax(1)]) for f in (fixed, moving)]
    span = torch.maximum(ends[0][1], ends[1][1]) - torch.minimum(ends[0][0], ends[1][0])
    largest = float(span.double().square().sum().sqrt())
    return 2.0 ** math.floor(math.log2(_ROOT_OF_LARGEST_COST / largest)) if largest > 0 else 1.0
