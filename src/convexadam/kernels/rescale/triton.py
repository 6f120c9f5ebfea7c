"""Linear scaling of intensities on the GPU: one pass that finds the ends of the ranges, and one that scales."""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl

from convexadam._typing import Channels

_BLOCK = 1024

_PARTS = 512
"""Largest number of programs that look for the ends of a channel; all of them are read by each that scales."""

_OPTIONS = {"num_warps": 4, "num_stages": 1}


def rescale(data: Channels) -> Channels:
    """See the package."""
    source = data.contiguous()
    channels, points = len(source), source[0].numel()
    steps = triton.cdiv(triton.cdiv(points, _BLOCK), _PARTS)
    parts = triton.cdiv(points, steps * _BLOCK)
    ends, result = source.new_empty((channels, 2, parts)), torch.empty_like(source)
    with torch.cuda.device(source.get_device()):
        _find_range[(parts, channels)](source, ends, points, steps, _BLOCK, **_OPTIONS)
        _scale[(parts, channels)](source, ends, result, points, steps, _PARTS, _BLOCK, **_OPTIONS)
    return result


@no_type_check
@triton.jit(do_not_specialize=["points", "steps"])
def _find_range(source, ends, points, steps, block: tl.constexpr):
    """Find the smallest and the largest value in ``steps`` blocks of a channel."""
    part, channel = tl.program_id(0), tl.program_id(1)
    at = part.to(tl.int64) * steps * block + tl.arange(0, block)
    start = channel * (at * 0 + points)
    low = tl.full((block,), float("inf"), tl.float32)
    high = -low
    for _ in range(steps):
        low = tl.minimum(low, tl.load(source + start + at, mask=at < points, other=float("inf")))
        high = tl.maximum(high, tl.load(source + start + at, mask=at < points, other=-float("inf")))
        at += block
    to = ends + channel * 2 * tl.num_programs(0) + part
    tl.store(to, tl.min(low, 0))
    tl.store(to + tl.num_programs(0), tl.max(high, 0))


@no_type_check
@triton.jit(do_not_specialize=["points", "steps"])
def _scale(source, ends, out, points, steps, wide: tl.constexpr, block: tl.constexpr):
    part, channel, parts = tl.program_id(0), tl.program_id(1), tl.num_programs(0)
    lane = tl.arange(0, wide)
    row = ends + channel * 2 * parts + lane
    # halves, whose difference is finite
    low = tl.min(tl.load(row, mask=lane < parts, other=float("inf")), 0).to(tl.float64) * 0.5
    high = tl.max(tl.load(row + parts, mask=lane < parts, other=-float("inf")), 0).to(tl.float64) * 0.5
    middle, half = low + high, high - low
    per_half = tl.where(half > 0, 1.0 / tl.where(half > 0, half, 1.0), 0.0)
    at = part.to(tl.int64) * steps * block + tl.arange(0, block)
    start = channel * (at * 0 + points)
    for _ in range(steps):
        value = tl.load(source + start + at, mask=at < points, other=0.0).to(tl.float64)
        tl.store(out + start + at, ((value - middle) * per_half).to(tl.float32), mask=at < points)
        at += block
