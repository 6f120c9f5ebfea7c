"""Both images on the nodes of each stage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch

from convexadam._typing import Channels, Field, Float, Guide, Tensor, Triple, Volume
from convexadam.continuous import Ssd
from convexadam.continuous.refine import whole_nodes
from convexadam.features import Extractor, Intensity, Scan, pooled_features
from convexadam.geometry import Grid, Image
from convexadam.kernels.pairs import Pairs
from convexadam.kernels.resize import in_voxels, pool_weight
from convexadam.kernels.warp import identity_positions, sample_nearest
from convexadam.kernels.warp_ssd import as_compared
from convexadam.registration.config import RegistrationConfig
from convexadam.registration.guide import PlacedGuide
from convexadam.registration.inputs import checked_features

_NO_STAGE: Triple = (2, 2, 2)
"""Spacing at which similarity is measured where neither stage runs."""


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
        cells = cells or [fitting(_NO_STAGE, self.grid.shape)]
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


def fitting(spacing: Triple, shape: Triple) -> Triple:
    """Return a spacing that is no larger than the volume."""
    i, j, k = (min(s, n) for s, n in zip(spacing, shape, strict=True))
    return i, j, k


def comparable(level: Described) -> bool:
    """Whether both images have contrast; without it nothing tells where to move."""
    return not any(_is_flat(f, w) for f, w in zip(level.features, level.weights, strict=True))


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
