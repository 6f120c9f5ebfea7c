"""Damped second-order step of each control point, and the decrease of the loss that it predicts."""

from __future__ import annotations

import math

from convexadam._typing import Field, Float, Tensor
from convexadam.kernels._backend import get_implementation

__all__ = ["damped_step"]


def damped_step(
    slopes: Float[Tensor, "4 i j k"],
    means: Float[Tensor, "4 i j k"],
    *,
    damping: float | Float[Tensor, ""],
    longest: float = math.inf,
) -> tuple[Field, Float[Tensor, ""]]:
    """Divide a gradient by a curvature: ``v = -means_012 / (means_3 + damping)``, clipped to the length ``longest``.

    Parameters
    ----------
    slopes
        Gradient ``g`` (channels 0 to 2) and curvature ``h`` (channel 3) of a loss, ``[4, i, j, k]``.
    means
        Smoothed ``slopes``, from which the step is computed; the step overwrites channels 0 to 2.
    damping
        Above 0, in units of the curvature; a tensor is read on its device.
    longest
        Longer steps are shortened to this length, in grid units.

    Returns
    -------
    The step ``[3, i, j, k]`` in grid units, a view of ``means``; and the predicted decrease of the loss,
    ``-sum_x (g . v + h |v|^2 / 2)``, float64, on the device.
    """
    module = get_implementation(__name__, slopes, means)
    step: Field = means[:3]
    predicted: Float[Tensor, ""] = module.damped_step(slopes, means, damping=damping, longest=longest)
    return step, predicted
