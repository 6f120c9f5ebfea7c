"""Inverse of a displacement at any number of points."""

from __future__ import annotations

from convexadam._typing import Field, Float, Tensor
from convexadam.kernels._backend import implementation

__all__ = ["origins"]


def origins(
    displacement: Field, targets: Float[Tensor, "3 n"], guess: Float[Tensor, "3 n"]
) -> tuple[Float[Tensor, "3 n"], Float[Tensor, "3 n"]]:
    """Find the points ``x`` that ``x + u(x)`` takes to the targets, each on its own.

    From the better of ``target - u(target)`` and the guess: fixed-point steps (Chen, Lu, Chen, Ruchala and Olivera,
    Medical Physics 2008) as long as each halves what is left, then Newton's, shortened where they would not improve.
    So the field may change by more than a voxel from one to the next, as in a large rotation or expansion, if only it
    does not fold.

    Parameters
    ----------
    displacement
        ``u``, ``[3, i, j, k]`` in voxels; linear, edge values outside. Quickest with the components next to each other
        in memory.
    targets
        ``[3, n]``, indices of voxels of the displacement's grid, also between them and outside.
    guess
        Where the points may be, ``[3, n]``.

    Returns
    -------
    The points, and ``x + u(x) - target``, by how much each misses its target: a thousandth of a voxel or less where the
    field does not fold.
    """
    result: tuple[Tensor, Tensor] = implementation(__name__, displacement, targets, guess).origins(
        displacement, targets, guess
    )
    return result
