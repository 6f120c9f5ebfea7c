"""Displacements of opposite directions: made each other's inverse, or one estimated from the other."""

from __future__ import annotations

from convexadam._arguments import check_arguments
from convexadam._checks import check_count
from convexadam._typing import Field
from convexadam.kernels.warp import add_opposite_steps, add_step

MOST_ITERATIONS = 10_000


@check_arguments
def make_inverse_consistent(forward: Field, backward: Field, *, iterations: int = 15) -> tuple[Field, Field]:
    """Repeat ``u <- (u - v o (id + u)) / 2`` and ``v <- (v - u o (id + v)) / 2``, both from the previous pair.

    Parameters
    ----------
    forward, backward
        Displacements ``[3, i, j, k]`` in units of one grid, fixed to moving and moving to fixed.
    iterations
        Number of repetitions; 0 returns the fields unchanged.

    Returns
    -------
    The two fields, in the same order and units.

    Notes
    -----
    Heinrich, Papiez, Schnabel, Handels, "Non-parametric discrete registration with convex optimisation", WBIR 2014.

    Examples
    --------
    >>> import torch
    >>> from convexadam.discrete import make_inverse_consistent
    >>> forward, backward = make_inverse_consistent(torch.full((3, 8, 8, 8), 1.0), torch.full((3, 8, 8, 8), -2.0))
    >>> round((forward + backward).abs().max().item(), 3)  # one undoes the other
    0.0
    """
    check_count(iterations, "iterations", most=MOST_ITERATIONS)
    for _ in range(iterations):
        forward, backward = add_opposite_steps(forward, backward, factors=(0.5, -0.5))
    return forward, backward


@check_arguments
def estimate_inverse(forward: Field, *, iterations: int = 15) -> Field:
    """Estimate the inverse by the fixed-point iteration ``v <- -u o (id + v)`` from ``-u``.

    Parameters
    ----------
    forward
        Displacements ``u``, ``[3, i, j, k]`` in units of the grid.
    iterations
        Number of repetitions; each multiplies the error by at most the largest slope of ``u``.

    Returns
    -------
    Displacements of the opposite direction: a start for further estimation, and no inverse where ``u`` folds.

    Examples
    --------
    >>> import torch
    >>> from convexadam.discrete import estimate_inverse
    >>> shift = torch.zeros(3, 8, 8, 8)
    >>> shift[0] = 1.5
    >>> estimate_inverse(shift)[0].mean().item()
    -1.5
    """
    check_count(iterations, "iterations", most=MOST_ITERATIONS)
    backward = -forward
    for _ in range(iterations):
        backward = add_step(forward, backward, factors=(0.0, -1.0))
    return backward
