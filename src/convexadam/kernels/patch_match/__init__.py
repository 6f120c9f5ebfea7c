"""Search for the patches of an atlas that resemble that of the target most, around each voxel."""

from __future__ import annotations

from convexadam._typing import Channels, Float, Shaped, Tensor
from convexadam.kernels._backend import get_implementation
from convexadam.kernels.patch_match.reference import FLAT, gather_patches, list_offsets

__all__ = ["FLAT", "gather_patches", "list_offsets", "match_patches"]


def match_patches(
    target: Channels,
    atlas: Channels,
    mask: Shaped[Tensor, "i j k"],
    *,
    patch_radius: int = 2,
    search_radius: int = 3,
    matches: int = 1,
) -> tuple[Shaped[Tensor, "m i j k"], Float[Tensor, "m i j k"]]:
    """Find the offsets ``o`` of a search window with the largest ``cc(T(x), A(x + o))``, the largest first.

    ``T(x)`` is the patch of ``2 patch_radius + 1`` voxels along each axis around ``x``, of each channel, minus its
    mean and divided by its norm; ``cc`` is the mean over the channels of the products of both, from -1 to 1. A patch
    whose variance is below `FLAT` counts as zero. Beyond the border, images continue with the value there. The offset
    0 wins against equal ones, then the first in the order of `list_offsets`.

    Coupé et al., "Patch-based segmentation using expert priors", NeuroImage 2011; the search of Wang et al.,
    "Multi-atlas segmentation with joint label fusion", PAMI 2013.

    Parameters
    ----------
    target, atlas
        Maps ``[c, i, j, k]`` on one grid, scaled to a variance of about 1.
    mask
        Voxels to search for, ``[i, j, k]``, bool. All others keep offset and correlation 0.
    patch_radius, search_radius
        In voxels; 0 for one voxel.
    matches
        Number ``m`` of offsets to find, at most those of the window.

    Returns
    -------
    Rows of the offsets in `list_offsets`, int16, and their correlations, both ``[m, i, j, k]``.
    """
    module = get_implementation(__name__, target, atlas)
    found: tuple[Tensor, Tensor] = module.match_patches(
        target, atlas, mask, patch_radius=patch_radius, search_radius=search_radius, matches=matches
    )
    return found
