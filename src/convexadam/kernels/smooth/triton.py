"""Separable filters on the GPU: one pass over memory with three taps, two with up to seven, and three with more."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import no_type_check

import torch
import triton
import triton.language as tl

from convexadam._typing import Channels, Float, Shaped, Tensor, Volume
from convexadam.kernels._device import send
from convexadam.kernels.warp.triton import launch_grid, points_of_box

_ACROSS = (1, 16, 64)
"""Values per program (outer, along, inner) of a filter across rows: values that they share are in the cache."""

_ALONG = (8, 128, 1)
"""Values per program of a filter along rows."""

_COLUMN = (32, 4, 64)
"""Values per program that moves along i: 32 planes, of which it keeps those that it still needs in registers."""

_BOX = (2, 4, 32)
"""Values per program that filters along all axes at once."""

_RADII = 1, 3
"""Up to which all axes are filtered at once (27 values are loaded, instead of 9 in three passes), and for which as many
planes fit into registers."""

_LEAST_TAPS = 2 * _RADII[1] + 1
_LEAST_TAPS_KEPT = _LEAST_TAPS + 2
"""Of a filter with more than three taps; the second of one that keeps the field, which three passes do."""

_OPTIONS = {"num_warps": 8, "num_stages": 1, "enable_fp_fusion": True}
_FEW_WARPS = {**_OPTIONS, "num_warps": 4}


def smooth(
    field: Channels,
    taps: Sequence[float],
    *,
    before: Volume | None = None,
    after: Volume | None = None,
    out: Channels | None = None,
    condition: Shaped[Tensor, ""] | None = None,
    keep: bool = False,
    spare: bool = False,
) -> Channels:
    """See the package."""
    field = field.contiguous()
    result = out if out is not None and out.is_contiguous() else torch.empty_like(field)
    if len(taps) > 3:  # more taps take less time than to compile further variants of the kernels
        beside = (0.0,) * (((_LEAST_TAPS_KEPT if keep else _LEAST_TAPS) - len(taps)) // 2)
        taps = *beside, *taps, *beside
    weights = _taps_on_device(tuple(taps), field.device)
    factors = [None if f is None else f.contiguous() for f in (before, after)]
    kept = (field, factors[0]) if keep else (None, None)
    if result is not out and condition is not None and out is not None:
        result.copy_(out)
    with torch.cuda.device(field.get_device()):
        if len(taps) // 2 <= _RADII[0]:
            _launch_all_axes(field, weights, result, factors[0], factors[1], condition, keep=keep)
        elif len(taps) // 2 == _RADII[1]:
            buffer = torch.empty_like(field)
            _launch_columns(field, weights, buffer, factors[0])
            _launch_axis(buffer, 2, weights, result, after=factors[1], condition=condition)
        else:
            first = result if condition is None else torch.empty_like(field)
            buffer = field if spare and not keep else torch.empty_like(field)
            _launch_axis(field, 1, weights, first, before=factors[0])
            _launch_axis(first, 2, weights, buffer)
            _launch_axis(buffer, 3, weights, result, after=factors[1], condition=condition, kept=kept)
    return result if out is None or result is out else out.copy_(result)


def _launch_all_axes(
    source: Channels,
    taps: Float[Tensor, " t"],
    out: Channels,
    before: Volume | None,
    after: Volume | None,
    condition: Shaped[Tensor, ""] | None,
    *,
    keep: bool,
) -> None:
    channels, n0, n1, n2 = source.shape
    _filter_all_axes[launch_grid((channels * n0, n1, n2), _BOX)](
        *(source, taps, before, after, condition, out, channels * n0, n0, n1, n2),
        *(len(taps) // 2, keep, *_BOX),
        **_FEW_WARPS,
    )


def _launch_columns(source: Channels, taps: Float[Tensor, " t"], out: Channels, before: Volume | None) -> None:
    channels, n0, n1, n2 = source.shape
    columns = channels * -(-n0 // _COLUMN[0])
    _filter_columns[launch_grid((columns, n1, n2), (1, *_COLUMN[1:]))](
        source, taps, before, out, n0, n1, n2, len(taps) // 2, *_COLUMN, **_FEW_WARPS
    )


def _launch_axis(
    source: Channels,
    axis: int,
    taps: Float[Tensor, " t"],
    out: Channels,
    *,
    before: Volume | None = None,
    after: Volume | None = None,
    condition: Shaped[Tensor, ""] | None = None,
    kept: tuple[Channels | None, Volume | None] = (None, None),
) -> None:
    channels, along = source.shape[0], source.shape[axis]
    inner = source[0].stride(axis - 1)
    outer = source.numel() // (along * inner)
    box = _ALONG if axis == 3 else _ACROSS
    tiles = [-(-n // b) for n, b in zip((outer, along, inner), box, strict=True)]
    arrays = (source, taps, before, after, *kept, condition, out)
    _filter_axis[(tiles[0] * tiles[1] * tiles[2],)](
        *arrays, outer, along, inner, outer // channels, len(taps) // 2, *box, **_OPTIONS
    )


@functools.cache  # never released, because recordings use it
def _taps_on_device(taps: tuple[float, ...], device: torch.device) -> Float[Tensor, " t"]:
    # cached, because a copy from the host cannot be recorded in a CUDA graph
    return send(
        torch.tensor(taps, dtype=torch.float32, device="cpu"), torch.empty(0, dtype=torch.float32, device=device)
    )


@no_type_check
@triton.jit(do_not_specialize=["planes", "n0", "n1", "n2"])
def _filter_all_axes(
    source,
    taps,
    before,
    after,
    condition,
    out,
    planes,
    n0,
    n1,
    n2,
    radius: tl.constexpr,
    keep: tl.constexpr,
    box0: tl.constexpr,
    box1: tl.constexpr,
    box2: tl.constexpr,
):
    """Filter ``planes`` planes, counted over all channels, along all axes."""
    plane, j, k, at, valid = points_of_box(planes, n1, n2, box0, box1, box2)
    i = plane % n0
    area = (at * 0 + n1) * n2  # 64 bits
    factor = i * area + j * n2 + k
    total = tl.zeros((box0 * box1 * box2,), tl.float32)
    for a in range(2 * radius + 1):
        for b in range(2 * radius + 1):
            to_i, to_j = i + (a - radius), j + (b - radius)
            inside = valid & (to_i >= 0) & (to_i < n0) & (to_j >= 0) & (to_j < n1)
            step = (a - radius) * area + (b - radius) * n2
            row = _filter_row(source, before, taps, at + step, factor + step, k, n2, inside, radius)
            total += tl.load(taps + a) * tl.load(taps + b) * row
    if after is not None:
        total *= tl.load(after + factor, mask=valid, other=0.0)
    if keep:
        value = tl.load(source + at, mask=valid, other=0.0)
        if before is not None:
            value *= tl.load(before + factor, mask=valid, other=0.0)
        total += value
    if condition is not None:
        valid = valid & (tl.load(condition + at * 0) != 0)
    tl.store(out + at, total, mask=valid)


@no_type_check
@triton.jit(do_not_specialize=["n0", "n1", "n2"])
def _filter_columns(
    source,
    taps,
    before,
    out,
    n0,
    n1,
    n2,
    radius: tl.constexpr,
    length: tl.constexpr,
    box1: tl.constexpr,
    box2: tl.constexpr,
):
    """Filter along i and k: ``length`` planes, of which the last six, filtered along k, are kept."""
    lane, parts = tl.arange(0, box1 * box2), tl.cdiv(n0, length)
    channel, first = tl.program_id(2) // parts, tl.program_id(2) % parts * length
    j, k = tl.program_id(1) * box1 + lane // box2, tl.program_id(0) * box2 + lane % box2
    valid = (j < n1) & (k < n2)
    factor = j.to(tl.int64) * n2 + k
    area = (factor * 0 + n1) * n2  # 64 bits
    column = channel * n0 * area + factor
    middle, w1 = tl.load(taps + radius), tl.load(taps + radius - 1)
    p1 = tl.zeros((box1 * box2,), tl.float32)
    p2, p3, p4, p5, p6 = p1, p1, p1, p1, p1
    for number in range(tl.minimum(length, n0 - first) + 2 * radius):
        i = tl.zeros((1,), tl.int32) + (first + number - radius)
        inside = valid & (i >= 0) & (i < n0)
        p0 = _filter_row(source, before, taps, column + i * area, factor + i * area, k, n2, inside, radius)
        total = middle * p3 + w1 * (p2 + p4) + tl.load(taps + 1) * (p1 + p5) + tl.load(taps) * (p0 + p6)
        target = i - radius
        tl.store(out + column + target * area, total, mask=valid & (target >= first) & (target < n0))
        p6, p5, p4, p3, p2, p1 = p5, p4, p3, p2, p1, p0


@no_type_check
@triton.jit
def _filter_row(source, before, taps, at, factor, k, n2, inside, radius: tl.constexpr):
    """Filter values along k, times ``before``."""
    total = tl.zeros(k.shape, tl.float32)
    for n in tl.static_range(2 * radius + 1):
        known = inside & (k + (n - radius) >= 0) & (k + (n - radius) < n2)
        value = tl.load(source + at + (n - radius), mask=known, other=0.0)
        if before is not None:
            value *= tl.load(before + factor + (n - radius), mask=known, other=0.0)
        total += tl.load(taps + n) * value
    return total


@no_type_check
@triton.jit(do_not_specialize=["outer", "along", "inner", "period"])
def _filter_axis(
    source,
    taps,
    before,
    after,
    kept,
    share,
    condition,
    out,
    outer,
    along,
    inner,
    period,
    radius: tl.constexpr,
    box0: tl.constexpr,
    box1: tl.constexpr,
    box2: tl.constexpr,
):
    """Filter ``[outer, along, inner]`` along the middle axis; factors are periodic with ``period`` outer indices.

    Values of ``kept``, times ``share``, are added.
    """
    tiles1, tiles2 = tl.cdiv(along, box1), tl.cdiv(inner, box2)
    tile, lane = tl.program_id(0), tl.arange(0, box0 * box1 * box2)
    o = tile // (tiles1 * tiles2) * box0 + lane // (box1 * box2)
    x = tile // tiles2 % tiles1 * box1 + lane // box2 % box1
    y = tile % tiles2 * box2 + lane % box2
    valid = (o < outer) & (x < along) & (y < inner)
    at = (o.to(tl.int64) * along + x) * inner + y
    factor = ((o % period).to(tl.int64) * along + x) * inner + y
    step = at * 0 + inner  # 64 bits
    total = tl.zeros((box0 * box1 * box2,), tl.float32)
    for n in tl.static_range(2 * radius + 1):
        inside = valid & (x + (n - radius) >= 0) & (x + (n - radius) < along)
        value = tl.load(source + at + (n - radius) * step, mask=inside, other=0.0)
        if before is not None:
            value *= tl.load(before + factor + (n - radius) * step, mask=inside, other=0.0)
        total += tl.load(taps + n) * value
    if after is not None:
        total *= tl.load(after + factor, mask=valid, other=0.0)
    if kept is not None:
        value = tl.load(kept + at, mask=valid, other=0.0)
        if share is not None:
            value *= tl.load(share + factor, mask=valid, other=0.0)
        total += value
    if condition is not None:
        valid = valid & (tl.load(condition + at * 0) != 0)
    tl.store(out + at, total, mask=valid)
