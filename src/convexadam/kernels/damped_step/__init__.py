"""A damped second-order step of each node, and what it should gain."""

from __future__ import annotations

import math

from convexadam._typing import Field, Float, Tensor
from convexadam.kernels._backend import implementation

__all__ = ["damped_step"]


def damped_step(
    slopes: Float[Tensor, "4 i j k"], means: Float[Tensor, "4 i j k"], *, damping: float, longest: float = math.inf
) -> tuple[Field, float]:
    """Divide a gradient by a curvature: ``v = -means_012 / (means_3 + damping)``, cut to ``longest``.

    Parameters
    ----------
    slopes
        Gradient ``g`` (channels 0 to 2) and curvature ``h`` (channel 3) of a loss, ``[4, i, j, k]``.
    means
        The same, smoothed: what the step is made of. The step overwrites its gradient.
    damping
        More than 0, in units of the curvature.
    longest
        Steps longer than this are shortened to it, in the same direction; in nodes.

    Returns
    -------
    The step ``[3, i, j, k]`` in nodes, part of the memory of ``means``; and by how much it should lower the loss,
    ``-sum_x (g . v + h |v|^2 / 2)``.
    """
    module = implementation(__name__, slopes, means)
    step: Field = means[:3]
    predicted: float = module.damped_step(slopes, means, damping=damping, longest=longest)
    return step, predicted
