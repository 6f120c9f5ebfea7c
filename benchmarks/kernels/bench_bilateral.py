"""Edge-preserving smoothing of a field with a guide of one channel."""

from __future__ import annotations

import math

import case
import torch
from case import FLOAT, Case, Triple, Work

from convexadam.kernels.bilateral import bilateral


def count_work(size: Triple, radius: int, *, channels: int = 1) -> Work:
    """Field and guide in, field out.

    A neighbour needs three differences, three operations per channel, three for its exponent, and seven for its weight
    and the sums; a point needs three quotients and sums.
    """
    voxels, neighbours = math.prod(size), (2 * radius + 1) ** 3 - 1
    return Work(FLOAT * (6 + channels) * voxels, (neighbours * (3 + 3 * channels + 3 + 1 + 7) + 6) * voxels)


def cases(size: Triple, device: str) -> list[Case]:
    """Return both radii, at full resolution."""
    field, guide = case.make_field(size, device), case.make_volume(size, device)[None]
    out = torch.empty_like(field)

    def of(radius: int) -> Case:
        return Case(
            name=f"radius {radius}",
            grid=size,
            make=lambda _: lambda: bilateral(field, guide, radius=radius, sigma=1.5, sigma_guide=1.0, out=out),
            work=count_work(size, radius),
        )

    return [of(1), of(2)]
