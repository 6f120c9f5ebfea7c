"""Time and memory of a cohort, estimated before it is registered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from convexadam._claims import measure_memory
from convexadam.geometry import Grid
from convexadam.io import PairFiles, read_image
from convexadam.io.nifti_file import has_nifti_signature, open_nifti, read_head
from convexadam.registration import RegistrationConfig, preset
from convexadam.registration.memory import estimate_on_grid
from convexadam.registration.presets import parse_config
from convexadam.registration.work import OPERATIONS_PER_S, count_operations

_PROCESS = 400_000_000
"""Bytes of a process that has registered nothing: interpreter, torch, compiled kernels."""

_CHANNELS = 12
"""Channels of features that do not say how many they have."""

_IMAGE = 8
"""Bytes of a voxel of an image as it is read, and on the way."""


@final
@dataclass(frozen=True, kw_only=True)
class CohortPlan:
    """Estimated time and memory.

    Attributes
    ----------
    pairs, workers
        Their numbers.
    seconds
        Of all pairs on all workers, right to a factor of about three.
    memory_bytes
        Of all workers, if each registers the largest pair.
    machine_bytes
        Memory of this machine; infinite if the system does not tell.

    Examples
    --------
    >>> from convexadam.cohort import CohortPlan
    >>> CohortPlan(pairs=10, workers=2, seconds=600.0, memory_bytes=2e9, machine_bytes=16e9).pairs
    10
    """

    pairs: int
    workers: int
    seconds: float
    memory_bytes: float
    machine_bytes: float

    @property
    def fits(self) -> bool:
        """Whether the memory suffices, if all workers run on this machine."""
        return self.memory_bytes <= self.machine_bytes


def plan_cohort(
    pairs: Sequence[PairFiles],
    config: RegistrationConfig | str | None = None,
    *,
    workers: int = 1,
    threads: int = 1,
    check_mirror: bool = False,
) -> CohortPlan:
    """Estimate time and memory from the headers of the images; no image of NIfTI is read.

    Parameters
    ----------
    pairs
        The pairs.
    config
        Settings of the pairs without a preset, or the name of a preset; ``None`` is ``"default"``.
    workers
        Pairs that are registered at the same time.
    threads
        Threads of each.
    check_mirror
        Whether mirror images are registered as well.

    Raises
    ------
    FileError
        If a header cannot be read.

    Examples
    --------
    >>> import torch
    >>> from convexadam import as_image, write_image
    >>> from convexadam.cohort import PairFiles, plan_cohort
    >>> write_image(as_image(torch.zeros(40, 40, 40)), "scan.nii.gz")
    >>> plan = plan_cohort([PairFiles(id="one", fixed="scan.nii.gz", moving="scan.nii.gz")] * 10, workers=2)
    >>> plan.pairs, plan.workers
    (10, 2)
    """
    config = parse_config(config)
    grids: dict[Path, Grid] = {}
    costs: dict[tuple[Path, str | None], tuple[float, float]] = {}
    seconds, largest = 0.0, 0.0
    for pair in pairs:
        fixed, moving = (grids.setdefault(path, _read_grid(path)) for path in (pair.fixed, pair.moving))
        settings = config if pair.preset is None else preset(pair.preset)
        key = pair.fixed, pair.preset
        if key not in costs:
            costs[key] = _estimate(settings, fixed, threads)
        time_s, memory = costs[key]
        seconds += time_s
        largest = max(largest, memory + _IMAGE * moving.n_voxels)
    used = min(workers, len(pairs))
    return CohortPlan(
        pairs=len(pairs),
        workers=used,
        seconds=(1 + check_mirror) * seconds / used,
        memory_bytes=used * (largest + _PROCESS),
        machine_bytes=measure_memory(),
    )


def _estimate(config: RegistrationConfig, fixed: Grid, threads: int) -> tuple[float, float]:
    """Return seconds and bytes of a registration."""
    grid = config.grid(fixed)
    memory = estimate_on_grid(config, fixed, grid, default_channels=_CHANNELS) + _IMAGE * fixed.n_voxels
    return count_operations(config, grid) / OPERATIONS_PER_S / threads, memory


def _read_grid(path: Path) -> Grid:
    """Return the shape and the spacing of an image; its orientation has no part in time and memory."""
    if path.is_file() and has_nifti_signature(read_head(path)):
        nifti = open_nifti(path)
        i, j, k = (*nifti.shape[:3], 1, 1)[:3]
        header: Any = nifti.header
        spacing = [abs(float(size)) or 1.0 for size in (*header.get_zooms()[:3], 1.0, 1.0)[:3]]
        return Grid((i, j, k), np.diag([*spacing, 1.0]))
    return read_image(path).grid
