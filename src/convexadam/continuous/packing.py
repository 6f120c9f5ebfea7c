"""Features of a level in the form that its similarity compares."""

from __future__ import annotations

import dataclasses

from convexadam._typing import AxisWeights, Channels, Field, Guide, Triple
from convexadam.continuous.protocols import PacksFeatures, Similarity, Weights
from convexadam.kernels._device import release_memory
from convexadam.kernels.feature_level import FeatureLevel, complete_weight
from convexadam.kernels.resize import pool
from convexadam.kernels.warp_ssd import unpack


def pool_level(
    maps: tuple[Channels, Channels],
    weights: Weights,
    guide: Guide | None,
    spacing: Triple,
    restrict_deformation: AxisWeights,
) -> FeatureLevel:
    """Return features of full resolution, and what belongs to them, on control points ``spacing`` voxels apart."""
    fixed, moving = (pool(features, spacing, weight=w) for features, w in zip(maps, weights, strict=True))
    complete = [None if w is None else complete_weight(w, spacing) for w in weights]
    return FeatureLevel(
        fixed=fixed,
        moving=moving,
        fixed_weight=complete[0],
        moving_weight=complete[1],
        fixed_guide=None if guide is None else pool(guide, spacing),
        spacing=spacing,
        restrict_deformation=restrict_deformation,
    )


def pack_level(similarity: Similarity, extracted: list[FeatureLevel], start: Field) -> tuple[Similarity, FeatureLevel]:
    """Return the only level of a list, with what a similarity compares in place of its features, and how.

    The list is emptied, and so the features of an image are released once they are packed if nothing else keeps them.
    """
    level = extracted.pop()
    if not isinstance(similarity, PacksFeatures):
        return similarity, level
    maps = [unpack(level.fixed), unpack(level.moving)]
    nothing = maps[0].new_empty((0, *level.shape))
    level = dataclasses.replace(level, fixed=nothing, moving=nothing)
    release_memory()  # of the extraction
    compared, (fixed, moving) = similarity.pack(maps, start, level.weights)
    return compared, dataclasses.replace(level, fixed=fixed, moving=moving)
