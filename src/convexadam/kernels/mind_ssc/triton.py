"""MIND-SSC on GPUs: everything is computed from the volume, twice, and only descriptors are written.

A pair of neighbours costs two additions for each voxel of the patch, and its six values come from the first cache: with
the usual patches of 27 voxels that is about as quick as separable sums through memory, which would need the twelve
channels of many planes at a time. Coarse blocks are averaged from finer ones wherever they consist of whole ones.
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
"""Features of cells whose grid is not that of the volume."""

# Fixed sizes, no tuning at run time: the first call must not take seconds. To tune, time these two here.
_BLOCK = 128  # voxels of a plane for each program, one for each thread: a thread keeps 12 or 24 sums in registers
_WARPS = 4


def mind_ssc(volume: Volume, *, radius: int = 1, dilation: int = 2, weight: Volume | None = None) -> Channels:
    """See the package."""
    volume, weight = _prepared(volume), None if weight is None else _prepared(weight)
    described = torch.empty((12, *volume.shape), dtype=torch.float32, device=volume.device)
    n0, n1, n2 = volume.shape
    blocks = triton.cdiv(n1 * n2, _BLOCK)
    with torch.cuda.device_of(volume):  # type: ignore[no-untyped-call]  # nothing happens on the CPU
        average = _average_variance(volume, weight, radius, dilation)
        _describe[(n0 * blocks,)](volume, average, described, n0, n1, n2, blocks, **_options(radius, dilation))
    return described


def pooled_mind_ssc(
    volume: Volume,
    spacings: Sequence[Triple],
    *,
    radius: int = 1,
    dilation: int = 2,
    weight: Volume | None = None,
) -> tuple[Pooled, ...]:
    """See the package."""
    volume, weight = _prepared(volume), None if weight is None else _prepared(weight)
    pooled: dict[Triple, Tensor] = {}
    with torch.cuda.device_of(volume):  # type: ignore[no-untyped-call]  # nothing happens on the CPU
        average = _average_variance(volume, weight, radius, dilation)
        for spacing in sorted(set(spacings), key=math.prod):
            finer = [s for s in pooled if all(a % b == 0 for a, b in zip(spacing, s, strict=True))]
            if finer:
                pooled[spacing] = _coarsened(pooled[finer[-1]], finer[-1], spacing, weight)
            else:
                pooled[spacing] = _pooled(volume, average, weight, spacing, _options(radius, dilation))
    return tuple(pooled[spacing] for spacing in spacings)


def _prepared(volume: Tensor) -> Tensor:
    return volume.to(torch.float32).contiguous()


def _options(radius: int, dilation: int) -> dict[str, Any]:
    # The default of the last one changes between versions, with a warning.
    return {"radius": radius, "dilation": dilation, "block": _BLOCK, "num_warps": _WARPS, "enable_fp_fusion": True}


def _average_variance(volume: Tensor, weight: Tensor | None, radius: int, dilation: int) -> Tensor:
    """Average of ``v`` over the volume, on the device; weighted, unless the weight has no contrast under it."""
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


def _pooled(volume: Tensor, average: Tensor, weight: Tensor | None, spacing: Triple, options: dict[str, Any]) -> Tensor:
    m0, m1, m2 = (n // s for n, s in zip(volume.shape, spacing, strict=True))
    pooled = torch.empty((12, m0, m1, m2), dtype=torch.float32, device=volume.device)
    wide = triton.next_power_of_2(spacing[2])
    tall = max(1, _BLOCK // wide)
    blocks = triton.cdiv(m1 * m2, tall)
    _describe_blocks[(m0 * blocks,)](
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
        **{**options, "block": tall},
        wide=wide,
    )
    return pooled


def _coarsened(finer: Tensor, spacing: Triple, to: Triple, weight: Tensor | None) -> Tensor:
    """Average whole blocks into larger ones, each by the weight that it has."""
    ratio: Triple = (to[0] // spacing[0], to[1] // spacing[1], to[2] // spacing[2])
    return pool(finer, ratio, weight=None if weight is None else pool(weight[None], spacing)[0])


@no_type_check
@triton.jit
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
    """Sum ``v`` over a block of a plane, with and without weight."""
    program = tl.program_id(0)
    i = program // blocks
    lane = program % blocks * block + tl.arange(0, block)
    here = lane < n1 * n2
    s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11 = _distances(
        volume, i, lane // n2, lane % n2, n0, n1, n2, radius, dilation
    )
    _least, variance = _spread(s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11)
    variance = tl.where(here, variance, 0.0)
    tl.store(sums + program, tl.sum(variance, axis=0))
    if weighted:
        share = tl.load(weight + i.to(tl.int64) * n1 * n2 + lane, mask=here, other=0.0)
        tl.store(weighted_sums + program, tl.sum(variance * share, axis=0))


@no_type_check
@triton.jit
def _describe(
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
    """Descriptors of a block of a plane."""
    program = tl.program_id(0)
    i = program // blocks
    lane = program % blocks * block + tl.arange(0, block)
    here = lane < n1 * n2
    s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11 = _distances(
        volume, i, lane // n2, lane % n2, n0, n1, n2, radius, dilation
    )
    least, variance = _spread(s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11)
    variance = _clamped(variance, tl.load(average))
    size = tl.full([], 0, tl.int64) + n1 * n2
    at = out + i * size + lane
    size *= n0
    tl.store(at, tl.exp((least - s0) / variance), mask=here)
    at += size
    tl.store(at, tl.exp((least - s1) / variance), mask=here)
    at += size
    tl.store(at, tl.exp((least - s2) / variance), mask=here)
    at += size
    tl.store(at, tl.exp((least - s3) / variance), mask=here)
    at += size
    tl.store(at, tl.exp((least - s4) / variance), mask=here)
    at += size
    tl.store(at, tl.exp((least - s5) / variance), mask=here)
    at += size
    tl.store(at, tl.exp((least - s6) / variance), mask=here)
    at += size
    tl.store(at, tl.exp((least - s7) / variance), mask=here)
    at += size
    tl.store(at, tl.exp((least - s8) / variance), mask=here)
    at += size
    tl.store(at, tl.exp((least - s9) / variance), mask=here)
    at += size
    tl.store(at, tl.exp((least - s10) / variance), mask=here)
    at += size
    tl.store(at, tl.exp((least - s11) / variance), mask=here)


@no_type_check
@triton.jit
def _describe_blocks(  # one name for each channel: kernels know no lists
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
    wide: tl.constexpr,
):
    """Descriptors averaged over ``block`` blocks of a plane of them, each ``wide >= spacing2`` threads wide."""
    program = tl.program_id(0)
    cell = program % blocks * block + tl.arange(0, block)
    within = tl.arange(0, wide)[None, :]
    here = (cell < m1 * m2)[:, None] & (within < spacing2)
    k = (cell % m2 * spacing2)[:, None] + within
    typical = tl.load(average)
    zero = tl.zeros((block, wide), tl.float32)
    f0, f1, f2, f3 = zero, zero, zero, zero
    f4, f5, f6, f7 = zero, zero, zero, zero
    f8, f9, f10, f11 = zero, zero, zero, zero
    share = zero
    for step0 in range(0, spacing0):
        i = program // blocks * spacing0 + step0
        for step1 in range(0, spacing1):
            j = (cell // m2 * spacing1)[:, None] + step1
            s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11 = _distances(volume, i, j, k, n0, n1, n2, radius, dilation)
            least, variance = _spread(s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11)
            variance = _clamped(variance, typical)
            if weighted:
                w = tl.load(weight + i.to(tl.int64) * n1 * n2 + j * n2 + k, mask=here, other=0.0)
            else:
                w = tl.where(here, 1.0, 0.0)
            share += w
            f0 += w * tl.exp((least - s0) / variance)
            f1 += w * tl.exp((least - s1) / variance)
            f2 += w * tl.exp((least - s2) / variance)
            f3 += w * tl.exp((least - s3) / variance)
            f4 += w * tl.exp((least - s4) / variance)
            f5 += w * tl.exp((least - s5) / variance)
            f6 += w * tl.exp((least - s6) / variance)
            f7 += w * tl.exp((least - s7) / variance)
            f8 += w * tl.exp((least - s8) / variance)
            f9 += w * tl.exp((least - s9) / variance)
            f10 += w * tl.exp((least - s10) / variance)
            f11 += w * tl.exp((least - s11) / variance)
    total = tl.sum(share, axis=1)
    per_share = tl.where(total > 0.0, 1.0 / tl.maximum(total, 1.1754944e-38), 0.0)
    known = cell < m1 * m2
    cells = tl.full([], 0, tl.int64) + m1 * m2
    at = out + program // blocks * cells + cell
    cells *= m0
    tl.store(at, tl.sum(f0, axis=1) * per_share, mask=known)
    at += cells
    tl.store(at, tl.sum(f1, axis=1) * per_share, mask=known)
    at += cells
    tl.store(at, tl.sum(f2, axis=1) * per_share, mask=known)
    at += cells
    tl.store(at, tl.sum(f3, axis=1) * per_share, mask=known)
    at += cells
    tl.store(at, tl.sum(f4, axis=1) * per_share, mask=known)
    at += cells
    tl.store(at, tl.sum(f5, axis=1) * per_share, mask=known)
    at += cells
    tl.store(at, tl.sum(f6, axis=1) * per_share, mask=known)
    at += cells
    tl.store(at, tl.sum(f7, axis=1) * per_share, mask=known)
    at += cells
    tl.store(at, tl.sum(f8, axis=1) * per_share, mask=known)
    at += cells
    tl.store(at, tl.sum(f9, axis=1) * per_share, mask=known)
    at += cells
    tl.store(at, tl.sum(f10, axis=1) * per_share, mask=known)
    at += cells
    tl.store(at, tl.sum(f11, axis=1) * per_share, mask=known)


@no_type_check
@triton.jit
def _distances(volume, i, j, k, n0, n1, n2, radius: tl.constexpr, dilation: tl.constexpr):
    """Mean squared differences of the twelve pairs of neighbours; ``i`` is one number, ``j`` and ``k`` are blocks.

    Positions are clamped to the volume, those of the patch first: its edges are replicated, then the image's. That also
    keeps threads beyond the end within the volume.
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
            here = at_j * n2 + at_k
            low_j = tl.maximum(at_j - dilation, 0) * n2 + at_k
            high_j = tl.minimum(at_j + dilation, n1 - 1) * n2 + at_k
            for along in range(-radius, radius + 1):
                at_i = tl.minimum(tl.maximum(i + along, 0), n0 - 1)
                middle = volume + at_i * plane
                below_i = tl.load(volume + tl.maximum(at_i - dilation, 0) * plane + here)
                above_i = tl.load(volume + tl.minimum(at_i + dilation, n0 - 1) * plane + here)
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
def _spread(s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11):
    """Smallest of the twelve, and how far they are above it on average."""
    least = tl.minimum(
        tl.minimum(tl.minimum(s0, s1), tl.minimum(s2, s3)), tl.minimum(tl.minimum(s4, s5), tl.minimum(s6, s7))
    )
    least = tl.minimum(least, tl.minimum(tl.minimum(s8, s9), tl.minimum(s10, s11)))
    total = (s0 - least) + (s1 - least) + (s2 - least) + (s3 - least) + (s4 - least) + (s5 - least)
    total += (s6 - least) + (s7 - least) + (s8 - least) + (s9 - least) + (s10 - least) + (s11 - least)
    return least, total / 12.0


@no_type_check
@triton.jit
def _clamped(variance, average):
    """``v`` within [1e-3, 1e3] of its average; 1 where there is no contrast at all, so that descriptors are 1."""
    variance = tl.minimum(tl.maximum(variance, 1e-3 * average), 1e3 * average)
    return tl.where(variance > 0.0, variance, 1.0)
