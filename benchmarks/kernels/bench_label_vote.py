"""Weighted vote of the patches of atlases."""

from __future__ import annotations

import case
import torch
from case import FLOAT, Case, Triple, Work

from convexadam.kernels.label_vote import cast_votes

ATLASES, VOTE, SEARCH, LABELS = 8, 2, 3, 20


def count_work(voxels: int) -> Work:
    """Labels, weights and offsets in, label and share out; one addition for each atlas and voxel of a patch."""
    return Work(FLOAT * voxels * (3 * ATLASES + 2), voxels * ATLASES * (2 * VOTE + 1) ** 3)


def cases(size: Triple, device: str) -> list[Case]:
    """Return eight label maps of bands, shifted against each other."""
    size = case.coarsen_grid(size, 4)
    volume = case.make_volume(size, device)
    share = (volume - volume.min()) / (volume.max() - volume.min())
    labels = torch.stack([(share.roll(n, 2) * (LABELS - 1)).int() for n in range(ATLASES)])
    weights = torch.full((ATLASES, *size), 1 / ATLASES, dtype=torch.float32, device=device)
    offsets = torch.full((ATLASES, *size), (2 * SEARCH + 1) ** 3 // 2, dtype=torch.int16, device=device)
    mask = torch.ones(size, dtype=torch.bool, device=device)
    return [
        Case(
            name="8 atlases, 20 labels",
            grid=size,
            make=lambda _: (
                lambda: cast_votes(labels, weights, offsets, mask, count=LABELS, vote_radius=VOTE, search_radius=SEARCH)
            ),
            work=count_work(mask.numel()),
        )
    ]
