"""Search of an atlas for the patches that resemble those of a target most."""

from __future__ import annotations

import case
import torch
from case import FLOAT, Case, Triple, Work

from convexadam.kernels.patch_match import match_patches

PATCH, SEARCH = 2, 3


def count_work(voxels: int) -> Work:
    """Two volumes and their moments in, offset and correlation out; for each offset three sums of a width, and six."""
    width, offsets = 2 * PATCH + 1, (2 * SEARCH + 1) ** 3
    return Work(FLOAT * voxels * (2 + 4 + 2), voxels * offsets * (2 * width + 2 * width + 6))


def cases(size: Triple, device: str) -> list[Case]:
    """Return two volumes of another shape, everywhere."""
    size = case.coarsen_grid(size, 2)
    target = case.make_volume(size, device)[None]
    mask = torch.ones(size, dtype=torch.bool, device=device)
    return [
        Case(
            name="343 offsets",
            grid=size,
            make=lambda _: (
                lambda: match_patches(target, target.flip(1), mask, patch_radius=PATCH, search_radius=SEARCH)
            ),
            work=count_work(mask.numel()),
        )
    ]
