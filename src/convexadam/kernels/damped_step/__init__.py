"""Damped second-order step of each control point, and what follows from the decrease of the loss."""

from __future__ import annotations

import math

from convexadam._typing import Field, Float, Shaped, Tensor
from convexadam.kernels._backend import get_implementation

__all__ = ["damped_step", "judge_step", "momentum_step"]


def damped_step(
    slopes: Float[Tensor, "4 i j k"],
    means: Float[Tensor, "4 i j k"],
    *,
    damping: float | Float[Tensor, ""],
    scale: Float[Tensor, ""] | None = None,
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
    scale
        Multiplies ``damping``; ``None`` for 1.
    longest
        Longer steps are shortened to this length, in grid units.

    Returns
    -------
    The step ``[3, i, j, k]`` in grid units, a view of ``means``; and the predicted decrease of the loss,
    ``-sum_x (g . v + h |v|^2 / 2)``, float64, on the device.
    """
    module = get_implementation(__name__, slopes, means)
    step: Field = means[:3]
    predicted: Float[Tensor, ""] = module.damped_step(slopes, means, damping=damping, scale=scale, longest=longest)
    return step, predicted


def momentum_step(
    slopes: Float[Tensor, "4 i j k"],
    means: Float[Tensor, "4 i j k"],
    velocity: Field,
    *,
    momentum: float,
    damping: float,
    scale: Float[Tensor, ""],
    longest: float = math.inf,
) -> tuple[Field, Shaped[Tensor, ""]]:
    """Replace ``velocity`` by ``momentum`` times itself plus the step of `damped_step`, without a prediction.

    Parameters
    ----------
    slopes, means, damping, scale, longest
        See `damped_step`.
    velocity
        ``[3, i, j, k]`` in grid units.
    momentum
        From 0 to below 1.

    Returns
    -------
    A copy of the new ``velocity``, a view of ``means``; and, on the device, whether ``scale`` is above 0.
    """
    module = get_implementation(__name__, slopes, means, velocity)
    step: Field = means[:3]
    options = {"damping": damping, "scale": scale, "longest": longest}
    return step, module.momentum_step(slopes, means, velocity, momentum=momentum, **options)


def judge_step(
    damping: Float[Tensor, ""],
    value: Float[Tensor, ""],
    new_value: Float[Tensor, ""],
    predicted: Float[Tensor, ""],
    scale: Float[Tensor, ""],
    *,
    least: float,
) -> Shaped[Tensor, ""]:
    """Return whether a step is to be taken, and adapt the damping, in place; on the device, which is not waited for.

    A step is taken if it does not increase the loss. Damping is halved if the decrease is above three quarters of the
    predicted one, and tripled if it is below a quarter, within ``[least, 1e6]``.

    Parameters
    ----------
    damping
        That of this step, float64; overwritten by that of the next.
    value, new_value
        The loss before and after the step.
    predicted
        Its decrease, from `damped_step`.
    scale
        Mean curvature; without any, no step is taken.
    least
        Smallest damping.
    """
    module = get_implementation(__name__, scale)
    accepted: Shaped[Tensor, ""] = module.judge_step(damping, value, new_value, predicted, scale, least=least)
    return accepted
