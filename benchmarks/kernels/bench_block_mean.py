"""Means over blocks, of one channel with and without weights, as images, weights and intensities are pooled."""

from __future__ import annotations

import math

import case
import torch
from case import FLOAT, Case, Triple, Work

from convexadam.kernels.block_mean import block_mean, complete_weight


def cases(size: Triple, device: str) -> list[Case]:
    """Return plain and weighted means over blocks of 2 voxels a side, of 4, and the weights of complete blocks."""
    volume, points = case.make_random(1, *size, device=device), math.prod(size)
    weight = torch.ones(size, device=device)
    weight[: size[0] // 8] = 0
    plain, weighted = Work(FLOAT * points, points), Work(2 * FLOAT * points, 3 * points)
    return [
        Case(name="spacing 2", grid=size, make=lambda _: lambda: block_mean(volume, (2, 2, 2)), work=plain),
        Case(name="spacing 4", grid=size, make=lambda _: lambda: block_mean(volume, (4, 4, 4)), work=plain),
        Case(name="weighted", grid=size, make=lambda _: lambda: block_mean(volume, (2, 2, 2), weight), work=weighted),
        Case(name="complete", grid=size, make=lambda _: lambda: complete_weight(weight, (2, 2, 2)), work=weighted),
    ]
