"""Whether a volume holds labels or intensities, by its values; the type of a file does not tell."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from convexadam._typing import Shaped, Tensor
from convexadam.geometry import Image

_FEW = 32
_VOXELS_PER_LABEL = 4
_SMALLEST_STEPS = 0.9


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a volume holds, and why; ``certain`` if it cannot be anything else."""

    labels: bool
    reason: str
    certain: bool = False


def find_content(image: Image) -> Content:
    """Tell labels from intensities.

    Labels are whole numbers from -1, and either few (32 at most) or equal to at least half of their neighbours without
    changing in smallest steps only. Neighbours are pairs along the axes of which at least one is not the most frequent
    value, which is background or air. Intensities are noisy, so that few neighbours are equal; those without noise
    change gradually, in steps of the smallest difference between values.

    Examples
    --------
    >>> find_content(Image.from_array(torch.zeros(4, 4, 4))).labels
    True
    >>> find_content(Image.from_array(torch.arange(64).reshape(4, 4, 4) - 1000)).labels
    False
    """
    data = image.data[0]
    if data.is_floating_point() and not bool((data == data.round()).all()):
        return Content(labels=False, reason="it holds numbers that are not whole", certain=True)
    values, counts = torch.unique(data, return_counts=True)
    if float(values[0]) < -1:
        return Content(labels=False, reason=f"it holds negative numbers, from {float(values[0]):g}")
    n = len(values)
    if n <= min(_FEW, max(2, data.numel() // _VOXELS_PER_LABEL)):
        return Content(labels=True, reason=f"it holds {n} different whole numbers")
    steps = _find_steps(data, values[counts.argmax()])
    changed = steps[steps != 0]
    equal = 1 - len(changed) / max(len(steps), 1)
    smallest = torch.diff(values).min()
    gradual = len(changed) > 0 and float((changed == smallest).double().mean()) >= _SMALLEST_STEPS
    found = f"it holds {n} different whole numbers, equal to {100 * equal:.0f} % of their neighbours"
    return Content(labels=equal >= 0.5 and not gradual, reason=found + ", and changes gradually" * gradual)


def _find_steps(data: Shaped[Tensor, "i j k"], background: Tensor) -> Shaped[Tensor, " n"]:
    """Return the absolute differences of neighbours, except of pairs of background."""
    each = []
    for axis in range(3):
        size = data.shape[axis] - 1
        one, other = data.narrow(axis, 0, size), data.narrow(axis, 1, size)
        inside = (one != background) | (other != background)
        exact = torch.float64 if data.is_floating_point() else torch.int64
        each.append((one[inside].to(exact) - other[inside].to(exact)).abs())
    return torch.cat(each)
