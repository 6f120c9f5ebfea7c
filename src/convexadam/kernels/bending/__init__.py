"""Bending energy of a displacement field and its gradient, by second differences."""

from __future__ import annotations

from convexadam._typing import Field, Float, Tensor
from convexadam.kernels._backend import get_implementation

__all__ = ["bending", "bending_gradient"]


def bending(field: Field, *, weight: float = 1.0, add_to: Field | None = None) -> tuple[Float[Tensor, ""], Field]:
    """Compute ``weight / 3 mean_x sum_ab |d_a d_b u(x)|^2`` and its gradient with respect to ``u``.

    ``d_a d_a u(x) = u(x + e_a) - 2 u(x) + u(x - e_a)``, and for two axes
    ``d_a d_b u(x) = u(x + e_a + e_b) - u(x + e_a) - u(x + e_b) + u(x)``, which enters twice, as ab and as ba.
    Differences that need values outside the grid are omitted, so that affine displacements have energy 0. This is the
    thin-plate energy of Rueckert et al., "Nonrigid registration using free-form deformations", IEEE TMI 1999.

    Parameters
    ----------
    field
        ``u``, ``[3, i, j, k]``, in grid units.
    weight
        Factor of the value and of the gradient.
    add_to
        Tensor to which the gradient is added in place, not ``field``; ``None`` for a new one.

    Returns
    -------
    The value, and the gradient ``[3, i, j, k]``, or ``add_to`` if given.
    """
    result: tuple[Tensor, Tensor] = get_implementation(__name__, field, add_to).bending(
        field, weight=weight, add_to=add_to
    )
    return result


def bending_gradient(field: Field, *, weight: float = 1.0, add_to: Field | None = None) -> Field:
    """Compute the gradient of `bending` only, which is faster."""
    gradient: Field = get_implementation(__name__, field, add_to).bending_gradient(field, weight=weight, add_to=add_to)
    return gradient
