"""Dissimilarity on the GPU: sums over parts of the points, their unit by one program, and the result."""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl

from convexadam._typing import Channels, Volume
from convexadam.kernels.dissimilarity.reference import TINY

_BLOCK = 256

_OPTIONS = {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": True}


def measure_dissimilarity(
    fixed: Channels, moving: Channels, structure: Volume, weight: Volume | None
) -> tuple[Volume, Volume]:
    """See the package."""
    maps, shares = (fixed.contiguous(), moving.contiguous()), structure.contiguous()
    weights = None if weight is None else weight.contiguous()
    channels, points = len(fixed), structure.numel()
    parts = triton.cdiv(points, _BLOCK)
    sums = shares.new_empty((2 + 4 * channels, parts))
    numbers, values, overlap = shares.new_empty(2), torch.empty_like(shares), torch.empty_like(shares)
    with torch.cuda.device(fixed.get_device()):
        _sum_moments[(parts,)](*maps, shares, weights, sums, points, channels, _BLOCK, **_OPTIONS)
        _find_unit[(1,)](sums, numbers, parts, channels, TINY, _BLOCK, **_OPTIONS)
        _divide[(parts,)](*maps, shares, weights, numbers, values, overlap, points, channels, _BLOCK, **_OPTIONS)
    return values, overlap


@no_type_check
@triton.jit(do_not_specialize=["points", "channels"])
def _sum_moments(fixed, moving, structure, weight, sums, points, channels, block: tl.constexpr):
    """Sum the weights of both maps, and of each channel first and second moments, over a block of points."""
    part, parts = tl.program_id(0), tl.num_programs(0)
    at = part * block + tl.arange(0, block)
    valid, start = at < points, at.to(tl.int64)
    share = tl.load(structure + at, mask=valid, other=0.0)
    both = share
    if weight is not None:
        both *= tl.load(weight + at, mask=valid, other=0.0)
    to = sums + part
    tl.store(to, tl.sum(share, 0))
    tl.store(to + parts, tl.sum(both, 0))
    for _ in range(channels):
        f, m = tl.load(fixed + start, mask=valid, other=0.0), tl.load(moving + start, mask=valid, other=0.0)
        to += 2 * parts
        tl.store(to, tl.sum(share * f, 0))
        tl.store(to + parts, tl.sum(share * f * f, 0))
        to += 2 * parts
        tl.store(to, tl.sum(both * m, 0))
        tl.store(to + parts, tl.sum(both * m * m, 0))
        start += points


@no_type_check
@triton.jit(do_not_specialize=["parts", "channels"])
def _find_unit(sums, numbers, parts, channels, tiny, block: tl.constexpr):
    """Store the sum of the structure, and the squared difference expected for unrelated images; one program."""
    total = _add_parts(sums, parts, block)
    fixed_sum = tl.maximum(total, tiny)
    # shares of the moving map are those of the overlap, of which very little counts as none
    moving_sum = tl.maximum(_add_parts(sums + parts, parts, block), fixed_sum * tiny)
    row, unit = sums + 2 * parts, total * 0
    for _ in range(channels):
        f, f2 = _add_parts(row, parts, block) / fixed_sum, _add_parts(row + parts, parts, block) / fixed_sum
        row += 2 * parts
        m, m2 = _add_parts(row, parts, block) / moving_sum, _add_parts(row + parts, parts, block) / moving_sum
        row += 2 * parts
        unit += tl.maximum(f2 - f * f, 0.0) + tl.maximum(m2 - m * m, 0.0) + (f - m) * (f - m)
    tl.store(numbers, fixed_sum.to(tl.float32))
    tl.store(numbers + 1, tl.maximum(unit, tiny).to(tl.float32))


@no_type_check
@triton.jit
def _add_parts(row, parts, block: tl.constexpr):
    total = tl.zeros((block,), tl.float64)
    for first in range(0, parts, block):
        at = first + tl.arange(0, block)
        total += tl.load(row + at, mask=at < parts, other=0.0).to(tl.float64)
    return tl.sum(total, 0)


@no_type_check
@triton.jit(do_not_specialize=["points", "channels"])
def _divide(fixed, moving, structure, weight, numbers, values, overlap, points, channels, block: tl.constexpr):
    at = tl.program_id(0) * block + tl.arange(0, block)
    valid, start = at < points, at.to(tl.int64)
    total, unit = tl.load(numbers), tl.load(numbers + 1)
    share = tl.div_rn(tl.load(structure + at, mask=valid, other=0.0), total)
    if weight is not None:
        share *= tl.load(weight + at, mask=valid, other=0.0)
    squared = tl.zeros((block,), tl.float32)
    for _ in range(channels):
        difference = tl.load(fixed + start, mask=valid, other=0.0) - tl.load(moving + start, mask=valid, other=0.0)
        squared += difference * difference
        start += points
    tl.store(values + at, tl.div_rn(squared, unit), mask=valid)
    tl.store(overlap + at, share, mask=valid)
