"""The surface distance of Learn2Reg's evaluation: surfaces between voxels, each piece counted by its area."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from functools import cache

import numpy as np

from convexadam._typing import Shaped, Tensor
from convexadam.metrics.overlap import check_label_maps
from convexadam.metrics.surface import boxes_of_both, distances_between, label_numbers

_CORNERS = tuple(itertools.product((0, 1), repeat=3))

_AREAS: dict[tuple[int, ...], float] = {
    (0,): math.sqrt(3) / 8,  # one corner: a triangle
    (1, 1): math.sqrt(2) / 2,  # an edge: a rectangle
    (1, 1, 2): 1 / 2 + 3 * math.sqrt(3) / 8,
    (2, 2, 2, 2): 1.0,  # a face: a square
    (1, 1, 1, 3): 3 * math.sqrt(3) / 4,  # a corner and all its neighbours: a hexagon
    (1, 1, 2, 2): math.sqrt(2) / 2 + math.sqrt(3) / 2,  # a path round two edges
}
"""Area that cuts connected corners off a cube, through the middles of its edges, by how many neighbours each has."""


def hd95_by_area(
    fixed_labels: Shaped[Tensor, "i j k"],
    moved_labels: Shaped[Tensor, "i j k"],
    *,
    labels: Iterable[int] | None = None,
) -> dict[int, float]:
    """Robust Hausdorff distance of each label as Learn2Reg counts it, in voxels: `hd95` with pieces of surface.

    A surface runs through the cubes between eight voxel centres of which some belong to the label, and all but not all
    of them (outside the volume none does). Each such cube counts with the area of the surface in it (marching cubes,
    Lorensen and Cline 1987), and distances are those between cubes. On phantoms it is a tenth less than `hd95`.

    Parameters
    ----------
    fixed_labels, moved_labels
        Two label maps ``[i, j, k]`` of any whole-number type on one grid; the second is the moving one after warping.
    labels
        Which labels to measure; ``None`` takes every non-zero label of the fixed image.

    Returns
    -------
    One distance for each label, in rising order of the labels; NaN where one of the two images lacks it.

    Raises
    ------
    InputError
        If the maps differ in shape or hold no whole-number type.

    Notes
    -----
    Nikolov et al., "Clinically applicable segmentation of head and neck anatomy for radiotherapy", JMIR 2021.

    Examples
    --------
    >>> import torch
    >>> fixed, moved = torch.zeros(2, 6, 6, 6, dtype=torch.uint8)
    >>> fixed[2, 2, 2] = moved[2, 2, 4] = 1
    >>> hd95_by_area(fixed, moved)
    {1: 2.0}
    """
    moved_labels = check_label_maps(fixed_labels, moved_labels)
    fixed, moved = fixed_labels.detach().cpu().numpy(), moved_labels.detach().cpu().numpy()
    return {
        label: math.nan if box is None else _distance(fixed[box] == label, moved[box] == label)
        for label, box in boxes_of_both(fixed, moved, label_numbers(fixed, labels))
    }


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    here, there = _surface_areas(a), _surface_areas(b)
    return max(_directed(here, there), _directed(there, here))


def _directed(here: np.ndarray, there: np.ndarray) -> float:
    """Distance from which on 95 per cent of the area of one surface are no further from the other."""
    distances, areas = distances_between(here > 0, there > 0, (1.0, 1.0, 1.0)), here[here > 0]
    order = np.argsort(distances, kind="stable")
    shares = np.cumsum(areas[order]) / areas.sum()
    return float(distances[order][min(int(np.searchsorted(shares, 0.95)), len(order) - 1)])


def _surface_areas(mask: np.ndarray) -> np.ndarray:
    """Area in each cube between eight voxel centres, one more along each axis than there are voxels."""
    padded = np.pad(mask, 1).astype(np.uint8)
    i, j, k = (n + 1 for n in mask.shape)
    codes = np.zeros((i, j, k), np.uint8)
    for bit, (a, b, c) in enumerate(_CORNERS):
        codes |= padded[a : a + i, b : b + j, c : c + k] << bit
    return np.asarray(_table()[codes])


@cache
def _table() -> np.ndarray:
    """Area for each choice of corners, a bit for each; where more than half are chosen, the others are cut off."""
    table = np.zeros(256)
    for code in range(256):
        chosen = [corner for bit, corner in enumerate(_CORNERS) if code >> bit & 1]
        if len(chosen) > len(_CORNERS) // 2:
            chosen = [corner for corner in _CORNERS if corner not in chosen]
        table[code] = sum(_AREAS[tuple(sorted(_degrees(part)))] for part in _connected(chosen))
    return table


def _connected(corners: list[tuple[int, ...]]) -> list[list[tuple[int, ...]]]:
    """Corners in groups that edges of the cube connect."""
    groups: list[list[tuple[int, ...]]] = []
    for corner in corners:
        touching = [group for group in groups if any(math.dist(corner, other) == 1 for other in group)]
        groups = [group for group in groups if group not in touching]
        groups.append([corner, *itertools.chain.from_iterable(touching)])
    return groups


def _degrees(corners: list[tuple[int, ...]]) -> list[int]:
    return [sum(math.dist(corner, other) == 1 for other in corners) for corner in corners]
