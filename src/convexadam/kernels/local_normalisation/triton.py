"""Local normalisation on the GPU: moments of the channels in parts, and all windows of a box of points in one pass."""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl

from convexadam._typing import Channels, Float, Tensor, Volume
from convexadam.kernels._layout import find_memory
from convexadam.kernels.lncc.reference import ROUNDINGS
from convexadam.kernels.local_normalisation.reference import scale_channels
from convexadam.kernels.warp.triton import launch_grid, points_of_box

__all__ = ["mean_squared_slopes", "normalise_locally", "scale_channels"]

_BLOCK = 256

_PARTS = 64
"""Largest number of programs that sum the moments of a channel; every program of the next pass adds them up."""

_BOX = (2, 4, 32)
"""Points per program: whole warps along the innermost axis."""

_SMALLEST = float(torch.finfo(torch.float32).tiny)

_OPTIONS = {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": True}


def normalise_locally(
    features: Channels, *, radius: int, floor: float, weight: Volume | None = None, out: Channels | None = None
) -> Channels:
    """See the package."""
    source, weights = features.contiguous(), None if weight is None else weight.contiguous()
    channels, n0, n1, n2 = source.shape
    points = n0 * n1 * n2
    steps = triton.cdiv(triton.cdiv(points, _BLOCK), _PARTS)
    moments = torch.empty((3, channels, _PARTS), dtype=torch.float64, device=source.device)
    target = None if out is None else find_memory(out)
    result, apart, along = target or (torch.empty_like(source), points, 1)
    rounding = ROUNDINGS * torch.finfo(torch.float32).eps
    with torch.cuda.device(source.get_device()):
        _add_moments[(_PARTS, channels)](source, weights, moments, points, steps, _PARTS, _BLOCK, **_OPTIONS)
        _normalise[launch_grid((n0, n1, n2), _BOX)](
            source,
            weights,
            moments,
            result,
            channels,
            n0,
            n1,
            n2,
            apart,
            along,
            radius,
            float(floor),
            rounding,
            _SMALLEST,
            _PARTS,
            *_BOX,
            **_OPTIONS,
        )
    if out is None:
        return result
    return out.copy_(result) if target is None else out


def mean_squared_slopes(features: Channels, weight: Volume | None = None) -> Float[Tensor, " c"]:
    """See the package."""
    channels, n0, n1, n2 = features.shape
    source, apart, along = find_memory(features) or (features.contiguous(), n0 * n1 * n2, 1)
    weights = None if weight is None else weight.contiguous()
    grid = launch_grid((n0, n1, n2), _BOX)
    parts = torch.empty((channels + 1, grid[0] * grid[1] * grid[2]), dtype=torch.float32, device=source.device)
    slopes = torch.empty(channels, dtype=torch.float32, device=source.device)
    with torch.cuda.device(source.get_device()):
        _square_slopes[grid](source, weights, parts, channels, n0, n1, n2, apart, along, *_BOX, **_OPTIONS)
        _divide_slopes[(channels,)](parts, slopes, parts.shape[1], _BLOCK, **_OPTIONS)
    return slopes


@no_type_check
@triton.jit(do_not_specialize=["points", "steps"])
def _add_moments(features, weight, moments, points, steps, parts: tl.constexpr, block: tl.constexpr):
    """Sum the weights, and a channel and its squares, over ``steps`` blocks of points."""
    part, channel, channels = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    at = part * steps * block + tl.arange(0, block)
    zero = tl.zeros((block,), tl.float64)
    total, one, two = zero, zero, zero
    for _ in range(steps):
        valid = at < points
        known = tl.where(valid, 1.0, 0.0).to(tl.float64)
        if weight is not None:
            known = tl.load(weight + at, mask=valid, other=0.0).to(tl.float64)
        value = tl.load(features + channel.to(tl.int64) * points + at, mask=valid, other=0.0).to(tl.float64)
        total, one, two = total + known, one + known * value, two + known * value * value
        at += block
    to = moments + channel * parts + part
    tl.store(to, tl.sum(total, 0))
    tl.store(to + channels * parts, tl.sum(one, 0))
    tl.store(to + 2 * channels * parts, tl.sum(two, 0))


@no_type_check
@triton.jit(
    do_not_specialize=["channels", "n0", "n1", "n2", "apart", "along", "radius", "floor", "rounding", "smallest"]
)
def _normalise(
    features,
    weight,
    moments,
    out,
    channels,
    n0,
    n1,
    n2,
    apart,
    along,
    radius,
    floor,
    rounding,
    smallest,
    parts: tl.constexpr,
    box0: tl.constexpr,
    box1: tl.constexpr,
    box2: tl.constexpr,
):
    """Normalise all channels at the points of a box; those of ``out`` lie ``apart``, and points ``along`` them."""
    i, j, k, point, valid = points_of_box(n0, n1, n2, box0, box1, box2)
    total = tl.zeros(point.shape, tl.float32)
    for a in range(-radius, radius + 1):
        for b in range(-radius, radius + 1):
            for c in range(-radius, radius + 1):
                _at, known = _find_neighbour(weight, point, i, j, k, a, b, c, n0, n1, n2, valid)
                total += known
    inverse = tl.where(total > 0, tl.div_rn(1.0, tl.where(total > 0, total, 1.0)), 0.0)
    share = tl.where(valid, 1.0, 0.0)
    if weight is not None:
        window = (2 * radius + 1).to(tl.float32)
        share = tl.minimum(tl.load(weight + point, mask=valid, other=0.0) * inverse * (window * window * window), 1.0)
    size, to = (tl.full([], 0, tl.int64) + n0) * n1 * n2, point * along
    per_total = 1.0 / tl.maximum(tl.sum(tl.load(moments + tl.arange(0, parts)), 0), smallest)
    for channel in range(channels):
        row = moments + (channels + channel) * parts
        shift, scale = _standardise(row, channels * parts, per_total, rounding, parts)
        mean, squares = tl.zeros(point.shape, tl.float32), tl.zeros(point.shape, tl.float32)
        for a in range(-radius, radius + 1):
            for b in range(-radius, radius + 1):
                for c in range(-radius, radius + 1):
                    at, known = _find_neighbour(weight, point, i, j, k, a, b, c, n0, n1, n2, valid)
                    value = (tl.load(features + at, mask=known > 0, other=0.0) - shift) * scale
                    mean += known * value
                    squares += known * value * value
        mean *= inverse
        variance = tl.maximum(squares * inverse - mean * mean, 0.0)
        value = (tl.load(features + point, mask=valid, other=0.0) - shift) * scale
        # one step of Newton makes an approximate root as exact
        root = tl.rsqrt(variance + floor)
        root *= 1.5 - 0.5 * (variance + floor) * root * root
        tl.store(out + to, (value - mean) * root * share, mask=valid)
        features += size
        out += apart


@no_type_check
@triton.jit
def _find_neighbour(weight, point, i, j, k, a, b, c, n0, n1, n2, valid):
    """Return where a neighbour is in memory, and its weight: 0 outside."""
    inside = valid & (i + a >= 0) & (i + a < n0) & (j + b >= 0) & (j + b < n1) & (k + c >= 0) & (k + c < n2)
    at = point + ((a * n1 + b) * n2 + c)
    known = tl.where(inside, 1.0, 0.0)
    if weight is not None:
        known = tl.load(weight + at, mask=inside, other=0.0)
    return at, known


@no_type_check
@triton.jit
def _standardise(sums, stride, per_total, rounding, parts: tl.constexpr):
    """Return what to subtract from a channel, and what to multiply it by, for mean 0 and variance 1."""
    part = tl.arange(0, parts)
    mean = tl.sum(tl.load(sums + part), 0) * per_total
    variance = tl.maximum(tl.sum(tl.load(sums + stride + part), 0) * per_total - mean * mean, 0.0)
    # half of the exponent, and five steps of Newton: roots and quotients are calls, around which registers are spilled
    root = (0x5FE6EB50C7B537A9 - (variance.to(tl.int64, bitcast=True) >> 1)).to(tl.float64, bitcast=True)
    for _ in tl.static_range(5):
        root *= 1.5 - 0.5 * variance * root * root
    varies = variance * root > rounding * tl.abs(mean)
    return mean.to(tl.float32), tl.where(varies, root, 0.0).to(tl.float32)


@no_type_check
@triton.jit(do_not_specialize=["channels", "n0", "n1", "n2", "apart", "along"])
def _square_slopes(
    features,
    weight,
    parts,
    channels,
    n0,
    n1,
    n2,
    apart,
    along,
    box0: tl.constexpr,
    box1: tl.constexpr,
    box2: tl.constexpr,
):
    """Sum squared differences of neighbours over a box, and weights in the last row.

    Channels lie ``apart`` in memory, points ``along`` it.
    """
    i, j, k, point, valid = points_of_box(n0, n1, n2, box0, box1, box2)
    step0, step1, step2 = (point * 0 + n1) * n2, point * 0 + n2, point * 0 + 1
    here = tl.where(valid, 1.0, 0.0)
    if weight is not None:
        here = tl.load(weight + point, mask=valid, other=0.0)
    w0 = _least_weight(weight, here, point + step0, valid & (i < n0 - 1))
    w1 = _least_weight(weight, here, point + step1, valid & (j < n1 - 1))
    w2 = _least_weight(weight, here, point + step2, valid & (k < n2 - 1))
    program = (tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)) * tl.num_programs(0) + tl.program_id(0)
    to, start = parts + program, point * 0
    for _ in range(channels):
        value = tl.load(features + start + point * along, mask=valid, other=0.0)
        d0 = tl.load(features + start + (point + step0) * along, mask=w0 > 0, other=0.0) - value
        d1 = tl.load(features + start + (point + step1) * along, mask=w1 > 0, other=0.0) - value
        d2 = tl.load(features + start + (point + step2) * along, mask=w2 > 0, other=0.0) - value
        tl.store(to, tl.sum(w0 * d0 * d0 + w1 * d1 * d1 + w2 * d2 * d2, 0))
        to += tl.num_programs(0) * tl.num_programs(1) * tl.num_programs(2)
        start += apart
    tl.store(to, tl.sum(here, 0))


@no_type_check
@triton.jit(do_not_specialize=["count"])
def _divide_slopes(parts, slopes, count, block: tl.constexpr):
    """Add the parts of a channel, and divide by the sum of the weights."""
    channel, channels = tl.program_id(0), tl.num_programs(0)
    total, known = tl.zeros((block,), tl.float64), tl.zeros((block,), tl.float64)
    for first in range(0, count, block):
        at = first + tl.arange(0, block)
        total += tl.load(parts + channel * count + at, mask=at < count, other=0.0).to(tl.float64)
        known += tl.load(parts + channels * count + at, mask=at < count, other=0.0).to(tl.float64)
    tl.store(slopes + channel, (tl.sum(total, 0) / tl.maximum(tl.sum(known, 0), 1e-12)).to(tl.float32))


@no_type_check
@triton.jit
def _least_weight(weight, here, neighbour, inside):
    least = tl.where(inside, here, 0.0)
    if weight is not None:
        least = tl.minimum(least, tl.load(weight + neighbour, mask=inside, other=0.0))
    return least
