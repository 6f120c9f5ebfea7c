"""Weights of atlases for joint label fusion."""

from __future__ import annotations

import case
import torch
from case import FLOAT, Case, Triple, Work

from convexadam.kernels.joint_fusion import compute_joint_weights

ATLASES, PATCH, SEARCH = 8, 2, 3


def count_work(voxels: int) -> Work:
    """All volumes and offsets in, weights out; patches standardised, products of all pairs, one system."""
    size = (2 * PATCH + 1) ** 3
    pairs = ATLASES * (ATLASES + 1) // 2
    operations = (ATLASES + 1) * 5 * size + ATLASES * 2 * size + pairs * 2 * size + ATLASES**3 // 3
    return Work(FLOAT * voxels * (1 + 3 * ATLASES), voxels * operations)


def cases(size: Triple, device: str) -> list[Case]:
    """Return eight atlases, shifted copies of the target."""
    size = case.coarsen_grid(size, 4)
    target = case.make_volume(size, device)[None]
    atlases = torch.stack([target.roll(n, 3) for n in range(ATLASES)])
    offsets = torch.full((ATLASES, *size), (2 * SEARCH + 1) ** 3 // 2, dtype=torch.int16, device=device)
    mask = torch.ones(size, dtype=torch.bool, device=device)
    return [
        Case(
            name="8 atlases",
            grid=size,
            make=lambda _: (
                lambda: compute_joint_weights(target, atlases, offsets, mask, patch_radius=PATCH, search_radius=SEARCH)
            ),
            work=count_work(mask.numel()),
        )
    ]
