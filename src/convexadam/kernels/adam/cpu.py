"""The Adam update on the CPU, in one pass."""

from __future__ import annotations

from typing import no_type_check

import numpy as np

from convexadam._typing import Field
from convexadam.kernels._cpu import compiled, in_slabs, views


def adam_step(
    variable: Field,
    gradient: Field,
    first: Field,
    second: Field,
    *,
    step: int,
    learning_rate: float,
    eps: float,
    betas: tuple[float, float] = (0.9, 0.999),
    accumulate: bool = True,
) -> None:
    """See the package."""
    rate = learning_rate / (1 - betas[0] ** step)
    shares = betas[0], 1 - betas[0], betas[1], 1 - betas[1]  # in float32 the differences would lose digits
    numbers = [np.float32(v) for v in (*shares, 1 / (1 - betas[1] ** step), rate, eps)]
    state = variable, first, second
    changed = [tensor.contiguous() for tensor in state]
    arrays = [v.reshape(-1) for v in views(*changed, gradient)]
    in_slabs(_update, len(arrays[0]), *arrays, *numbers, accumulate, multiple=1024)
    for tensor, values in zip(state, changed, strict=True):
        if values is not tensor:
            tensor.copy_(values)


@no_type_check
@compiled
def _update(
    first,
    last,
    variable,
    mean,
    square,
    gradient,
    keep_mean,
    new_mean,
    keep_square,
    new_square,
    unbias,
    rate,
    eps,
    accumulate,
):
    for n in range(first, last):
        g = gradient[n]
        m = keep_mean * mean[n] + new_mean * g
        v = keep_square * square[n] + new_square * g * g
        mean[n], square[n] = m, v
        step = -rate * m / (np.sqrt(v * unbias) + eps)
        variable[n] = variable[n] + step if accumulate else step
