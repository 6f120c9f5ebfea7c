"""Regularity of a displacement field: folding and spread of the local volume change.

The two outer voxels on each side are excluded, as in Learn2Reg, except along axes of fewer than five voxels. A mask is
cropped in the same way.
"""

from __future__ import annotations

import math

import torch

from convexadam._arguments import check_arguments
from convexadam._checks import show
from convexadam._typing import Field, Float, Shaped, Tensor
from convexadam.errors import InputError
from convexadam.geometry.determinants import Box, iterate_determinants
from convexadam.geometry.tensors import check_tensor, finest_float

_CROP = 2


@check_arguments
def folded_percent(disp_vox: Field, mask: Shaped[Tensor, "i j k"] | None = None) -> float:
    """Compute the percentage of voxels with a Jacobian determinant of 0 or less, where the field folds.

    Learn2Reg counts after adding 3 to the determinant, which gives 0 for almost any field; here nothing is added.

    Parameters
    ----------
    disp_vox
        Displacements ``[3, i, j, k]`` in voxels of their own grid.
    mask
        ``[i, j, k]``; only voxels where it is above 0 are evaluated. ``None`` evaluates all.

    Returns
    -------
    0 to 100; NaN if no voxel is evaluated.

    Raises
    ------
    InputError
        If the mask and the field differ in shape.

    Examples
    --------
    >>> folded_percent(torch.zeros(3, 8, 8, 8))
    0.0
    """
    return folded_share(_select(inner_determinant(disp_vox), disp_vox, mask)) * 100


@check_arguments
def sdlogj(disp_vox: Field, mask: Shaped[Tensor, "i j k"] | None = None) -> float:
    """Compute Learn2Reg's SDlogJ: standard deviation of ``log(clip(det + 3, 1e-9, 1e9))``; 0 for a translation.

    The 3 includes folded voxels, and makes the value far smaller than `sdlogj_plain`.

    Parameters
    ----------
    disp_vox
        Displacements ``[3, i, j, k]`` in voxels of their own grid.
    mask
        ``[i, j, k]``; only voxels where it is above 0 are evaluated. ``None`` evaluates all.

    Returns
    -------
    No unit; NaN if no voxel is evaluated.

    Raises
    ------
    InputError
        If the mask and the field differ in shape.

    Examples
    --------
    >>> sdlogj(torch.ones(3, 8, 8, 8))
    0.0
    """
    return shifted_log_spread(_select(inner_determinant(disp_vox), disp_vox, mask))


@check_arguments
def sdlogj_plain(disp_vox: Field, mask: Shaped[Tensor, "i j k"] | None = None) -> float:
    """Compute the standard deviation of ``log(det)``, the local volume change, over the voxels that do not fold.

    As `sdlogj`, without the addition of 3.

    Parameters
    ----------
    disp_vox
        Displacements ``[3, i, j, k]`` in voxels of their own grid.
    mask
        ``[i, j, k]``; only voxels where it is above 0 are evaluated. ``None`` evaluates all.

    Returns
    -------
    No unit; NaN if no voxel is evaluated.

    Raises
    ------
    InputError
        If the mask and the field differ in shape.

    Examples
    --------
    >>> import torch
    >>> from convexadam.metrics import sdlogj_plain
    >>> sdlogj_plain(torch.ones(3, 8, 8, 8))  # a translation changes no volume
    0.0
    """
    return log_spread(_select(inner_determinant(disp_vox), disp_vox, mask))


def inner_determinant(disp_vox: Field, dtype: torch.dtype = torch.float64) -> Float[Tensor, "a b c"]:
    """Compute the Jacobian determinant without the two outer voxels on each side, ``[i - 4, j - 4, k - 4]``.

    Computed in ``dtype``; float32 takes a tenth of the time.
    """
    if not isinstance(disp_vox, torch.Tensor) or disp_vox.ndim != 4 or disp_vox.shape[0] != 3:
        raise InputError(
            f"disp_vox must be a tensor [3, i, j, k], got {show(disp_vox)}; pass transform.to_voxels() of a field"
        )
    check_tensor(disp_vox, "disp_vox")
    disp_vox = disp_vox.detach()
    if dtype == torch.float64 and finest_float(disp_vox.device) != torch.float64:
        disp_vox = disp_vox.cpu()
    slabs = iterate_determinants(disp_vox, _crop(disp_vox.shape[1:]), lambda part: part.to(dtype))
    return torch.cat([determinants for _, determinants in slabs])


def inner_mask(mask: Shaped[Tensor, "i j k"]) -> Shaped[Tensor, "a b c"]:
    """Crop a mask to the voxels of `inner_determinant`; boolean."""
    return (mask > 0)[_crop(mask.shape)]


def folded_share(determinants: Tensor) -> float:
    """Compute the fraction of determinants of 0 or less, 0 to 1."""
    return float((determinants <= 0).double().mean()) if determinants.numel() else math.nan


def shifted_log_spread(determinants: Tensor) -> float:
    """Compute the standard deviation of ``log(clip(det + 3, 1e-9, 1e9))``."""
    return _standard_deviation((determinants + 3).clamp(1e-9, 1e9).log())


def log_spread(determinants: Tensor) -> float:
    """Compute the standard deviation of ``log(det)`` where the determinant is above 0."""
    return _standard_deviation(determinants[determinants > 0].log())


def _standard_deviation(values: Tensor) -> float:
    return float(values.std(correction=0)) if values.numel() else math.nan


def _crop(shape: torch.Size) -> Box:
    i, j, k = (slice(_CROP, n - _CROP) if n > 2 * _CROP else slice(0, n) for n in shape)
    return i, j, k


def _select(determinants: Tensor, disp_vox: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return determinants
    if not isinstance(mask, torch.Tensor) or mask.shape != disp_vox.shape[1:]:
        found = tuple(mask.shape) if isinstance(mask, torch.Tensor) else show(mask)
        raise InputError(
            f"mask must be a tensor of the shape of the field, {tuple(disp_vox.shape[1:])}, got {found}; resample it "
            "to the grid of the field"
        )
    check_tensor(mask, "mask")
    return determinants[inner_mask(mask).to(determinants.device)]
