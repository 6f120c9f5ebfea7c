"""MIND-SSC on GPUs, computed from the volume in two passes that store nothing but descriptors.

A pair of neighbours needs two additions per voxel of the patch, whose six values are in the L1 cache: for patches of 27
voxels that is about as fast as separable sums, which would have to store twelve channels of many planes. Coarse blocks
are averaged from finer ones if they consist of complete ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias, no_type_check

import torch
import triton
import triton.language as tl

from convexadam._typing import Channels, Float, Tensor, Triple, Volume
from convexadam.kernels.resize import pool

Pooled: TypeAlias = Float[Tensor, "c _ _ _"]
"""Features averaged over blocks, on a grid other than that of the volume."""

# Fixed sizes, because autotuning at run time would delay the first call by seconds.
_BLOCK = 128  # voxels of a plane per program, one per thread, which has 12 or 24 sums in registers
_WARPS = 4


def mind_ssc(volume: Volume, *, radius: int = 1, dilation: int = 2, weight: Volume | None = None) -> Channels:
    """See the package."""
    volume, weight = _to_contiguous_float32(volume), None if weight is None else _to_contiguous_float32(weight)
    features = torch.empty((12, *volume.shape), dtype=torch.float32, device=volume.device)
    n0, n1, n2 = volume.shape
    blocks = triton.cdiv(n1 * n2, _BLOCK)
    with torch.cuda.device_of(volume):  # type: ignore[no-untyped-call]  # has no effect on the CPU
        average = _average_variance(volume, weight, radius, dilation)
        _write_descriptors[(n0 * blocks,)](volume, average, features, n0, n1, n2, blocks, **_options(radius, dilation))
    return features


def pooled_mind_ssc(
    volume: Volume,
    spacings: Sequence[Triple],
    *,
    radius: int = 1,
    dilation: int = 2,
    weight: Volume | None = None,
) -> tuple[Pooled, ...]:
    """See the package."""
    volume, weight = _to_contiguous_float32(volume), None if weight is None else _to_contiguous_float32(weight)
    pooled: dict[Triple, Tensor] = {}
    with torch.cuda.device_of(volume):  # type: ignore[no-untyped-call]  # has no effect on the CPU
        average = _average_variance(volume, weight, radius, dilation)
        for spacing in sorted(set(spacings), key=math.prod):
            divisors = [s for s in pooled if all(a % b == 0 for a, b in zip(spacing, s, strict=True))]
            if divisors:
                pooled[spacing] = _coarsen(pooled[divisors[-1]], divisors[-1], spacing, weight)
            else:
                pooled[spacing] = _launch_blocks(volume, average, weight, spacing, _options(radius, dilation))
    return tuple(pooled[spacing] for spacing in spacings)


def _to_contiguous_float32(volume: Tensor) -> Tensor:
    return volume.to(torch.float32).contiguous()


def _options(radius: int, dilation: int) -> dict[str, Any]:
    # enable_fp_fusion is explicit, because its default differs between versions, with a warning
    return {"radius": radius, "dilation": dilation, "block": _BLOCK, "num_warps": _WARPS, "enable_fp_fusion": True}


def _average_variance(volume: Tensor, weight: Tensor | None, radius: int, dilation: int) -> Tensor:
    """Compute the average of ``v`` on the device; weighted, unless the weighted voxels have no contrast."""
    n0, n1, n2 = volume.shape
    blocks = triton.cdiv(n1 * n2, _BLOCK)
    sums = torch.empty((1 if weight is None else 2, n0 * blocks), dtype=torch.float32, device=volume.device)
    _sum_variance[(n0 * blocks,)](
        volume,
        volume if weight is None else weight,
        sums,
        sums[-1],
        n0,
        n1,
        n2,
        blocks,
        weighted=weight is not None,
        **_options(radius, dilation),
    )
    total = sums.sum(1, dtype=torch.float64)
    average = total[0] / volume.numel()
    if weight is not None:
        weighted = total[1] / weight.sum(dtype=torch.float64)
        average = torch.where(weighted > 0, weighted, average)
    return average.to(torch.float32)


def _launch_blocks(
    volume: Tensor, average: Tensor, weight: Tensor | None, spacing: Triple, options: dict[str, Any]
) -> Tensor:
    m0, m1, m2 = (n // s for n, s in zip(volume.shape, spacing, strict=True))
    pooled = torch.empty((12, m0, m1, m2), dtype=torch.float32, device=volume.device)
    width = triton.next_power_of_2(spacing[2])
    block_count = max(1, _BLOCK // width)
    blocks = triton.cdiv(m1 * m2, block_count)
    _write_block_descriptors[(m0 * blocks,)](
        volume,
        volume if weight is None else weight,
        average,
        pooled,
        *volume.shape,
        *spacing,
        m0,
        m1,
        m2,
        blocks,
        weighted=weight is not None,
        **{**options, "block": block_count},
        width=width,
    )
    return pooled


def _coarsen(divisors: Tensor, spacing: Triple, to: Triple, weight: Tensor | None) -> Tensor:
    """Average complete blocks to larger ones, weighted by their total weights."""
    ratio: Triple = (to[0] // spacing[0], to[1] // spacing[1], to[2] // spacing[2])
    return pool(divisors, ratio, weight=None if weight is None else pool(weight[None], spacing)[0])


@no_type_check
@triton.jit(do_not_specialize=["n0", "n1", "n2", "blocks"])
def _sum_variance(
    volume,
    weight,
    sums,
    weighted_sums,
    n0,
    n1,
    n2,
    blocks,
    weighted: tl.constexpr,
    radius: tl.constexpr,
    dilation: tl.constexpr,
    block: tl.constexpr,
):
    """Sum ``v`` over a block of voxels of a plane, without and with weights."""
    program = tl.program_id(0)
    i = program // blocks
    lane = program % blocks * block + tl.arange(0, block)
    valid = lane < n1 * n2
    s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11 = _distances(
        volume, i, lane // n2, lane % n2, n0, n1, n2, radius, dilation
    )
    _minimum, variance = _min_and_variance(s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11)
    variance = tl.where(valid, variance, 0.0)
    tl.store(sums + program, tl.sum(variance, axis=0))
    if weighted:
        share = tl.load(weight + i.to(tl.int64) * n1 * n2 + lane, mask=valid, other=0.0)
        tl.store(weighted_sums + program, tl.sum(variance * share, axis=0))


@no_type_check
@triton.jit(do_not_specialize=["n0", "n1", "n2", "blocks"])
def _write_descriptors(
    volume,
    average,
    out,
    n0,
    n1,
    n2,
    blocks,
    radius: tl.constexpr,
    dilation: tl.constexpr,
    block: tl.constexpr,
):
    """Store the descriptors of a block of voxels of a plane."""
    program = tl.program_id(0)
    i = program // blocks
    lane = program % blocks * block + tl.arange(0, block)
    valid = lane < n1 * n2
    s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11 = _distances(
        volume, i, lane // n2, lane % n2, n0, n1, n2, radius, dilation
    )
    minimum, variance = _min_and_variance(s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11)
    variance = _clamp_variance(variance, tl.load(average))
    size = tl.full([], 0, tl.int64) + n1 * n2
    at = out + i * size + lane
    size *= n0
    tl.store(at, tl.exp((minimum - s0) / variance), mask=valid)
    at += size
    tl.store(at, tl.exp((minimum - s1) / variance), mask=valid)
    at += size
    tl.store(at, tl.exp((minimum - s2) / variance), mask=valid)
    at += size
    tl.store(at, tl.exp((minimum - s3) / variance), mask=valid)
    at += size
    tl.store(at, tl.exp((minimum - s4) / variance), mask=valid)
    at += size
    tl.store(at, tl.exp((minimum - s5) / variance), mask=valid)
    at += size
    tl.store(at, tl.exp((minimum - s6) / variance), mask=valid)
    at += size
    tl.store(at, tl.exp((minimum - s7) / variance), mask=valid)
    at += size
    tl.store(at, tl.exp((minimum - s8) / variance), mask=valid)
    at += size
    tl.store(at, tl.exp((minimum - s9) / variance), mask=valid)
    at += size
    tl.store(at, tl.exp((minimum - s10) / variance), mask=valid)
    at += size
    tl.store(at, tl.exp((minimum - s11) / variance), mask=valid)


@no_type_check
@triton.jit(do_not_specialize=["n0", "n1", "n2", "spacing0", "spacing1", "spacing2", "m0", "m1", "m2", "blocks"])
def _write_block_descriptors(  # one variable per channel, because Triton has no arrays in registers
    volume,
    weight,
    average,
    out,
    n0,
    n1,
    n2,
    spacing0,
    spacing1,
    spacing2,
    m0,
    m1,
    m2,
    blocks,
    weighted: tl.constexpr,
    radius: tl.constexpr,
    dilation: tl.constexpr,
    block: tl.constexpr,
    width: tl.constexpr,
):
    """Average descriptors over ``block`` blocks of a plane of blocks, each with ``width >= spacing2`` threads."""
    program = tl.program_id(0)
    block_index = program % blocks * block + tl.arange(0, block)
    within = tl.arange(0, width)[None, :]
    valid = (block_index < m1 * m2)[:, None] & (within < spacing2)
    k = (block_index % m2 * spacing2)[:, None] + within
    mean_variance = tl.load(average)
    zero = tl.zeros((block, width), tl.float32)
    f0, f1, f2, f3 = zero, zero, zero, zero
    f4, f5, f6, f7 = zero, zero, zero, zero
    f8, f9, f10, f11 = zero, zero, zero, zero
    share = zero
    for step0 in range(0, spacing0):
        i = program // blocks * spacing0 + step0
        for step1 in range(0, spacing1):
            j = (block_index // m2 * spacing1)[:, None] + step1
            s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11 = _distances(volume, i, j, k, n0, n1, n2, radius, dilation)
            minimum, variance = _min_and_variance(s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11)
            variance = _clamp_variance(variance, mean_variance)
            if weighted:
                w = tl.load(weight + i.to(tl.int64) * n1 * n2 + j * n2 + k, mask=valid, other=0.0)
            else:
                w = tl.where(valid, 1.0, 0.0)
            share += w
            f0 += w * tl.exp((minimum - s0) / variance)
            f1 += w * tl.exp((minimum - s1) / variance)
            f2 += w * tl.exp((minimum - s2) / variance)
            f3 += w * tl.exp((minimum - s3) / variance)
            f4 += w * tl.exp((minimum - s4) / variance)
            f5 += w * tl.exp((minimum - s5) / variance)
            f6 += w * tl.exp((minimum - s6) / variance)
            f7 += w * tl.exp((minimum - s7) / variance)
            f8 += w * tl.exp((minimum - s8) / variance)
            f9 += w * tl.exp((minimum - s9) / variance)
            f10 += w * tl.exp((minimum - s10) / variance)
            f11 += w * tl.exp((minimum - s11) / variance)
    total = tl.sum(share, axis=1)
    per_share = tl.where(total > 0.0, 1.0 / tl.maximum(total, 1.1754944e-38), 0.0)
    in_range = block_index < m1 * m2
    blocks_per_channel = tl.full([], 0, tl.int64) + m1 * m2
    at = out + program // blocks * blocks_per_channel + block_index
    blocks_per_channel *= m0
    tl.store(at, tl.sum(f0, axis=1) * per_share, mask=in_range)
    at += blocks_per_channel
    tl.store(at, tl.sum(f1, axis=1) * per_share, mask=in_range)
    at += blocks_per_channel
    tl.store(at, tl.sum(f2, axis=1) * per_share, mask=in_range)
    at += blocks_per_channel
    tl.store(at, tl.sum(f3, axis=1) * per_share, mask=in_range)
    at += blocks_per_channel
    tl.store(at, tl.sum(f4, axis=1) * per_share, mask=in_range)
    at += blocks_per_channel
    tl.store(at, tl.sum(f5, axis=1) * per_share, mask=in_range)
    at += blocks_per_channel
    tl.store(at, tl.sum(f6, axis=1) * per_share, mask=in_range)
    at += blocks_per_channel
    tl.store(at, tl.sum(f7, axis=1) * per_share, mask=in_range)
    at += blocks_per_channel
    tl.store(at, tl.sum(f8, axis=1) * per_share, mask=in_range)
    at += blocks_per_channel
    tl.store(at, tl.sum(f9, axis=1) * per_share, mask=in_range)
    at += blocks_per_channel
    tl.store(at, tl.sum(f10, axis=1) * per_share, mask=in_range)
    at += blocks_per_channel
    tl.store(at, tl.sum(f11, axis=1) * per_share, mask=in_range)


@no_type_check
@triton.jit
def _distances(volume, i, j, k, n0, n1, n2, radius: tl.constexpr, dilation: tl.constexpr):
    """Compute the patch distances of the twelve pairs of neighbours; ``i`` is a scalar, ``j`` and ``k`` are blocks.

    Positions are clamped to the volume, first those of the patch, then those of the neighbours, which replicates the
    edges as the reference does. It also keeps threads beyond the end within the volume.
    """
    zero = tl.zeros_like(j + k).to(tl.float32)
    s0, s1, s2, s3 = zero, zero, zero, zero
    s4, s5, s6, s7 = zero, zero, zero, zero
    s8, s9, s10, s11 = zero, zero, zero, zero
    plane = tl.full([], 0, tl.int64) + n1 * n2
    for aside in range(-radius, radius + 1):
        at_k = tl.minimum(tl.maximum(k + aside, 0), n2 - 1)
        low_k, high_k = tl.maximum(at_k - dilation, 0), tl.minimum(at_k + dilation, n2 - 1)
        for across in range(-radius, radius + 1):
            at_j = tl.minimum(tl.maximum(j + across, 0), n1 - 1)
            valid = at_j * n2 + at_k
            low_j = tl.maximum(at_j - dilation, 0) * n2 + at_k
            high_j = tl.minimum(at_j + dilation, n1 - 1) * n2 + at_k
            for along in range(-radius, radius + 1):
                at_i = tl.minimum(tl.maximum(i + along, 0), n0 - 1)
                middle = volume + at_i * plane
                below_i = tl.load(volume + tl.maximum(at_i - dilation, 0) * plane + valid)
                above_i = tl.load(volume + tl.minimum(at_i + dilation, n0 - 1) * plane + valid)
                below_j, above_j = tl.load(middle + low_j), tl.load(middle + high_j)
                below_k = tl.load(middle + at_j * n2 + low_k)
                above_k = tl.load(middle + at_j * n2 + high_k)
                s0 += (below_i - below_j) * (below_i - below_j)
                s1 += (below_i - above_j) * (below_i - above_j)
                s2 += (below_i - below_k) * (below_i - below_k)
                s3 += (below_i - above_k) * (below_i - above_k)
                s4 += (above_i - below_j) * (above_i - below_j)
                s5 += (above_i - above_j) * (above_i - above_j)
                s6 += (above_i - below_k) * (above_i - below_k)
                s7 += (above_i - above_k) * (above_i - above_k)
                s8 += (below_j - below_k) * (below_j - below_k)
                s9 += (below_j - above_k) * (below_j - above_k)
                s10 += (above_j - below_k) * (above_j - below_k)
                s11 += (above_j - above_k) * (above_j - above_k)
    share = 1.0 / ((2 * radius + 1) * (2 * radius + 1) * (2 * radius + 1))
    return (
        s0 * share,
        s1 * share,
        s2 * share,
        s3 * share,
        s4 * share,
        s5 * share,
        s6 * share,
        s7 * share,
        s8 * share,
        s9 * share,
        s10 * share,
        s11 * share,
    )


@no_type_check
@triton.jit
def _min_and_variance(s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11):
    """Compute the minimum of the twelve distances and the mean of their excess over it."""
    minimum = tl.minimum(
        tl.minimum(tl.minimum(s0, s1), tl.minimum(s2, s3)), tl.minimum(tl.minimum(s4, s5), tl.minimum(s6, s7))
    )
    minimum = tl.minimum(minimum, tl.minimum(tl.minimum(s8, s9), tl.minimum(s10, s11)))
    total = (s0 - minimum) + (s1 - minimum) + (s2 - minimum) + (s3 - minimum) + (s4 - minimum) + (s5 - minimum)
    total += (s6 - minimum) + (s7 - minimum) + (s8 - minimum) + (s9 - minimum) + (s10 - minimum) + (s11 - minimum)
    return minimum, total / 12.0


@no_type_check
@triton.jit
def _clamp_variance(variance, average):
    """Clamp ``v`` to [1e-3, 1e3] times its average; 1 without contrast, so that descriptors are 1."""
    variance = tl.minimum(tl.maximum(variance, 1e-3 * average), 1e3 * average)
    return tl.where(variance > 0.0, variance, 1.0)
