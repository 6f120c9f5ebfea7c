"""Jacobian determinant of a displacement field."""

from __future__ import annotations

from convexadam._arguments import check_arguments
from convexadam._typing import Float, Tensor, Volume
from convexadam.kernels._backend import get_implementation
from convexadam.kernels._batch import over_batch

__all__ = ["jacobian_determinant"]


@over_batch(4)
@check_arguments
def jacobian_determinant(disp_vox: Float[Tensor, "*b 3 i j k"]) -> Float[Tensor, "*b i j k"]:
    """Compute the local volume change ``det(I + du/dx)``: 1 without change of volume, 0 or less in folds.

    Central differences inside, one-sided ones at the outer voxels; the derivative along an axis of one voxel is 0. The
    determinant is equal in voxels and in mm.

    Parameters
    ----------
    disp_vox
        Displacements ``[3, i, j, k]``, or several of them ``[b, 3, i, j, k]``, in voxels of their own grid.

    Returns
    -------
    ``[i, j, k]``, without unit.

    Examples
    --------
    >>> import torch
    >>> from convexadam.geometry import jacobian_determinant
    >>> jacobian_determinant(torch.zeros(3, 4, 5, 6)).unique().tolist()
    [1.0]
    """
    determinant: Volume = get_implementation(__name__, disp_vox).jacobian_determinant(disp_vox)
    return determinant
