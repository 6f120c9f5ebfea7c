"""Inversion of a displacement field at a list of points."""

from __future__ import annotations

from convexadam._typing import Field, Float, Tensor
from convexadam.kernels._backend import get_implementation

__all__ = ["origins"]


def origins(
    displacement: Field, targets: Float[Tensor, "3 n"], guess: Float[Tensor, "3 n"]
) -> tuple[Float[Tensor, "3 n"], Float[Tensor, "3 n"]]:
    """Solve ``x + u(x) = target`` for each target.

    Starts from the better of ``target - u(target)`` and the guess, with fixed-point iterations (Chen, Lu, Chen, Ruchala
    and Olivera, Medical Physics 2008) while each halves the residual, followed by Newton steps, which are shortened
    unless they reduce it. Fields may therefore change by more than a voxel from one voxel to the next, as in large
    rotations or expansions, provided that they do not fold.

    Parameters
    ----------
    displacement
        ``u``, ``[3, i, j, k]`` in voxels, interpolated linearly, with edge values outside. Fastest if the components
        are last in memory.
    targets
        Positions ``[3, n]`` in voxels of the grid of the displacement, also between voxels and outside.
    guess
        Initial positions, ``[3, n]``.

    Returns
    -------
    The points ``[3, n]``, and their residuals ``x + u(x) - target``, at most a thousandth of a voxel where the field
    does not fold.
    """
    result: tuple[Tensor, Tensor] = get_implementation(__name__, displacement, targets, guess).origins(
        displacement, targets, guess
    )
    return result
