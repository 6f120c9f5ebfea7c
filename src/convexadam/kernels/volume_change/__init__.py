"""Cost of local volume changes of a displacement, and its gradient."""

from __future__ import annotations

from convexadam._typing import Field, Float, Tensor, Volume
from convexadam.kernels._backend import implementation

__all__ = ["volume_change"]


def volume_change(
    field: Field, *, soft_mask: Volume | None = None, weight: float = 1.0, onto: Field | None = None
) -> tuple[Float[Tensor, ""], Field]:
    """Compute ``weight / N sum_x s(x) log(det J(x))^2`` over the ``N`` nodes, and its gradient with respect to ``u``.

    ``J = I + du/dx`` by the differences of `convexadam.kernels.jacobian.jacobian_determinant`: central inside,
    one-sided at the outer nodes. Below a determinant of 0.05 the squared logarithm goes on along its tangent: it
    stays finite in folds, with one continuous derivative, and pushes out of them at an even rate.

    Parameters
    ----------
    field
        ``u``, ``[3, i, j, k]``, in nodes.
    soft_mask
        ``s``, ``[i, j, k]`` in [0, 1]: where volume is to be kept; 1 where ``None``.
    weight
        Factor of the value and of the gradient.
    onto
        Where to add the gradient, in place (not ``field`` itself); ``None`` takes new memory.

    Returns
    -------
    The value, and the gradient ``[3, i, j, k]``: ``onto``, with what it held before, where it was given.
    """
    module = implementation(__name__, field, soft_mask, onto)
    result: tuple[Tensor, Tensor] = module.volume_change(field, soft_mask=soft_mask, weight=weight, onto=onto)
    return result
