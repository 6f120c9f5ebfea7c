"""A damped second-order step on the GPU, in one pass over memory."""

from __future__ import annotations

import math
from typing import no_type_check

import torch
import triton
import triton.language as tl

from convexadam._typing import Field, Float, Shaped, Tensor
from convexadam.kernels.damped_step.reference import FALL, GOOD, MOST, POOR, RISE

_BLOCK = 512

_OPTIONS = {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": True}


def damped_step(
    slopes: Float[Tensor, "4 i j k"],
    means: Float[Tensor, "4 i j k"],
    *,
    damping: float | Float[Tensor, ""],
    scale: Float[Tensor, ""] | None = None,
    longest: float,
) -> Float[Tensor, ""]:
    """See the package; returns the predicted decrease only."""
    source = slopes.contiguous()
    parts = torch.empty(triton.cdiv(source[0].numel(), _BLOCK), dtype=torch.float32, device=source.device)
    _launch(source, means, parts, (None, None), 0.0, damping, scale, longest)
    return parts.sum(dtype=torch.float64)


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
    kept, positive = velocity.contiguous(), torch.empty((), dtype=torch.bool, device=scale.device)
    _launch(None, means, None, (kept, positive), momentum, damping, scale, longest)
    if kept is not velocity:
        velocity.copy_(kept)
    return positive


def _launch(
    slopes: Float[Tensor, "4 i j k"] | None,
    means: Float[Tensor, "4 i j k"],
    parts: Float[Tensor, " n"] | None,
    velocity: tuple[Field | None, Shaped[Tensor, ""] | None],
    momentum: float,
    damping: float | Float[Tensor, ""],
    scale: Float[Tensor, ""] | None,
    longest: float,
) -> None:
    """Compute the step, the parts of its predicted decrease if there are slopes, and what follows of a velocity.

    Whether the scale is positive is written beside the velocity.
    """
    result = means.contiguous()
    points = result[0].numel()
    per_square = 0.0 if math.isinf(longest) else 1 / longest**2
    given, number = (damping, 0.0) if isinstance(damping, torch.Tensor) else (None, float(damping))
    arrays = slopes, result, parts, *velocity, given, scale
    with torch.cuda.device(result.get_device()):
        _compute_step[(triton.cdiv(points, _BLOCK),)](
            *arrays, points, number, per_square, float(momentum), _BLOCK, **_OPTIONS
        )
    if result is not means:
        means.copy_(result)


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
    accepted = torch.empty((), dtype=torch.bool, device=damping.device)
    with torch.cuda.device(damping.get_device()):
        _judge[(1,)](
            damping, value, new_value, predicted, scale, accepted, least, GOOD, POOR, FALL, RISE, MOST, num_warps=1
        )
    return accepted


@no_type_check
@triton.jit(do_not_specialize=["points", "damping", "per_square", "momentum"])
def _compute_step(
    slopes, means, parts, velocity, positive, given, scale, points, damping, per_square, momentum, block: tl.constexpr
):
    at = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    valid, second, third, fourth = at < points, at + points, at + 2 * points, at + 3 * points
    if given is not None:
        damping = tl.load(given)
    if scale is not None:
        damping *= tl.load(scale)
    if given is not None:
        damping = damping.to(tl.float32)
    # `/` and tl.sqrt are approximate on a GPU: off by up to two units in the last place
    factor = tl.div_rn(-1.0, tl.load(means + fourth, mask=valid, other=1.0) + damping)
    v0 = factor * tl.load(means + at, mask=valid, other=0.0)
    v1 = factor * tl.load(means + second, mask=valid, other=0.0)
    v2 = factor * tl.load(means + third, mask=valid, other=0.0)
    cut = tl.div_rn(1.0, tl.sqrt_rn(tl.maximum((v0 * v0 + v1 * v1 + v2 * v2) * per_square, 1.0)))
    v0, v1, v2 = cut * v0, cut * v1, cut * v2
    if velocity is not None:
        v0 += momentum * tl.load(velocity + at, mask=valid, other=0.0)
        v1 += momentum * tl.load(velocity + second, mask=valid, other=0.0)
        v2 += momentum * tl.load(velocity + third, mask=valid, other=0.0)
        tl.store(velocity + at, v0, mask=valid)
        tl.store(velocity + second, v1, mask=valid)
        tl.store(velocity + third, v2, mask=valid)
        if tl.program_id(0) == 0:
            tl.store(positive, tl.load(scale) > 0)
    tl.store(means + at, v0, mask=valid)
    tl.store(means + second, v1, mask=valid)
    tl.store(means + third, v2, mask=valid)
    if slopes is not None:
        gain = v0 * tl.load(slopes + at, mask=valid, other=0.0)
        gain += v1 * tl.load(slopes + second, mask=valid, other=0.0)
        gain += v2 * tl.load(slopes + third, mask=valid, other=0.0)
        gain += 0.5 * tl.load(slopes + fourth, mask=valid, other=0.0) * (v0 * v0 + v1 * v1 + v2 * v2)
        tl.store(parts + tl.program_id(0), -tl.sum(gain, 0))


@no_type_check
@triton.jit
def _judge(
    damping,
    value,
    new_value,
    predicted,
    scale,
    accepted,
    least,
    good: tl.constexpr,
    poor: tl.constexpr,
    fall: tl.constexpr,
    rise: tl.constexpr,
    most: tl.constexpr,
):
    decrease = tl.load(value).to(tl.float64) - tl.load(new_value).to(tl.float64)
    promised = tl.load(predicted).to(tl.float64)
    factor = tl.where(decrease > good * promised, fall, tl.where(decrease < poor * promised, rise, 1.0))
    tl.store(damping, tl.minimum(tl.maximum(tl.load(damping) * factor, least), most))
    tl.store(accepted, (decrease >= 0) & (tl.load(scale) > 0))
