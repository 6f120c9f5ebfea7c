"""Surface distance of label maps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np
import torch

from convexadam._checks import show
from convexadam._typing import Float, Points, Shaped, Tensor
from convexadam.errors import GeometryError, InputError
from convexadam.geometry.grid import check_spacing
from convexadam.metrics.overlap import LabelMap, check_label_maps, select_labels

Box: TypeAlias = tuple[slice, ...]

_MAX_OBJECTS = 2**16
"""Largest label for which ``find_objects`` may run on the label map itself: it allocates a box for each up to it."""

_PAIRS = 2**26
"""Pairs of points per block: 256 MiB of distances."""


def hd95(
    fixed_labels: LabelMap,
    moved_labels: LabelMap,
    *,
    spacing_mm: tuple[float, float, float],
    labels: Iterable[int] | None = None,
) -> dict[int, float]:
    """Compute the robust Hausdorff distance of each label, in mm: the larger of the two directed 95th percentiles.

    The distances are those from every surface voxel of one label to the nearest surface voxel of the other. A surface
    voxel has at least one of its six neighbours outside the label (or outside the volume); in a single slice, one of
    the four in its plane. Learn2Reg measures in voxels and weights the surface by its area: `hd95_area_weighted`.

    Parameters
    ----------
    fixed_labels, moved_labels
        Two label maps ``[i, j, k]`` of any integer type on one grid, as tensors, arrays or `Image`; the second is the
        warped moving one.
    spacing_mm
        Voxel size along (i, j, k), in mm.
    labels
        Labels to evaluate; ``None`` for every non-zero label of either image.

    Returns
    -------
    Distance of each label, in ascending order of the labels; NaN if one of the two images lacks the label.

    Raises
    ------
    InputError
        If the maps differ in shape or are not of an integer type, or a voxel size is not positive.

    Examples
    --------
    >>> import torch
    >>> fixed, moved = torch.zeros(2, 6, 6, 6, dtype=torch.uint8)
    >>> fixed[2, 2, 2] = moved[2, 2, 4] = 1
    >>> hd95(fixed, moved, spacing_mm=(1.0, 1.0, 2.5))
    {1: 5.0}
    """
    fixed_map, moved_map = check_label_maps(fixed_labels, moved_labels)
    try:
        spacing_mm = check_spacing(spacing_mm)
    except GeometryError as error:
        raise InputError(
            f"spacing_mm must be three positive voxel sizes in mm, got {show(spacing_mm)}; pass grid.spacing_mm"
        ) from error
    present = (label for each in (fixed_map, moved_map) for label in torch.unique(each).tolist())
    selected = select_labels(present if labels is None else (), labels)
    if fixed_map.device.type != "cpu":
        return {n: hd95_on_device(fixed_map == n, moved_map == n, spacing_mm) for n in selected}
    fixed, moved = fixed_map.detach().numpy(), moved_map.detach().numpy()
    axes = axes_of_surface(fixed.shape)
    return {
        label: math.nan if box is None else _hd95(fixed[box] == label, moved[box] == label, spacing_mm, axes)
        for label, box in find_common_boxes(fixed, moved, selected)
    }


def hd95_on_device(
    fixed: Shaped[Tensor, "i j k"], moved: Shaped[Tensor, "i j k"], spacing_mm: tuple[float, float, float]
) -> float:
    """Compute `hd95` of two masks on their device, in float32, from the distances of all pairs of surface points.

    On a GPU that takes less time than copying the masks and building a tree on the CPU.
    """
    if not (bool(fixed.any()) and bool(moved.any())):
        return math.nan
    scale = torch.tensor(spacing_mm, dtype=torch.float32, device=fixed.device)
    fixed_mm, moved_mm = (_extract_surface(mask).nonzero().float() * scale for mask in (fixed, moved))
    directed = [
        torch.cat([_distance_to_nearest(part, target) for part in torch.split(source, max(1, _PAIRS // len(target)))])
        for source, target in ((fixed_mm, moved_mm), (moved_mm, fixed_mm))
    ]
    return max(float(torch.quantile(distances, 0.95)) for distances in directed)


def _distance_to_nearest(points: Points, targets: Float[Tensor, "m 3"]) -> Float[Tensor, " n"]:
    # the matrix product that cdist uses for speed loses digits of small distances
    return torch.cdist(points, targets, compute_mode="donot_use_mm_for_euclid_dist").amin(1)


def _extract_surface(mask: Shaped[Tensor, "i j k"]) -> Shaped[Tensor, "i j k"]:
    """Return the voxels of a mask with at least one of their six neighbours outside it."""
    padded, inner = torch.nn.functional.pad(mask, (1,) * 6), mask
    for axis in axes_of_surface(mask.shape):
        window = [slice(1, -1)] * 3
        for first in (0, 2):
            window[axis] = slice(first, first + mask.shape[axis])
            inner = inner & padded[tuple(window)]
    return mask & ~inner


def find_common_boxes(fixed: np.ndarray, moved: np.ndarray, labels: list[int]) -> list[tuple[int, Box | None]]:
    """Find the smallest box around each of ``labels`` (ascending) in both maps; ``None`` if one of them lacks it."""
    pairs = zip(_find_boxes(fixed, labels), _find_boxes(moved, labels), strict=True)
    boxes = [None if a is None or b is None else tuple(map(_unite, a, b)) for a, b in pairs]
    return list(zip(labels, boxes, strict=True))


def _unite(a: slice, b: slice) -> slice:
    return slice(min(a.start, b.start), max(a.stop, b.stop))


def _find_boxes(values: np.ndarray, labels: list[int]) -> list[Box | None]:
    from scipy.ndimage import find_objects

    if not labels:
        return []
    if labels[0] > 0 and labels[-1] < _MAX_OBJECTS:
        boxes = find_objects(values, labels[-1])
        return [boxes[label - 1] for label in labels]
    index = np.searchsorted(labels, values).clip(max=len(labels) - 1)
    return list(find_objects(np.where(np.asarray(labels)[index] == values, index + 1, 0), len(labels)))


def axes_of_surface(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the axes along which a label ends at a surface: those of the plane of one slice, else all three."""
    return tuple(axis for axis, n in enumerate(shape) if n > 1 or list(shape).count(1) != 1)


def _hd95(fixed: np.ndarray, moved: np.ndarray, spacing_mm: tuple[float, float, float], axes: tuple[int, ...]) -> float:
    a, b = _erode_to_surface(fixed, axes), _erode_to_surface(moved, axes)
    directed = surface_distances(a, b, spacing_mm), surface_distances(b, a, spacing_mm)
    return float(max(np.percentile(distances, 95) for distances in directed))


def surface_distances(source: np.ndarray, target: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """Compute the distance of each voxel of one mask, in memory order, to the nearest voxel of another, in mm."""
    from scipy.spatial import KDTree

    distances = np.zeros(int(source.sum()))  # voxels of both masks have a distance of 0 and are not looked up
    points, targets = (np.argwhere(mask) * np.asarray(spacing_mm) for mask in (source & ~target, target))
    tree = KDTree(targets, compact_nodes=False, balanced_tree=False)  # built in half the time, queried as fast
    distances[~target[source]] = tree.query(points, workers=torch.get_num_threads())[0]
    return distances


def _erode_to_surface(mask: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Return the voxels of a mask that an erosion along some axes removes; outside the array is background."""
    from scipy.ndimage import binary_erosion, generate_binary_structure

    neighbours = generate_binary_structure(3, 1)
    for across in {0, 1, 2} - {*axes}:
        neighbours &= np.arange(3).reshape([-1 if axis == across else 1 for axis in range(3)]) == 1
    eroded: np.ndarray = binary_erosion(mask, neighbours)
    return np.asarray(mask & ~eroded)
