"""Penalty of local volume changes of a displacement field, and its gradient."""

from __future__ import annotations

from convexadam._typing import Field, Float, Tensor, Volume
from convexadam.kernels._backend import get_implementation

__all__ = ["volume_change"]


def volume_change(
    field: Field, *, soft_mask: Volume | None = None, weight: float = 1.0, add_to: Field | None = None
) -> tuple[Float[Tensor, ""], Field]:
    """Compute ``weight / N sum_x s(x) log(det J(x))^2`` over the ``N`` points, and its gradient with respect to ``u``.

    ``J = I + du/dx`` by the differences of `convexadam.kernels.jacobian.jacobian_determinant`: central inside,
    one-sided at the border. Below a determinant of 0.05 the squared logarithm is continued by its tangent, so that it
    is finite in folds, once continuously differentiable, and has a constant slope there.

    Parameters
    ----------
    field
        ``u``, ``[3, i, j, k]``, in grid units.
    soft_mask
        ``s``, ``[i, j, k]`` in [0, 1], the weight of volume preservation; ``None`` for 1.
    weight
        Factor of the value and of the gradient.
    add_to
        Tensor to which the gradient is added in place, not ``field``; ``None`` for a new one.

    Returns
    -------
    The value, and the gradient ``[3, i, j, k]``, or ``add_to`` if given.
    """
    module = get_implementation(__name__, field, soft_mask, add_to)
    result: tuple[Tensor, Tensor] = module.volume_change(field, soft_mask=soft_mask, weight=weight, add_to=add_to)
    return result
