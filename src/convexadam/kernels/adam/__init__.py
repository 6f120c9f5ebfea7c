"""The Adam update of one variable, in place."""

from __future__ import annotations

from convexadam._typing import Field, Shaped, Tensor
from convexadam.kernels._backend import implementation

__all__ = ["adam_step"]


def adam_step(
    variable: Field,
    gradient: Field,
    first: Field,
    second: Field,
    *,
    step: int | Shaped[Tensor, ""],
    learning_rate: float,
    eps: float,
    betas: tuple[float, float] = (0.9, 0.999),
    accumulate: bool = True,
) -> None:
    """Move ``variable`` by ``-learning_rate m / (sqrt(v) + eps)``, with bias-corrected moments ``m`` and ``v``.

    Parameters
    ----------
    variable, gradient
        ``[3, i, j, k]``; the variable changes in place.
    first, second
        Moments so far, zero before the first step; they change in place.
    step
        Number of this step, from 1; a tensor on the device where steps are recorded (Triton only).
    learning_rate, eps, betas
        Kingma and Ba, ICLR 2015; no weight decay.
    accumulate
        Add the step to ``variable``; ``False`` leaves there the step alone, whatever was there before.
    """
    module = implementation(__name__, variable, gradient, first, second)
    module.adam_step(
        variable,
        gradient,
        first,
        second,
        step=step,
        learning_rate=learning_rate,
        eps=eps,
        betas=betas,
        accumulate=accumulate,
    )
