"""Both images on the nodes of each stage, and the stages there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, final

import torch

from convexadam._typing import Channels, Field, Triple, Volume
from convexadam.continuous import Refinement
from convexadam.continuous.refine import whole_nodes
from convexadam.discrete import ConvexSearch, make_inverse_consistent
from convexadam.features import Features
from convexadam.geometry import DisplacementField, Grid, Image
from convexadam.geometry.resample import linear_part
from convexadam.kernels.resize import in_nodes, in_voxels, nodes_to_nodes, nodes_to_voxels, pool_weight
from convexadam.registration.config import RegistrationConfig
from convexadam.registration.inputs import checked_features

_NO_STAGE: Triple = (2, 2, 2)
"""Spacing at which similarity is measured where neither stage runs."""

BothWays: TypeAlias = tuple[Field, Field | None]
"""Displacements in nodes, fixed to moving and, where it is known, moving to fixed."""


@final
@dataclass(frozen=True, kw_only=True)
class Described:
    """Features and evidence of the fixed and the moving image, on nodes ``spacing`` voxels apart."""

    spacing: Triple
    features: tuple[Channels, Channels]
    weights: tuple[Volume | None, Volume | None]

    def still(self) -> Field:
        """No displacement: zeros ``[3, i, j, k]``."""
        return torch.zeros_like(self.features[0][:1]).expand(3, -1, -1, -1).contiguous()

    def swapped(self) -> Described:
        """Return the other way round: the moving image as the fixed one."""
        (fixed, moving), (here, there) = self.features, self.weights
        return Described(spacing=self.spacing, features=(moving, fixed), weights=(there, here))


@final
@dataclass(frozen=True, kw_only=True)
class Subject:
    """Both images on the working grid, with their evidence, to be described at any spacing."""

    config: RegistrationConfig
    images: tuple[Image, Image]
    weights: tuple[Volume | None, Volume | None]

    @property
    def grid(self) -> Grid:
        """The working grid."""
        return self.images[0].grid

    def first(self) -> tuple[list[Described], Described | None]:
        """Describe the images for all searches and, where that takes no pass of its own, for the refinement.

        Without a search they are described for the first level of the refinement, or without that for none.
        """
        cells, nodes = search_spacings(self.config, self.grid), refine_spacings(self.config, self.grid)
        if nodes and not cells:
            return [], self.refined(0)
        together = nodes if len(nodes) == 1 and self._compared == self.config.features else []
        cells = cells or [_smallest(_NO_STAGE, self.grid.shape)]
        every = tuple(dict.fromkeys([*cells, *together]))
        found = checked_features(self.config.features, self.images, self.weights, every)
        features = dict(zip(every, found, strict=True))
        coarse = [self._with(features[spacing], spacing, pool_weight) for spacing in cells]
        return coarse, self._with(features[together[0]], together[0], whole_nodes) if together else None

    def refined(self, number: int) -> Described:
        """Describe the images for one level of the refinement."""
        spacing = refine_spacings(self.config, self.grid)[number]
        features = checked_features(self._compared, self.images, self.weights, (spacing,))
        return self._with(features[0], spacing, whole_nodes)

    @property
    def _compared(self) -> Features:
        return self.config.continuous_features or self.config.features

    def _with(
        self, features: tuple[Channels, Channels], spacing: Triple, pooled: Callable[[Volume, Triple], Volume | None]
    ) -> Described:
        fixed, moving = (None if w is None else pooled(w, spacing) for w in self.weights)
        return Described(spacing=spacing, features=features, weights=(fixed, moving))


def search_spacings(config: RegistrationConfig, grid: Grid) -> list[Triple]:
    """Size of each search's cells in voxels."""
    return [search.nodes(grid.shape, grid.spacing_mm)[0] for search in config.searches]


def refine_spacings(config: RegistrationConfig, grid: Grid) -> list[Triple]:
    """Distance of the nodes of each of the refinement's levels in voxels."""
    return [] if config.continuous is None else list(config.continuous.nodes(grid.shape, grid.spacing_mm))


def _smallest(spacing: Triple, shape: Triple) -> Triple:
    i, j, k = (min(s, n) for s, n in zip(spacing, shape, strict=True))
    return i, j, k


def comparable(level: Described) -> bool:
    """Whether both images have contrast; without it nothing tells where to move."""
    return not any(_is_flat(f, w) for f, w in zip(level.features, level.weights, strict=True))


def searched(search: ConvexSearch, level: Described, start: BothWays | None, grid: Grid) -> BothWays:
    """Displacements in cells, from a start in cells."""
    _, radius = search.nodes(grid.shape, grid.spacing_mm)
    fixed, moving = level.weights
    return search.on_cells(*level.features, radius, fixed_weight=fixed, moving_weight=moving, start=start)


def refined(config: RegistrationConfig, number: int, level: Described, start: BothWays) -> BothWays:
    """Displacements in nodes of a level, from a start in nodes; inverse of each other if the settings ask for it."""
    refine = config.continuous
    if refine is None:
        return start

    def one_way(seen: Described, begin: Field) -> Field:
        fixed, moving = seen.weights
        return refine.on_nodes(*seen.features, level=number, start=begin, fixed_weight=fixed, moving_weight=moving)

    forward, backward = start
    if backward is None:
        return one_way(level, forward), None
    return make_inverse_consistent(one_way(level, forward), one_way(level.swapped(), backward))


def on_level(fields: BothWays, before: Triple, after: Triple, shape: Triple) -> BothWays:
    """Bring displacements in nodes from one spacing to another."""
    if before == after:
        return fields
    forward, backward = (
        None if f is None else in_nodes(nodes_to_nodes(in_voxels(f, before), before, after, shape), after)
        for f in fields
    )
    assert forward is not None
    return forward, backward


def in_mm(refine: Refinement | None, nodes: Field, spacing: Triple, grid: Grid) -> DisplacementField:
    """Return the transform on the voxels of the grid, from displacements in nodes."""
    nodes_mm = linear_part(grid.affine, in_voxels(nodes, spacing))  # while they are few
    if refine is not None:
        return DisplacementField(refine.on_voxels(nodes_mm, spacing, grid.shape), grid)
    return DisplacementField(nodes_to_voxels(nodes_mm, spacing, grid.shape), grid)


def _is_flat(features: Channels, weight: Volume | None) -> bool:
    """Whether a feature map is the same wherever there is evidence, up to the rounding of an average."""
    low = high = features
    if weight is not None:
        low, high = (features.masked_fill(weight <= 0, value) for value in (torch.inf, -torch.inf))
    low, high = low.amin((1, 2, 3)), high.amax((1, 2, 3))
    return bool((high - low <= 1e-6 * torch.maximum(high.abs(), low.abs())).all())
