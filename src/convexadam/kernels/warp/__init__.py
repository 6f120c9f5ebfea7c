"""Sampling of volumes at arbitrary positions, and composition."""

from __future__ import annotations

import math

from convexadam._typing import Field
from convexadam.kernels._backend import implementation
from convexadam.kernels.warp.reference import identity_positions, inside, sample_linear, sample_nearest

__all__ = ["add_step", "identity_positions", "inside", "sample_linear", "sample_nearest"]


def add_step(
    displacement: Field,
    step: Field,
    *,
    longest: float = math.inf,
    factors: tuple[float, float] = (1.0, 1.0),
    out: Field | None = None,
) -> Field:
    """Compose a displacement with a step: ``a v(x) + b u(x + v(x))``, with ``v`` the step cut to ``longest``.

    Parameters
    ----------
    displacement, step
        ``u`` and the step, ``[3, i, j, k]`` in voxels (or nodes) of one grid; linear, edge values outside.
    longest
        Steps longer than this are shortened to it, in the same direction.
    factors
        ``a`` and ``b``; 1 and 1 for the composition itself.
    out
        Where to write the result, also over the step, but not over the displacement; ``None`` takes new memory.

    Returns
    -------
    ``[3, i, j, k]``, ``out`` where it was given.
    """
    result: Field = implementation(__name__, displacement, step, out).add_step(
        displacement, step, longest=longest, factors=factors, out=out
    )
    return result
