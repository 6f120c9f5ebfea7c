"""Choice of the slices that a page shows: where motion and residual are largest, and in the middle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np

from convexadam.geometry import Grid
from convexadam.geometry.planes import NORMAL, PLANES
from convexadam.metrics.local_correlation import square_correlation
from convexadam.report.lattice import LatticePair

_LEAST_AREA = 0.5
"""Area with structure that a slice must have, as a share of the largest: the end of an organ shows little."""

_APART = 0.06
"""Distance of two slices of a plane, as a share of the extent."""

_FEWEST = 2
"""Voxels along a side of a picture; planes with fewer are not shown, as of a volume of one slice."""


@final
@dataclass(frozen=True, kw_only=True)
class SliceChoice:
    """A slice to show: its plane, its index along the axis of the canonical fixed grid, and why it was chosen."""

    plane: str
    index: int
    reason: str


def choose_slices(pair: LatticePair, motion_mm: np.ndarray, fixed: Grid) -> list[SliceChoice]:
    """Choose up to three slices of each plane.

    Parameters
    ----------
    pair
        The pair on its lattice.
    motion_mm
        ``[i, j, k]`` on the lattice: length of the displacement beyond the linear motion.
    fixed
        Grid of the fixed image.

    Returns
    -------
    For each plane: largest motion, largest residual (of the local correlation where both images are), middle of the
    structure.
    """
    structure = pair.structure.cpu().numpy()
    if not structure.any():
        structure[...] = True
    weight = pair.fixed_weight * pair.after_weight
    residual = ((1 - square_correlation(pair.fixed, pair.after, weight)) * weight).cpu().numpy()
    canonical = fixed.canonical()
    chosen = []
    for plane in PLANES:
        axis = NORMAL[plane]
        if any(n < _FEWEST for a, n in enumerate(canonical.shape) if a != axis):
            continue
        positions = _rank(structure, {"largest motion": motion_mm, "largest residual": residual}, axis)
        scale = canonical.shape[axis] / structure.shape[axis]
        taken: set[int] = set()
        for reason, position in positions.items():
            index = min(int((position + 0.5) * scale), canonical.shape[axis] - 1)
            if index not in taken:
                taken.add(index)
                chosen.append(SliceChoice(plane=plane, index=index, reason=reason))
    return chosen


def _rank(structure: np.ndarray, quantities: Mapping[str, np.ndarray], axis: int) -> dict[str, int]:
    """Return the positions with the largest sums over the structure, apart from each other, and the middle."""
    across = tuple(a for a in range(3) if a != axis)
    area = structure.sum(across)
    middle = int(np.searchsorted(np.cumsum(area), area.sum() / 2))
    apart = max(1, round(_APART * len(area)))
    allowed = area >= _LEAST_AREA * area.max()
    allowed[max(0, middle - apart) : middle + apart + 1] = False
    found = {}
    for name, quantity in quantities.items():
        sums = np.where(allowed, (quantity * structure).sum(across), -1.0)
        if sums.max() >= 0:
            best = int(sums.argmax())
            found[name] = best
            allowed[max(0, best - apart) : best + apart + 1] = False
    return {**found, "middle": middle}
