"""Diffusion energy of a displacement field and its gradient, by first differences."""

from __future__ import annotations

from convexadam._typing import Field, Float, Tensor
from convexadam.kernels._backend import get_implementation

__all__ = ["diffusion", "diffusion_gradient"]


def diffusion(field: Field, *, weight: float = 1.0, add_to: Field | None = None) -> tuple[Float[Tensor, ""], Field]:
    """Compute ``weight / 3 sum_a mean_x |u(x + e_a) - u(x)|^2`` and its gradient with respect to ``u``.

    Forward differences; those that need values outside the grid are omitted, so that translations have energy 0.

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
    module = get_implementation(__name__, field, add_to)
    result: tuple[Tensor, Tensor] = module.diffusion(field, weight=weight, add_to=add_to)
    return result


def diffusion_gradient(field: Field, *, weight: float = 1.0, add_to: Field | None = None) -> Field:
    """Compute the gradient of `diffusion` only, which is faster."""
    module = get_implementation(__name__, field, add_to)
    gradient: Field = module.diffusion_gradient(field, weight=weight, add_to=add_to)
    return gradient
