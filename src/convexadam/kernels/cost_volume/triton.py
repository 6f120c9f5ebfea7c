"""The cost volume on GPUs, a group of displacements at a time.

A program loops along i with the last five planes of squared differences in registers, so that they are filtered along i
before they are stored for the first time. A second kernel loops along j in the same way, loads five neighbours along k,
and divides; a third one fills gaps. Without weights the denominator is a product of three counts and is not stored.
"""

from __future__ import annotations

import functools
from typing import Any, no_type_check

import torch
import triton
import triton.language as tl

from convexadam._typing import Channels, Float, Tensor, Triple, Volume
from convexadam.kernels._device import send
from convexadam.kernels.window import Window

# Fixed sizes, because autotuning at run time would delay the first call by seconds.
_BLOCK_PLANE = 128  # points of a plane per program, one per thread
_BLOCK_LABELS = 4  # displacements that share loads of the fixed map; neighbours along k share cache lines
_SEGMENT = 16  # planes per program: longer ones repeat less work at their ends, shorter ones suit small volumes
_ROWS = 4
_MIN_ROW, _MAX_ROW = 32, 128  # points along k per program
_FILL_POINTS = 64
_FILL_LABELS = 16
_WARPS = 4
_SCRATCH = 1 / 8  # as a fraction of the result
_MIN_SCRATCH = 28 * 2**20  # values; small volumes are processed in one group

_RADIUS = tl.constexpr(2)  # type: ignore[no-untyped-call]
"""Radius of two mean filters of width 3, in control points."""


def cost_volume(
    fixed: Channels,
    moving: Channels,
    window: Window,
    *,
    fixed_weight: Volume | None = None,
    moving_weight: Volume | None = None,
    scale: float = 1.0,
    unit: Float[Tensor, ""] | None = None,
    dtype: torch.dtype,
) -> Float[Tensor, "n i j k"]:
    """See the package."""
    shape = (fixed.shape[1], fixed.shape[2], fixed.shape[3])
    storage = torch.float16 if dtype == torch.float16 else torch.float32
    labels, points = len(window.steps), fixed[0].numel()
    costs = torch.empty((labels, *shape), dtype=storage, device=fixed.device)
    steps = _steps(window, fixed.device)
    weighted = fixed_weight is not None or moving_weight is not None
    stored = 2 if weighted else 1
    group = min(labels, max(1, int(labels * _SCRATCH) // stored, _MIN_SCRATCH // (stored * points)))
    # the second part begins where 16 bytes divide the address, whatever the size: else kernels are compiled once more
    scratch = torch.empty((stored, -(-group * points // 4) * 4), dtype=torch.float32, device=fixed.device)
    features, weights = (fixed.contiguous(), moving.contiguous()), (fixed_weight, moving_weight)
    with torch.cuda.device_of(fixed):  # type: ignore[no-untyped-call]  # has no effect on the CPU
        for first in range(0, labels, group):
            last = min(first + group, labels)
            _launch_distances(*features, *weights, scratch, steps, shape, first, last, scale, unit)
            _launch_means(scratch, costs, steps, shape, first, last)
        _fill_gaps[(triton.cdiv(points, _FILL_POINTS),)](
            costs, points, labels, _FILL_LABELS, _FILL_POINTS, num_warps=_WARPS, enable_fp_fusion=True
        )
    return costs.to(dtype)


@functools.cache  # never released, because recordings use it
def _steps(window: Window, device: torch.device) -> Tensor:
    """Return the displacements ``[n, 3]`` on the device."""
    return send(torch.from_numpy(window.table), torch.empty(0, dtype=torch.int32, device=device))


def _launch_distances(
    fixed: Tensor,
    moving: Tensor,
    fixed_weight: Tensor | None,
    moving_weight: Tensor | None,
    scratch: Tensor,
    steps: Tensor,
    shape: Triple,
    first: int,
    last: int,
    scale: float,
    unit: Tensor | None,
) -> None:
    """Store weighted squared differences, and weights if needed, filtered along i, in ``scratch``."""
    blocks, groups = triton.cdiv(shape[1] * shape[2], _BLOCK_PLANE), triton.cdiv(last - first, _BLOCK_LABELS)
    segments = triton.cdiv(shape[0], _SEGMENT)
    # 6 of 12 MIND channels: more would need too many registers
    unrolled = max(n for n in range(1, 7) if fixed.shape[0] % n == 0)
    _distances[(blocks * groups * segments,)](
        fixed,
        moving,
        *(fixed if w is None else w.contiguous() for w in (fixed_weight, moving_weight)),
        scratch,
        scratch[-1],
        steps,
        first,
        last,
        *shape,
        fixed.shape[0],
        blocks,
        groups,
        float(scale),
        unit,
        has_fixed_weight=fixed_weight is not None,
        has_moving_weight=moving_weight is not None,
        unrolled=unrolled,
        block_labels=_BLOCK_LABELS,
        block=_BLOCK_PLANE,
        segment=_SEGMENT,
        **_options(),
    )


def _launch_means(scratch: Tensor, costs: Tensor, steps: Tensor, shape: Triple, first: int, last: int) -> None:
    """Filter along j and k, and divide; infinite where the sum of the weights is 0."""
    block = min(_MAX_ROW, max(_MIN_ROW, triton.next_power_of_2(shape[2])))
    blocks, bands = triton.cdiv(shape[2], block), triton.cdiv(shape[0], _ROWS)
    _means[(blocks * bands * (last - first),)](
        scratch,
        scratch[-1],
        costs,
        steps,
        first,
        *shape,
        blocks,
        bands,
        weighted=len(scratch) == 2,
        rows=_ROWS,
        block=block,
        **_options(),
    )


def _options() -> dict[str, Any]:
    # explicit, because the default of enable_fp_fusion differs between versions, with a warning
    return {"num_warps": _WARPS, "enable_fp_fusion": True}


@no_type_check
@triton.jit(do_not_specialize=["first", "last", "n0", "n1", "n2", "channels", "blocks", "groups", "scale"])
def _distances(
    fixed,
    moving,
    fixed_weight,
    moving_weight,
    costs,
    shares,
    steps,
    first,
    last,
    n0,
    n1,
    n2,
    channels,
    blocks,
    groups,
    scale,
    unit,
    has_fixed_weight: tl.constexpr,
    has_moving_weight: tl.constexpr,
    unrolled: tl.constexpr,
    block_labels: tl.constexpr,
    block: tl.constexpr,
    segment: tl.constexpr,
):
    """Compute ``segment`` planes of ``block`` points of ``block_labels`` displacements, filtered along i."""
    program = tl.program_id(0)
    start = program // (blocks * groups) * segment
    stop = tl.minimum(start + segment, n0)
    local = program // blocks % groups * block_labels + tl.arange(0, block_labels)[:, None]
    label = first + local
    d0 = tl.load(steps + 3 * label, mask=label < last, other=0)
    d1 = tl.load(steps + 3 * label + 1, mask=label < last, other=0)
    d2 = tl.load(steps + 3 * label + 2, mask=label < last, other=0)
    plane = n1 * n2
    point = program % blocks * block + tl.arange(0, block)[None, :]
    j, k = point // n2, point % n2
    valid = point < plane
    valid_labels = (label < last) & valid
    partner = valid_labels & (j + d1 >= 0) & (j + d1 < n1) & (k + d2 >= 0) & (k + d2 < n2)
    shift = d1 * n2 + d2
    volume = tl.full([], 0, tl.int64) + n0 * plane
    rows = local.to(tl.int64) * volume
    if unit is not None:
        scale *= tl.load(unit).to(tl.float32)
    zero = tl.zeros((block_labels, block), tl.float32)
    cost1, cost2, cost3, cost4 = zero, zero, zero, zero
    share1, share2, share3, share4 = zero, zero, zero, zero
    for step in range(0, stop - start + 2 * _RADIUS):
        i = tl.zeros((1, 1), tl.int32) + (start - _RADIUS + step)
        inside = partner & (i >= 0) & (i < n0) & (i + d0 >= 0) & (i + d0 < n0)
        mask = valid & (i >= 0) & (i < n0)
        at = i * plane + point
        to = at + d0 * plane + shift
        cost0, share0 = zero, zero
        for channel in range(0, channels, unrolled):
            for c in tl.static_range(unrolled):
                offset = (channel + c) * volume
                difference = tl.load(fixed + offset + at, mask=mask, other=0.0) * scale
                difference = difference - tl.load(moving + offset + to, mask=inside, other=0.0) * scale
                cost0 += difference * difference
        cost0 = tl.where(inside, cost0, 0.0)
        if has_fixed_weight or has_moving_weight:
            share0 = tl.where(inside, 1.0, 0.0)
            if has_fixed_weight:
                share0 *= tl.load(fixed_weight + at, mask=mask, other=0.0)
            if has_moving_weight:
                share0 *= tl.load(moving_weight + to, mask=inside, other=0.0)
            cost0 = tl.where(share0 > 0.0, cost0 * share0, 0.0)
        done = valid_labels & (i - _RADIUS >= start)
        target = rows + (i - _RADIUS) * plane + point
        tl.store(costs + target, cost0 + 2.0 * cost1 + 3.0 * cost2 + 2.0 * cost3 + cost4, mask=done)
        cost4, cost3, cost2, cost1 = cost3, cost2, cost1, cost0
        if has_fixed_weight or has_moving_weight:
            tl.store(shares + target, share0 + 2.0 * share1 + 3.0 * share2 + 2.0 * share3 + share4, mask=done)
            share4, share3, share2, share1 = share3, share2, share1, share0


@no_type_check
@triton.jit(do_not_specialize=["first", "n0", "n1", "n2", "blocks", "bands"])
def _means(
    totals,
    shares,
    out,
    steps,
    first,
    n0,
    n1,
    n2,
    blocks,
    bands,
    weighted: tl.constexpr,
    rows: tl.constexpr,
    block: tl.constexpr,
):
    """Filter ``rows`` times ``block`` points (along i and k) of one displacement, in a loop along j."""
    program = tl.program_id(0)
    k = program % blocks * block + tl.arange(0, block)[None, :]
    i = program // blocks % bands * rows + tl.arange(0, rows)[:, None]
    local = program // (blocks * bands)
    label = first + local
    d0, d1, d2 = tl.load(steps + 3 * label), tl.load(steps + 3 * label + 1), tl.load(steps + 3 * label + 2)
    valid = (i < n0) & (k < n2)
    volume = tl.full([], 0, tl.int64) + n0 * n1 * n2
    totals += local * volume
    shares += local * volume
    out += label * volume
    if not weighted:
        count_ik = _count_valid(i, d0, n0) * _count_valid(k, d2, n2)
    zero = tl.zeros((rows, block), tl.float32)
    total1, total2, total3, total4 = zero, zero, zero, zero
    share1, share2, share3, share4 = zero, zero, zero, zero
    for step in range(0, n1 + _RADIUS):
        j = tl.zeros((1, 1), tl.int32) + step
        at = (i * n1 + j) * n2 + k
        total0 = _along_k(totals + at, k, n2, valid & (j < n1))
        total = total0 + 2.0 * total1 + 3.0 * total2 + 2.0 * total3 + total4
        total4, total3, total2, total1 = total3, total2, total1, total0
        if weighted:
            share0 = _along_k(shares + at, k, n2, valid & (j < n1))
            share = share0 + 2.0 * share1 + 3.0 * share2 + 2.0 * share3 + share4
            share4, share3, share2, share1 = share3, share2, share1, share0
        else:
            share = count_ik * _count_valid(j - _RADIUS, d1, n1)
        positive = share > 0.0
        mean = tl.where(positive, total / tl.where(positive, share, 1.0), float("inf"))
        tl.store(out + at - _RADIUS * n2, mean, mask=valid & (j >= _RADIUS))


@no_type_check
@triton.jit
def _along_k(at, k, n2, valid):
    """Apply two sums of three neighbours along k."""
    near = tl.load(at - 1, mask=valid & (k >= 1), other=0.0) + tl.load(at + 1, mask=valid & (k + 1 < n2), other=0.0)
    far = tl.load(at - 2, mask=valid & (k >= 2), other=0.0) + tl.load(at + 2, mask=valid & (k + 2 < n2), other=0.0)
    return 3.0 * tl.load(at, mask=valid, other=0.0) + 2.0 * near + far


@no_type_check
@triton.jit
def _count_valid(x, d, n):
    """Apply two sums of three neighbours to the indicator of ``x`` and ``x + d`` both in ``[0, n)``."""
    low, high = tl.maximum(-d, 0), tl.minimum(n - d, n)
    count = tl.zeros_like(x).to(tl.float32)
    for a in tl.static_range(3):
        for b in tl.static_range(3):
            count_ik = x + (a + b - 2)
            count += tl.where((count_ik >= low) & (count_ik < high), 1.0, 0.0)
    return count


@no_type_check
@triton.jit(do_not_specialize=["points", "labels"])
def _fill_gaps(costs, points, labels, block_labels: tl.constexpr, block: tl.constexpr):
    """Replace infinite costs by the mean of the finite ones of the control point, or by 0 if there is none."""
    point = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)[None, :]
    total = tl.zeros((block_labels, block), tl.float32)
    count = tl.zeros((block_labels, block), tl.float32)
    for first in range(0, labels, block_labels):
        label = first + tl.arange(0, block_labels)[:, None]
        mask = (label < labels) & (point < points)
        cost = tl.load(costs + label.to(tl.int64) * points + point, mask=mask, other=float("inf")).to(tl.float32)
        finite = cost < float("inf")
        total += tl.where(finite, cost, 0.0)
        count += tl.where(finite, 1.0, 0.0)
    finite_count = tl.sum(count, axis=0)[None, :]
    mean = tl.sum(total, axis=0)[None, :] / tl.maximum(finite_count, 1.0)
    has_gap = (point < points) & (finite_count < labels)
    for first in range(0, labels, block_labels):  # control points without gaps are not loaded again
        label = first + tl.arange(0, block_labels)[:, None]
        mask = (label < labels) & has_gap
        at = costs + label.to(tl.int64) * points + point
        cost = tl.load(at, mask=mask, other=0.0).to(tl.float32)
        tl.store(at, tl.broadcast_to(mean, (block_labels, block)), mask=mask & (cost == float("inf")))
