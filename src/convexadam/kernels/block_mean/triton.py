"""Means over blocks on the GPU, in one pass over memory; a second one selects complete blocks."""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl

from convexadam._typing import Channels, Float, Tensor, Triple, Volume
from convexadam.kernels.block_mean.reference import WHOLE
from convexadam.kernels.warp.triton import launch_grid, points_of_box

_BOX = (1, 4, 32)
"""Blocks per program: those along the innermost axis share lines of the cache."""

_WEIGHT_BOX = (2, 8, 32)
"""Blocks per program where each program leaves a number that all of the next pass read."""

_PARTS = 1024
"""Numbers that are read at a time."""

_OPTIONS = {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": True}


def block_mean(volume: Channels, spacing: Triple, weight: Volume | None = None) -> Float[Tensor, "c a b d"]:
    """See the package."""
    source, weights = volume.contiguous(), None if weight is None else weight.contiguous()
    channels, _, n1, n2 = source.shape
    points = source[0].numel()
    m0, m1, m2 = _count_blocks(source, spacing)
    result = source.new_empty((channels, m0, m1, m2))
    with torch.cuda.device(source.get_device()):
        _average_blocks[launch_grid((m0, m1, m2), _BOX)](
            source, weights, result, channels, points, n1, n2, m0, m1, m2, *spacing, *_BOX, **_OPTIONS
        )
    return result


def complete_weight(weight: Volume, spacing: Triple) -> Float[Tensor, "a b d"]:
    """See the package."""
    source = weight.contiguous()
    _, n1, n2 = source.shape
    m0, m1, m2 = _count_blocks(source[None], spacing)
    grid, sizes = launch_grid((m0, m1, m2), _WEIGHT_BOX), (n1, n2, m0, m1, m2, *spacing)
    means, shares, parts = source.new_empty((m0, m1, m2)), source.new_empty((m0, m1, m2)), source.new_empty(grid[::-1])
    with torch.cuda.device(source.get_device()):
        _average_weights[grid](source, means, shares, parts, *sizes, WHOLE, *_WEIGHT_BOX, **_OPTIONS)
        blocks = parts.numel(), m0, m1, m2
        _select_complete[grid](means, shares, parts, *blocks, WHOLE, _PARTS, *_WEIGHT_BOX, **_OPTIONS)
    return means


def _count_blocks(source: Channels, spacing: Triple) -> Triple:
    i, j, k = (n // s for n, s in zip(source.shape[1:], spacing, strict=True))
    return i, j, k


@no_type_check
@triton.jit(do_not_specialize=["channels", "points", "n1", "n2", "m0", "m1", "m2", "s0", "s1", "s2"])
def _average_blocks(
    source,
    weight,
    out,
    channels,
    points,
    n1,
    n2,
    m0,
    m1,
    m2,
    s0,
    s1,
    s2,
    box0: tl.constexpr,
    box1: tl.constexpr,
    box2: tl.constexpr,
):
    i, j, k, to, valid = points_of_box(m0, m1, m2, box0, box1, box2)
    first = (i.to(tl.int64) * s0 * n1 + j * s1) * n2 + k * s2
    start, size = first, (first * 0 + m0) * m1 * m2
    for _ in range(channels):
        total, share = tl.zeros(k.shape, tl.float32), tl.zeros(k.shape, tl.float32)
        for a in range(s0):
            for b in range(s1):
                row = (a * n1 + b) * n2
                for c in range(s2):
                    value = tl.load(source + start + (row + c), mask=valid, other=0.0)
                    if weight is not None:
                        known = tl.load(weight + first + (row + c), mask=valid, other=0.0)
                        value *= known
                        share += known
                    total += value
        if weight is None:
            share += s0 * s1 * s2
        mean = tl.div_rn(total, tl.where(share > 0, share, 1.0))
        tl.store(out + to, tl.where(share > 0, mean, 0.0), mask=valid)
        start += points
        to += size


@no_type_check
@triton.jit(do_not_specialize=["n1", "n2", "m0", "m1", "m2", "s0", "s1", "s2", "whole"])
def _average_weights(
    weight,
    means,
    shares,
    parts,
    n1,
    n2,
    m0,
    m1,
    m2,
    s0,
    s1,
    s2,
    whole,
    box0: tl.constexpr,
    box1: tl.constexpr,
    box2: tl.constexpr,
):
    """Average weights, and how many voxels have some; and find the largest mean of complete blocks of this program."""
    i, j, k, to, valid = points_of_box(m0, m1, m2, box0, box1, box2)
    first = (i.to(tl.int64) * s0 * n1 + j * s1) * n2 + k * s2
    total, share = tl.zeros(k.shape, tl.float32), tl.zeros(k.shape, tl.float32)
    for a in range(s0):
        for b in range(s1):
            row = (a * n1 + b) * n2
            for c in range(s2):
                known = tl.load(weight + first + (row + c), mask=valid, other=0.0)
                total += known
                share += tl.where(known > 0, 1.0, 0.0)
    count = (tl.zeros(k.shape, tl.float32) + s0) * s1 * s2
    mean, share = tl.div_rn(total, count), tl.div_rn(share, count)
    tl.store(means + to, mean, mask=valid)
    tl.store(shares + to, share, mask=valid)
    program = (tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)) * tl.num_programs(0) + tl.program_id(0)
    tl.store(parts + program, tl.max(tl.where(valid & (share > whole), mean, 0.0), 0))


@no_type_check
@triton.jit(do_not_specialize=["count", "m0", "m1", "m2", "whole"])
def _select_complete(
    means,
    shares,
    parts,
    count,
    m0,
    m1,
    m2,
    whole,
    wide: tl.constexpr,
    box0: tl.constexpr,
    box1: tl.constexpr,
    box2: tl.constexpr,
):
    """Replace means of incomplete blocks by 0, in place, unless there is no complete one."""
    _, _, _, at, valid = points_of_box(m0, m1, m2, box0, box1, box2)
    largest = tl.zeros((wide,), tl.float32)
    for first in range(0, count, wide):
        part = first + tl.arange(0, wide)
        largest = tl.maximum(largest, tl.load(parts + part, mask=part < count, other=0.0))
    mean, share = tl.load(means + at, mask=valid, other=0.0), tl.load(shares + at, mask=valid, other=0.0)
    least = tl.where(tl.max(largest, 0) > 0.0, whole, -1.0)
    tl.store(means + at, tl.where(share > least, mean, 0.0), mask=valid)
