"""How much memory a registration takes, before it runs."""

from __future__ import annotations

import math

import numpy as np

from convexadam._checks import check_count, show
from convexadam._typing import Triple
from convexadam.continuous import CopiesFeatures, HasMemory, PacksFeatures
from convexadam.discrete import ConvexSearch
from convexadam.errors import ConfigError
from convexadam.features import (
    Extractor,
    MapLayout,
    count_channels,
    memory_bytes_per_voxel,
    segmentation_bytes_per_voxel,
)
from convexadam.geometry import Grid
from convexadam.geometry.grid import check_spacing
from convexadam.kernels._device import release_memory
from convexadam.kernels.window import Window
from convexadam.linear import LinearAlignment
from convexadam.registration.config import RegistrationConfig
from convexadam.registration.pair import refinement_spacings, search_spacings
from convexadam.registration.presets import parse_config

__all__ = ["estimate_memory", "estimate_on_grid", "release_memory"]

_FLOAT, _HALF = 4, 2
_SCRATCH = 3_000_000
"""Bytes of working memory of the compiled kernels on a few threads, independent of the volume."""

_LINEAR_PER_VOXEL, _LINEAR_IN_FLIGHT, _LINEAR_SAMPLES = 8, (16, 2**18), 10_000_000
"""Bytes of a registration that is linear alone: both images in bins; for each voxel of a slab of at most so many, what
is filtered at a time; and the samples. The search takes less."""

_ALIGNMENT = 270, 125
"""Bytes for each voxel of the first level of a linear alignment before deformable stages, and of the others."""

_SLAB, _SLAB_PER_VOXEL = 2**18, 28
"""Voxels of a field that are measured at once, and bytes that this takes for each."""

_MOST_CHANNELS = 1_000_000

_PACKING = 6
"""Values per control point beside the features while they are packed (`PacksFeatures`): start, sums of windows."""

_FIELDS = 8
"""Displacement fields in memory with a parametrisation that does not say (`HasMemory`)."""


def estimate_memory(
    shape: Triple,
    config: RegistrationConfig | str | None = None,
    *,
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
    channels: int | None = None,
) -> int:
    """Estimate the peak memory that `register` takes beyond its inputs, in bytes.

    For images of one channel without masks, and the compiled kernels on a few threads; measured on the CPU, where it
    is right to 15 % for all presets from 128^3 voxels on. In smaller volumes, pairs that need no linear alignment take
    less.
    Components say what they take (`convexadam.features` and `convexadam.continuous.HasMemory`). The memory of a network
    is not included (`NNUNetFeatures`, `TorchScriptFeatures`): it is added while features are extracted.

    Parameters
    ----------
    shape
        Of the fixed image.
    config
        Settings, or the name of a preset; ``None`` is ``"default"``.
    spacing_mm
        Of the fixed image; the working grid depends on it.
    channels
        Feature channels; ``None`` asks the features, which know unless channels depend on labels or a network.

    Raises
    ------
    ConfigError
        If ``channels`` is missing and the features do not know.
    GeometryError
        If shape or spacing are no valid grid.

    Examples
    --------
    >>> round(estimate_memory((256, 256, 256)) / 1e9, 1)
    0.6
    """
    config = parse_config(config)
    if channels is not None:
        check_count(channels, "channels", least=1, most=_MOST_CHANNELS)
    native = Grid(shape, np.diag([*check_spacing(spacing_mm), 1.0]))
    return estimate_on_grid(config, native, config.grid(native), channels=channels)


def estimate_on_grid(
    config: RegistrationConfig,
    native: Grid,
    grid: Grid,
    *,
    channels: int | None = None,
    default_channels: int | None = None,
) -> int:
    """Estimate the memory for the grid of a fixed image and a working grid; see `estimate_memory`.

    ``default_channels`` is the number of channels of features that do not know theirs; ``None`` refuses them.
    """
    if config.is_linear:
        per_voxel, most = _LINEAR_IN_FLIGHT
        in_flight = per_voxel * min(native.n_voxels, most)
        return _LINEAR_PER_VOXEL * native.n_voxels + in_flight + _LINEAR_SAMPLES + _SCRATCH
    resampled = 0 if grid.is_close(native) else native.n_voxels
    searched, refined = config.features, config.continuous_features or config.features
    search_channels, refine_channels = (
        _channels(f, default_channels) if channels is None else channels for f in (searched, refined)
    )
    spacings, levels = search_spacings(config, grid), refinement_spacings(config, grid)
    shared = bool(spacings) and len(levels) == 1 and searched == refined
    maps = sum(_maps(grid, spacing, search_channels) for spacing in {*spacings, *(levels if shared else ())})
    # images on the working grid and weights, from which features of later stages are extracted
    kept = 0 if shared else grid.n_voxels * 2 * _FLOAT * (2 if resampled else 1)
    stages = [
        _alignment(config.linear, native),
        _extraction(searched, grid.n_voxels, search_channels, maps, resampled=resampled > 0),
        *(kept + maps + _search(search, grid, search_channels) for search in config.searches),
        *(kept + _refinement(config, grid, n, refine_channels, shared=shared) for n in range(len(levels))),
    ]
    if not shared:
        every = [_maps(grid, spacing, refine_channels) for spacing in levels]
        stages += [_extraction(refined, grid.n_voxels, refine_channels, m, resampled=resampled > 0) for m in every]
    segmentations = grid.n_voxels * max(
        segmentation_bytes_per_voxel(searched, search_channels), segmentation_bytes_per_voxel(refined, refine_channels)
    )
    directions = 2 if config.symmetric else 1
    return int(max(max(stages) + segmentations, directions * _finish(grid.n_voxels, resampled))) + _SCRATCH


def _channels(features: Extractor, default: int | None = None) -> int:
    count = count_channels(features, 1)
    count = default if count is None else count
    if count is None:
        raise ConfigError(
            f"channels must be given for features that do not know theirs, got {show(features)}; pass channels="
        )
    return count


def _control_points(grid: Grid, spacing: Triple) -> int:
    return math.prod(n // s for n, s in zip(grid.shape, spacing, strict=True))


def _maps(grid: Grid, spacing: Triple, channels: int) -> int:
    """Bytes of the features of both images on the control points of a stage."""
    return 2 * _FLOAT * channels * _control_points(grid, spacing)


def _alignment(alignment: LinearAlignment | None, native: Grid) -> int:
    """Bytes of the largest level of a linear alignment before deformable stages."""
    levels = () if alignment is None else alignment.voxels_per_level
    return max((min(n, native.n_voxels) * _ALIGNMENT[min(k, 1)] for k, n in enumerate(levels)), default=0)


def _extraction(features: Extractor, voxels: int, channels: int, maps: int, *, resampled: bool) -> float:
    """Bytes of maps and working memory, and of both images on the working grid if that is another grid.

    Maps that are joined from those of several extractors exist twice, one image after the other.
    """
    joined = maps * 3 // 2 if isinstance(features, MapLayout) and features.joins_maps else maps
    extracted = maps + voxels * memory_bytes_per_voxel(features, channels)
    return max(joined, extracted) + voxels * (2 * _FLOAT if resampled else 0)


def _search(search: ConvexSearch, grid: Grid, channels: int) -> int:
    """Bytes of the costs in half precision of one direction, weights, scaled and padded maps, and a few fields."""
    spacing, radius = search.control_grid(grid.shape, grid.spacing_mm)
    displacements = Window(radius, ball=search.window == "ball").count
    return _control_points(grid, spacing) * (_HALF * displacements + _FLOAT * (4 * channels + 14))


def _refinement(config: RegistrationConfig, grid: Grid, number: int, channels: int, *, shared: bool) -> int:
    """Bytes of features of a level and their copies, or a map of gradients, of weights, and of fields."""
    if config.continuous is None:
        return 0
    spacing, level = refinement_spacings(config, grid)[number], config.continuous.levels[number]
    maps = _maps(grid, spacing, channels)
    parametrisation, similarity = config.continuous.parametrisation, config.continuous.similarity
    fields = parametrisation.memory_fields if isinstance(parametrisation, HasMemory) else _FIELDS
    fields += 2 * (config.symmetric and not level.forward_only)  # of the other direction
    copied, points = channels, _control_points(grid, spacing)
    if isinstance(similarity, PacksFeatures) and isinstance(similarity, CopiesFeatures):
        packed = 2 * _FLOAT * points * similarity.count_copied_channels(channels, channels_last=False)
        packing = max(maps + packed // 2, maps // 2 + packed) + points * _FLOAT * _PACKING
        return max(packing, packed + points * _FLOAT * (3 * fields + 6))
    if isinstance(similarity, CopiesFeatures):
        features = config.continuous_features or config.features
        # features of a level of their own are brought to that layout as they are extracted
        channels_last = not shared or (isinstance(features, MapLayout) and features.channels_last)
        copied = 2 * similarity.count_copied_channels(channels, channels_last=channels_last)
    return maps + points * _FLOAT * (3 * fields + 6 + copied)


def _finish(voxels: int, resampled: int) -> int:
    """Bytes of the field in mm, on both grids if they differ, of lengths, and of what is measured at once."""
    largest = max(voxels, resampled)
    return _FLOAT * (3 * voxels + 3 * resampled + 2 * largest) + _SLAB_PER_VOXEL * min(_SLAB, largest)
