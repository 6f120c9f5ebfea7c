"""Distances between the surfaces of labels."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from convexadam._typing import Shaped, Tensor
from convexadam.errors import InputError
from convexadam.metrics.overlap import check_label_maps


def hd95(
    fixed_labels: Shaped[Tensor, "i j k"],
    moved_labels: Shaped[Tensor, "i j k"],
    *,
    spacing_mm: tuple[float, float, float],
    labels: Iterable[int] | None = None,
) -> dict[int, float]:
    """Robust Hausdorff distance of each label, in mm: the larger of the two directed 95th percentiles.

    From every surface voxel of one label to the nearest surface voxel of the other, both ways. A surface voxel has at
    least one of its six neighbours outside the label (or outside the volume). Learn2Reg counts voxels, and weighs the
    surface by its area: `hd95_by_area`.

    Parameters
    ----------
    fixed_labels, moved_labels
        Two label maps ``[i, j, k]`` of any whole-number type on one grid; the second is the moving one after warping.
    spacing_mm
        Voxel sizes along ``(i, j, k)``, in mm.
    labels
        Which labels to measure; ``None`` takes every non-zero label of the fixed image.

    Returns
    -------
    One distance for each label, in rising order of the labels; NaN where one of the two images lacks it.

    Raises
    ------
    InputError
        If the maps differ in shape, hold no whole-number type, or a voxel size is not positive.

    Examples
    --------
    >>> import torch
    >>> fixed, moved = torch.zeros(2, 6, 6, 6, dtype=torch.uint8)
    >>> fixed[2, 2, 2] = moved[2, 2, 4] = 1
    >>> hd95(fixed, moved, spacing_mm=(1.0, 1.0, 2.5))
    {1: 5.0}
    """
    moved_labels = check_label_maps(fixed_labels, moved_labels)
    if len(spacing_mm) != 3 or not all(math.isfinite(s) and s > 0 for s in spacing_mm):
        raise InputError(f"spacing_mm is three positive voxel sizes in mm, but {spacing_mm!r} came")
    fixed, moved = fixed_labels.detach().cpu().numpy(), moved_labels.detach().cpu().numpy()
    return {label: _hd95(fixed == label, moved == label, spacing_mm) for label in label_numbers(fixed, labels)}


def label_numbers(fixed: np.ndarray, labels: Iterable[int] | None) -> list[int]:
    """Labels to measure, in rising order: those asked for, or all of the fixed image but the background."""
    wanted = {*np.unique(fixed).tolist()} - {0} if labels is None else labels
    return sorted({int(label) for label in wanted})


def _hd95(a: np.ndarray, b: np.ndarray, spacing_mm: tuple[float, float, float]) -> float:
    if not a.any() or not b.any():
        return math.nan
    box = bounding_box(a | b)
    surface_a, surface_b = _surface(a[box]), _surface(b[box])
    there = np.percentile(distance_to(surface_b, spacing_mm)[surface_a], 95)
    back = np.percentile(distance_to(surface_a, spacing_mm)[surface_b], 95)
    return float(max(there, back))


def bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    """Slices around all voxels of a mask that has some."""
    box = []
    for axis in range(3):
        used = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        box.append(slice(int(used[0]), int(used[-1]) + 1))
    return tuple(box)


def _surface(mask: np.ndarray) -> np.ndarray:
    """Voxels of the mask that an erosion removes; beyond the box there is background."""
    from scipy.ndimage import binary_erosion

    eroded: np.ndarray = binary_erosion(mask)
    return np.asarray(mask & ~eroded)


def distance_to(surface: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """Distance of each voxel to the nearest voxel of the surface, in mm."""
    from scipy.ndimage import distance_transform_edt

    distances: Any = distance_transform_edt(~surface, sampling=spacing_mm)  # a tuple, were indices asked for
    return np.asarray(distances)
