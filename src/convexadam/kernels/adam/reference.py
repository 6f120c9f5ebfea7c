"""The Adam update in torch."""

from __future__ import annotations

from convexadam._typing import Field, Float, Tensor


def adam_step(
    variable: Field,
    gradient: Field,
    first: Field,
    second: Field,
    *,
    step: int,
    learning_rate: float,
    eps: float | Float[Tensor, ""],
    betas: tuple[float, float] = (0.9, 0.999),
    accumulate: bool = True,
) -> None:
    """See the package."""
    first.mul_(betas[0]).add_(gradient, alpha=1 - betas[0])
    second.mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
    scale = (second / (1 - betas[1] ** step)).sqrt_().add_(eps)
    (variable if accumulate else variable.zero_()).addcdiv_(first, scale, value=-learning_rate / (1 - betas[0] ** step))
