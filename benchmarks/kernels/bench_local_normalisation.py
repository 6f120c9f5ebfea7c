"""Local normalisation of descriptors, as in `convexadam.continuous.JointSsd`, their slopes, and their scaling."""

from __future__ import annotations

import math

import case
import torch
from case import FLOAT, Case, Triple, Work

from convexadam.kernels.local_normalisation import mean_squared_slopes, normalise_locally, scale_channels

_CHANNELS, _RADIUS = 12, 2


def count_work(size: Triple) -> Work:
    """Count maps read twice for the moments of the channels and once more, and written, weights and sums of windows.

    Both moments of the channels take 6 operations for each value, those of the windows ``2 radius + 1`` products and
    sums along the first axis and sums along the others, and the result 8.
    """
    values, taps = _CHANNELS * math.prod(size), 2 * _RADIUS + 1
    return Work(FLOAT * (4 * values + 2 * math.prod(size)), values * (6 + 5 * taps + 4 * taps + 8))


def cases(size: Triple, device: str) -> list[Case]:
    """Return the normalisation to maps with the channels last, the slopes of these, and their scaling in place."""
    maps = case.make_random(_CHANNELS, *size, device=device)
    out = torch.empty((*size, _CHANNELS), device=device).permute(3, 0, 1, 2)
    factors, values = torch.ones(_CHANNELS, device=device), maps.numel()
    return [
        Case(
            name="radius 2",
            grid=size,
            make=lambda _: lambda: normalise_locally(maps, radius=_RADIUS, floor=0.3, out=out),
            work=count_work(size),
        ),
        Case(
            name="slopes",
            grid=size,
            make=lambda _: lambda: mean_squared_slopes(out),
            work=Work(FLOAT * values, 12 * values),
        ),
        Case(
            name="scaling",
            grid=size,
            make=lambda _: lambda: scale_channels(out, factors),
            work=Work(FLOAT * 2 * values, values),
        ),
    ]
