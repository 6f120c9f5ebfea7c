"""The cost volume on GPUs, a group of displacements at a time.

A program walks along i and keeps the last five planes of squared differences in registers, so that they are filtered
along i before they are stored for the first time. A second kernel walks along j in the same way, reads five neighbours
along k, and divides; a third fills what has no evidence. Without weights the evidence is a product of three counts and
is never stored.
"""

from __future__ import annotations

import functools
from typing import Any, no_type_check

import torch
import triton
import triton.language as tl

from convexadam._typing import Channels, Float, Tensor, Triple, Volume
from convexadam.kernels.window import Window

# Fixed sizes, no tuning at run time: the first call must not take seconds. To tune, time these by shape here.
_BLOCK_PLANE = 128  # cells of a plane for each program, one for each thread
_BLOCK_LABELS = 4  # displacements that share what is read of the fixed map; neighbours along k share cache lines
_SEGMENT = 16  # planes for each program: longer ones repeat less at their ends, shorter ones keep small volumes busy
_ROWS = 4
_LONGEST = 128  # cells along k for each program
_FILL_CELLS = 64
_FILL_LABELS = 16
_WARPS = 4
_SCRATCH = 1 / 8  # of the result
_LEAST_SCRATCH = 2**22  # numbers; small volumes are done in one go

_REACH = tl.constexpr(2)  # type: ignore[no-untyped-call]
"""Cells that the mean filters look to each side."""


def cost_volume(
    fixed: Channels,
    moving: Channels,
    window: Window,
    *,
    fixed_weight: Volume | None = None,
    moving_weight: Volume | None = None,
    dtype: torch.dtype,
) -> Float[Tensor, "n i j k"]:
    """See the package."""
    shape = (fixed.shape[1], fixed.shape[2], fixed.shape[3])
    kind = torch.float16 if dtype == torch.float16 else torch.float32
    labels, cells = len(window.steps), fixed[0].numel()
    costs = torch.empty((labels, *shape), dtype=kind, device=fixed.device)
    steps = _steps(window, fixed.device)
    weighted = fixed_weight is not None or moving_weight is not None
    stored = 2 if weighted else 1
    group = min(labels, max(1, int(labels * _SCRATCH) // stored, _LEAST_SCRATCH // (stored * cells)))
    scratch = torch.empty((stored, group, cells), dtype=torch.float32, device=fixed.device)
    features, weights = (fixed.contiguous(), moving.contiguous()), (fixed_weight, moving_weight)
    with torch.cuda.device_of(fixed):  # type: ignore[no-untyped-call]  # nothing happens on the CPU
        for first in range(0, labels, group):
            last = min(first + group, labels)
            _launch_distances(*features, *weights, scratch, steps, shape, first, last)
            _launch_means(scratch, costs, steps, shape, first, last)
        _fill[(triton.cdiv(cells, _FILL_CELLS),)](
            costs, cells, labels, _FILL_LABELS, _FILL_CELLS, num_warps=_WARPS, enable_fp_fusion=True
        )
    return costs.to(dtype)


@functools.lru_cache(maxsize=32)
def _steps(window: Window, device: torch.device) -> Tensor:
    """Displacements ``[n, 3]`` on the device; kept, because a copy to the device waits for it."""
    return torch.from_numpy(window.table).to(torch.int32).contiguous().to(device)


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
) -> None:
    """Fill ``scratch``: weighted squared differences, and weights where they are stored, both filtered along i."""
    blocks, groups = triton.cdiv(shape[1] * shape[2], _BLOCK_PLANE), triton.cdiv(last - first, _BLOCK_LABELS)
    segments = triton.cdiv(shape[0], _SEGMENT)
    unrolled = max(n for n in range(1, 7) if fixed.shape[0] % n == 0)  # half of a MIND map: more takes many registers
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
        has_fixed_weight=fixed_weight is not None,
        has_moving_weight=moving_weight is not None,
        unrolled=unrolled,
        block_labels=_BLOCK_LABELS,
        block=_BLOCK_PLANE,
        segment=_SEGMENT,
        **_options(),
    )


def _launch_means(scratch: Tensor, costs: Tensor, steps: Tensor, shape: Triple, first: int, last: int) -> None:
    """Filter along j and k, and divide; infinite without evidence."""
    block = min(_LONGEST, max(16, triton.next_power_of_2(shape[2])))
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
    # The default of the second one changes between versions, with a warning.
    return {"num_warps": _WARPS, "enable_fp_fusion": True}


@no_type_check
@triton.jit(do_not_specialize=["first", "last", "groups"])
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
    has_fixed_weight: tl.constexpr,
    has_moving_weight: tl.constexpr,
    unrolled: tl.constexpr,
    block_labels: tl.constexpr,
    block: tl.constexpr,
    segment: tl.constexpr,
):
    """``segment`` planes of ``block`` cells of ``block_labels`` displacements, filtered along i."""
    program = tl.program_id(0)
    start = program // (blocks * groups) * segment
    stop = tl.minimum(start + segment, n0)
    local = program // blocks % groups * block_labels + tl.arange(0, block_labels)[:, None]
    label = first + local
    d0 = tl.load(steps + 3 * label, mask=label < last, other=0)
    d1 = tl.load(steps + 3 * label + 1, mask=label < last, other=0)
    d2 = tl.load(steps + 3 * label + 2, mask=label < last, other=0)
    plane = n1 * n2
    cell = program % blocks * block + tl.arange(0, block)[None, :]
    j, k = cell // n2, cell % n2
    here = cell < plane
    known = (label < last) & here
    partner = known & (j + d1 >= 0) & (j + d1 < n1) & (k + d2 >= 0) & (k + d2 < n2)
    shift = d1 * n2 + d2
    volume = tl.full([], 0, tl.int64) + n0 * plane
    rows = local.to(tl.int64) * volume
    zero = tl.zeros((block_labels, block), tl.float32)
    cost1, cost2, cost3, cost4 = zero, zero, zero, zero
    share1, share2, share3, share4 = zero, zero, zero, zero
    for step in range(0, stop - start + 2 * _REACH):
        i = tl.zeros((1, 1), tl.int32) + (start - _REACH + step)
        inside = partner & (i >= 0) & (i < n0) & (i + d0 >= 0) & (i + d0 < n0)
        use = here & (i >= 0) & (i < n0)
        at = i * plane + cell
        to = at + d0 * plane + shift
        cost0, share0 = zero, zero
        for channel in range(0, channels, unrolled):
            for c in tl.static_range(unrolled):
                offset = (channel + c) * volume
                apart = tl.load(fixed + offset + at, mask=use, other=0.0)
                apart = apart - tl.load(moving + offset + to, mask=inside, other=0.0)
                cost0 += apart * apart
        cost0 = tl.where(inside, cost0, 0.0)
        if has_fixed_weight or has_moving_weight:
            share0 = tl.where(inside, 1.0, 0.0)
            if has_fixed_weight:
                share0 *= tl.load(fixed_weight + at, mask=use, other=0.0)
            if has_moving_weight:
                share0 *= tl.load(moving_weight + to, mask=inside, other=0.0)
            cost0 = tl.where(share0 > 0.0, cost0 * share0, 0.0)
        done = known & (i - _REACH >= start)
        target = rows + (i - _REACH) * plane + cell
        tl.store(costs + target, cost0 + 2.0 * cost1 + 3.0 * cost2 + 2.0 * cost3 + cost4, mask=done)
        cost4, cost3, cost2, cost1 = cost3, cost2, cost1, cost0
        if has_fixed_weight or has_moving_weight:
            tl.store(shares + target, share0 + 2.0 * share1 + 3.0 * share2 + 2.0 * share3 + share4, mask=done)
            share4, share3, share2, share1 = share3, share2, share1, share0


@no_type_check
@triton.jit(do_not_specialize=["first"])
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
    """``rows`` times ``block`` cells (along i and k) of one displacement, from one end of j to the other."""
    program = tl.program_id(0)
    k = program % blocks * block + tl.arange(0, block)[None, :]
    i = program // blocks % bands * rows + tl.arange(0, rows)[:, None]
    local = program // (blocks * bands)
    label = first + local
    d0, d1, d2 = tl.load(steps + 3 * label), tl.load(steps + 3 * label + 1), tl.load(steps + 3 * label + 2)
    here = (i < n0) & (k < n2)
    volume = tl.full([], 0, tl.int64) + n0 * n1 * n2
    totals += local * volume
    shares += local * volume
    out += label * volume
    if not weighted:
        beside = _evidence(i, d0, n0) * _evidence(k, d2, n2)
    zero = tl.zeros((rows, block), tl.float32)
    total1, total2, total3, total4 = zero, zero, zero, zero
    share1, share2, share3, share4 = zero, zero, zero, zero
    for step in range(0, n1 + _REACH):
        j = tl.zeros((1, 1), tl.int32) + step
        at = (i * n1 + j) * n2 + k
        total0 = _along_k(totals + at, k, n2, here & (j < n1))
        total = total0 + 2.0 * total1 + 3.0 * total2 + 2.0 * total3 + total4
        total4, total3, total2, total1 = total3, total2, total1, total0
        if weighted:
            share0 = _along_k(shares + at, k, n2, here & (j < n1))
            share = share0 + 2.0 * share1 + 3.0 * share2 + 2.0 * share3 + share4
            share4, share3, share2, share1 = share3, share2, share1, share0
        else:
            share = beside * _evidence(j - _REACH, d1, n1)
        some = share > 0.0
        mean = tl.where(some, total / tl.where(some, share, 1.0), float("inf"))
        tl.store(out + at - _REACH * n2, mean, mask=here & (j >= _REACH))


@no_type_check
@triton.jit
def _along_k(at, k, n2, here):
    """Two sums of three neighbours along k."""
    near = tl.load(at - 1, mask=here & (k >= 1), other=0.0) + tl.load(at + 1, mask=here & (k + 1 < n2), other=0.0)
    far = tl.load(at - 2, mask=here & (k >= 2), other=0.0) + tl.load(at + 2, mask=here & (k + 2 < n2), other=0.0)
    return 3.0 * tl.load(at, mask=here, other=0.0) + 2.0 * near + far


@no_type_check
@triton.jit
def _evidence(x, d, n):
    """Two sums of three neighbours of what is 1 where both ``x`` and ``x + d`` are in ``[0, n)``."""
    low, high = tl.maximum(-d, 0), tl.minimum(n - d, n)
    count = tl.zeros_like(x).to(tl.float32)
    for a in tl.static_range(3):
        for b in tl.static_range(3):
            beside = x + (a + b - 2)
            count += tl.where((beside >= low) & (beside < high), 1.0, 0.0)
    return count


@no_type_check
@triton.jit
def _fill(costs, cells, labels, block_labels: tl.constexpr, block: tl.constexpr):
    """Replace infinite costs by the mean of the cell's finite ones, or by 0 where there is none."""
    cell = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)[None, :]
    total = tl.zeros((block_labels, block), tl.float32)
    count = tl.zeros((block_labels, block), tl.float32)
    for first in range(0, labels, block_labels):
        label = first + tl.arange(0, block_labels)[:, None]
        use = (label < labels) & (cell < cells)
        cost = tl.load(costs + label.to(tl.int64) * cells + cell, mask=use, other=float("inf")).to(tl.float32)
        finite = cost < float("inf")
        total += tl.where(finite, cost, 0.0)
        count += tl.where(finite, 1.0, 0.0)
    known = tl.sum(count, axis=0)[None, :]
    mean = tl.sum(total, axis=0)[None, :] / tl.maximum(known, 1.0)
    gaps = (cell < cells) & (known < labels)
    for first in range(0, labels, block_labels):  # nothing is read again where nothing is missing
        label = first + tl.arange(0, block_labels)[:, None]
        use = (label < labels) & gaps
        at = costs + label.to(tl.int64) * cells + cell
        cost = tl.load(at, mask=use, other=0.0).to(tl.float32)
        tl.store(at, tl.broadcast_to(mean, (block_labels, block)), mask=use & (cost == float("inf")))
