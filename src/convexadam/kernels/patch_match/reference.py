"""Patch search with torch, one offset at a time, over the voxels of the mask."""

from __future__ import annotations

import torch
from torch.nn import functional

from convexadam._typing import Channels, Float, Pooled, Shaped, Tensor

FLAT = 1e-4
"""Variance below which a patch counts as constant."""


def list_offsets(radius: int) -> Shaped[Tensor, "n 3"]:
    """Return all offsets of a window, int64, the last axis fastest; the offset 0 is in the middle."""
    line = torch.arange(-radius, radius + 1, dtype=torch.int64, device="cpu")
    return torch.cartesian_prod(line, line, line)


def match_patches(
    target: Channels,
    atlas: Channels,
    mask: Shaped[Tensor, "i j k"],
    *,
    patch_radius: int = 2,
    search_radius: int = 3,
    matches: int = 1,
) -> tuple[Shaped[Tensor, "m i j k"], Float[Tensor, "m i j k"]]:
    """See the package."""
    offsets = list_offsets(search_radius).to(target.device)
    centres = mask.nonzero()
    own = gather_patches(target, centres, patch_radius)
    middle = len(offsets) // 2
    best = torch.full((matches, len(centres)), middle, dtype=torch.int16, device=target.device)
    largest = torch.full((matches, len(centres)), -torch.inf, dtype=target.dtype, device=target.device)
    for number in (middle, *range(middle), *range(middle + 1, len(offsets))):
        score = (own * gather_patches(atlas, centres + offsets[number], patch_radius)).sum((1, 2)) / len(target)
        carried = torch.full_like(best[0], number)
        for row in range(matches):  # each row passes what is smaller to the next one
            better = score > largest[row]
            largest[row], score = torch.where(better, score, largest[row]), torch.where(better, largest[row], score)
            best[row], carried = torch.where(better, carried, best[row]), torch.where(better, best[row], carried)
    found = torch.full((matches, *mask.shape), middle, dtype=torch.int16, device=target.device)
    value = torch.zeros((matches, *mask.shape), dtype=target.dtype, device=target.device)
    found[:, mask], value[:, mask] = best, largest
    return found, value


def gather_patches(image: Channels, centres: Shaped[Tensor, "v 3"], radius: int) -> Float[Tensor, "v c p"]:
    """Return the patches around voxels, which may lie outside the image, minus their means and of norm 1 or 0."""
    window = list_offsets(radius).to(centres.device)
    last = torch.tensor(image.shape[1:], dtype=torch.int64, device=centres.device) - 1
    i, j, k = (centres[:, None] + window).clamp_min(0).minimum(last).unbind(-1)
    patches = image[:, i, j, k].movedim(0, 1)
    patches = patches - patches.mean(-1, keepdim=True)
    squared = (patches * patches).sum(-1, keepdim=True)
    scale = torch.where(squared > FLAT * len(window), squared, torch.inf).rsqrt()
    return patches * scale


def pad_image(image: Channels, width: int) -> Pooled:
    """Continue an image beyond its border with the value there."""
    padded: Tensor = functional.pad(image[None], (width,) * 6, mode="replicate")[0]
    return padded
