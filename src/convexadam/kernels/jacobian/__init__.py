"""Local volume change of a displacement field."""

from __future__ import annotations

from convexadam._typing import Field, Volume
from convexadam.kernels._backend import implementation

__all__ = ["jacobian_determinant"]


def jacobian_determinant(disp_vox: Field) -> Volume:
    """Local volume change ``det(I + du/dx)``; 1 means unchanged, <= 0 means folded.

    Central differences inside, one-sided ones at the outer voxels; an axis of one voxel does not vary. The
    determinant is the same in voxels and in mm.

    Parameters
    ----------
    disp_vox
        Displacements ``[3, i, j, k]`` in voxels of their own grid.

    Returns
    -------
    ``[i, j, k]``, no unit.

    Examples
    --------
    >>> import torch
    >>> from convexadam.geometry import jacobian_determinant
    >>> jacobian_determinant(torch.zeros(3, 4, 5, 6)).unique().tolist()
    [1.0]
    """
    determinant: Volume = implementation(__name__, disp_vox).jacobian_determinant(disp_vox)
    return determinant
