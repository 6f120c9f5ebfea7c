"""Both images on the working grid, and their features on the control points of each stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import final

import torch

from convexadam._typing import AxisWeights, Channels, Float, Guide, Tensor, Triple, Volume
from convexadam.continuous.protocols import prefers_channels_last
from convexadam.errors import ConfigError
from convexadam.features import Extractor, FeatureInput, Intensity, extract_features
from convexadam.geometry import Grid, Image
from convexadam.geometry.grid import restrict_to_slice
from convexadam.kernels.feature_level import (
    FeatureLevel,
    FeatureRange,
    ForwardBackward,
    complete_weight,
    compute_ranges,
    largest_value,
    measure_ranges,
    read_ranges,
)
from convexadam.kernels.resize import pool_weight, scale_to_voxels
from convexadam.kernels.warp import identity_positions, sample_nearest
from convexadam.kernels.warp_ssd import FeatureMap, pack_features
from convexadam.registration.checks import Checks
from convexadam.registration.config import RegistrationConfig
from convexadam.registration.inputs import ImagePair, check_features, extract_pair
from convexadam.registration.landmarks import WorkingLandmarks
from convexadam.registration.memo import Memo

_DIAGNOSTIC_SPACING: Triple = (2, 2, 2)
"""Spacing at which the similarity is measured if no stage runs."""


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class WorkingPair:
    """Both images on the working grid, with what belongs to them.

    Attributes
    ----------
    config
        The settings.
    images
        Fixed image, and moving image seen through the linear alignment.
    weights
        Of each voxel, ``[i, j, k]``; ``None`` for 1 everywhere.
    segmentations
        What features compare beside the images.
    sliding_regions, volume_preserving_mask
        Labels and weights of the fixed image, ``[i, j, k]``.
    landmarks
        In voxels.
    memo
        What depends on the fixed image and the settings alone.
    checks
        Of the features, as far as they wait.
    search_start
        Displacements around which the first search begins, at any spacing; ``None`` for zero.
    extracted
        Both maps of ``config.features`` at the spacings that the refinement has in common with the searches, until it
        takes them.
    """

    config: RegistrationConfig
    images: tuple[Image, Image]
    weights: tuple[Volume | None, Volume | None]
    segmentations: ImagePair = (None, None)
    sliding_regions: Volume | None = None
    volume_preserving_mask: Volume | None = None
    landmarks: WorkingLandmarks | None = None
    memo: Memo | None = None
    checks: Checks = field(default_factory=Checks)
    search_start: ForwardBackward | None = None
    extracted: dict[Triple, tuple[Channels, Channels]] = field(default_factory=dict)

    @property
    def grid(self) -> Grid:
        """The working grid."""
        return self.images[0].grid

    def extract(self) -> tuple[Iterator[FeatureLevel], FeatureLevel | None]:
        """Extract the features of all searches and, if it takes no second pass, of the only level of the refinement.

        Without a search, the first ones are those of the refinement's first level; without a refinement either, those
        of the diagnostics. The iterator releases each level as it moves on.
        """
        searches, levels = search_spacings(self.config, self.grid), refinement_spacings(self.config, self.grid)
        if levels and not searches:
            first = self.extract_refinement(0)
            return iter([first]), first
        shared = levels if len(levels) == 1 and self._refinement_extractor == self.config.features else []
        searches = searches or [fit_spacing(_DIAGNOSTIC_SPACING, self.grid.shape)]
        every = tuple(dict.fromkeys([*searches, *shared]))
        maps = dict(zip(every, extract_pair(self.config.features, self._inputs, every, self.memo), strict=True))
        if not shared:
            self.extracted.update((spacing, maps[spacing]) for spacing in set(searches).intersection(levels))
        coarse = [self._level(maps[spacing], spacing, pool_weight) for spacing in searches]
        fine = self._refinement_level(self._pack(list(maps.pop(shared[0]))), 0) if shared else None
        return _release_in_order(self._measure(coarse, fine)), fine

    def release_images(self) -> WorkingPair:
        """Return the pair without weights, and with images of one undefined value: when all features are extracted."""
        fixed, moving = (Image(image.data.new_empty(()).expand(image.data.shape), image.grid) for image in self.images)
        return replace(self, images=(fixed, moving), weights=(None, None), segmentations=(None, None))

    def extract_refinement(self, number: int) -> FeatureLevel:
        """Extract the features of one level of the refinement."""
        spacing = refinement_spacings(self.config, self.grid)[number]
        maps = list(extract_pair(self._refinement_extractor, self._inputs, (spacing,), self.memo).pop())
        self.extracted.pop(spacing, None)
        level, extractor = self._refinement_level(self._pack(maps), number), self._refinement_extractor
        self.checks.add(largest_value(level).reshape(1), lambda found: check_features(extractor, found[0]))
        return level

    def _pack(self, maps: list[Channels]) -> tuple[FeatureMap, FeatureMap]:
        """Return the features of a level of the refinement as its similarity needs them; empties the list."""
        refine = self.config.continuous
        if refine is not None and prefers_channels_last(refine.similarity):
            return pack_features(maps)  # the similarity would copy both, and keep the originals
        return maps.pop(0), maps.pop()

    def _measure(self, levels: list[FeatureLevel], fine: FeatureLevel | None) -> list[FeatureLevel]:
        """Return levels that know their range, after a check that features can be compared; as they are if it waits."""
        others, extractor = [] if fine is None else [fine], self.config.features
        if self.checks.recording:
            count = len(levels)

            def check(numbers: list[float]) -> None:
                ranges = _check_ranges(extractor, read_ranges(numbers, count))
                if not all(found.contrast and found.weighted and found.overlap for found in ranges):
                    raise NotReplayableError

            self.checks.add(compute_ranges(levels, others), check)
            return levels
        ranges = _check_ranges(extractor, measure_ranges(levels, others))
        return [replace(level, known_range=found) for level, found in zip(levels, ranges, strict=True)]

    @property
    def _refinement_extractor(self) -> Extractor:
        return self.config.continuous_features or self.config.features

    @property
    def _inputs(self) -> tuple[FeatureInput, FeatureInput]:
        extractor = self.config.features
        fixed, moving = (
            FeatureInput(
                image=self.images[n],
                weight=self.weights[n],
                segmentation=self.segmentations[n],
                known=tuple((extractor, spacing, maps[n]) for spacing, maps in self.extracted.items()),
            )
            for n in range(2)
        )
        return fixed, moving

    def _refinement_level(self, features: tuple[FeatureMap, FeatureMap], number: int) -> FeatureLevel:
        spacing = refinement_spacings(self.config, self.grid)[number]
        return self._level(features, spacing, complete_weight, self._guides(number, spacing))

    def _guides(self, number: int, spacing: Triple) -> tuple[Guide | None, Guide | None]:
        """Return what an edge-preserving smoothing is guided by: regions, or intensities relative to their range."""
        config = self.config
        if config.continuous is None or not config.continuous.needs_guide(number):
            return None, None
        if self.sliding_regions is not None:
            return _sample_labels(self.sliding_regions, spacing), None
        fixed, moving = (
            extract_features(Intensity(), image, (spacing,), weight=weight)[0]
            for image, weight in zip(self.images, self.weights, strict=True)
        )
        return fixed, moving if config.symmetric else None

    def _level(
        self,
        features: tuple[FeatureMap, FeatureMap],
        spacing: Triple,
        pool_weight: Callable[[Volume, Triple], Volume | None],
        guides: tuple[Guide | None, Guide | None] = (None, None),
    ) -> FeatureLevel:
        fixed_weight, moving_weight = (None if w is None else pool_weight(w, spacing) for w in self.weights)
        reverse = None if self.landmarks is None else self.landmarks.swap()
        return FeatureLevel(
            fixed=features[0],
            moving=features[1],
            fixed_weight=fixed_weight,
            moving_weight=moving_weight,
            fixed_guide=guides[0],
            moving_guide=guides[1],
            landmarks=None if self.landmarks is None else self.landmarks.to_control_points(spacing),
            reverse_landmarks=None if reverse is None else reverse.to_control_points(spacing),
            spacing=spacing,
            restrict_deformation=axis_weights(self.config, self.grid),
        )


class NotReplayableError(Exception):
    """A pair without contrast or overlap, of which the host has to decide before the search."""


def search_spacings(config: RegistrationConfig, grid: Grid) -> list[Triple]:
    """Spacing of each search's control points in voxels."""
    return [search.control_grid(grid.shape, grid.spacing_mm)[0] for search in config.searches]


def refinement_spacings(config: RegistrationConfig, grid: Grid) -> list[Triple]:
    """Spacing of the control points of each level of the refinement in voxels."""
    refine = config.continuous
    return [] if refine is None else list(refine.control_point_spacings(grid.shape, grid.spacing_mm))


def axis_weights(config: RegistrationConfig, grid: Grid) -> AxisWeights:
    """Return the weights of motion along the axes of a grid in R, A, S order; 0 across the slice of a 2-D image."""
    weights = restrict_to_slice(config.restrict_deformation, grid)
    if not any(weights):
        raise ConfigError(
            "restrict_deformation must leave an axis in the plane of a 2-D image free, got "
            f"{config.restrict_deformation} for {grid!r}; set another weight above 0"
        )
    return weights


def fit_spacing(spacing: Triple, shape: Triple) -> Triple:
    """Return a spacing that does not exceed the volume."""
    i, j, k = (min(s, n) for s, n in zip(spacing, shape, strict=True))
    return i, j, k


def _check_ranges(extractor: Extractor, ranges: list[FeatureRange]) -> list[FeatureRange]:
    for found in ranges:  # one by one: the largest of several numbers need not be the one that is NaN
        check_features(extractor, found.largest)
    return ranges


def _release_in_order(levels: list[FeatureLevel]) -> Iterator[FeatureLevel]:
    """Yield levels, and drop each: the features of several searches need not be in memory at once."""
    while levels:
        yield levels.pop(0)


def _sample_labels(labels: Volume, spacing: Triple) -> Float[Tensor, "1 a b d"]:
    """Labels of the voxels nearest to the control points; averages of labels would be other labels."""
    n0, n1, n2 = (n // s for n, s in zip(labels.shape, spacing, strict=True))
    like = torch.empty(0, dtype=torch.float32, device=labels.device)
    centres = [(s - 1) / 2 for s in spacing]
    first = torch.tensor(centres, dtype=torch.float32, device=labels.device).reshape(3, 1, 1, 1)
    return sample_nearest(labels[None], scale_to_voxels(identity_positions((n0, n1, n2), like=like), spacing) + first)
