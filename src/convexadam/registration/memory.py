"""How much memory a registration takes, before it runs."""

from __future__ import annotations

import ctypes
import math
import sys

import numpy as np

from convexadam._typing import Triple
from convexadam.continuous import Compositional
from convexadam.discrete import ConvexSearch
from convexadam.errors import ConfigError
from convexadam.features import Concat, Features, Intensity, MindSSC, PooledFeatures, Precomputed
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
    is right to 15 % for volumes of 64^3 to 540^3 voxels.

    Parameters
    ----------
    shape
        Of the fixed image.
    config
        Settings; ``None`` takes those of ``preset("default")``.
    spacing_mm
        Of the fixed image; the working grid depends on it.
    channels
        Feature channels; ``None`` takes those of the library's own features.

    Raises
    ------
    ConfigError
        If ``channels`` is missing for a function of yours.
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
    number = _channels(config.features) if channels is None else channels
    searches, levels = search_spacings(config, grid), refine_spacings(config, grid)
    voxels, same = grid.n_voxels, grid.same_as(given)
    cells = [_nodes(grid.shape, spacing) for spacing in searches]
    nodes = [_nodes(grid.shape, spacing) for spacing in levels]
    together = [*cells, *nodes] if len(levels) == 1 and searches != levels else cells or nodes
    maps = 2 * _FLOAT * number * sum(together)
    describing = 6 * _FLOAT * voxels + (0 if same else 2 * _FLOAT * voxels)  # weights, scaled and padded copies; images
    if not isinstance(config.features, PooledFeatures):
        describing += 2 * _FLOAT * number * voxels  # a whole map and its weighted copy
    both = 2 if config.symmetric else 1
    stages = [
        maps + describing,
        *(maps + _searching(search, grid, n, number) for search, n in zip(config.searches, cells, strict=True)),
        *(2 * _FLOAT * number * n + _refining(config, n, number) for n in nodes),
        both * _finishing(voxels, 0 if same else given.n_voxels),
    ]
    return max(stages) + _SCRATCH


def give_back_memory() -> None:
    """Ask the C library to return what was freed to the system; glibc keeps blocks of up to 32 MB for itself.

    Otherwise the large blocks of one stage would come on top of the smaller ones of the stage before.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none
        if trim is not None:
            trim(0)


def _channels(features: Features) -> int:
    if isinstance(features, MindSSC):
        return 12
    if isinstance(features, (Intensity, Precomputed)):
        return 1
    if isinstance(features, Concat):
        return sum(_channels(part) for part in features.parts)
    raise ConfigError(f"how many channels {features!r} makes is not known here; pass channels=")


def _nodes(shape: Triple, spacing: Triple) -> int:
    return math.prod(n // s for n, s in zip(shape, spacing, strict=True))


def _searching(search: ConvexSearch, grid: Grid, cells: int, channels: int) -> int:
    """Costs in half precision of one direction, weights, scaled and padded maps, a few fields."""
    _, radius = search.nodes(grid.shape, grid.spacing_mm)
    labels = len(Window(radius, ball=search.window == "ball").steps)
    return cells * (_HALF * labels + _FLOAT * (4 * channels + 14))


def _refining(config: RegistrationConfig, nodes: int, channels: int) -> int:
    """Fields of the loop and of Adam, weights, and one map of slopes before the loop."""
    if config.continuous is None:
        return 0
    fields = 8 if isinstance(config.continuous.parametrisation, Compositional) else 7
    return nodes * _FLOAT * (3 * fields + 6 + channels)


def _finishing(voxels: int, resampled: int) -> int:
    """Field in mm, on both grids where they differ, and lengths."""
    return _FLOAT * (3 * voxels + 3 * resampled + 2 * max(voxels, resampled))
