"""Joint weights with torch, for blocks of voxels."""

from __future__ import annotations

import torch

from convexadam._typing import Channels, Float, Shaped, Tensor
from convexadam.kernels.patch_match.reference import gather_patches, list_offsets

_BLOCK = 4096
"""Voxels that are computed at once, which bounds the memory of their patches."""


def compute_joint_weights(
    target: Channels,
    atlases: Float[Tensor, "n c i j k"],
    offsets: Shaped[Tensor, "n i j k"],
    mask: Shaped[Tensor, "i j k"],
    *,
    patch_radius: int = 2,
    search_radius: int = 3,
    alpha: float = 0.1,
    beta: float = 2.0,
) -> Float[Tensor, "n i j k"]:
    """See the package."""
    window, number = list_offsets(search_radius).to(target.device), len(atlases)
    weights = torch.zeros((number, *mask.shape), dtype=target.dtype, device=target.device)
    ridge = alpha * torch.eye(number, dtype=target.dtype, device=target.device)
    for centres in torch.split(mask.nonzero(), _BLOCK):
        at = tuple(centres.T)
        own = gather_patches(target, centres, patch_radius)
        errors = torch.stack(
            [
                (own - gather_patches(atlas, centres + window[o[at].long()], patch_radius)).abs().flatten(1)
                for atlas, o in zip(atlases, offsets, strict=True)
            ],
            dim=1,
        )
        joint = (errors @ errors.mT / len(target)) ** beta + ridge
        solved = torch.linalg.solve(joint, torch.ones_like(joint[:, :, 0]))
        weights[(slice(None), *at)] = (solved / solved.sum(1, keepdim=True)).T
    return weights
