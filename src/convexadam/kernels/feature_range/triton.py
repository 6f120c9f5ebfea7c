"""The range of two feature maps on the GPU: one pass over memory, and one program that puts its parts together."""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl

from convexadam._typing import Channels, Float, Tensor, Volume

_BLOCK = 1024

_PARTS = 512
"""Largest number of programs, each of which loops over blocks: enough to keep a GPU busy, few to put together."""

_OPTIONS = {"num_warps": 4, "num_stages": 1}


def measure_range(
    fixed: Channels, moving: Channels, fixed_weight: Volume | None, moving_weight: Volume | None
) -> Float[Tensor, " 6"]:
    """See the package."""
    arrays = [None if t is None else t.contiguous() for t in (fixed, moving, fixed_weight, moving_weight)]
    channels, points = len(fixed), fixed[0].numel()
    steps = triton.cdiv(triton.cdiv(points, _BLOCK), _PARTS)
    parts = triton.cdiv(points, steps * _BLOCK)
    # smallest and largest values; of the fixed and the moving map; everywhere and where there is weight
    ends = torch.empty((2, 2, 2, channels, parts), dtype=torch.float32, device=fixed.device)
    weights = torch.empty((3, parts), dtype=torch.float32, device=fixed.device)
    result = torch.empty(6, dtype=torch.float64, device=fixed.device)
    with torch.cuda.device(fixed.get_device()):
        _find_ends[(parts,)](*arrays, ends, weights, points, channels, parts, steps, _BLOCK, **_OPTIONS)
        _summarise[(1,)](ends, weights, result, channels, parts, _PARTS, **_OPTIONS)
    return result


@no_type_check
@triton.jit(do_not_specialize=["points", "channels", "parts", "steps"])
def _find_ends(
    fixed, moving, fixed_weight, moving_weight, ends, weights, points, channels, parts, steps, block: tl.constexpr
):
    """Find the ends of all channels, and the largest weights, in ``steps`` blocks of points."""
    part = tl.program_id(0)
    first = part.to(tl.int64) * steps * block + tl.arange(0, block)
    _find_largest_weights(fixed_weight, moving_weight, weights + part, first, points, parts, steps, block)
    to = ends + part
    for channel in range(channels):
        start = first + channel * (first * 0 + points)
        _find_ends_of_channel(fixed, fixed_weight, to, start, first, points, channels * parts, steps, block)
        moved = to + 2 * channels * parts
        _find_ends_of_channel(moving, moving_weight, moved, start, first, points, channels * parts, steps, block)
        to += parts


@no_type_check
@triton.jit
def _find_largest_weights(fixed_weight, moving_weight, out, first, points, parts, steps, block: tl.constexpr):
    fixed_best = tl.zeros((block,), tl.float32)
    moving_best, overlap = fixed_best, fixed_best
    for _ in range(steps):
        valid = first < points
        a = tl.where(valid, 1.0, 0.0)
        b = a
        if fixed_weight is not None:
            a = tl.load(fixed_weight + first, mask=valid, other=0.0)
        if moving_weight is not None:
            b = tl.load(moving_weight + first, mask=valid, other=0.0)
        fixed_best, moving_best = tl.maximum(fixed_best, a), tl.maximum(moving_best, b)
        overlap = tl.maximum(overlap, a * b)
        first += block
    tl.store(out, tl.max(fixed_best, 0))
    tl.store(out + parts, tl.max(moving_best, 0))
    tl.store(out + 2 * parts, tl.max(overlap, 0))


@no_type_check
@triton.jit
def _find_ends_of_channel(values, weight, out, start, point, points, stride, steps, block: tl.constexpr):
    low = tl.full((block,), float("inf"), tl.float32)
    high, low_within, high_within, unordered = -low, low, -low, tl.zeros((block,), tl.float32)
    for _ in range(steps):
        valid = point < points
        value = tl.load(values + start, mask=valid, other=0.0)
        unordered = tl.where(valid & (value != value), 1.0, unordered)  # noqa: PLR0124 (NaN)
        low, high = tl.where(valid & (value < low), value, low), tl.where(valid & (value > high), value, high)
        if weight is not None:
            valid = valid & (tl.load(weight + point, mask=valid, other=0.0) > 0)
        low_within = tl.where(valid & (value < low_within), value, low_within)
        high_within = tl.where(valid & (value > high_within), value, high_within)
        point += block
        start += block
    has_nan = tl.max(tl.where(unordered == 1.0, 1.0, 0.0), 0) > 0
    tl.store(out, tl.where(has_nan, float("nan"), tl.min(low, 0)))
    tl.store(out + stride, tl.min(low_within, 0))
    tl.store(out + 4 * stride, tl.max(high, 0))
    tl.store(out + 5 * stride, tl.max(high_within, 0))


@no_type_check
@triton.jit(do_not_specialize=["channels", "parts"])
def _summarise(ends, weights, out, channels, parts, wide: tl.constexpr):
    """Put the parts together, in one program."""
    part = tl.arange(0, wide)
    valid = part < parts
    largest, squared = tl.full((1,), 0.0, tl.float64), tl.full((1,), 0.0, tl.float64)
    fixed_varies, moving_varies, undefined = squared, squared, squared
    size = channels * parts
    for channel in range(channels):
        row = ends + channel * parts + part
        low0, high0, bad0 = _load_ends(row, size, valid)
        low1, high1, bad1 = _load_ends(row + 2 * size, size, valid)
        low, high = tl.minimum(low0, low1), tl.maximum(high0, high1)
        largest = tl.maximum(largest, tl.maximum(high, -low).to(tl.float64))
        undefined = tl.maximum(undefined, tl.maximum(bad0, bad1).to(tl.float64))
        span = (high - low).to(tl.float64)
        squared += span * span
        fixed_varies = tl.maximum(fixed_varies, _varies(row + size, size, valid))
        moving_varies = tl.maximum(moving_varies, _varies(row + 3 * size, size, valid))
    fixed_best = tl.max(tl.load(weights + part, mask=valid, other=0.0), 0)
    moving_best = tl.max(tl.load(weights + parts + part, mask=valid, other=0.0), 0)
    overlap = tl.max(tl.load(weights + 2 * parts + part, mask=valid, other=0.0), 0)
    one = tl.arange(0, 1)
    tl.store(out + one, tl.where(undefined > 0, float("nan"), largest))
    norm = tl.sqrt(squared)
    tl.store(out + 1 + one, norm)
    tl.store(out + 2 + one, tl.minimum(fixed_varies, moving_varies))
    tl.store(out + 3 + one, (one * 0 + tl.minimum(fixed_best, moving_best)).to(tl.float64))
    tl.store(out + 4 + one, (one * 0 + overlap).to(tl.float64))
    tl.store(out + 5 + one, _find_power(norm))


@no_type_check
@triton.jit
def _find_power(norm):
    """Find the largest power of two whose product with a float64 number is at most 1; 1 for 0 and NaN."""
    bits = norm.to(tl.int64, bitcast=True)
    exponent = bits >> 52
    is_power = (bits & ((1 << 52) - 1)) == 0
    power = (2046 - exponent - tl.where(is_power, 0, 1)) << 52  # that of 1 is 1023
    return tl.where((exponent > 0) & (exponent < 2045), power, 1023 << 52).to(tl.float64, bitcast=True)


@no_type_check
@triton.jit
def _load_ends(row, size, valid):
    """Return the ends of a channel, and 1 if one of its values is NaN."""
    low = tl.load(row, mask=valid, other=float("inf"))
    high = tl.load(row + 4 * size, mask=valid, other=-float("inf"))
    undefined = low != low  # noqa: PLR0124
    bad = tl.max(tl.where(undefined, 1.0, 0.0), 0)
    return tl.min(tl.where(undefined, float("inf"), low), 0), tl.max(high, 0), bad


@no_type_check
@triton.jit
def _varies(row, size, valid):
    """Return 1 if a channel varies by more than the rounding of an average, else 0."""
    low = tl.min(tl.load(row, mask=valid, other=float("inf")), 0)
    high = tl.max(tl.load(row + 4 * size, mask=valid, other=-float("inf")), 0)
    return tl.where(high - low > 1e-6 * tl.maximum(tl.abs(high), tl.abs(low)), 1.0, 0.0).to(tl.float64)
