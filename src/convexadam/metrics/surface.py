"""Distances between the surfaces of labels."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
import torch

from convexadam._typing import Float, Points, Shaped, Tensor
from convexadam.errors import InputError
from convexadam.metrics.overlap import check_label_maps

Box: TypeAlias = tuple[slice, ...]

_FEW = 2**16
"""Labels up to which each may have a box, whether it is there or not."""

_PAIRS = 2**26
"""Of points at a time: 256 MiB of distances."""


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
    if fixed_labels.device.type != "cpu":
        wanted = label_numbers(torch.unique(fixed_labels).cpu().numpy(), labels)
        return {n: on_device(fixed_labels == n, moved_labels == n, spacing_mm) for n in wanted}
    fixed, moved = fixed_labels.detach().numpy(), moved_labels.detach().numpy()
    return {
        label: math.nan if box is None else _hd95(fixed[box] == label, moved[box] == label, spacing_mm)
        for label, box in boxes_of_both(fixed, moved, label_numbers(fixed, labels))
    }


def on_device(a: Shaped[Tensor, "i j k"], b: Shaped[Tensor, "i j k"], spacing_mm: tuple[float, float, float]) -> float:
    """Return what `hd95` does of two masks where they are, in float32: each point of one surface with all of the other.

    A GPU does that in less time than it takes to copy the masks; there is no tree to build.
    """
    if not (bool(a.any()) and bool(b.any())):
        return math.nan
    scale = torch.tensor(spacing_mm, dtype=torch.float32, device=a.device)
    here, there = (_outer(mask).nonzero().float() * scale for mask in (a, b))
    ways = [
        torch.cat([_from_all(part, other) for part in torch.split(points, max(1, _PAIRS // len(other)))])
        for points, other in ((here, there), (there, here))
    ]
    return max(float(torch.quantile(way, 0.95)) for way in ways)


def _from_all(points: Points, others: Float[Tensor, "m 3"]) -> Float[Tensor, " n"]:
    return torch.cdist(points, others, compute_mode="donot_use_mm_for_euclid_dist").amin(1)


def _outer(mask: Shaped[Tensor, "i j k"]) -> Shaped[Tensor, "i j k"]:
    """Voxels of a mask with at least one of six neighbours outside of it."""
    padded, inner = torch.nn.functional.pad(mask, (1,) * 6), mask
    for axis, n in enumerate(mask.shape):
        window = [slice(1, -1)] * 3
        for first in (0, 2):
            window[axis] = slice(first, first + n)
            inner = inner & padded[tuple(window)]
    return mask & ~inner


def label_numbers(fixed: np.ndarray, labels: Iterable[int] | None) -> list[int]:
    """Labels to measure, in rising order: those asked for, or all of the fixed image but the background."""
    wanted = {*np.unique(fixed).tolist()} - {0} if labels is None else labels
    return sorted({int(label) for label in wanted})


def boxes_of_both(fixed: np.ndarray, moved: np.ndarray, labels: list[int]) -> list[tuple[int, Box | None]]:
    """Each of ``labels`` (in rising order) with the smallest box around it in both maps; none where one lacks it."""
    pairs = zip(_boxes(fixed, labels), _boxes(moved, labels), strict=True)
    boxes = [None if a is None or b is None else tuple(map(_around, a, b)) for a, b in pairs]
    return list(zip(labels, boxes, strict=True))


def _around(a: slice, b: slice) -> slice:
    return slice(min(a.start, b.start), max(a.stop, b.stop))


def _boxes(values: np.ndarray, labels: list[int]) -> list[Box | None]:
    from scipy.ndimage import find_objects

    if not labels:
        return []
    if labels[0] > 0 and labels[-1] < _FEW:
        found = find_objects(values, labels[-1])
        return [found[label - 1] for label in labels]
    places = np.searchsorted(labels, values).clip(max=len(labels) - 1)
    return list(find_objects(np.where(np.asarray(labels)[places] == values, places + 1, 0), len(labels)))


def _hd95(a: np.ndarray, b: np.ndarray, spacing_mm: tuple[float, float, float]) -> float:
    here, there = _surface(a), _surface(b)
    ways = distances_between(here, there, spacing_mm), distances_between(there, here, spacing_mm)
    return float(max(np.percentile(way, 95) for way in ways))


def distances_between(here: np.ndarray, there: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """Distance of each voxel of a mask, in the order of memory, to the nearest voxel of another one, in mm."""
    from scipy.spatial import KDTree

    distances = np.zeros(int(here.sum()))
    points, targets = (np.argwhere(mask) * np.asarray(spacing_mm) for mask in (here & ~there, there))
    tree = KDTree(targets, compact_nodes=False, balanced_tree=False)  # built in half the time, asked as quickly
    distances[~there[here]] = tree.query(points, workers=torch.get_num_threads())[0]
    return distances


def _surface(mask: np.ndarray) -> np.ndarray:
    """Voxels of the mask that an erosion removes; beyond the box there is background."""
    from scipy.ndimage import binary_erosion

    eroded: np.ndarray = binary_erosion(mask)
    return np.asarray(mask & ~eroded)
