"""Overlap of label maps."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
import torch

from convexadam._checks import show, to_whole
from convexadam._typing import Shaped, Tensor
from convexadam.errors import InputError
from convexadam.geometry import Image
from convexadam.geometry.image import to_native, to_signed
from convexadam.geometry.tensors import check_values

LabelMap: TypeAlias = Shaped[Tensor, "i j k"] | np.ndarray | Image
"""Labels of each voxel, of an integer type."""

AnyLabels: TypeAlias = Shaped[Tensor, "..."] | np.ndarray | Image
"""Labels of an integer type, of any shape."""

_MAX_BINS = 2**16
"""Largest range of labels that is counted in a histogram instead of by sorting."""


def dice(
    fixed_labels: LabelMap,
    moved_labels: LabelMap,
    *,
    labels: Iterable[int] | None = None,
) -> dict[int, float]:
    """Compute the Dice overlap ``2 |A and B| / (|A| + |B|)`` of each label, from 0 (disjoint) to 1 (equal).

    Parameters
    ----------
    fixed_labels, moved_labels
        Two label maps ``[i, j, k]`` of any integer type on one grid, as tensors, arrays or `Image`; the second is the
        warped moving one.
    labels
        Labels to evaluate; ``None`` for every non-zero label of either image, as ITK does. A label scores 0 if one of
        the two images lacks it, NaN if both do. Learn2Reg evaluates the labels that the fixed and the *original* moving
        image have in common: pass ``common_labels(fixed, moving)`` for that.

    Returns
    -------
    Overlap of each label, in ascending order of the labels.

    Raises
    ------
    InputError
        If the maps differ in shape or are not of an integer type.

    Examples
    --------
    >>> fixed = torch.tensor([1, 1, 2, 0]).reshape(1, 1, 4)
    >>> moved = torch.tensor([1, 0, 2, 2]).reshape(1, 1, 4)
    >>> {label: round(value, 3) for label, value in dice(fixed, moved).items()}
    {1: 0.667, 2: 0.667}
    """
    fixed, moved = check_label_maps(fixed_labels, moved_labels)
    in_fixed, in_moved = _count_voxels(fixed), _count_voxels(moved)
    same = fixed == moved
    in_both = _count_voxels(torch.where(same, fixed, torch.zeros_like(fixed)))
    in_both[0] = in_both.get(0, 0) - int((~same).sum())
    result = {}
    for label in select_labels({*in_fixed, *in_moved}, labels):
        total = in_fixed.get(label, 0) + in_moved.get(label, 0)
        result[label] = 2 * in_both.get(label, 0) / total if total else math.nan
    return result


def common_labels(fixed_labels: AnyLabels, moving_labels: AnyLabels) -> list[int]:
    """Return the non-zero labels that both images have, in ascending order: those that Learn2Reg evaluates.

    The images may have different grids; pass the moving labels before warping.

    Examples
    --------
    >>> common_labels(torch.tensor([0, 1, 2, 5]), torch.tensor([5, 2, 0]))
    [2, 5]
    """
    fixed, moving = to_labels(fixed_labels, "fixed_labels"), to_labels(moving_labels, "moving_labels")
    return sorted((set(_count_voxels(fixed)) & set(_count_voxels(moving))) - {0})


def check_label_maps(fixed_labels: LabelMap, moved_labels: LabelMap) -> tuple[Tensor, Tensor]:
    """Return both label maps on the device of the fixed one; raise unless they are label maps on one grid."""
    fixed, moved = to_labels(fixed_labels, "fixed_labels"), to_labels(moved_labels, "moved_labels")
    if fixed.ndim != 3 or fixed.shape != moved.shape:
        raise InputError(
            "fixed_labels and moved_labels must be two maps [i, j, k] on one grid, got shapes "
            f"{tuple(fixed.shape)} and {tuple(moved.shape)}; warp the moving labels to the fixed grid"
        )
    return fixed, moved.to(fixed.device)


def to_labels(values: AnyLabels, name: str) -> Tensor:
    """Return the labels of a tensor, an array or an `Image` of one channel; raise unless they are whole numbers."""
    if isinstance(values, Image):
        if values.data.shape[0] != 1:
            raise InputError(f"{name} must have one channel, got {values.data.shape[0]}; pass one label map")
        values = values.data[0]
    elif isinstance(values, np.ndarray) and values.dtype.kind in "biu" and values.ndim:
        values = to_signed(torch.from_numpy(to_native(values)))
    if not isinstance(values, torch.Tensor):
        raise InputError(
            f"{name} must be a tensor, an array or an Image of an integer type, got {show(values)}; read files with "
            "convexadam.read_image"
        )
    check_values(values, name)
    if values.is_floating_point():
        raise InputError(
            f"{name} must be of an integer type, got {values.dtype}; convert it with .round().to(torch.int32) if "
            "it contains labels"
        )
    return to_signed(values)


def select_labels(present: Iterable[int], labels: Iterable[int] | None) -> list[int]:
    """Return ``labels`` in ascending order, or all that are present but the background.

    Raises
    ------
    InputError
        If ``labels`` are not whole numbers.
    """
    try:
        return sorted({to_whole(n) for n in labels} if labels is not None else {int(n) for n in present} - {0})
    except TypeError as error:
        raise InputError(f"labels must be whole numbers, got {show(labels)}; pass a list of them") from error


def _count_voxels(values: Tensor) -> dict[int, int]:
    if values.numel() == 0:
        return {}
    numbers = values.flatten().to(torch.int64, copy=True)
    low, high = (int(end) for end in torch.aminmax(numbers))
    if high - low < _MAX_BINS:  # a histogram takes a tenth of the time of sorting
        counts = torch.bincount(numbers.sub_(low))
        return {low + n: count for n, count in enumerate(counts.tolist()) if count}
    labels, counts = torch.unique(values, return_counts=True)
    return {int(label): count for label, count in zip(labels.tolist(), counts.tolist(), strict=True)}
