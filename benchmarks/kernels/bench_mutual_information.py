"""Mutual information of two images at sample points with its derivatives, a step of the linear refinement."""

from __future__ import annotations

import case
import torch
from case import FLOAT, Case, Triple, Work

from convexadam.kernels.mutual_information import BINS, MARGIN, mutual_information

POINTS = 100_000


def count_work(points: int) -> Work:
    """Points once, eight values of each image; 24 operations to map a point, 36 to interpolate it with its slopes.

    Then 32 for each of the two sums over 16 bins, of the histogram and of the scores, and 2 for each of 72 sums.
    """
    return Work(FLOAT * points * (3 + 2 * 8), points * (2 * (24 + 36) + 32 + 2 * 32 + 2 * 72))


def cases(size: Triple, device: str) -> list[Case]:
    """Return two images, one a function of the other, at points spread over both."""
    volume = case.make_volume(size, device)
    share = (volume - volume.min()) / (volume.max() - volume.min())
    fixed, moving = (MARGIN + (BINS - 1 - 2 * MARGIN) * values for values in (share, share.flip(0) ** 2))
    points = 2 * case.make_random(POINTS, 3, device=device) - 1
    half = (torch.tensor(size, dtype=torch.float64, device=device) - 1) / 2
    matrix = torch.cat([0.9 * torch.diag(half), half[:, None]], dim=1)
    return [
        Case(
            name="value and derivatives",
            grid=size,
            make=lambda _: lambda: mutual_information(points, fixed, moving, matrix, matrix),
            work=count_work(POINTS),
        )
    ]
