"""Overlap of label maps."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

from convexadam._typing import Shaped, Tensor
from convexadam.errors import InputError

_FEW = 2**16
"""Numbers from the smallest to the largest label, up to which each is counted."""


def dice(
    fixed_labels: Shaped[Tensor, "i j k"],
    moved_labels: Shaped[Tensor, "i j k"],
    *,
    labels: Iterable[int] | None = None,
) -> dict[int, float]:
    """Dice overlap ``2 |A and B| / (|A| + |B|)`` of each label; 1 is a perfect match, 0 none at all.

    Parameters
    ----------
    fixed_labels, moved_labels
        Two label maps ``[i, j, k]`` of any whole-number type on one grid; the second is the moving one after warping.
    labels
        Which labels to score. ``None`` takes every non-zero label of the fixed image, so that a label that the warp
        has lost counts as 0. Learn2Reg scores the labels that the fixed and the *original* moving image share: pass
        ``common_labels(fixed, moving)`` for that. A label that is asked for and absent is the caller's choice: it
        scores 0 where one of the two images lacks it, NaN where both do.

    Returns
    -------
    One number for each label, in rising order of the labels.

    Raises
    ------
    InputError
        If the maps differ in shape or hold no whole-number type.

    Examples
    --------
    >>> fixed = torch.tensor([1, 1, 2, 0]).reshape(1, 1, 4)
    >>> moved = torch.tensor([1, 0, 2, 2]).reshape(1, 1, 4)
    >>> {label: round(value, 3) for label, value in dice(fixed, moved).items()}
    {1: 0.667, 2: 0.667}
    """
    moved_labels = check_label_maps(fixed_labels, moved_labels)
    in_fixed, in_moved = _voxel_counts(fixed_labels), _voxel_counts(moved_labels)
    same = fixed_labels == moved_labels
    in_both = _voxel_counts(torch.where(same, fixed_labels, torch.zeros_like(fixed_labels)))
    in_both[0] = in_both.get(0, 0) - int((~same).sum())
    wanted = sorted(set(in_fixed) - {0} if labels is None else {int(label) for label in labels})
    result = {}
    for label in wanted:
        total = in_fixed.get(label, 0) + in_moved.get(label, 0)
        result[label] = 2 * in_both.get(label, 0) / total if total else math.nan
    return result


def common_labels(fixed_labels: Tensor, moving_labels: Tensor) -> list[int]:
    """Non-zero labels that both images have, in rising order: those that Learn2Reg scores.

    The two images need not share a grid; pass the moving labels as they were before any warping.

    Examples
    --------
    >>> common_labels(torch.tensor([0, 1, 2, 5]), torch.tensor([5, 2, 0]))
    [2, 5]
    """
    return sorted((set(_voxel_counts(fixed_labels)) & set(_voxel_counts(moving_labels))) - {0})


def check_label_maps(fixed_labels: Tensor, moved_labels: Tensor) -> Tensor:
    """Return the moved labels on the device of the fixed ones; raise unless both are label maps on one grid."""
    for name, values in (("fixed", fixed_labels), ("moved", moved_labels)):
        if values.is_floating_point() or values.is_complex():
            raise InputError(
                f"labels are whole numbers, but the {name} labels have type {values.dtype}; "
                "where they hold labels all the same, pass labels.round().to(torch.int32)"
            )
    if fixed_labels.ndim != 3 or fixed_labels.shape != moved_labels.shape:
        raise InputError(
            f"two label maps [i, j, k] on one grid are needed, but the shapes are {tuple(fixed_labels.shape)} and "
            f"{tuple(moved_labels.shape)}; warp the moving labels onto the fixed grid first"
        )
    return moved_labels.to(fixed_labels.device)


def _voxel_counts(values: Tensor) -> dict[int, int]:
    if values.numel() == 0:
        return {}
    numbers = values.flatten().to(torch.int64, copy=True)
    low, high = (int(end) for end in torch.aminmax(numbers))
    if high - low < _FEW:  # counting takes a tenth of the time of sorting
        counts = torch.bincount(numbers.sub_(low))
        return {low + n: count for n, count in enumerate(counts.tolist()) if count}
    found, counts = torch.unique(values, return_counts=True)
    return {int(label): count for label, count in zip(found.tolist(), counts.tolist(), strict=True)}
