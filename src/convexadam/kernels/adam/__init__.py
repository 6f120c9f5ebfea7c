"""In-place Adam update of a field."""

from __future__ import annotations

from convexadam._typing import Field, Float, Shaped, Tensor
from convexadam.kernels._backend import get_implementation

__all__ = ["adam_step"]


def adam_step(
    variable: Field,
    gradient: Field,
    first: Field,
    second: Field,
    *,
    step: int | Shaped[Tensor, ""],
    learning_rate: float,
    eps: float | Float[Tensor, ""],
    betas: tuple[float, float] = (0.9, 0.999),
    accumulate: bool = True,
) -> None:
    """Add ``-learning_rate m / (sqrt(v) + eps)`` to a variable, with bias-corrected moments ``m`` and ``v``.

    Parameters
    ----------
    variable, gradient
        ``[3, i, j, k]``; the variable is updated in place.
    first, second
        Exponential moving averages of the gradient and of its square, 0 before the first step; updated in place.
    step
        Number of this step, from 1; an integer tensor on the device if steps are recorded as a CUDA graph.
    learning_rate, eps, betas
        Kingma and Ba, ICLR 2015; without weight decay. ``eps`` may be a tensor on the device.
    accumulate
        Add the step to ``variable``; ``False`` overwrites the variable with the step.
    """
    module = get_implementation(__name__, variable, gradient, first, second)
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
