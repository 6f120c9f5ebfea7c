"""Bending energy of a displacement and its gradient: second differences."""

from __future__ import annotations

import math

from convexadam._typing import Field, Float, Tensor, Triple
from convexadam.kernels._backend import implementation

__all__ = ["bending", "bending_gradient", "largest_curvature"]


def bending(field: Field, *, weight: float = 1.0, onto: Field | None = None) -> tuple[Float[Tensor, ""], Field]:
    """Compute ``weight / 3 mean_x sum_ab |d_a d_b u(x)|^2`` and its gradient with respect to ``u``.

    ``d_a d_a u(x) = u(x + e_a) - 2 u(x) + u(x - e_a)``, and for two axes
    ``d_a d_b u(x) = u(x + e_a + e_b) - u(x + e_a) - u(x + e_b) + u(x)``, which counts twice: as ab and as ba. What
    reaches outside is left out, so that affine displacements cost nothing. This is the energy of a thin plate as in
    Rueckert et al., "Nonrigid registration using free-form deformations", IEEE TMI 1999.

    Parameters
    ----------
    field
        ``u``, ``[3, i, j, k]``, in nodes.
    weight
        Factor of the value and of the gradient.
    onto
        Where to add the gradient, in place (not ``field`` itself); ``None`` takes new memory.

    Returns
    -------
    The value, and the gradient ``[3, i, j, k]``: ``onto``, with what it held before, where it was given.
    """
    result: tuple[Tensor, Tensor] = implementation(__name__, field, onto).bending(field, weight=weight, onto=onto)
    return result


def bending_gradient(field: Field, *, weight: float = 1.0, onto: Field | None = None) -> Field:
    """Return the gradient of `bending` alone, which is quicker."""
    gradient: Field = implementation(__name__, field, onto).bending_gradient(field, weight=weight, onto=onto)
    return gradient


def largest_curvature(shape: Triple, *, weight: float = 1.0) -> float:
    """Largest entry on the diagonal of the Hessian of `bending`, for a field of ``shape``.

    The Hessian does not depend on ``u``. Away from the border the entry is ``28 weight / N`` for ``N`` nodes; no
    eigenvalue is above ``96 weight / N``: the energy of a wave is that of its squared Laplacian, of at most ``12^2``.
    """
    # the middle node has all of it: its share in the differences along an axis, and how many steps hold it there
    along = [{1: 0, 2: 0, 3: 4, 4: 5}.get(n, 6) for n in shape]
    i, j, k = (min(n - 1, 2) for n in shape)
    return 2 * weight * (sum(along) + 2 * (i * j + j * k + k * i)) / (3 * math.prod(shape))
