"""Both images on the nodes of each stage: all that the stages see of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch

from convexadam._typing import Channels, Field, Triple, Volume
from convexadam.continuous import AdamRefinement
from convexadam.continuous.refine import whole_nodes
from convexadam.discrete import ConvexSearch
from convexadam.geometry import DisplacementField, Grid, Image
from convexadam.geometry.resample import linear_part
from convexadam.kernels.resize import in_nodes, in_voxels, nodes_to_nodes, nodes_to_voxels, pool_weight
from convexadam.registration.config import RegistrationConfig
from convexadam.registration.inputs import checked_features

_NO_STAGE: Triple = (2, 2, 2)
"""Spacing at which similarity is measured where neither stage runs."""


@final
@dataclass(frozen=True, kw_only=True)
class Level:
    """Features and evidence of the fixed and the moving image, on nodes ``spacing`` voxels apart."""

    spacing: Triple
    features: tuple[Channels, Channels]
    weights: tuple[Volume | None, Volume | None]

    def still(self) -> Field:
        """No displacement: zeros ``[3, i, j, k]``."""
        return torch.zeros_like(self.features[0][:1]).expand(3, -1, -1, -1).contiguous()


def described(
    config: RegistrationConfig, images: tuple[Image, Image], weights: tuple[Volume | None, Volume | None]
) -> tuple[Level, Level]:
    """Describe both images for the search and for the refinement; where a stage is left out, as for the other one."""
    grid = images[0].grid
    coarse, fine = spacings(config, grid)
    wanted = (coarse,) if coarse == fine else (coarse, fine)
    features = checked_features(config.features, images, weights, wanted)
    here, there = weights
    cells = pool_weight(here, coarse), pool_weight(there, coarse)
    nodes = _whole(here, fine), _whole(there, fine)
    return (
        Level(spacing=coarse, features=features[0], weights=cells),
        Level(spacing=fine, features=features[-1], weights=cells if config.continuous is None else nodes),
    )


def spacings(config: RegistrationConfig, grid: Grid) -> tuple[Triple, Triple]:
    """Distance of the search's and of the refinement's nodes in voxels."""
    search, refine = config.discrete, config.continuous
    coarse = None if search is None else search.nodes(grid.shape, grid.spacing_mm)[0]
    fine = None if refine is None else refine.nodes(grid.shape, grid.spacing_mm)
    i, j, k = (min(s, n) for s, n in zip(_NO_STAGE, grid.shape, strict=True))
    return coarse or fine or (i, j, k), fine or coarse or (i, j, k)


def comparable(level: Level) -> bool:
    """Whether both images have contrast; without it nothing tells where to move."""
    return not any(_is_flat(f, w) for f, w in zip(level.features, level.weights, strict=True))


def searched(search: ConvexSearch | None, level: Level, grid: Grid) -> Field | None:
    """Displacements in cells, or ``None`` without a search."""
    if search is None:
        return None
    _, radius = search.nodes(grid.shape, grid.spacing_mm)
    fixed, moving = level.weights
    return search.on_cells(*level.features, radius, fixed_weight=fixed, moving_weight=moving)


def refined(
    refine: AdamRefinement | None, level: Level, cells: Field | None, cell_spacing: Triple, grid: Grid
) -> Field:
    """Displacements in the nodes of ``level``, from a start in cells (``None``: from zero)."""
    if cells is None:
        start = level.still()
    elif refine is None:
        return cells
    else:
        in_grid = nodes_to_nodes(in_voxels(cells, cell_spacing), cell_spacing, level.spacing, grid.shape)
        start = in_nodes(in_grid, level.spacing)
    if refine is None:
        return start
    fixed, moving = level.weights
    return refine.on_nodes(*level.features, start=start, fixed_weight=fixed, moving_weight=moving)


def in_mm(refine: AdamRefinement | None, nodes: Field, spacing: Triple, grid: Grid) -> DisplacementField:
    """Return the transform on the voxels of the grid, from displacements in nodes."""
    nodes_mm = linear_part(grid.affine, in_voxels(nodes, spacing))  # while they are few
    if refine is not None:
        return DisplacementField(refine.on_voxels(nodes_mm, spacing, grid.shape), grid)
    return DisplacementField(nodes_to_voxels(nodes_mm, spacing, grid.shape), grid)


def _whole(weight: Volume | None, spacing: Triple) -> Volume | None:
    return None if weight is None else whole_nodes(weight, spacing)


def _is_flat(features: Channels, weight: Volume | None) -> bool:
    """Whether a feature map is the same wherever there is evidence, up to the rounding of an average."""
    low = high = features
    if weight is not None:
        low, high = (features.masked_fill(weight <= 0, value) for value in (torch.inf, -torch.inf))
    low, high = low.amin((1, 2, 3)), high.amax((1, 2, 3))
    return bool((high - low <= 1e-6 * torch.maximum(high.abs(), low.abs())).all())
