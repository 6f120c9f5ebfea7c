"""A damped second-order step on the CPU, in one pass over memory."""

from __future__ import annotations

from typing import no_type_check

import numpy as np
import torch

from convexadam._typing import Field, Float, Shaped, Tensor
from convexadam.kernels._cpu import compile_kernel, run_in_slabs, to_numpy
from convexadam.kernels.damped_step.reference import judge_step

__all__ = ["damped_step", "judge_step", "momentum_step"]

_HALF, _ONE = np.float32(0.5), np.float32(1)
_AT_REST = np.empty((0, 0), np.float32)


def damped_step(
    slopes: Float[Tensor, "4 i j k"],
    means: Float[Tensor, "4 i j k"],
    *,
    damping: float | Float[Tensor, ""],
    scale: Float[Tensor, ""] | None = None,
    longest: float,
) -> Float[Tensor, ""]:
    """See the package; returns the predicted decrease only."""
    decrease = _run(slopes, means, damping, scale, longest)
    return torch.tensor(decrease, dtype=torch.float64, device="cpu")


def momentum_step(
    slopes: Float[Tensor, "4 i j k"],
    means: Float[Tensor, "4 i j k"],
    velocity: Field,
    *,
    momentum: float,
    damping: float,
    scale: Float[Tensor, ""],
    longest: float,
) -> Shaped[Tensor, ""]:
    """See the package; returns whether the scale is above 0 only."""
    _run(slopes, means, damping, scale, longest, velocity, momentum)
    return scale > 0


def _run(
    slopes: Float[Tensor, "4 i j k"],
    means: Float[Tensor, "4 i j k"],
    damping: float | Float[Tensor, ""],
    scale: Float[Tensor, ""] | None,
    longest: float,
    velocity: Field | None = None,
    momentum: float = 0.0,
) -> float:
    """Write the steps, with momentum if there is a velocity, and return the predicted decrease of those without."""
    total = float(damping) * (1.0 if scale is None else float(scale))
    changed = [means.contiguous()] if velocity is None else [means.contiguous(), velocity.contiguous()]
    arrays = [v.reshape(len(v), -1) for v in to_numpy(slopes, *changed)]
    moving = _AT_REST if velocity is None else arrays[2]
    shortest = np.float32(0 if np.isinf(longest) else 1 / longest**2)
    factors = np.float32(total), shortest, np.float32(momentum)
    decrease = sum(run_in_slabs(_compute_step, arrays[0].shape[1], *arrays[:2], moving, *factors, multiple=1024))
    for given, result in zip((means, velocity), changed, strict=False):
        if given is not None and result is not given:
            given.copy_(result)
    return float(decrease)


@no_type_check
@compile_kernel
def _compute_step(first, last, slopes, means, velocity, damping, per_square, momentum):
    """Store the steps of the points ``first ... last - 1`` and return the predicted decrease, without momentum."""
    total, size, moves = 0.0, np.uintp(slopes.shape[1]), velocity.size > 0
    step, slope, speed = means.reshape(-1), slopes.reshape(-1), velocity.reshape(-1)
    for start in range(first, last, 1024):
        part = np.float32(0)
        for k in range(min(1024, last - start)):
            n = np.uintp(start) + np.uintp(k)  # a signed index, which might be negative, prevents vectorisation
            n1, n2, n3 = n + size, n + size + size, n + size + size + size
            factor = -_ONE / (step[n3] + damping)
            v0, v1, v2 = factor * step[n], factor * step[n1], factor * step[n2]
            squared = v0 * v0 + v1 * v1 + v2 * v2
            clip = _ONE / np.sqrt(max(squared * per_square, _ONE))
            v0, v1, v2 = clip * v0, clip * v1, clip * v2
            step[n], step[n1], step[n2] = v0, v1, v2
            part -= slope[n] * v0 + slope[n1] * v1 + slope[n2] * v2
            part -= _HALF * slope[n3] * (v0 * v0 + v1 * v1 + v2 * v2)
        total += part
        if moves:
            for a in range(3):
                for k in range(min(1024, last - start)):
                    n = np.uintp(a) * size + np.uintp(start) + np.uintp(k)
                    speed[n] = momentum * speed[n] + step[n]
                    step[n] = speed[n]
    return total
