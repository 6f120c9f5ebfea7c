"""MIND-SSC on GPUs, computed from the volume in two passes that store nothing but descriptors.

A program loops along i with the sums over the last planes of the patches in registers, so that a squared difference is
computed once for all patches along i that contain it: that takes 0.4 times the instructions of sums over whole patches.
(Two rows per thread would share differences along j as well, but need more than 128 registers.) Coarse blocks are
averaged from finer ones if they consist of complete ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias, no_type_check

import torch
import triton
import triton.language as tl

from convexadam._typing import Channels, Float, Tensor, Triple, Volume
from convexadam.kernels.resize import pool

Pooled: TypeAlias = Float[Tensor, "c _ _ _"]
"""Features averaged over blocks, on a grid other than that of the volume."""

# Fixed sizes, because autotuning at run time would delay the first call by seconds.
_BLOCK = 128  # voxels of a plane per program, one per thread, which keeps 12 sums for each of 2 radius planes
_SEGMENT = 32  # planes per program, which computes 2 radius more: longer ones repeat less, shorter ones are more
_MAX_WIDTH = 16  # voxels along j or k of blocks; wider ones are averaged from these
_PARTS_AT_ONCE = 1024
_OPTIONS = {"num_warps": 4, "enable_fp_fusion": True}  # explicit, because its default differs between versions


def mind_ssc(volume: Volume, *, radius: int = 1, dilation: int = 2, weight: Volume | None = None) -> Channels:
    """See the package."""
    volume, weight = _to_contiguous_float32(volume), None if weight is None else _to_contiguous_float32(weight)
    with torch.cuda.device_of(volume):  # type: ignore[no-untyped-call]  # has no effect on the CPU
        average = _average_variance(volume, weight, radius, dilation)
        return _launch_descriptors(volume, average, None, (1, 1, 1), radius, dilation)


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
            fine = divisors[-1] if divisors else _limit_width(spacing)
            features = pooled.get(fine)
            if features is None:
                features = _launch_descriptors(volume, average, weight, fine, radius, dilation)
            pooled[spacing] = features if fine == spacing else _coarsen(features, fine, spacing, weight, average[1])
    return tuple(pooled[spacing] for spacing in spacings)


def _to_contiguous_float32(volume: Tensor) -> Tensor:
    return volume.to(torch.float32).contiguous()


def _limit_width(spacing: Triple) -> Triple:
    """Return the largest blocks within limits that those of ``spacing`` consist of."""
    width1, width2 = (max(n for n in range(1, _MAX_WIDTH + 1) if s % n == 0) for s in spacing[1:])
    return spacing[0], width1, width2


def _average_variance(volume: Tensor, weight: Tensor | None, radius: int, dilation: int) -> Tensor:
    """Compute on the device the average of ``v``, weighted unless the weighted voxels have no contrast.

    The second value is added to the weights of blocks: 1 if all weights are 0, which then count as 1, else 0.
    """
    n0, n1, n2 = volume.shape
    blocks, segments = triton.cdiv(n1 * n2, _BLOCK), triton.cdiv(n0, _SEGMENT)
    sums = torch.empty((1 if weight is None else 3, segments * blocks), dtype=torch.float32, device=volume.device)
    _sum_variance[(segments * blocks,)](
        volume,
        volume if weight is None else weight,
        sums,
        n0,
        n1,
        n2,
        blocks,
        weighted=weight is not None,
        radius=radius,
        dilation=dilation,
        block=_BLOCK,
        segment=_SEGMENT,
        **_OPTIONS,
    )
    average = torch.empty(2, dtype=torch.float32, device=volume.device)
    _average[(1,)](
        sums, average, segments * blocks, volume.numel(), weighted=weight is not None, block=_PARTS_AT_ONCE, **_OPTIONS
    )
    return average


def _launch_descriptors(
    volume: Tensor, average: Tensor, weight: Tensor | None, spacing: Triple, radius: int, dilation: int
) -> Tensor:
    m0, m1, m2 = (n // s for n, s in zip(volume.shape, spacing, strict=True))
    pooled = torch.empty((12, m0, m1, m2), dtype=torch.float32, device=volume.device)
    width1, width2 = (triton.next_power_of_2(s) for s in spacing[1:])
    block, segment = max(1, _BLOCK // (width1 * width2)), max(1, _SEGMENT // spacing[0])
    blocks = triton.cdiv(m1 * m2, block)
    _write_descriptors[(triton.cdiv(m0, segment) * blocks,)](
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
        segment,
        weighted=weight is not None,
        radius=radius,
        dilation=dilation,
        block=block,
        width1=width1,
        width2=width2,
        **_OPTIONS,
    )
    return pooled


def _coarsen(divisors: Tensor, spacing: Triple, to: Triple, weight: Tensor | None, added: Tensor) -> Tensor:
    """Average complete blocks to larger ones, weighted by their total weights."""
    ratio: Triple = (to[0] // spacing[0], to[1] // spacing[1], to[2] // spacing[2])
    return pool(divisors, ratio, weight=None if weight is None else pool(weight[None], spacing)[0].add_(added))


@no_type_check
@triton.jit(do_not_specialize=["n0", "n1", "n2", "blocks"])
def _sum_variance(
    volume,
    weight,
    sums,
    n0,
    n1,
    n2,
    blocks,
    weighted: tl.constexpr,
    radius: tl.constexpr,
    dilation: tl.constexpr,
    block: tl.constexpr,
    segment: tl.constexpr,
):
    """Sum ``v`` over ``block`` voxels in each of ``segment`` planes, without and with weights, and the weights."""
    program = tl.program_id(0)
    start = program // blocks * segment
    stop = tl.minimum(start + segment, n0)
    lane = program % blocks * block + tl.arange(0, block)
    valid = lane < n1 * n2
    plane = tl.full([], 0, tl.int64) + n1 * n2
    total = tl.zeros((block,), tl.float32)
    weighted_total, share = total, total
    j, k = lane // n2, lane % n2
    at = tl.minimum(j, n1 - 1) * n2 + k
    recent = _sum_planes_before(volume, start, j, k, n0, n1, n2, radius, dilation)
    for step in range(0, stop - start):
        i = start + step
        sums_of_plane = _sum_in_plane(volume, i + radius, j, k, n0, n1, n2, radius, dilation)
        distances, recent = _add_planes(recent, sums_of_plane, radius)
        _minimum, variance = _min_and_variance(distances)
        total += variance
        if weighted:
            w = tl.load(weight + i * plane + at)
            weighted_total += variance * w
            share += w
    tl.store(sums + program, tl.sum(tl.where(valid, total, 0.0), axis=0))
    if weighted:
        tl.store(sums + tl.num_programs(0) + program, tl.sum(tl.where(valid, weighted_total, 0.0), axis=0))
        tl.store(sums + 2 * tl.num_programs(0) + program, tl.sum(tl.where(valid, share, 0.0), axis=0))


@no_type_check
@triton.jit(do_not_specialize=["parts", "voxels"])
def _average(sums, average, parts, voxels, weighted: tl.constexpr, block: tl.constexpr):
    """Divide the sums by the number of voxels, or by their weight unless the weighted voxels have no contrast."""
    total = tl.zeros((block,), tl.float64)
    weighted_total, share = total, total
    for first in range(0, parts, block):
        at = first + tl.arange(0, block)
        total += tl.load(sums + at, mask=at < parts, other=0.0).to(tl.float64)
        if weighted:
            weighted_total += tl.load(sums + parts + at, mask=at < parts, other=0.0).to(tl.float64)
            share += tl.load(sums + 2 * parts + at, mask=at < parts, other=0.0).to(tl.float64)
    result, added = tl.sum(total, 0) / voxels, 0.0
    if weighted:
        numerator, denominator = tl.sum(weighted_total, 0), tl.sum(share, 0)
        known = (denominator > 0) & (numerator > 0)
        result = tl.where(known, numerator / tl.where(known, denominator, 1.0), result)
        added = tl.where(denominator > 0, 0.0, 1.0)
    tl.store(average, result.to(tl.float32))
    tl.store(average + 1, added)


@no_type_check
@triton.jit(
    do_not_specialize=["n0", "n1", "n2", "spacing0", "spacing1", "spacing2", "m0", "m1", "m2", "blocks", "segment"]
)
def _write_descriptors(
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
    segment,
    weighted: tl.constexpr,
    radius: tl.constexpr,
    dilation: tl.constexpr,
    block: tl.constexpr,
    width1: tl.constexpr,
    width2: tl.constexpr,
):
    """Average descriptors over ``block`` blocks of a plane of blocks, in ``segment`` planes of blocks.

    A block has ``width1 >= spacing1`` times ``width2 >= spacing2`` threads, each with one voxel at a time.
    """
    program = tl.program_id(0)
    start = program // blocks * segment
    count = tl.minimum(segment, m0 - start)
    index = program % blocks * block + tl.arange(0, block)
    lane = tl.arange(0, width1 * width2)[None, :]
    within1, within2 = lane // width2, lane % width2
    j, k = (index // m2 * spacing1)[:, None] + within1, (index % m2 * spacing2)[:, None] + within2
    at = tl.minimum(j, n1 - 1) * n2 + tl.minimum(k, n2 - 1)  # clamped as the loads of the volume, for the same layout
    in_range = index < m1 * m2
    valid = in_range[:, None] & (within1 < spacing1) & (within2 < spacing2)
    plane, blocks_of_plane = tl.full([], 0, tl.int64) + n1 * n2, tl.full([], 0, tl.int64) + m1 * m2
    mean_variance, extra = tl.load(average), tl.load(average + 1)
    recent = _sum_planes_before(volume, start * spacing0, j, k, n0, n1, n2, radius, dilation)
    for position in range(0, count):
        share = tl.zeros((block, width1 * width2), tl.float32)
        totals = _repeat(share, 12)
        for step in range(0, spacing0):
            i = (start + position) * spacing0 + step
            sums = _sum_in_plane(volume, i + radius, j, k, n0, n1, n2, radius, dilation)
            distances, recent = _add_planes(recent, sums, radius)
            minimum, variance = _min_and_variance(distances)
            rate = 1.4426950408889634 / _clamp_variance(variance, mean_variance)
            w = tl.where(valid, tl.load(weight + i * plane + at) + extra if weighted else 1.0, 0.0)
            share += w
            added = ()
            for c in tl.static_range(12):
                added += (totals[c] + w * tl.exp2((minimum - distances[c]) * rate),)
            totals = added
        share_of_block = tl.sum(share, axis=1)
        per_share = tl.where(share_of_block > 0.0, 1.0 / tl.maximum(share_of_block, 1.1754944e-38), 0.0)
        to = out + (start + position) * blocks_of_plane + index
        for c in tl.static_range(12):
            tl.store(to + c * m0 * blocks_of_plane, tl.sum(totals[c], axis=1) * per_share, mask=in_range)


@no_type_check
@triton.jit
def _repeat(value, count: tl.constexpr):
    values = ()
    for _ in tl.static_range(count):
        values += (value,)
    return values


@no_type_check
@triton.jit
def _sum_in_plane(volume, i, j, k, n0, n1, n2, radius: tl.constexpr, dilation: tl.constexpr):
    """Sum the squared differences of the twelve pairs of neighbours over the part of the patches in plane ``i``.

    ``i`` is a scalar, ``j`` and ``k`` are blocks. Positions are clamped to the volume, first those of the patch, then
    those of the neighbours, which replicates the edges as the reference does. It also keeps threads beyond the end
    within the volume.
    """
    zero = tl.zeros_like(j + k).to(tl.float32)
    s0, s1, s2, s3 = zero, zero, zero, zero
    s4, s5, s6, s7 = zero, zero, zero, zero
    s8, s9, s10, s11 = zero, zero, zero, zero
    plane = tl.full([], 0, tl.int64) + n1 * n2
    at_i = tl.minimum(tl.maximum(i, 0), n0 - 1)
    middle = volume + at_i * plane
    below = volume + tl.maximum(at_i - dilation, 0) * plane
    above = volume + tl.minimum(at_i + dilation, n0 - 1) * plane
    for across in range(-radius, radius + 1):  # not unrolled, because addresses of the whole patch need more registers
        at_j = tl.minimum(tl.maximum(j + across, 0), n1 - 1)
        low_j, high_j = tl.maximum(at_j - dilation, 0), tl.minimum(at_j + dilation, n1 - 1)
        for aside in tl.static_range(-radius, radius + 1):
            at_k = tl.minimum(tl.maximum(k + aside, 0), n2 - 1)
            low_k, high_k = tl.maximum(at_k - dilation, 0), tl.minimum(at_k + dilation, n2 - 1)
            below_i, above_i = tl.load(below + (at_j * n2 + at_k)), tl.load(above + (at_j * n2 + at_k))
            below_j, above_j = tl.load(middle + (low_j * n2 + at_k)), tl.load(middle + (high_j * n2 + at_k))
            below_k, above_k = tl.load(middle + (at_j * n2 + low_k)), tl.load(middle + (at_j * n2 + high_k))
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
    return s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11


@no_type_check
@triton.jit
def _sum_planes_before(volume, i, j, k, n0, n1, n2, radius: tl.constexpr, dilation: tl.constexpr):
    """Compute what `_add_planes` keeps of the ``2 radius`` planes of the patches of plane ``i`` but the last."""
    recent = _repeat(tl.zeros_like(j + k).to(tl.float32), 24 * radius)
    for step in range(0, 2 * radius):
        sums = _sum_in_plane(volume, i - radius + step, j, k, n0, n1, n2, radius, dilation)
        _distances, recent = _add_planes(recent, sums, radius)
    return recent


@no_type_check
@triton.jit
def _add_planes(recent, sums, radius: tl.constexpr):
    """Add the sums of a plane to those of the last ones; return the sums over patches, and those to keep.

    ``recent`` has the twelve sums of the last plane, of the last two, and so on up to ``2 radius``.
    """
    if radius == 0:
        distances, kept = sums, ()
    else:
        distances, kept = (), sums
        for c in tl.static_range(12 * (2 * radius - 1)):
            kept += (recent[c] + sums[c % 12],)
        for c in tl.static_range(12):
            distances += (recent[12 * (2 * radius - 1) + c] + sums[c],)
    return distances, kept


@no_type_check
@triton.jit
def _min_and_variance(distances):
    """Compute the minimum of the twelve distances and the mean of their excess over it."""
    minimum = distances[0]
    for c in tl.static_range(1, 12):
        minimum = tl.minimum(minimum, distances[c])
    total = distances[0] - minimum
    for c in tl.static_range(1, 12):
        total += distances[c] - minimum
    return minimum, total / 12.0


@no_type_check
@triton.jit
def _clamp_variance(variance, average):
    """Clamp ``v`` to [1e-3, 1e3] times its average; 1 without contrast, so that descriptors are 1."""
    variance = tl.minimum(tl.maximum(variance, 1e-3 * average), 1e3 * average)
    return tl.where(variance > 1.1754944e-38, variance, 1.0)
