"""Features of a level in the form that its similarity compares."""

from __future__ import annotations

import dataclasses

from convexadam._typing import Field
from convexadam.continuous.protocols import PacksFeatures, Similarity
from convexadam.kernels.feature_level import FeatureLevel
from convexadam.kernels.warp_ssd import unpack


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
    compared, (fixed, moving) = similarity.pack(maps, start, level.weights)
    return compared, dataclasses.replace(level, fixed=fixed, moving=moving)
