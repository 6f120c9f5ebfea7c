"""Samples of two images that depend on each other, for the tests of mutual information."""

from __future__ import annotations

import numpy as np
import torch

from convexadam.kernels.mutual_information import BINS, MARGIN

SHAPES = [((9, 11, 7), (8, 6, 10)), ((1, 7, 5), (6, 1, 4)), ((2, 3, 4), (1, 1, 1))]


def make_case(
    shapes: tuple[tuple[int, int, int], tuple[int, int, int]], count: int = 500, seed: int = 0
) -> tuple[torch.Tensor, ...]:
    """Points, two images that depend on each other, and maps to their voxels, some of which lie outside."""
    rng = np.random.default_rng(seed)
    fixed, moving = (MARGIN + (BINS - 1 - 2 * MARGIN) * rng.random(shape) ** 2 for shape in shapes)
    points = rng.uniform(-1, 1, size=(count, 3))
    matrices = []
    for shape in shapes:
        half = (np.array(shape) - 1) / 2
        matrices.append(np.c_[np.diag(1.05 * half) + rng.normal(scale=0.1, size=(3, 3)), half])
    return tuple(map(torch.from_numpy, (points, fixed, moving, *matrices)))
