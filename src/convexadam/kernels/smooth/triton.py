"""Separable filters on the GPU, in one pass over memory for each axis."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import no_type_check

import torch
import triton
import triton.language as tl

from convexadam._typing import Channels, Float, Tensor, Volume
from convexadam.kernels._device import send

_ACROSS = (1, 16, 64)
"""Values per program (outer, along, inner) of a filter across rows: values that they share are in the cache."""

_ALONG = (8, 128, 1)
"""Values per program of a filter along rows."""

_OPTIONS = {"num_warps": 8, "num_stages": 1, "enable_fp_fusion": True}


def smooth(
    field: Channels,
    taps: Sequence[float],
    *,
    before: Volume | None = None,
    after: Volume | None = None,
    out: Channels | None = None,
) -> Channels:
    """See the package."""
    field = field.contiguous()
    result = out if out is not None and out.is_contiguous() else torch.empty_like(field)
    buffer = torch.empty_like(field)
    weights = _taps_on_device(tuple(taps), field.device)
    factors = [None if f is None else f.contiguous() for f in (before, after)]
    with torch.cuda.device(field.get_device()):
        _launch_axis(field, 1, weights, result, before=factors[0])
        _launch_axis(result, 2, weights, buffer)
        _launch_axis(buffer, 3, weights, result, after=factors[1])
    return result if out is None or result is out else out.copy_(result)


def _launch_axis(
    source: Channels,
    axis: int,
    taps: Float[Tensor, " t"],
    out: Channels,
    *,
    before: Volume | None = None,
    after: Volume | None = None,
) -> None:
    channels, along = source.shape[0], source.shape[axis]
    inner = source[0].stride(axis - 1)
    outer = source.numel() // (along * inner)
    box = _ALONG if axis == 3 else _ACROSS
    tiles = [-(-n // b) for n, b in zip((outer, along, inner), box, strict=True)]
    arrays = (source, taps, before, after, out)
    _filter_axis[(tiles[0] * tiles[1] * tiles[2],)](
        *arrays, outer, along, inner, outer // channels, len(taps) // 2, *box, **_OPTIONS
    )


@functools.lru_cache(maxsize=32)
def _taps_on_device(taps: tuple[float, ...], device: torch.device) -> Float[Tensor, " t"]:
    # cached, because a copy from the host cannot be recorded in a CUDA graph
    return send(
        torch.tensor(taps, dtype=torch.float32, device="cpu"), torch.empty(0, dtype=torch.float32, device=device)
    )


@no_type_check
@triton.jit(do_not_specialize=["outer", "along", "inner", "period"])
def _filter_axis(
    source,
    taps,
    before,
    after,
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
    """Filter ``[outer, along, inner]`` along the middle axis; factors are periodic with ``period`` outer indices."""
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
    tl.store(out + at, total, mask=valid)
