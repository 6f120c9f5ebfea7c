"""The Adam update on the CPU, in one pass over memory."""

from __future__ import annotations

from typing import no_type_check

import numpy as np

from convexadam._typing import Field, Float, Tensor
from convexadam.kernels._cpu import compile_kernel, make_constant, run_in_slabs, to_numpy


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
    rate = learning_rate / (1 - betas[0] ** step)
    # computed in double precision: 1 - 0.999 in float32 has an error of 1e-5
    shares = betas[0], 1 - betas[0], betas[1], 1 - betas[1]
    numbers = [np.float32(v) for v in (*shares, 1 / (1 - betas[1] ** step), rate, float(eps))]
    state = variable, first, second
    updated = [tensor.contiguous() for tensor in state]
    arrays = [values.reshape(-1) for values in to_numpy(*updated, gradient)]
    run_in_slabs(_update, len(arrays[0]), *arrays, *numbers, make_constant(accumulate), multiple=1024)
    for tensor, values in zip(state, updated, strict=True):
        if values is not tensor:
            tensor.copy_(values)


@no_type_check
@compile_kernel
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
    for k in range(last - first):
        # a signed index, which might be negative, prevents vectorisation: 2.5 x slower
        n = np.uintp(first) + np.uintp(k)
        g = gradient[n]
        m = keep_mean * mean[n] + new_mean * g
        v = keep_square * square[n] + new_square * g * g
        mean[n], square[n] = m, v
        step = -rate * m / (np.sqrt(v * unbias) + eps)
        variable[n] = variable[n] + step if len(accumulate) > 0 else step
