"""Diffusion energy of a displacement and its gradient: first differences."""

from __future__ import annotations

from convexadam._typing import Field, Float, Tensor
from convexadam.kernels._backend import implementation

__all__ = ["diffusion", "diffusion_gradient"]


def diffusion(field: Field, *, weight: float = 1.0, onto: Field | None = None) -> tuple[Float[Tensor, ""], Field]:
    """Compute ``weight / 3 sum_a mean_x |u(x + e_a) - u(x)|^2`` and its gradient with respect to ``u``.

    Forward differences; the outermost ones are left out, so that a constant shift costs nothing.

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
    module = implementation(__name__, field, onto)
    result: tuple[Tensor, Tensor] = module.diffusion(field, weight=weight, onto=onto)
    return result


def diffusion_gradient(field: Field, *, weight: float = 1.0, onto: Field | None = None) -> Field:
    """Return the gradient of `diffusion` alone."""
    module = implementation(__name__, field, onto)
    gradient: Field = module.diffusion_gradient(field, weight=weight, onto=onto)
    return gradient
