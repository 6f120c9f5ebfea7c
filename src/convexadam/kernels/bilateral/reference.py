"""Edge-preserving smoothing in torch, one offset of the window at a time."""

from __future__ import annotations

import itertools

import torch

from convexadam._typing import Channels, Field, Float, Tensor, Triple


def bilateral(
    field: Field,
    guide: Channels,
    *,
    sigma: float,
    sigma_guide: float,
    sigma_field: float | None = None,
    radius: int = 1,
    out: Field | None = None,
) -> Field:
    """See the package."""
    # averages differences instead of values, so that constant fields are reproduced without rounding
    total, weight = torch.zeros_like(field), torch.zeros_like(field[0])
    reach = range(-radius, radius + 1)
    for offset in itertools.product(reach, reach, reach):
        if all(abs(o) < n for o, n in zip(offset, weight.shape, strict=True)):
            opposite: Triple = (-offset[0], -offset[1], -offset[2])
            distance = sum(o * o for o in offset) / (2 * sigma**2)
            difference = _crop_shift(field, offset) - _crop_shift(field, opposite)
            exponent = (_crop_shift(guide, offset) - _crop_shift(guide, opposite)).square().sum(0) / (
                2 * sigma_guide**2
            )
            if sigma_field is not None:
                exponent = exponent + difference.square().sum(0) / (2 * sigma_field**2)
            kernel = (-distance - exponent).exp()
            _crop_shift(weight[None], opposite).add_(kernel)
            _crop_shift(total, opposite).add_(kernel * difference)
    result = field + total / weight
    return result if out is None else out.copy_(result)


def _crop_shift(volume: Channels, offset: Triple) -> Float[Tensor, "c a b d"]:
    """Return the points ``x`` of a volume for which ``x - offset`` lies in the volume as well."""
    for axis, step in enumerate(offset, 1):
        volume = volume.narrow(axis, max(step, 0), volume.shape[axis] - abs(step))
    return volume
