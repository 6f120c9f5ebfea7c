"""Quantiles on the GPU: torch sorts, one program finds them by bisection, and one pass maps all voxels."""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl

from convexadam._typing import Float, Tensor, Volume
from convexadam.kernels.intensity_range.reference import ROBUST_SHARES

_BLOCK = 1024

_OPTIONS = {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": True}


def map_quantiles(
    channel: Volume,
    weight: Volume | None,
    *,
    shares: tuple[float, float],
    scale: float,
    step: int,
    padding_share: float,
) -> Volume:
    """See the package."""
    source = channel.contiguous()
    points = source.numel()
    ends, mapped = source.new_empty(2), torch.empty_like(source)
    with torch.cuda.device(source.get_device()):
        samples = source.flatten()[::step]
        if weight is not None:
            samples = _take_samples(source, weight.contiguous().flatten(), step)
        ordered = samples.sort().values
        _find_quantiles[(1,)](
            ordered, ends, len(ordered), *shares, *ROBUST_SHARES, 1 - padding_share, num_warps=1, enable_fp_fusion=True
        )
        _map[(triton.cdiv(points, _BLOCK),)](source, ends, mapped, points, float(scale), _BLOCK, **_OPTIONS)
    return mapped


def _take_samples(source: Volume, weight: Float[Tensor, " n"], step: int) -> Float[Tensor, " m"]:
    """Return one voxel out of ``step``, and infinity for those without weight, unless none has any."""
    count, has_weight = triton.cdiv(len(weight), step), weight[::step].any()
    samples = source.new_empty(count)
    _sample_voxels[(triton.cdiv(count, _BLOCK),)](source, weight, has_weight, samples, count, step, _BLOCK, **_OPTIONS)
    return samples


@no_type_check
@triton.jit(do_not_specialize=["count", "step"])
def _sample_voxels(source, weight, has_weight, samples, count, step, block: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    valid = at < count
    known = (tl.load(weight + at * step, mask=valid, other=0.0) > 0) | (tl.load(has_weight) == 0)
    value = tl.load(source + at * step, mask=valid, other=0.0)
    tl.store(samples + at, tl.where(known, value, float("inf")), mask=valid)


@no_type_check
@triton.jit(do_not_specialize=["size"])
def _find_quantiles(
    ordered,
    ends,
    size,
    low_share: tl.constexpr,
    high_share: tl.constexpr,
    robust_low: tl.constexpr,
    robust_high: tl.constexpr,
    most_above: tl.constexpr,
):
    """Find two quantiles of sorted values before the first infinite one; all in vectors of one number.

    Shares are constants of the kernel, because arguments are in single precision.
    """
    start = tl.zeros((1,), tl.int32)
    smallest = tl.load(ordered + start)
    count, first = start + size, start + size  # ends of the bisections
    count_from, first_from = start, start
    for _ in range(32):  # bits of a size
        middle = (count_from + count) // 2
        open_ = count_from < count
        finite = tl.load(ordered + middle, mask=open_, other=0.0) < float("inf")
        count_from = tl.where(open_ & finite, middle + 1, count_from)
        count = tl.where(open_ & (finite == 0), middle, count)
        middle = (first_from + first) // 2
        open_ = first_from < first
        equal = tl.load(ordered + middle, mask=open_, other=0.0) <= smallest
        first_from = tl.where(open_ & equal, middle + 1, first_from)
        first = tl.where(open_ & (equal == 0), middle, first)
    above, last = count - first, tl.maximum(count - 1, 0)
    low = _interpolate_rank(ordered, first, above, last, robust_low)
    high = _interpolate_rank(ordered, first, above, last, robust_high)
    few = above.to(tl.float64) > most_above * count.to(tl.float64)
    is_padding = few & (smallest < low - (high - low) / 2)
    first, count = tl.where(is_padding, first, 0), tl.where(is_padding, above, count)
    tl.store(ends + start, _interpolate_rank(ordered, first, count, last, low_share))
    tl.store(ends + 1 + start, _interpolate_rank(ordered, first, count, last, high_share))


@no_type_check
@triton.jit
def _interpolate_rank(ordered, first, count, last, share: tl.constexpr):
    """Interpolate linearly between ``count`` values from ``first`` on, none of which is behind ``last``."""
    rank = tl.maximum((count - 1).to(tl.float64) * share, 0.0)
    below = rank.to(tl.int32)
    part = (rank - below.to(tl.float64)).to(tl.float32)
    at = tl.minimum(first + below, last)
    low = tl.load(ordered + at)
    high = tl.load(ordered + tl.minimum(at + tl.where(part > 0, 1, 0), last))
    apart = high - low
    return tl.where(part < 0.5, low + part * apart, high - (1.0 - part) * apart)


@no_type_check
@triton.jit(do_not_specialize=["points", "scale"])
def _map(source, ends, out, points, scale, block: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    low = tl.load(ends)
    span = tl.load(ends + 1) - low
    value = tl.load(source + at, mask=at < points, other=0.0)
    share = tl.minimum(tl.maximum(tl.div_rn(value - low, tl.where(span > 0, span, 1.0)), 0.0), 1.0)
    tl.store(out + at, tl.where(span > 0, share, 0.0) * scale, mask=at < points)
