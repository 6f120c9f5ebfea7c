"""Correlation of two images in the window around each point, which holds for two contrasts."""

from __future__ import annotations

import torch
from torch.nn.functional import avg_pool3d

from convexadam._typing import Float, Shaped, Tensor, Volume

_WINDOW = 5
"""Edge of the window of the local correlation, in points."""

_STRUCTURE = 0.1
"""Standard deviation of a window above which it has structure, as a share of that of the whole image."""

LEAST_SHARE = 0.2
"""Share of a window that is in both images, at least."""


def square_correlation(fixed: Volume, moving: Volume, weight: Volume) -> Volume:
    """Compute the squared correlation of the windows around each point; 0 where one of them is constant or empty."""
    stack = torch.stack([weight, fixed * weight, moving * weight])
    products = torch.stack([fixed**2, moving**2, fixed * moving]) * weight
    sums = window_mean(torch.cat([stack, products]))
    share = sums[0].clamp_min(1e-6)
    f, m, ff, mm, fm = (s / share for s in sums[1:])
    floors = [_floor(v, weight) for v in (fixed, moving)]
    variance_f, variance_m = (ff - f**2).clamp_min(floors[0]), (mm - m**2).clamp_min(floors[1])
    squared = ((fm - f * m) ** 2 / (variance_f * variance_m)).clamp(0, 1)
    return torch.where((sums[0] > LEAST_SHARE) & (weight > 0), squared, torch.zeros_like(squared))


def _floor(values: Volume, weight: Volume) -> Tensor:
    """Return a variance below which a window counts as constant."""
    inside = values[weight > 0]
    spread = inside.var(correction=0) if inside.numel() else values.new_zeros(())
    return (_STRUCTURE**2 / 10 * spread).clamp_min(1e-12)


def has_structure(values: Volume, weight: Volume) -> Shaped[Tensor, "i j k"]:
    """Return whether the window around each point varies enough to be compared."""
    sums = window_mean(torch.stack([weight, values * weight, values**2 * weight]))
    share = sums[0].clamp_min(1e-6)
    variance = sums[2] / share - (sums[1] / share) ** 2
    inside = values[weight > 0]
    return variance > _STRUCTURE**2 * (inside.var(correction=0) if inside.numel() else 1.0)


def window_mean(values: Float[Tensor, "c i j k"]) -> Float[Tensor, "c i j k"]:
    """Average along one axis after the other, which is the mean of the window, also where an edge cuts it."""
    for axis, n in enumerate(values.shape[1:]):
        size, half = [1, 1, 1], [0, 0, 0]
        size[axis] = min(_WINDOW, n - 1 + n % 2)
        half[axis] = size[axis] // 2
        values = avg_pool3d(values[None], size, stride=1, padding=half, count_include_pad=False)[0]
    return values
