"""A damped second-order step in torch."""

from __future__ import annotations

from convexadam._typing import Float, Tensor


def damped_step(
    slopes: Float[Tensor, "4 i j k"],
    means: Float[Tensor, "4 i j k"],
    *,
    damping: float | Float[Tensor, ""],
    longest: float,
) -> Float[Tensor, ""]:
    """See the package; returns the predicted decrease only."""
    step = means[:3].div_(-(means[3] + damping))
    if longest < float("inf"):
        step /= (step.square().sum(0).sqrt_() / longest).clamp_min_(1)
    squared = step.square().sum(0).mul_(slopes[3]).sum()
    return -((slopes[:3] * step).sum() + squared / 2).double()
