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
) -> None:
    """See the package."""
    rate = learning_rate / (1 - betas[0] ** step)
    numbers = [np.float32(v) for v in (*betas, 1 / (1 - betas[1] ** step), rate, eps)]
    arrays = [v.reshape(-1) for v in views(variable, gradient, first, second)]
    in_slabs(_update, len(arrays[0]), *arrays, *numbers, multiple=1024)


@no_type_check
@compiled
def _update(first, last, variable, gradient, mean, square, keep_mean, keep_square, unbias, rate, eps):
    one = np.float32(1)
    for n in range(first, last):
        g = gradient[n]
        m = keep_mean * mean[n] + (one - keep_mean) * g
        v = keep_square * square[n] + (one - keep_square) * g * g
        mean[n], square[n] = m, v
        variable[n] -= rate * m / (np.sqrt(v * unbias) + eps)
