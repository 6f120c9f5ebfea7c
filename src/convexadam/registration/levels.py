"""Both images on the nodes of each stage, and the stages there."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, final

import torch

from convexadam._typing import Channels, Field, Float, Guide, Tensor, Triple, Volume
from convexadam.continuous import Refinement, Ssd, volume_mask
from convexadam.continuous.guide import PairCost
from convexadam.continuous.problem import mean_curvature
from convexadam.continuous.refine import whole_nodes
from convexadam.discrete import ConvexSearch, make_inverse_consistent, opposite
from convexadam.features import Extractor, Intensity, Scan, pooled_features
from convexadam.geometry import DisplacementField, Grid, Image
from convexadam.geometry.resample import linear_part
from convexadam.kernels.pairs import Pairs
from convexadam.kernels.resize import in_nodes, in_voxels, nodes_to_nodes, nodes_to_voxels, pool_weight
from convexadam.kernels.warp import identity_positions, sample_linear, sample_nearest
from convexadam.kernels.warp_ssd import as_compared
from convexadam.registration.config import RegistrationConfig
from convexadam.registration.guide import PlacedGuide
from convexadam.registration.inputs import checked_features

_NO_STAGE: Triple = (2, 2, 2)
"""Spacing at which similarity is measured where neither stage runs."""

BothWays: TypeAlias = tuple[Field, Field | None]
"""Displacements in nodes, fixed to moving and, where it is known, moving to fixed."""


@final
@dataclass(frozen=True, kw_only=True)
class Described:
    """Features, evidence and edges of the fixed and the moving image, on nodes ``spacing`` voxels apart; landmarks."""

    spacing: Triple
    features: tuple[Channels, Channels]
    weights: tuple[Volume | None, Volume | None]
    edges: tuple[Guide | None, Guide | None] = (None, None)
    guide: PlacedGuide | None = None

    @property
    def shape(self) -> Triple:
        """Nodes along each axis."""
        i, j, k = self.features[0].shape[1:]
        return i, j, k

    def still(self) -> Field:
        """No displacement: zeros ``[3, i, j, k]``."""
        return torch.zeros_like(self.features[0][:1]).expand(3, -1, -1, -1).contiguous()

    def swapped(self) -> Described:
        """Return the other way round: the moving image as the fixed one."""
        (fixed, moving), (here, there) = self.features, self.weights
        guide = None if self.guide is None else self.guide.swapped()
        return Described(
            spacing=self.spacing,
            features=(moving, fixed),
            weights=(there, here),
            edges=self.edges[::-1],
            guide=guide,
        )

    @property
    def pairs(self) -> Pairs | None:
        """The landmarks on the nodes, fixed to moving."""
        return None if self.guide is None else self.guide.on_nodes(self.spacing)


@final
@dataclass(frozen=True, kw_only=True)
class Subject:
    """Both images on the working grid, with their evidence and landmarks, to be described at any spacing.

    There may be ``labels`` of both to be compared. Of the fixed image there may be ``regions`` that slide along each
    other (labels), and a soft mask of what is to be ``kept`` in volume.
    """

    config: RegistrationConfig
    images: tuple[Image, Image]
    weights: tuple[Volume | None, Volume | None]
    labels: tuple[Image | None, Image | None] = (None, None)
    regions: Volume | None = None
    kept: Volume | None = None
    guide: PlacedGuide | None = None

    @property
    def grid(self) -> Grid:
        """The working grid."""
        return self.images[0].grid

    @property
    def scans(self) -> tuple[Scan, Scan]:
        """What is known of the fixed and of the moving image."""
        fixed, moving = (
            Scan(image=image, weight=weight, labels=labels)
            for image, weight, labels in zip(self.images, self.weights, self.labels, strict=True)
        )
        return fixed, moving

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
        found = checked_features(self.config.features, self.scans, every)
        features = dict(zip(every, found, strict=True))
        coarse = [self._with(features[spacing], spacing, pool_weight) for spacing in cells]
        return coarse, self._level(features[together[0]], 0) if together else None

    def refined(self, number: int) -> Described:
        """Describe the images for one level of the refinement."""
        spacing = refine_spacings(self.config, self.grid)[number]
        maps = list(checked_features(self._compared, self.scans, (spacing,))[0])
        if self.config.continuous is not None and isinstance(self.config.continuous.similarity, Ssd):
            for n in range(2):  # as it compares them: else there would soon be another copy of each
                maps[n] = as_compared(maps[n])
        return self._level((maps[0], maps[1]), number)

    def _level(self, features: tuple[Channels, Channels], number: int) -> Described:
        spacing = refine_spacings(self.config, self.grid)[number]
        return self._with(features, spacing, whole_nodes, self._edges(number))

    @property
    def _compared(self) -> Extractor:
        return self.config.continuous_features or self.config.features

    def _edges(self, number: int) -> tuple[Guide | None, Guide | None]:
        """Return what a level's smoothing stops at: regions, or intensities in shares of their range."""
        config = self.config
        if config.continuous is None or not config.continuous.guided(number):
            return None, None
        spacing = refine_spacings(config, self.grid)[number]
        if self.regions is not None:
            return _at_nodes(self.regions, spacing), None
        fixed, moving = (
            pooled_features(Intensity(), image, (spacing,), weight=weight)[0]
            for image, weight in zip(self.images, self.weights, strict=True)
        )
        return fixed, moving if config.symmetric else None

    def _with(
        self,
        features: tuple[Channels, Channels],
        spacing: Triple,
        pooled: Callable[[Volume, Triple], Volume | None],
        edges: tuple[Guide | None, Guide | None] = (None, None),
    ) -> Described:
        fixed, moving = (None if w is None else pooled(w, spacing) for w in self.weights)
        return Described(spacing=spacing, features=features, weights=(fixed, moving), edges=edges, guide=self.guide)


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
    pairs = level.pairs, level.swapped().pairs
    return search.on_cells(*level.features, radius, fixed_weight=fixed, moving_weight=moving, start=start, pairs=pairs)


def refined_throughout(
    subject: Subject, start: BothWays, before: Triple, first: Described | None
) -> tuple[Described, BothWays]:
    """Refine on all levels, twice where what changes volume is to be found first.

    Returns the last level and displacements in its nodes, from a start in nodes ``before`` voxels apart; ``first`` is
    the first level, if it is described already.
    """
    config, shape = subject.config, subject.grid.shape
    assert config.continuous is not None
    if subject.kept is None and config.continuous.keeps_conspicuous:
        free = dataclasses.replace(config, continuous=config.continuous.free())
        level, (found, _) = refined_throughout(dataclasses.replace(subject, config=free), start, before, first)
        mask = volume_mask(found, mask=level.weights[0])[None]
        subject = dataclasses.replace(subject, kept=nodes_to_voxels(mask, level.spacing, shape)[0])
    level, fields = first or subject.refined(0), start
    for number in range(len(config.continuous.levels)):
        level = subject.refined(number) if number else level
        kept = pool_weight(subject.kept, level.spacing)
        fields = refined(config, number, level, on_level(fields, before, level.spacing, shape), kept)
        before = level.spacing
    return level, fields


def refined(
    config: RegistrationConfig, number: int, level: Described, start: BothWays, kept: Volume | None = None
) -> BothWays:
    """Displacements in nodes of a level, from a start in nodes; inverse of each other if the settings ask for it.

    What is known of the fixed image alone, the moving image sees through the start.
    """
    refine = config.continuous
    if refine is None:
        return start

    def one_way(seen: Described, begin: Field, kept: Volume | None) -> Field:
        fixed, moving = seen.weights
        return refine.on_nodes(
            *seen.features,
            level=number,
            start=begin,
            fixed_weight=fixed,
            moving_weight=moving,
            costs=_guiding(refine, seen, begin),
            guide=seen.edges[0],
            soft_mask=kept,
        )

    forward, backward = start
    if not config.symmetric or refine.levels[number].one_way:
        return one_way(level, forward, kept), None
    backward = opposite(forward) if backward is None else backward
    swapped, kept_there = level.swapped(), None
    edges_of_fixed = level.edges[0] if level.edges[1] is None else None
    if kept is not None or edges_of_fixed is not None:
        seen = identity_positions(level.shape, like=backward) + backward
        kept_there = None if kept is None else sample_linear(kept[None], seen)[0]
        if edges_of_fixed is not None:
            swapped = dataclasses.replace(swapped, edges=(sample_nearest(edges_of_fixed, seen), None))
    return make_inverse_consistent(one_way(level, forward, kept), one_way(swapped, backward, kept_there))


def _guiding(refine: Refinement, level: Described, start: Field) -> list[PairCost]:
    """Landmarks as costs, on the scale of the similarity as the level begins."""
    pairs = level.pairs
    if pairs is None:
        return []
    comparison = refine.similarity.begin(*level.features, start, level.weights)
    return [PairCost(pairs, start, curvature=mean_curvature(comparison, start))]


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


def _at_nodes(labels: Volume, spacing: Triple) -> Float[Tensor, "1 a b d"]:
    """Labels of the voxels nearest to the nodes, as numbers: means of labels would be other labels."""
    n0, n1, n2 = (n // s for n, s in zip(labels.shape, spacing, strict=True))
    like = torch.empty(0, device=labels.device)
    centres = [(s - 1) / 2 for s in spacing]
    first = torch.tensor(centres, device=labels.device).reshape(3, 1, 1, 1)
    return sample_nearest(labels[None], in_voxels(identity_positions((n0, n1, n2), like=like), spacing) + first)


def _is_flat(features: Channels, weight: Volume | None) -> bool:
    """Whether a feature map is the same wherever there is evidence, up to the rounding of an average."""
    low = high = features
    if weight is not None:
        low, high = (features.masked_fill(weight <= 0, value) for value in (torch.inf, -torch.inf))
    low, high = low.amin((1, 2, 3)), high.amax((1, 2, 3))
    return bool((high - low <= 1e-6 * torch.maximum(high.abs(), low.abs())).all())
