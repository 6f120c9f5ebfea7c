"""A benchmark case of an operation, and its input data.

A file ``bench_<operation>.py`` has a function ``cases(size, device)``, which ``run.py`` calls.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from work import FLOAT, HALF, Work

Triple: TypeAlias = tuple[int, int, int]

BOX3 = tuple(t / 27 for t in (1, 3, 6, 7, 6, 3, 1))
"""Taps of three successive mean filters of width 3."""

__all__ = [
    "BOX3",
    "FLOAT",
    "HALF",
    "Case",
    "Triple",
    "Work",
    "coarsen_grid",
    "make_field",
    "make_random",
    "make_volume",
]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One operation on one grid.

    Attributes
    ----------
    name
        Name of the case, unique within the operation.
    grid
        Shape of the result.
    make
        Prepares inputs for a backend, within ``use_backend``, and returns the function to be timed.
    work
        Least memory traffic and arithmetic of one call.
    """

    name: str
    grid: Triple
    make: Callable[[str], Callable[[], Any]]
    work: Work


def make_random(*shape: int, device: str) -> torch.Tensor:
    """Return uniform random numbers in [0, 1), equal in each call."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(device)


def coarsen_grid(size: Triple, spacing: int) -> Triple:
    """Return the shape of a grid of control points of ``spacing`` voxels."""
    i, j, k = (max(n // spacing, 1) for n in size)
    return i, j, k


def _make_smooth(channels: int, grid: Triple, spacing: int, device: str) -> torch.Tensor:
    coarse = 2 * make_random(1, channels, *(n + 1 for n in coarsen_grid(grid, spacing)), device=device) - 1
    return torch.nn.functional.interpolate(coarse, size=grid, mode="trilinear", align_corners=True)[0]


def make_field(grid: Triple, device: str) -> torch.Tensor:
    """Return smooth displacements of at most one grid unit; random ones would access the maps without any order."""
    return _make_smooth(3, grid, 8, device)


def make_volume(size: Triple, device: str) -> torch.Tensor:
    """Return a volume with structures of several sizes."""
    volume = torch.zeros((), device=device)
    return sum((spacing**0.5 * _make_smooth(1, size, spacing, device)[0] for spacing in (3, 6, 12, 24)), volume)
