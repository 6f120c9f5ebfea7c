"""Whether a registration fits into memory and time, known from its settings before it begins."""

from __future__ import annotations

import math
import warnings

import torch

from convexadam._claims import measure_memory
from convexadam.continuous import Smoothing
from convexadam.errors import ConfigError, OutOfMemoryError
from convexadam.features import count_channels
from convexadam.geometry import Grid, Image
from convexadam.kernels.window import Window
from convexadam.registration.config import RegistrationConfig
from convexadam.registration.memory import estimate_on_grid
from convexadam.registration.pair import refinement_spacings, search_spacings

OPERATIONS_PER_S = 1e9
"""Of one thread, from the operations of `count_operations`; right to a factor of about three."""

_LONG_H, _ENDLESS_H = 1.0, 1000.0
"""Hours above which a registration is announced, and refused."""

_CHANNELS = 12
"""Channels of features that do not say how many they have."""


def check_work(fixed: Image, config: RegistrationConfig) -> None:
    """Raise if a registration cannot fit into the memory of this machine or would take weeks; on a CPU only.

    Raises
    ------
    OutOfMemoryError
        If its estimated memory exceeds that of the machine.
    ConfigError
        If it would take more than 1000 hours.

    Warns
    -----
    UserWarning
        If it is expected to take more than an hour.
    """
    if fixed.data.device.type != "cpu":
        return
    grid, shape = config.grid(fixed.grid), fixed.grid.shape
    needed, memory = estimate_on_grid(config, fixed.grid, grid, default_channels=_CHANNELS), measure_memory()
    if needed > memory:
        raise OutOfMemoryError(
            f"cpu must have {needed / 1e9:.3g} GB of memory to register {shape} voxels with these settings, got "
            f"{memory / 1e9:.3g}; raise grid.spacing_mm or lower grid.max_voxels "
            "(IsotropicGrid), raise discrete.spacing or lower discrete.radius"
        )
    hours = count_operations(config, grid, fixed.data.shape[0]) / OPERATIONS_PER_S / torch.get_num_threads() / 3600
    advice = "lower iterations, channels, radius or the size of kernels, or raise spacing"
    if hours > _ENDLESS_H:
        raise ConfigError(
            f"config must be one that ends within {_ENDLESS_H:g} hours, got about {hours:.2g} hours for a working grid "
            f"of {grid.shape}; {advice}"
        )
    if hours > _LONG_H:
        warnings.warn(
            f"the registration is expected to take about {hours:.2g} hours on a working grid of {grid.shape}; {advice}",
            stacklevel=3,
        )


def count_operations(config: RegistrationConfig, grid: Grid, image_channels: int = 1) -> float:
    """Return about how many operations the searches and the refinement take, on a working grid."""
    counts = (count_channels(extractor, image_channels) for extractor in config.extractors)
    channels = [float(_CHANNELS if count is None else count) for count in counts]
    total = float(grid.n_voxels) * sum(30 * c for c in channels)
    for search, spacing in zip(config.searches, search_spacings(config, grid), strict=True):
        _, radius = search.control_grid(grid.shape, grid.spacing_mm)
        displacements = Window(radius, ball=search.window == "ball").count
        passes = channels[0] + 20 + 4 * len(search.coupling_weights)
        total += _points(grid, spacing) * (2 * displacements * passes + 100 * search.inverse_consistency)
    refine = config.continuous
    if refine is not None:
        for level, spacing in zip(refine.levels, refinement_spacings(config, grid), strict=True):
            smoothing = level.update_smoothing or refine.update_smoothing
            taps = len(smoothing.taps()) if isinstance(smoothing, Smoothing) else 1
            per_point = 20 * channels[-1] + 20 * min(taps, max(grid.shape)) + 200
            total += _points(grid, spacing) * level.iterations * per_point * (2 if config.symmetric else 1)
    return total


def _points(grid: Grid, spacing: tuple[int, int, int]) -> float:
    return float(math.prod(n // s for n, s in zip(grid.shape, spacing, strict=True)))
