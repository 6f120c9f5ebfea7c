"""The Adam update on the GPU, in one pass over memory."""

from __future__ import annotations

import math
from typing import no_type_check

import torch
import triton
import triton.language as tl

from convexadam._typing import Field, Float, Shaped, Tensor

_BLOCK = 1024
"""Values per program: two loads of 16 bytes per thread and array."""

_OPTIONS = {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": True}


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
    """See the package.

    ``step`` may be an integer tensor on the device, so that one CUDA graph can be replayed for all steps.
    """
    given = (variable, first, second)
    updated = [t.contiguous() for t in given]
    if isinstance(step, torch.Tensor):
        counter, unbiased = step, tuple(math.log(max(b, 1e-30)) for b in betas)
    else:
        counter, unbiased = None, (1 / (1 - betas[0] ** step), 1 / (1 - betas[1] ** step))
    least, floor = (eps, 0.0) if isinstance(eps, torch.Tensor) else (None, float(eps))
    # computed in double precision: 1 - 0.999 in float32 has an error of 1e-5
    numbers = (float(learning_rate), floor, *betas, 1 - betas[0], 1 - betas[1], *unbiased)
    with torch.cuda.device(variable.get_device()):
        _update[(triton.cdiv(variable.numel(), _BLOCK),)](
            updated[0],
            gradient.contiguous(),
            *updated[1:],
            counter,
            least,
            variable.numel(),
            *numbers,
            accumulate,
            _BLOCK,
            **_OPTIONS,
        )
    for target, source in zip(given, updated, strict=True):
        if target is not source:
            target.copy_(source)


@no_type_check
@triton.jit(do_not_specialize=["count"])
def _update(
    variable,
    gradient,
    mean,
    square,
    counter,
    least,
    count,
    rate,
    eps,
    keep_mean,
    keep_square,
    add_mean,
    add_square,
    unbias_mean,
    unbias_square,
    accumulate: tl.constexpr,
    block: tl.constexpr,
):
    at = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    here = at < count
    if counter is not None:  # then the other two arguments are the logarithms of the betas
        step = tl.load(counter).to(tl.float32)
        unbias_mean, unbias_square = (
            1.0 / _one_minus_exp(step * unbias_mean),
            1.0 / _one_minus_exp(step * unbias_square),
        )
    if least is not None:
        eps = tl.load(least)
    g = tl.load(gradient + at, mask=here, other=0.0)
    m = keep_mean * tl.load(mean + at, mask=here, other=0.0) + add_mean * g
    v = keep_square * tl.load(square + at, mask=here, other=0.0) + add_square * (g * g)
    moved = -rate * unbias_mean * m / (tl.sqrt(v * unbias_square) + eps)
    if accumulate:
        moved += tl.load(variable + at, mask=here, other=0.0)
    tl.store(mean + at, m, mask=here)
    tl.store(square + at, v, mask=here)
    tl.store(variable + at, moved, mask=here)


@no_type_check
@triton.jit
def _one_minus_exp(x):
    """Compute ``1 - exp(x)`` for ``x < 0``; by its power series near 0, where the difference would cancel."""
    near = tl.maximum(x, -0.5)
    series = 1.0 + near / 8
    for n in tl.static_range(6):
        series = 1.0 + near / (7 - n) * series
    return tl.where(x > -0.5, -near * series, 1.0 - tl.exp(x))
