"""Edge-preserving smoothing of a whole field along one channel."""

from __future__ import annotations

import math
import sys

import case
import torch
from case import FLOAT, Case, Triple, Work

from convexadam.kernels.bilateral import bilateral


def weighed(size: Triple, radius: int, *, channels: int = 1) -> Work:
    """Field and guide in, field out.

    A neighbour takes three differences, three of each channel, three for its exponent, and seven for its share and the
    sums; a node three quotients and sums.
    """
    voxels, neighbours = math.prod(size), (2 * radius + 1) ** 3 - 1
    return Work(FLOAT * (6 + channels) * voxels, (neighbours * (3 + 3 * channels + 3 + 1 + 7) + 6) * voxels)


def cases(size: Triple, device: str) -> list[Case]:
    """Both radii, at full resolution."""
    field, guide = case.field(size, device), case.volume(size, device)[None]
    out = torch.empty_like(field)

    def of(radius: int) -> Case:
        return Case(
            name=f"radius {radius}",
            grid=size,
            make=lambda _: lambda: bilateral(field, guide, radius=radius, sigma_nodes=1.5, sigma_guide=1.0, out=out),
            work=weighed(size, radius),
        )

    return [of(1), of(2)]


if __name__ == "__main__":
    sys.exit(case.main("bilateral"))
