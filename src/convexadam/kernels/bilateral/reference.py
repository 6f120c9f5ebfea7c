"""Edge-preserving smoothing in torch: one shift of the volume after the other."""

from __future__ import annotations

import itertools

import torch

from convexadam._typing import Channels, Field, Float, Tensor, Triple


def bilateral(
    field: Field,
    guide: Channels,
    *,
    sigma_nodes: float,
    sigma_guide: float,
    sigma_field: float | None = None,
    radius: int = 1,
    out: Field | None = None,
) -> Field:
    """See the package."""
    # the mean of differences: it is 0, without rounding, where nothing changes
    total, weight = torch.zeros_like(field), torch.zeros_like(field[0])
    reach = range(-radius, radius + 1)
    for offset in itertools.product(reach, reach, reach):
        if all(abs(o) < n for o, n in zip(offset, weight.shape, strict=True)):
            back: Triple = (-offset[0], -offset[1], -offset[2])
            distance = sum(o * o for o in offset) / (2 * sigma_nodes**2)
            difference = _part(field, offset) - _part(field, back)
            apart = (_part(guide, offset) - _part(guide, back)).square().sum(0) / (2 * sigma_guide**2)
            if sigma_field is not None:
                apart = apart + difference.square().sum(0) / (2 * sigma_field**2)
            share = (-distance - apart).exp()
            _part(weight[None], back).add_(share)
            _part(total, back).add_(share * difference)
    smooth = field + total / weight
    return smooth if out is None else out.copy_(smooth)


def _part(volume: Channels, offset: Triple) -> Float[Tensor, "c a b d"]:
    """Nodes that a step along ``offset`` leads to from within the volume."""
    for axis, step in enumerate(offset, 1):
        volume = volume.narrow(axis, max(step, 0), volume.shape[axis] - abs(step))
    return volume
