"""A damped second-order step in torch."""

from __future__ import annotations

import torch

from convexadam._typing import Field, Float, Shaped, Tensor

GOOD, POOR = 0.75, 0.25
"""Share of the predicted decrease above which damping falls, and below which it rises."""

FALL, RISE, MOST = 0.5, 3.0, 1e6


def damped_step(
    slopes: Float[Tensor, "4 i j k"],
    means: Float[Tensor, "4 i j k"],
    *,
    damping: float | Float[Tensor, ""],
    scale: Float[Tensor, ""] | None = None,
    longest: float,
) -> Float[Tensor, ""]:
    """See the package; returns the predicted decrease only."""
    total = damping if scale is None else damping * scale.double()
    step = means[:3].div_(-(means[3] + total))
    if longest < float("inf"):
        step /= (step.square().sum(0).sqrt_() / longest).clamp_min_(1)
    squared = step.square().sum(0).mul_(slopes[3]).sum()
    return -((slopes[:3] * step).sum() + squared / 2).double()


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
    damped_step(slopes, means, damping=damping, scale=scale, longest=longest)
    means[:3].copy_(velocity.mul_(momentum).add_(means[:3]))
    return scale > 0


def judge_step(
    damping: Float[Tensor, ""],
    value: Float[Tensor, ""],
    new_value: Float[Tensor, ""],
    predicted: Float[Tensor, ""],
    scale: Float[Tensor, ""],
    *,
    least: float,
) -> Shaped[Tensor, ""]:
    """See the package."""
    decrease = value.double() - new_value.double()
    rise = torch.where(decrease < POOR * predicted, RISE, 1.0)
    damping.mul_(torch.where(decrease > GOOD * predicted, FALL, rise)).clamp_(least, MOST)
    return (decrease >= 0) & (scale > 0)
