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
    for offset in itertools.product(range(-radius, radius + 1), repeat=3):
        if all(abs(o) < n for o, n in zip(offset, weight.shape, strict=True)):
            distance = sum(o * o for o in offset) / (2 * sigma_nodes**2)
            difference = _part(field, offset) - _part(field, _opposite(offset))
            apart = (_part(guide, offset) - _part(guide, _opposite(offset))).square().sum(0) / (2 * sigma_guide**2)
            if sigma_field is not None:
                apart = apart + difference.square().sum(0) / (2 * sigma_field**2)
            share = (-distance - apart).exp()
            _part(weight[None], _opposite(offset)).add_(share)
            _part(total, _opposite(offset)).add_(share * difference)
    smooth = field + total / weight
    return smooth if out is None else out.copy_(smooth)


def _part(volume: Channels, offset: Triple) -> Float[Tensor, "c a b d"]:
    """Nodes that a step along ``offset`` leads to."""
    for axis, step in enumerate(offset, 1):
        volume = volume.narrow(axis, max(step, 0), volume.shape[axis] - abs(step))
    return volume


def _opposite(offset: Triple) -> Triple:
    i, j, k = offset
    return -i, -j, -k
