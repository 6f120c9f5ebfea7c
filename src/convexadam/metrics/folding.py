"""How regular a displacement field is: folding, and spread of the local volume change.

All on voxels that have both neighbours: the two outer voxels on each side are left out, as Learn2Reg does, except along
axes with fewer than five voxels, which are kept whole. A mask is cropped in the same way.
"""

from __future__ import annotations

import math

import torch

from convexadam._typing import Field, Float, Shaped, Tensor
from convexadam.errors import InputError
from convexadam.geometry.determinants import Box, determinants_by_slab
from convexadam.geometry.tensors import finest_float

_CROP = 2


def folded_percent(disp_vox: Field, mask: Shaped[Tensor, "i j k"] | None = None) -> float:
    """Per cent of voxels with a Jacobian determinant of 0 or less: there the field turns space inside out.

    Learn2Reg's own count is taken after 3 has been added to the determinant, and so is always 0; this is the raw one.

    Parameters
    ----------
    disp_vox
        Displacements ``[3, i, j, k]`` in voxels of their own grid.
    mask
        ``[i, j, k]``; only voxels where it is above 0 count. ``None`` takes all.

    Returns
    -------
    0 to 100; NaN where the mask holds no voxel that counts.

    Raises
    ------
    InputError
        If the mask has another shape than the field.

    Examples
    --------
    >>> folded_percent(torch.zeros(3, 8, 8, 8))
    0.0
    """
    return folded_share(_counted(inner_determinant(disp_vox), disp_vox, mask)) * 100


def sdlogj(disp_vox: Field, mask: Shaped[Tensor, "i j k"] | None = None) -> float:
    """Learn2Reg's SDlogJ: standard deviation of ``log(clip(det + 3, 1e-9, 1e9))``; 0 for a translation.

    The 3 keeps folded voxels in the count and makes the number far smaller than `sdlogj_plain`.

    Parameters
    ----------
    disp_vox
        Displacements ``[3, i, j, k]`` in voxels of their own grid.
    mask
        ``[i, j, k]``; only voxels where it is above 0 count. ``None`` takes all.

    Returns
    -------
    No unit; NaN where the mask holds no voxel that counts.

    Raises
    ------
    InputError
        If the mask has another shape than the field.

    Examples
    --------
    >>> sdlogj(torch.ones(3, 8, 8, 8))
    0.0
    """
    return shifted_log_spread(_counted(inner_determinant(disp_vox), disp_vox, mask))


def sdlogj_plain(disp_vox: Field, mask: Shaped[Tensor, "i j k"] | None = None) -> float:
    """Spread of the local volume change: standard deviation of ``log(det)`` over the voxels that are not folded.

    Like `sdlogj`, but without the shift by 3.

    Parameters
    ----------
    disp_vox
        Displacements ``[3, i, j, k]`` in voxels of their own grid.
    mask
        ``[i, j, k]``; only voxels where it is above 0 count. ``None`` takes all.

    Returns
    -------
    No unit; NaN where no voxel counts.

    Raises
    ------
    InputError
        If the mask has another shape than the field.
    """
    return log_spread(_counted(inner_determinant(disp_vox), disp_vox, mask))


def inner_determinant(disp_vox: Field, dtype: torch.dtype = torch.float64) -> Float[Tensor, "a b c"]:
    """Jacobian determinant without the two outer voxels on each side, ``[i - 4, j - 4, k - 4]``.

    In float64, unless told otherwise; in float32 ten times as quick.
    """
    disp_vox = disp_vox.detach()
    if dtype == torch.float64 and finest_float(disp_vox.device) != torch.float64:
        disp_vox = disp_vox.cpu()
    slabs = determinants_by_slab(disp_vox, _inner(disp_vox.shape[1:]), lambda part: part.to(dtype))
    return torch.cat([found for _, found in slabs])


def inner_mask(mask: Shaped[Tensor, "i j k"]) -> Shaped[Tensor, "a b c"]:
    """Voxels of a mask that belong to the determinants of `inner_determinant`; boolean."""
    return (mask > 0)[_inner(mask.shape)]


def folded_share(determinants: Tensor) -> float:
    """Share of determinants that are 0 or less, 0 to 1."""
    return float((determinants <= 0).double().mean()) if determinants.numel() else math.nan


def shifted_log_spread(determinants: Tensor) -> float:
    """Return the standard deviation of ``log(clip(det + 3, 1e-9, 1e9))``."""
    return _spread((determinants + 3).clamp(1e-9, 1e9).log())


def log_spread(determinants: Tensor) -> float:
    """Return the standard deviation of ``log(det)`` where it is defined."""
    return _spread(determinants[determinants > 0].log())


def _spread(values: Tensor) -> float:
    return float(values.std(correction=0)) if values.numel() else math.nan


def _inner(shape: torch.Size) -> Box:
    i, j, k = (slice(_CROP, n - _CROP) if n > 2 * _CROP else slice(0, n) for n in shape)
    return i, j, k


def _counted(determinants: Tensor, disp_vox: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return determinants
    if mask.shape != disp_vox.shape[1:]:
        raise InputError(f"the mask has shape {tuple(mask.shape)}, the field is on {tuple(disp_vox.shape[1:])} voxels")
    return determinants[inner_mask(mask).to(determinants.device)]
