"""How much memory a registration takes, before it runs."""

from __future__ import annotations

import ctypes
import math
import sys

import numpy as np

from convexadam._typing import Triple
from convexadam.continuous import Compositional, Similarity, Ssd, StationaryVelocity, WeightedSum
from convexadam.discrete import ConvexSearch
from convexadam.errors import ConfigError
from convexadam.features import (
    Concat,
    Extractor,
    Intensity,
    LabelFeatures,
    MindSSC,
    NNUNetFeatures,
    PairFeatures,
    PooledFeatures,
    Precomputed,
    ProbabilityFeatures,
    TorchScriptFeatures,
    uses_labels,
)
from convexadam.geometry import Grid
from convexadam.kernels.window import Window
from convexadam.registration.config import RegistrationConfig
from convexadam.registration.levels import refine_spacings, search_spacings

_FLOAT, _HALF = 4, 2
_SCRATCH = 3_000_000
"""Bytes that the compiled kernels of a few threads work in, whatever the size of the volume."""


def estimate_memory(
    shape: Triple,
    config: RegistrationConfig | None = None,
    *,
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
    channels: int | None = None,
) -> int:
    """Estimate the largest amount of memory that `register` takes beyond its inputs, in bytes.

    For images of one channel without masks, and the compiled kernels on a few threads; measured on the CPU, where it
    is right to 15 % for volumes of 64^3 to 540^3 voxels. What a network takes within is not known here and not counted
    (`NNUNetFeatures`, `TorchScriptFeatures`): it comes on top while the images are described.

    Parameters
    ----------
    shape
        Of the fixed image.
    config
        Settings; ``None`` takes those of ``preset("default")``.
    spacing_mm
        Of the fixed image; the working grid depends on it.
    channels
        Feature channels; ``None`` takes those of the library's own features, where they do not depend on labels.

    Raises
    ------
    ConfigError
        If ``channels`` is missing for a function or a network of yours, or for features of labels.
    GeometryError
        If shape or spacing describe no grid.

    Examples
    --------
    >>> round(estimate_memory((256, 256, 256)) / 1e9, 1)
    0.6
    """
    config = RegistrationConfig() if config is None else config
    given = Grid(shape, np.diag([*spacing_mm, 1.0]))
    grid = config.grid(given)
    searched, compared = config.features, config.continuous_features or config.features
    number, other = (_channels(f) if channels is None else channels for f in (searched, compared))
    searches, levels = search_spacings(config, grid), refine_spacings(config, grid)
    same = grid.same_as(given)
    resampled = 0 if same else given.n_voxels
    together = bool(searches) and len(levels) == 1 and searched == compared
    maps = sum(_maps(grid, spacing, number) for spacing in {*searches, *(levels if together else ())})
    both = 2 if config.symmetric else 1
    stages = [
        _joining(searched, maps) + _describing(searched, grid.n_voxels, number, same=same),
        *(maps + _searching(search, grid, number) for search in config.searches),
        *(
            _maps(grid, spacing, other) + _refining(config, grid, spacing, other, together=together)
            for spacing in levels
        ),
    ]
    if not together:
        describing = _describing(compared, grid.n_voxels, other, same=same)
        stages += [_joining(compared, _maps(grid, spacing, other)) + describing for spacing in levels]
    labels = max(_labels(searched, number), _labels(compared, other)) * grid.n_voxels
    return max(max(stages) + labels, both * _finishing(grid.n_voxels, resampled)) + _SCRATCH


def give_back_memory() -> None:
    """Ask the C library to return what was freed to the system; glibc keeps blocks of up to 32 MB for itself.

    Otherwise the large blocks of one stage would come on top of the smaller ones of the stage before.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none
        if trim is not None:
            trim(0)


def _channels(features: Extractor) -> int:
    if isinstance(features, MindSSC):
        return 12
    if isinstance(features, (Intensity, Precomputed)):
        return 1
    if isinstance(features, Concat):
        return sum(_channels(part) for part in features.parts)
    raise ConfigError(f"how many channels {features!r} makes is not known here; pass channels=")


def _nodes(grid: Grid, spacing: Triple) -> int:
    return math.prod(n // s for n, s in zip(grid.shape, spacing, strict=True))


def _maps(grid: Grid, spacing: Triple, channels: int) -> int:
    """Features of both images on the nodes of a stage."""
    return 2 * _FLOAT * channels * _nodes(grid, spacing)


def _describing(features: Extractor, voxels: int, channels: int, *, same: bool) -> int:
    """Weights, scaled and padded copies; images, where they were resampled; of several kinds one after the other."""
    if isinstance(features, Concat):
        return max(_describing(part, voxels, _at_most(part, channels), same=same) for part in features.parts)
    number = 6 if same else 8
    whole = isinstance(features, TorchScriptFeatures) and features.patch is None
    if whole or not isinstance(features, (PooledFeatures, PairFeatures)):
        number += 2 * channels  # a whole map and its weighted copy
    return _FLOAT * number * voxels


def _at_most(part: Extractor, channels: int) -> int:
    """Channels of a part of all channels."""
    try:
        return _channels(part)
    except ConfigError:
        return channels


def _joining(features: Extractor, maps: int) -> int:
    """Bytes of maps, and of those of the parts that they are made of."""
    return 2 * maps if isinstance(features, Concat) else maps


def _labels(features: Extractor, channels: int) -> int:
    """Bytes a voxel of the labels of both images on the working grid."""
    if isinstance(features, Concat):
        return max(_labels(part, channels) for part in features.parts)
    features = _plain(features)
    if isinstance(features, ProbabilityFeatures):
        return 2 * _FLOAT * (channels + 1)
    return 2 * uses_labels(features)


def _plain(features: Extractor) -> Extractor:
    """Features of a network as what they become once it has run."""
    return features.compared if isinstance(features, NNUNetFeatures) else features


def _searching(search: ConvexSearch, grid: Grid, channels: int) -> int:
    """Costs in half precision of one direction, weights, scaled and padded maps, a few fields."""
    spacing, radius = search.nodes(grid.shape, grid.spacing_mm)
    labels = len(Window(radius, ball=search.window == "ball").steps)
    return _nodes(grid, spacing) * (_HALF * labels + _FLOAT * (4 * channels + 14))


def _refining(config: RegistrationConfig, grid: Grid, spacing: Triple, channels: int, *, together: bool) -> int:
    """Fields of the loop and of the optimiser, weights, and one map of slopes before the loop."""
    if config.continuous is None:
        return 0
    fields = {Compositional: 8, StationaryVelocity: 12}.get(type(config.continuous.parametrisation), 7)
    fields += 2 * config.symmetric  # of the other direction
    copied = _copied(config.continuous.similarity, channels)
    if together and isinstance(config.continuous.similarity, Ssd):
        copied = 0 if isinstance(_plain(config.features), (Intensity, LabelFeatures, MindSSC)) else 2 * channels
    return _nodes(grid, spacing) * _FLOAT * (3 * fields + 6 + channels + copied)


def _copied(similarity: Similarity, channels: int) -> int:
    """Channels of both maps that differences within a sum copy to an order of their own."""
    if not isinstance(similarity, WeightedSum):
        return 0
    taken = similarity.channels or (channels,) * len(similarity.terms)
    return sum(2 * n for term, n in zip(similarity.terms, taken, strict=True) if isinstance(term, Ssd) and n > 1)


def _finishing(voxels: int, resampled: int) -> int:
    """Field in mm, on both grids where they differ, and lengths."""
    return _FLOAT * (3 * voxels + 3 * resampled + 2 * max(voxels, resampled))
