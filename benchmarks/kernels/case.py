"""What each file of this folder describes: the cases of one operation, on the grids of one volume.

A file ``bench_<operation>.py`` has ``cases(size, device)``. Run as a script, it measures its own operation.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "gpu")]

from work import FLOAT, HALF, Work  # noqa: E402 - the folders above are no packages

Triple: TypeAlias = tuple[int, int, int]

BOX3 = tuple(t / 27 for t in (1, 3, 6, 7, 6, 3, 1))
"""Three mean filters of width 3 in a row."""

__all__ = ["BOX3", "FLOAT", "HALF", "Case", "Triple", "Work", "coarser", "field", "main", "random", "volume"]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One operation on one grid: ``make`` returns the call for a backend, which is chosen already."""

    name: str
    grid: Triple
    make: Callable[[str], Callable[[], Any]]
    work: Work


def random(*shape: int, device: str) -> torch.Tensor:
    """Return numbers in [0, 1), the same ones each time."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(device)


def coarser(size: Triple, by: int) -> Triple:
    """Return the grid of blocks of ``by`` voxels."""
    i, j, k = (max(n // by, 1) for n in size)
    return i, j, k


def _smooth(channels: int, grid: Triple, cell: int, device: str) -> torch.Tensor:
    coarse = 2 * random(1, channels, *(n + 1 for n in coarser(grid, cell)), device=device) - 1
    return torch.nn.functional.interpolate(coarse, size=grid, mode="trilinear", align_corners=True)[0]


def field(grid: Triple, device: str) -> torch.Tensor:
    """Smooth displacements of up to a node: random ones would read the maps in no order at all."""
    return _smooth(3, grid, 8, device)


def volume(size: Triple, device: str) -> torch.Tensor:
    """Return a volume with structures of several sizes."""
    return sum(
        (cell**0.5 * _smooth(1, size, cell, device)[0] for cell in (3, 6, 12, 24)), torch.zeros((), device=device)
    )


def main(operation: str) -> int:
    """Measure one operation alone."""
    import run

    return run.main(["--only", operation, *sys.argv[1:]])
